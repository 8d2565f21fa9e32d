"""Headers of Apple's frameworks, for checking exported source where there is no SDK.

    python tools/apple_headers.py FOLDER
    clang -target arm64-apple-ios15 -ffreestanding -nostdlibinc -fobjc-arc -fblocks -Wall -Werror
        -fsyntax-only -I FOLDER ...

MPSGraph, MPSCore and Metal are declared as `tests/mps/sdk/interfaces.json` has them, with types and
what may be nil; of Foundation and the C library, what exported source uses, by hand. What is not
declared here cannot be used: the compiler then says so.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FACTS = Path(__file__).parents[1] / "tests" / "mps" / "sdk" / "interfaces.json"

# Umbrella headers that sources import; each is the same one file.
UMBRELLAS = (
    "Foundation/Foundation.h",
    "Metal/Metal.h",
    "MetalPerformanceShaders/MetalPerformanceShaders.h",
    "MetalPerformanceShadersGraph/MetalPerformanceShadersGraph.h",
)
# C headers that Foundation brings along.
C_HEADERS = ("string.h", "dispatch/dispatch.h")

BY_HAND = """\
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma clang assume_nonnull begin
void *memcpy(void *to, const void *from, size_t count);
void *memset(void *to, int byte, size_t count);
int memcmp(const void *one, const void *other, size_t count);
void *calloc(size_t count, size_t size);
void free(void *_Nullable memory);
#pragma clang assume_nonnull end

typedef bool BOOL;
#define YES ((BOOL)1)
#define NO ((BOOL)0)
#define nil ((id)0)
typedef long NSInteger;
typedef unsigned long NSUInteger;
#define NS_ASSUME_NONNULL_BEGIN _Pragma("clang assume_nonnull begin")
#define NS_ASSUME_NONNULL_END _Pragma("clang assume_nonnull end")
#define NS_UNAVAILABLE __attribute__((unavailable))
#define NS_DESIGNATED_INITIALIZER __attribute__((objc_designated_initializer))

NS_ASSUME_NONNULL_BEGIN

typedef struct _NSZone NSZone;
typedef struct objc_selector *SEL;
typedef NSString *NSErrorDomain;

@protocol NSObject
@end
@protocol NSCopying
@end
@protocol NSMutableCopying
@end
@protocol NSCoding
@end
@protocol NSSecureCoding <NSCoding>
@end
@protocol NSFastEnumeration
@end
@protocol NSItemProviderReading
@end
@protocol NSItemProviderWriting
@end
@protocol NSLocking
- (void)lock;
- (void)unlock;
@end

__attribute__((objc_root_class))
@interface NSObject <NSObject>
+ (instancetype)alloc;
+ (instancetype)new;
- (instancetype)init;
- (id)copy;
@property(readonly, copy) NSString *description;
@end

@interface NSString : NSObject <NSCopying>
@property(readonly) NSUInteger length;
@property(readonly, nullable) const char *UTF8String;
- (BOOL)isEqualToString:(NSString *)other;
- (NSString *)stringByAppendingString:(NSString *)other;
+ (instancetype)stringWithFormat:(NSString *)format, ... __attribute__((format(NSString, 1, 2)));
- (nullable instancetype)initWithBytes:(const void *)bytes
                                length:(NSUInteger)length
                              encoding:(NSUInteger)encoding;
- (nullable NSData *)dataUsingEncoding:(NSUInteger)encoding;
@end
@interface NSConstantString : NSString
@end
enum : NSUInteger { NSUTF8StringEncoding = 4 };

@interface NSValue : NSObject <NSCopying>
@end
@interface NSNumber : NSValue
+ (NSNumber *)numberWithChar:(char)value;
+ (NSNumber *)numberWithInt:(int)value;
+ (NSNumber *)numberWithUnsignedInt:(unsigned int)value;
+ (NSNumber *)numberWithLong:(long)value;
+ (NSNumber *)numberWithUnsignedLong:(unsigned long)value;
+ (NSNumber *)numberWithLongLong:(long long)value;
+ (NSNumber *)numberWithUnsignedLongLong:(unsigned long long)value;
+ (NSNumber *)numberWithFloat:(float)value;
+ (NSNumber *)numberWithDouble:(double)value;
+ (NSNumber *)numberWithBool:(BOOL)value;
@property(readonly) float floatValue;
@property(readonly) double doubleValue;
@property(readonly) BOOL boolValue;
@property(readonly) NSInteger integerValue;
@property(readonly) NSUInteger unsignedIntegerValue;
@property(readonly) unsigned long long unsignedLongLongValue;
@end

