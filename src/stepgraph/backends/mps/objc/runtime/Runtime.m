#import "__NAME__Runtime.h"

#import <dispatch/dispatch.h>
#import <string.h>

NSErrorDomain const __NAME__ErrorDomain = @"__NAME__";

NSError *__NAME__Error(NSString *message) {
    return [NSError errorWithDomain:__NAME__ErrorDomain
                               code:1
                           userInfo:@{NSLocalizedDescriptionKey : message}];
}

static void fail(NSError **error, NSString *message) {
    if (error != NULL) {
        *error = __NAME__Error(message);
    }
}

@implementation __NAME__Port

- (instancetype)initWithName:(NSString *)name
                      tensor:(MPSGraphTensor *)tensor
                       shape:(NSArray<NSNumber *> *)shape
                    dataType:(MPSDataType)dataType
                      length:(NSUInteger)length {
    self = [super init];
    if (self) {
        _name = [name copy];
        _tensor = tensor;
        _shape = [shape copy];
        _dataType = dataType;
        _length = length;
    }
    return self;
}

@end

/// The ports of some tensors, which are the same objects in another order; nil if they are not.
static NSArray<__NAME__Port *> *ordered(NSArray<MPSGraphTensor *> *tensors,
                                        NSArray<__NAME__Port *> *ports) {
    NSMutableArray<__NAME__Port *> *found = [NSMutableArray arrayWithCapacity:ports.count];
    for (NSUInteger i = 0; i < tensors.count; i++) {
        for (NSUInteger j = 0; j < ports.count; j++) {
            if (ports[j].tensor == tensors[i]) {
                [found addObject:ports[j]];
                break;
            }
        }
    }
    return found.count == ports.count && found.count == tensors.count ? found : nil;
}

@implementation __NAME__Program {
    MPSGraphExecutable *_executable;
    NSArray<__NAME__Port *> *_feeds;
    NSArray<__NAME__Port *> *_targets;
    // In the executable's own order, which a dictionary of feeds does not tell.
    NSArray<__NAME__Port *> *_inputPorts;
    NSArray<__NAME__Port *> *_resultPorts;
    NSMutableArray<id<MTLBuffer>> *_inputBuffers;
    NSMutableArray<id<MTLBuffer>> *_resultBuffers;
    NSMutableArray<MPSGraphTensorData *> *_inputs;
    NSMutableArray<MPSGraphTensorData *> *_results;
}

- (instancetype)initWithExecutable:(MPSGraphExecutable *)executable
                             feeds:(NSArray<__NAME__Port *> *)feeds
                           targets:(NSArray<__NAME__Port *> *)targets {
    self = [super init];
    if (self) {
        _executable = executable;
        _feeds = feeds;
        _targets = targets;
    }
    return self;
}

- (BOOL)prepareOnDevice:(id<MTLDevice>)device error:(NSError **)error {
    NSArray<__NAME__Port *> *inputPorts = ordered(_executable.feedTensors ?: @[], _feeds);
    NSArray<__NAME__Port *> *resultPorts = ordered(_executable.targetTensors ?: @[], _targets);
    if (inputPorts == nil || resultPorts == nil) {
        fail(error, @"the compiled graph has other feeds or targets than it was asked for");
        return NO;
    }
    _inputPorts = inputPorts;
    _resultPorts = resultPorts;
    _inputBuffers = [NSMutableArray array];
    _resultBuffers = [NSMutableArray array];
    _inputs = [NSMutableArray array];
    _results = [NSMutableArray array];
    return [self take:inputPorts device:device buffers:_inputBuffers data:_inputs error:error] &&
           [self take:resultPorts device:device buffers:_resultBuffers data:_results error:error];
}

- (BOOL)take:(NSArray<__NAME__Port *> *)ports
      device:(id<MTLDevice>)device
     buffers:(NSMutableArray<id<MTLBuffer>> *)buffers
        data:(NSMutableArray<MPSGraphTensorData *> *)data
       error:(NSError **)error {
    for (NSUInteger i = 0; i < ports.count; i++) {
        __NAME__Port *port = ports[i];
        id<MTLBuffer> buffer = [device newBufferWithLength:port.length
                                                   options:MTLResourceStorageModeShared];
        if (buffer == nil) {
            fail(error, [NSString stringWithFormat:@"no memory for %lu bytes of '%@'",
                                                   (unsigned long)port.length, port.name]);
            return NO;
        }
        [buffers addObject:buffer];
        [data addObject:[[MPSGraphTensorData alloc] initWithMTLBuffer:buffer
                                                                shape:port.shape
                                                             dataType:port.dataType]];
    }
    return YES;
}

