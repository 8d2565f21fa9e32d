// Running compiled graphs and reading tensor files; private to this package.

#import <Foundation/Foundation.h>
#import <Metal/Metal.h>
#import <MetalPerformanceShadersGraph/MetalPerformanceShadersGraph.h>

NS_ASSUME_NONNULL_BEGIN

extern NSErrorDomain const __NAME__ErrorDomain;

/// An error with a message.
NSError *__NAME__Error(NSString *message);

/// A tensor through which values enter or leave a graph.
@interface __NAME__Port : NSObject
@property(readonly, copy) NSString *name;
@property(readonly) MPSGraphTensor *tensor;
@property(readonly, copy) NSArray<NSNumber *> *shape;
@property(readonly) MPSDataType dataType;
/// Bytes.
@property(readonly) NSUInteger length;
- (instancetype)initWithName:(NSString *)name
                      tensor:(MPSGraphTensor *)tensor
                       shape:(NSArray<NSNumber *> *)shape
                    dataType:(MPSDataType)dataType
                      length:(NSUInteger)length;
@end

/// A compiled graph with memory for one run.
@interface __NAME__Program : NSObject
- (instancetype)initWithExecutable:(MPSGraphExecutable *)executable
                             feeds:(NSArray<__NAME__Port *> *)feeds
                           targets:(NSArray<__NAME__Port *> *)targets;
/// Takes memory on a device; to be called once, before the first run.
- (BOOL)prepareOnDevice:(id<MTLDevice>)device error:(NSError **)error;
/// Runs once. Takes a value for each feed, returns one for each target, in their order.
- (nullable NSArray<NSData *> *)run:(NSDictionary<NSString *, NSData *> *)values
                              queue:(id<MTLCommandQueue>)queue
                              error:(NSError **)error;
@end

/// A safetensors file in memory: named arrays, little-endian and without gaps.
@interface __NAME__TensorFile : NSObject
/// Reads a file and checks that every array lies inside it.
+ (nullable instancetype)fileWithURL:(NSURL *)url error:(NSError **)error;
/// The bytes of an array; nil if there is none of that name and length.
- (nullable NSData *)dataNamed:(NSString *)name length:(NSUInteger)length;
/// The whole file with other bytes for some arrays; nil if one does not fit.
- (nullable NSData *)contentsWithValues:(NSDictionary<NSString *, NSData *> *)values;
@end

NS_ASSUME_NONNULL_END
