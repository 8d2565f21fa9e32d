// The graphs, message by message; private to this package.

#import "__NAME__Runtime.h"

NS_ASSUME_NONNULL_BEGIN

typedef NSDictionary<NSString *, __NAME__Port *> __NAME__Variables;

/// The variables with their values from a file; nil if one is missing there.
__NAME__Variables *_Nullable __NAME__MakeVariables(MPSGraph *graph, __NAME__TensorFile *file);

__NAME__Program *__NAME__BuildTraining(MPSGraph *graph, MPSGraphDevice *device,
                                       __NAME__Variables *variables);

__NAME__Program *__NAME__BuildPrediction(MPSGraph *graph, MPSGraphDevice *device,
                                         __NAME__Variables *variables);

/// Returns the values of variables, in the order of their names.
__NAME__Program *__NAME__BuildReading(MPSGraph *graph, MPSGraphDevice *device,
                                      __NAME__Variables *variables,
                                      NSArray<NSString *> *names);

NS_ASSUME_NONNULL_END
