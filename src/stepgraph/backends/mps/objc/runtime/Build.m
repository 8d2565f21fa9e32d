// Written by stepgraph __VERSION__ from the messages that its device "mps" sends.

#import "__NAME__Build.h"

NS_ASSUME_NONNULL_BEGIN

/// A tensor by its number; they live as long as the graph is built.
typedef MPSGraphTensor *_Nullable __strong *_Nonnull Tensors;

typedef NSMutableArray<MPSGraphOperation *> Operations;

static BOOL addVariable(NSMutableDictionary<NSString *, __NAME__Port *> *variables, MPSGraph *graph,
                        __NAME__TensorFile *file, NSString *name, NSArray<NSNumber *> *shape,
                        MPSDataType dataType, NSUInteger length) {
    NSData *data = [file dataNamed:name length:length];
    if (data == nil) {
        return NO;
    }
    MPSGraphTensor *tensor = [graph variableWithData:data shape:shape dataType:dataType name:name];
    variables[name] = [[__NAME__Port alloc] initWithName:name
                                                  tensor:tensor
                                                   shape:shape
                                                dataType:dataType
                                                  length:length];
    return YES;
}

static MPSGraphTensor *variable(__NAME__Variables *variables, NSString *name) {
    MPSGraphTensor *tensor = variables[name].tensor;
    return tensor;
}

__NAME__Variables *_Nullable __NAME__MakeVariables(MPSGraph *graph, __NAME__TensorFile *file) {
    NSMutableDictionary<NSString *, __NAME__Port *> *variables = [NSMutableDictionary dictionary];
    BOOL complete = YES;
__VARIABLES__
    return complete ? variables : nil;
}

__NAME__Program *__NAME__BuildReading(MPSGraph *graph, MPSGraphDevice *device,
                                      __NAME__Variables *variables, NSArray<NSString *> *names) {
    NSMutableArray<MPSGraphTensor *> *tensors = [NSMutableArray array];
    NSMutableArray<__NAME__Port *> *targets = [NSMutableArray array];
    for (NSUInteger i = 0; i < names.count; i++) {
        __NAME__Port *port = variables[names[i]];
        MPSGraphTensor *value = [graph readVariable:port.tensor name:port.name];
        [tensors addObject:value];
        [targets addObject:[[__NAME__Port alloc] initWithName:port.name
                                                       tensor:value
                                                        shape:port.shape
                                                     dataType:port.dataType
                                                       length:port.length]];
    }
    MPSGraphCompilationDescriptor *descriptor = [[MPSGraphCompilationDescriptor alloc] init];
    [descriptor setOptimizationLevel:MPSGraphOptimizationLevel0];
    [descriptor setWaitForCompilationCompletion:YES];
    MPSGraphExecutable *executable = [graph compileWithDevice:device
                                                        feeds:@{}
                                                targetTensors:tensors
                                             targetOperations:nil
                                        compilationDescriptor:descriptor];
    return [[__NAME__Program alloc] initWithExecutable:executable feeds:@[] targets:targets];
}

__PROGRAMS__

NS_ASSUME_NONNULL_END