@interface NSArray<__covariant ObjectType> : NSObject <NSCopying, NSFastEnumeration>
@property(readonly) NSUInteger count;
- (ObjectType)objectAtIndex:(NSUInteger)index;
- (ObjectType)objectAtIndexedSubscript:(NSUInteger)index;
- (NSArray<ObjectType> *)arrayByAddingObject:(ObjectType)object;
- (NSUInteger)indexOfObjectIdenticalTo:(ObjectType)object;
- (NSArray<ObjectType> *)sortedArrayUsingSelector:(SEL)comparator;
+ (instancetype)array;
+ (instancetype)arrayWithObjects:(const ObjectType _Nonnull[_Nullable])objects
                           count:(NSUInteger)count;
- (NSUInteger)countByEnumeratingWithState:(void *)state
                                  objects:(id __unsafe_unretained _Nullable[_Nonnull])buffer
                                    count:(NSUInteger)length;
@end
enum : NSInteger { NSNotFound = 0x7fffffffffffffff };
@interface NSMutableArray<ObjectType> : NSArray<ObjectType>
+ (instancetype)arrayWithCapacity:(NSUInteger)capacity;
- (void)addObject:(ObjectType)object;
- (void)setObject:(ObjectType)object atIndexedSubscript:(NSUInteger)index;
@end

@interface NSDictionary<__covariant KeyType, __covariant ObjectType> : NSObject <NSCopying>
@property(readonly) NSUInteger count;
- (nullable ObjectType)objectForKey:(KeyType)key;
- (nullable ObjectType)objectForKeyedSubscript:(KeyType)key;
@property(readonly, copy) NSArray<KeyType> *allKeys;
+ (instancetype)dictionary;
+ (instancetype)dictionaryWithObjects:(const ObjectType _Nonnull[_Nullable])objects
                              forKeys:(const KeyType<NSCopying> _Nonnull[_Nullable])keys
                                count:(NSUInteger)count;
@end
@interface NSMutableDictionary<KeyType, ObjectType> : NSDictionary<KeyType, ObjectType>
- (void)setObject:(ObjectType)object forKeyedSubscript:(KeyType<NSCopying>)key;
@end

typedef NSUInteger NSDataReadingOptions;
enum : NSDataReadingOptions { NSDataReadingMappedIfSafe = 1 };
typedef NSUInteger NSDataWritingOptions;
enum : NSDataWritingOptions { NSDataWritingAtomic = 1 };
typedef struct _NSRange {
    NSUInteger location;
    NSUInteger length;
} NSRange;
static inline NSRange NSMakeRange(NSUInteger location, NSUInteger length) {
    NSRange range = {location, length};
    return range;
}
@interface NSData : NSObject <NSCopying>
@property(readonly) NSUInteger length;
@property(readonly) const void *bytes;
+ (instancetype)dataWithBytes:(nullable const void *)bytes length:(NSUInteger)length;
+ (nullable instancetype)dataWithContentsOfURL:(NSURL *)url
                                       options:(NSDataReadingOptions)options
                                         error:(NSError *_Nullable *_Nullable)error;
- (NSData *)subdataWithRange:(NSRange)range;
- (BOOL)writeToURL:(NSURL *)url
           options:(NSDataWritingOptions)options
             error:(NSError *_Nullable *_Nullable)error;
@end
@interface NSMutableData : NSData
@property(readonly) void *mutableBytes;
+ (nullable instancetype)dataWithLength:(NSUInteger)length;
- (void)appendData:(NSData *)other;
- (void)appendBytes:(const void *)bytes length:(NSUInteger)length;
@end

@interface NSURL : NSObject <NSCopying>
@property(nullable, readonly, copy) NSString *path;
@end

typedef NSString *NSErrorUserInfoKey;
extern NSErrorUserInfoKey const NSLocalizedDescriptionKey;
@interface NSError : NSObject <NSCopying>
+ (instancetype)errorWithDomain:(NSErrorDomain)domain
                           code:(NSInteger)code
                       userInfo:(nullable NSDictionary<NSErrorUserInfoKey, id> *)userInfo;
@property(readonly, copy) NSString *localizedDescription;
@end

