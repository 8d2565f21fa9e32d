// __TITLE__: the training step and the prediction as graphs on the GPU.

#import <Foundation/Foundation.h>

NS_ASSUME_NONNULL_BEGIN

/// A network that trains and predicts. Its methods may be called from any thread, one at a time;
/// not from the main thread of an app, which they would hold up.
@interface __NAME__Graph : NSObject

/// Samples of a training step; no other number can be given.
@property(class, readonly) NSUInteger trainingBatchSize;
/// Samples that are predicted at once; others are filled up.
@property(class, readonly) NSUInteger predictionBatchSize;
/// Bytes of one sample: __INPUT_ABOUT__.
@property(class, readonly) NSUInteger inputLength;
/// Bytes of one sample's label: __LABEL_ABOUT__.
@property(class, readonly) NSUInteger labelLength;
/// Bytes of one sample's prediction: __OUTPUT_ABOUT__.
@property(class, readonly) NSUInteger outputLength;

/// Compiles both graphs; variables take their values from a safetensors file.
- (nullable instancetype)initWithWeights:(NSURL *)weights
                                   error:(NSError **)error NS_DESIGNATED_INITIALIZER;
- (instancetype)init NS_UNAVAILABLE;

/// Makes one training step; returns the loss before its update.
- (nullable NSNumber *)trainBatch:(NSData *)batch
                           labels:(NSData *)labels
                            error:(NSError **)error;

/// Predicts any number of samples.
- (nullable NSData *)predict:(NSData *)samples error:(NSError **)error;

/// Writes weights, moving statistics and the optimizer's state, whole or not at all. stepgraph's
/// load_model reads the file too.
- (BOOL)saveToURL:(NSURL *)url error:(NSError **)error;

@end

NS_ASSUME_NONNULL_END