- (nullable NSArray<NSData *> *)run:(NSDictionary<NSString *, NSData *> *)values
                              queue:(id<MTLCommandQueue>)queue
                              error:(NSError **)error {
    for (NSUInteger i = 0; i < _inputPorts.count; i++) {
        __NAME__Port *port = _inputPorts[i];
        NSData *value = values[port.name];
        if (value == nil || value.length != port.length) {
            fail(error, [NSString stringWithFormat:@"'%@' takes %lu bytes, not %lu", port.name,
                                                   (unsigned long)port.length,
                                                   (unsigned long)value.length]);
            return nil;
        }
        memcpy(_inputBuffers[i].contents, value.bytes, port.length);
    }
    // The handler is called on a thread of the framework's.
    dispatch_semaphore_t done = dispatch_semaphore_create(0);
    __block NSError *failure = nil;
    @autoreleasepool {
        MPSGraphExecutableExecutionDescriptor *descriptor =
            [[MPSGraphExecutableExecutionDescriptor alloc] init];
        [descriptor setCompletionHandler:^(NSArray<MPSGraphTensorData *> *results, NSError *found) {
            failure = found;
            dispatch_semaphore_signal(done);
        }];
        [_executable runAsyncWithMTLCommandQueue:queue
                                     inputsArray:_inputs
                                    resultsArray:_results
                             executionDescriptor:descriptor];
        dispatch_semaphore_wait(done, DISPATCH_TIME_FOREVER);
    }
    if (failure != nil) {
        if (error != NULL) {
            *error = failure;
        }
        return nil;
    }
    NSMutableArray<NSData *> *found = [NSMutableArray arrayWithCapacity:_targets.count];
    for (NSUInteger i = 0; i < _targets.count; i++) {
        NSUInteger place = [_resultPorts indexOfObjectIdenticalTo:_targets[i]];
        [found addObject:[NSData dataWithBytes:_resultBuffers[place].contents
                                        length:_targets[i].length]];
    }
    return found;
}

@end

@implementation __NAME__TensorFile {
    NSData *_contents;
    // Name to the place of its first byte and of the one behind its last.
    NSDictionary<NSString *, NSArray<NSNumber *> *> *_places;
}

+ (nullable instancetype)fileWithURL:(NSURL *)url error:(NSError **)error {
    NSData *contents = [NSData dataWithContentsOfURL:url
                                             options:NSDataReadingMappedIfSafe
                                               error:error];
    if (contents == nil) {
        return nil;
    }
    NSDictionary<NSString *, NSArray<NSNumber *> *> *places = [self placesIn:contents];
    if (places == nil) {
        fail(error, [NSString stringWithFormat:@"'%@' is no safetensors file", url.path]);
        return nil;
    }
    __NAME__TensorFile *file = [[self alloc] init];
    file->_contents = contents;
    file->_places = places;
    return file;
}

+ (nullable NSDictionary<NSString *, NSArray<NSNumber *> *> *)placesIn:(NSData *)contents {
    uint64_t length = 0;
    if (contents.length < sizeof length) {
        return nil;
    }
    memcpy(&length, contents.bytes, sizeof length);
    if (length > contents.length - sizeof length) {
        return nil;
    }
    NSUInteger start = sizeof length + (NSUInteger)length;
    NSData *header = [contents subdataWithRange:NSMakeRange(sizeof length, (NSUInteger)length)];
    id parsed = [NSJSONSerialization JSONObjectWithData:header options:0 error:NULL];
    if (![parsed isKindOfClass:[NSDictionary class]]) {
        return nil;
    }
    NSDictionary<NSString *, id> *entries = parsed;
    NSMutableDictionary<NSString *, NSArray<NSNumber *> *> *places =
        [NSMutableDictionary dictionary];
    for (NSString *name in entries.allKeys) {
        if ([name isEqualToString:@"__metadata__"]) {
            continue;
        }
        id entry = entries[name];
        if (![entry isKindOfClass:[NSDictionary class]]) {
            return nil;
        }
        id offsets = ((NSDictionary<NSString *, id> *)entry)[@"data_offsets"];
        if (![offsets isKindOfClass:[NSArray class]] || ((NSArray<id> *)offsets).count != 2) {
            return nil;
        }
        id first = ((NSArray<id> *)offsets)[0], last = ((NSArray<id> *)offsets)[1];
        if (![first isKindOfClass:[NSNumber class]] || ![last isKindOfClass:[NSNumber class]]) {
            return nil;
        }
        unsigned long long begin = ((NSNumber *)first).unsignedLongLongValue;
        unsigned long long end = ((NSNumber *)last).unsignedLongLongValue;
        if (begin > end || end > contents.length - start) {
            return nil;
        }
        places[name] = @[ @(start + begin), @(start + end) ];
    }
    return places;
}

- (nullable NSData *)dataNamed:(NSString *)name length:(NSUInteger)length {
    NSArray<NSNumber *> *place = _places[name];
    NSUInteger begin = place[0].unsignedIntegerValue;
    if (place == nil || place[1].unsignedIntegerValue - begin != length) {
        return nil;
    }
    return [_contents subdataWithRange:NSMakeRange(begin, length)];
}

- (nullable NSData *)contentsWithValues:(NSDictionary<NSString *, NSData *> *)values {
    NSMutableData *found = [NSMutableData dataWithLength:_contents.length];
    if (found == nil) {
        return nil;
    }
    memcpy(found.mutableBytes, _contents.bytes, _contents.length);
    for (NSString *name in values.allKeys) {
        NSData *value = values[name];
        NSArray<NSNumber *> *place = _places[name];
        NSUInteger begin = place[0].unsignedIntegerValue;
        if (place == nil || place[1].unsignedIntegerValue - begin != value.length) {
            return nil;
        }
        memcpy((char *)found.mutableBytes + begin, value.bytes, value.length);
    }
    return found;
}

@end