typedef NSUInteger NSJSONReadingOptions;
typedef NSUInteger NSJSONWritingOptions;
@interface NSJSONSerialization : NSObject
+ (nullable id)JSONObjectWithData:(NSData *)data
                          options:(NSJSONReadingOptions)options
                            error:(NSError *_Nullable *_Nullable)error;
+ (nullable NSData *)dataWithJSONObject:(id)object
                                options:(NSJSONWritingOptions)options
                                  error:(NSError *_Nullable *_Nullable)error;
@end

@interface NSLock : NSObject <NSLocking>
@end

@protocol OS_dispatch_semaphore
@end
typedef NSObject<OS_dispatch_semaphore> *dispatch_semaphore_t;
typedef uint64_t dispatch_time_t;
#define DISPATCH_TIME_FOREVER (~0ull)
dispatch_semaphore_t dispatch_semaphore_create(intptr_t value);
intptr_t dispatch_semaphore_wait(dispatch_semaphore_t semaphore, dispatch_time_t timeout);
intptr_t dispatch_semaphore_signal(dispatch_semaphore_t semaphore);

@interface NSObject (Class)
+ (Class)class;
- (BOOL)isKindOfClass:(Class)aClass;
@end

NS_ASSUME_NONNULL_END
"""


def main(arguments: Sequence[str]) -> None:
    """Writes the headers into a folder."""
    if len(arguments) != 1:
        raise SystemExit(__doc__)
    write(Path(arguments[0]))


def write(folder: Path) -> None:
    """Writes the headers into a folder, to be given to the compiler by ``-I``."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    (folder / "apple.h").write_text(header(facts), encoding="utf-8")
    for name in UMBRELLAS:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#import <apple.h>\n", encoding="utf-8")
    for name in C_HEADERS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("#import <apple.h>\n", encoding="utf-8")


def header(facts: Mapping[str, Any]) -> str:
    """Everything in one header."""
    return "\n".join(
        [
            "#ifndef APPLE_H",
            "#define APPLE_H",
            *_forward(facts),
            BY_HAND,
            "NS_ASSUME_NONNULL_BEGIN",
            "typedef struct dispatch_queue_s *dispatch_queue_t;",
            *_structs(facts["structs"]),
            *_enums(facts["enums"]),
            *_protocols(facts),
            *_classes(facts),
            *_functions(facts),
            "NS_ASSUME_NONNULL_END",
            "#endif",
            "",
        ]
    )


def _generated(entry: Mapping[str, Any]) -> bool:
    return entry["framework"] != "Foundation"


def _forward(facts: Mapping[str, Any]) -> Iterator[str]:
    named = facts["named_only"]
    generics = {"NSEnumerator": "<ObjectType>"}
    for name in ("NSString", "NSData", "NSError", "NSURL"):
        yield f"@class {name};"
    for name, entry in facts["classes"].items():
        if _generated(entry):
            yield f"@class {name};"
    for name, kind in named.items():
        word = "class" if kind == "class" else "protocol"
        yield f"@{word} {name}{generics.get(name, '')};"
    yield from (f"@protocol {name};" for name in facts["protocols"])


def _structs(structs: Mapping[str, Sequence[str]]) -> Iterator[str]:
    waiting = {name: fields for name, fields in structs.items() if name != "NSRange"}
    done: set[str] = set()
    while waiting:
        for name, fields in list(waiting.items()):
            if not {field.split()[0] for field in fields} & set(waiting):
                body = " ".join(f"{field};" for field in fields)
                yield f"typedef struct {{ {body} }} {name};"
                done.add(name)
                del waiting[name]


def _enums(enums: Mapping[str, Any]) -> Iterator[str]:
    widths = {"uint64": "uint64_t", "uint32": "uint32_t", "int32": "int32_t", "int64": "int64_t"}
    for name, enum in enums.items():
        kind = widths.get(enum["type"], enum["type"])
        yield f"typedef enum {name} : {kind} {name};"
        yield f"enum {name} : {kind} {{"
        for constant, value in enum["values"].items():
            suffix = "ULL" if value > 0x7FFFFFFFFFFFFFFF else ""
            yield f"    {constant} = {value}{suffix},"
        yield "};"


