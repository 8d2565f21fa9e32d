#import "__NAME__Graph.h"

#import <string.h>

#import "__NAME__Build.h"

static const NSUInteger trainingBatchSize = __TRAINING_BATCH__;
static const NSUInteger predictionBatchSize = __PREDICTION_BATCH__;
static const NSUInteger inputLength = __INPUT_LENGTH__;
static const NSUInteger labelLength = __LABEL_LENGTH__;
static const NSUInteger outputLength = __OUTPUT_LENGTH__;

static void fail(NSError **error, NSString *message) {
    if (error != NULL) {
        *error = __NAME__Error(message);
    }
}

@implementation __NAME__Graph {
    NSLock *_lock;
    id<MTLDevice> _metal;
    id<MTLCommandQueue> _queue;
    MPSGraphDevice *_device;
    // Variables live as long as the graph.
    MPSGraph *_graph;
    __NAME__Variables *_variables;
    __NAME__TensorFile *_file;
    __NAME__Program *_training;
    __NAME__Program *_prediction;
    __NAME__Program *_reading;
    NSArray<NSString *> *_names;
}

+ (NSUInteger)trainingBatchSize {
    return trainingBatchSize;
}

+ (NSUInteger)predictionBatchSize {
    return predictionBatchSize;
}

+ (NSUInteger)inputLength {
    return inputLength;
}

+ (NSUInteger)labelLength {
    return labelLength;
}

+ (NSUInteger)outputLength {
    return outputLength;
}

- (nullable instancetype)initWithWeights:(NSURL *)weights error:(NSError **)error {
    self = [super init];
    if (self == nil) {
        return nil;
    }
    _lock = [[NSLock alloc] init];
    id<MTLDevice> metal = MTLCreateSystemDefaultDevice();
    id<MTLCommandQueue> queue = [metal newCommandQueue];
    if (metal == nil || queue == nil) {
        fail(error, @"there is no Metal device");
        return nil;
    }
    _metal = metal;
    _queue = queue;
    _device = [MPSGraphDevice deviceWithMTLDevice:metal];
    _file = [__NAME__TensorFile fileWithURL:weights error:error];
    if (_file == nil) {
        return nil;
    }
    @autoreleasepool {
        _graph = [[MPSGraph alloc] init];
        _variables = __NAME__MakeVariables(_graph, _file);
        if (_variables != nil) {
            _training = __NAME__BuildTraining(_graph, _device, _variables);
            _prediction = __NAME__BuildPrediction(_graph, _device, _variables);
        }
    }
    if (_variables == nil) {
        fail(error, [NSString stringWithFormat:@"'%@' is not for this network: arrays are missing "
                                               @"or have other sizes",
                                               weights.path]);
        return nil;
    }
    if (![_training prepareOnDevice:metal error:error] ||
        ![_prediction prepareOnDevice:metal error:error]) {
        return nil;
    }
    return self;
}

- (nullable NSNumber *)trainBatch:(NSData *)batch
                           labels:(NSData *)labels
                            error:(NSError **)error {
    [_lock lock];
    NSArray<NSData *> *found = [_training run:@{@"__INPUT__" : batch, @"__LABEL__" : labels}
                                        queue:_queue
                                        error:error];
    [_lock unlock];
    if (found == nil) {
        return nil;
    }
    float loss = 0;
    memcpy(&loss, found[__LOSS__].bytes, sizeof loss);
    return @(loss);
}

- (nullable NSData *)predict:(NSData *)samples error:(NSError **)error {
    if (samples.length % inputLength != 0) {
        fail(error, [NSString stringWithFormat:@"a sample is %lu bytes, which %lu is no multiple of",
                                               (unsigned long)inputLength,
                                               (unsigned long)samples.length]);
        return nil;
    }
    NSUInteger count = samples.length / inputLength;
    NSMutableData *outputs = [NSMutableData dataWithLength:count * outputLength];
    for (NSUInteger first = 0; first < count; first += predictionBatchSize) {
        NSUInteger left = count - first;
        NSUInteger taken = left < predictionBatchSize ? left : predictionBatchSize;
        NSMutableData *batch = [NSMutableData dataWithLength:predictionBatchSize * inputLength];
        if (batch == nil || outputs == nil) {
            fail(error, @"out of memory");
            return nil;
        }
        memcpy(batch.mutableBytes, (const char *)samples.bytes + first * inputLength,
               taken * inputLength);
        [_lock lock];
        NSArray<NSData *> *found = [_prediction run:@{@"__INPUT__" : batch}
                                              queue:_queue
                                              error:error];
        [_lock unlock];
        if (found == nil) {
            return nil;
        }
        memcpy((char *)outputs.mutableBytes + first * outputLength, found[__PREDICTION__].bytes,
               taken * outputLength);
    }
    return outputs;
}

- (BOOL)saveToURL:(NSURL *)url error:(NSError **)error {
    [_lock lock];
    NSArray<NSData *> *values = [self readVariables:error];
    [_lock unlock];
    if (values == nil) {
        return NO;
    }
    NSMutableDictionary<NSString *, NSData *> *byName = [NSMutableDictionary dictionary];
    for (NSUInteger i = 0; i < _names.count; i++) {
        byName[_names[i]] = values[i];
    }
    NSData *contents = [_file contentsWithValues:byName];
    if (contents == nil) {
        fail(error, @"a variable has another size than in the file it was loaded from");
        return NO;
    }
    return [contents writeToURL:url options:NSDataWritingAtomic error:error];
}

/// The values of all variables, by a graph of their own: a run that assigns must not read.
- (nullable NSArray<NSData *> *)readVariables:(NSError **)error {
    if (_reading == nil) {
        @autoreleasepool {
            _names = _variables.allKeys;
            _reading = __NAME__BuildReading(_graph, _device, _variables, _names);
        }
        if (![_reading prepareOnDevice:_metal error:error]) {
            _reading = nil;
            return nil;
        }
    }
    return [_reading run:@{} queue:_queue error:error];
}

@end