def _protocols(facts: Mapping[str, Any]) -> Iterator[str]:
    protocols = dict(facts["protocols"])
    done = {"NSObject", "NSCopying", "NSCoding", "NSSecureCoding"}
    while protocols:
        for name, protocol in list(protocols.items()):
            if set(protocol["inherits"]) & set(protocols):
                continue
            above = ", ".join(p for p in protocol["inherits"] if p in done)
            yield f"@protocol {name}{f' <{above}>' if above else ''}"
            yield from (declaration(s, text) for s, text in protocol["methods"].items())
            yield "@end"
            done.add(name)
            del protocols[name]


def _classes(facts: Mapping[str, Any]) -> Iterator[str]:
    known = {"NSObject", "NSCopying", "NSCoding", "NSSecureCoding", *facts["protocols"]}
    waiting = {name: c for name, c in facts["classes"].items() if _generated(c)}
    while waiting:
        for name, entry in list(waiting.items()):
            if entry["super"] in waiting:
                continue
            protocols = ", ".join(p for p in entry["protocols"] if p in known)
            yield f"@interface {name} : {entry['super']}{f' <{protocols}>' if protocols else ''}"
            for selector, text in entry["methods"].items():
                yield declaration(selector, text)
            for unavailable in entry.get("unavailable", ()):
                sign, selector = unavailable[0], unavailable[1:]
                if ":" not in selector:
                    yield f"{sign} (instancetype){selector} NS_UNAVAILABLE;"
            yield "@end"
            del waiting[name]


def _functions(facts: Mapping[str, Any]) -> Iterator[str]:
    for name, text in facts["functions"].items():
        _, returns, *takes = text.split("|")
        arguments = ", ".join(spelled(t) for t in takes) or "void"
        yield f"extern {spelled(returns)} {name}({arguments});"


def declaration(selector: str, text: str) -> str:
    """A method as a header declares it.

    Example:
        >>> declaration("addObject:", "-|void|id")
        '- (void)addObject:(id)a0;'
    """
    head, returns, *takes = text.split("|")
    sign = head[0]
    if not takes:
        return f"{sign} ({spelled(returns)}){selector};"
    parts = selector.split(":")[:-1]
    assert len(parts) == len(takes), selector
    words = [f"{p}:({spelled(t)})a{i}" for i, (p, t) in enumerate(zip(parts, takes, strict=True))]
    return f"{sign} ({spelled(returns)}){' '.join(words)};"


def spelled(kind: str) -> str:
    """A type of the facts as C has it.

    Example:
        >>> spelled("NSArray<MPSGraphTensor>?"), spelled("NSUInteger"), spelled("id<MTLDevice>?")
        ('NSArray<MPSGraphTensor *> *_Nullable', 'NSUInteger', 'id<MTLDevice> _Nullable')
    """
    optional = kind.endswith("?")
    kind = kind.removesuffix("?")
    if kind.startswith("block("):
        returns, _, takes = kind[len("block(") : -1].partition("; ")
        arguments = ", ".join(spelled(t) for t in _split(takes)) or "void"
        return f"{spelled(returns)} (^{'_Nullable' if optional else ''})({arguments})"
    if kind.endswith("**"):
        return f"{kind[:-2]} *_Nullable *_Nullable"
    if kind.endswith("*"):
        inner = kind[:-1]
        pointee = f"{inner} _Nonnull" if inner.startswith("id") else inner
        constant = "const " if inner.startswith("id") else ""
        return f"{constant}{pointee} *{'_Nullable' if optional else '_Nonnull'}"
    if kind.startswith("id"):
        return f"{kind} _Nullable" if optional else kind
    if _is_class(kind):
        return f"{_generic(kind)} *{'_Nullable' if optional else ''}"
    return kind


def _generic(kind: str) -> str:
    name, bracket, inner = kind.partition("<")
    if not bracket:
        return name
    return f"{name}<{', '.join(spelled(t) for t in _split(inner[:-1]))}>"


def _split(text: str) -> list[str]:
    """Types between commas that are not inside brackets."""
    found, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth += letter in "<("
        depth -= letter in ">)"
        if letter == "," and not depth:
            found.append(text[start:place])
            start = place + 1
    found.append(text[start:])
    return [t.strip() for t in found if t.strip()]


def _is_class(kind: str) -> bool:
    name = kind.partition("<")[0]
    facts = _facts()
    return name in facts["classes"] or facts["named_only"].get(name) == "class"


_cache: dict[str, Any] = {}


def _facts() -> dict[str, Any]:
    if not _cache:
        _cache.update(json.loads(FACTS.read_text(encoding="utf-8")))
    return _cache


if __name__ == "__main__":
    main(sys.argv[1:])
