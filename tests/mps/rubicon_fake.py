"""The lower half of rubicon-objc, as the bridge uses it, over the strict double.

Arguments and results really pass through ctypes; encodings are made of the SDK's types; objects are
addresses, which die with their pool. So the bridge's conversions, types and ownership are checked
as far as that can be done without an Objective-C runtime.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import itertools
import re
import types
import weakref
from contextlib import contextmanager
from ctypes import CFUNCTYPE, c_bool, c_char_p, c_double, c_float, c_void_p
from typing import ClassVar

import numpy as np

from stepgraph.backends.mps.messages import Block as SentBlock
from stepgraph.backends.mps.messages import Data, Dictionary, List, Number
from tests.mps.double import Double, checking, sdk
from tests.mps.double.objects import Object


class objc_id(c_void_p):
    pass


class objc_block(objc_id):
    pass


class Class(objc_id):
    pass


class Method(c_void_p):
    pass


class SEL(c_void_p):
    names: ClassVar[dict[int, str]] = {}
    numbers: ClassVar[dict[str, int]] = {}

    def __init__(self, name=None):
        number = self.numbers.setdefault(name, 8 * (len(self.numbers) + 1))
        self.names[number] = name
        super().__init__(number)

    @property
    def text(self):
        return self.names[self.value]


CODES = {
    "BOOL": b"B",
    "double": b"d",
    "float": b"f",
    "void": b"v",
    "void*": b"^v",
    "const void*": b"r^v",
    "const char*": b"r*",
    "SEL": b":",
    "Class": b"#",
    "NSUInteger": b"Q",
    "uint64_t": b"Q",
    "uint64": b"Q",
    "size_t": b"Q",
    "unsigned long long": b"Q",
    "NSInteger": b"q",
    "long long": b"q",
    "uint32_t": b"I",
    "uint32": b"I",
    "version": b"{?=qqq}",
}
CTYPES = {
    b"@": objc_id,
    b"#": Class,
    b"@?": objc_block,
    b":": SEL,
    b"B": c_bool,
    b"d": c_double,
    b"f": c_float,
    b"v": None,
    b"^v": c_void_p,
    b"*": c_char_p,
    b"Q": ctypes.c_ulonglong,
    b"q": ctypes.c_longlong,
    b"I": ctypes.c_uint,
}
_TOKEN = re.compile(rb"r?(\^v|\*|@\?|\{[^}]*\}|[@:#BvQqIdf])\d*")


def ctypes_for_method_encoding(encoding):
    found = [CTYPES[token] for token in _TOKEN.findall(encoding)]
    assert b"".join(t.group(0) for t in _TOKEN.finditer(encoding)) == encoding
    return found


def code(kind):
    kind = kind.removesuffix("?")
    if kind.startswith("block("):
        return b"@?"
    if kind.endswith("*") and kind not in CODES:
        return b"^v"
    enum = sdk.enum(kind)
    return CODES.get(enum["type"] if enum else kind, b"@")


def encoding(returns, takes):
    parts = [code(returns), b"@", b":", *(code(t) for t in takes)]
    return b"".join(part + str(8 * i).encode() for i, part in enumerate(parts))


# Methods of Foundation and of every object: how they are typed, and what they do. "+" is a class's.
FOUNDATION = {
    "+alloc": ("id", ()),
    "-retain": ("id", ()),
    "-release": ("void", ()),
    "-respondsToSelector:": ("BOOL", ("SEL",)),
    "-isKindOfClass:": ("BOOL", ("Class",)),
    "+processInfo": ("id", ()),
    "-operatingSystemVersion": ("version", ()),
    "-objCType": ("const char*", ()),
    "-doubleValue": ("double", ()),
    "-longLongValue": ("long long", ()),
    "-unsignedLongLongValue": ("unsigned long long", ()),
    "-UTF8String": ("const char*", ()),
    "+stringWithUTF8String:": ("id", ("const char*",)),
    "+numberWithBool:": ("id", ("BOOL",)),
    "+numberWithDouble:": ("id", ("double",)),
    "+numberWithLongLong:": ("id", ("long long",)),
    "+numberWithUnsignedLongLong:": ("id", ("unsigned long long",)),
    "+arrayWithObjects:count:": ("id", ("void*", "NSUInteger")),
    "+dictionaryWithObjects:forKeys:count:": ("id", ("void*", "void*", "NSUInteger")),
    "+dataWithBytes:length:": ("id", ("void*", "NSUInteger")),
}
_WORDS = {
    str: "NSString",
    Number: "NSNumber",
    List: "NSArray",
    Dictionary: "NSDictionary",
    Data: "NSData",
}


class Named:
    """A class, its metaclass, or an object that only has a class."""

    def __init__(self, kind, name):
        self.kind = kind
        self.name = name


class World:
    """Addresses and what is there.

    Attributes:
        double: answers the messages of the frameworks.
        private: whether classes behind protocols list their methods.
        missing: frameworks that cannot be loaded.
        alive: addresses of Foundation's objects made here that a pool still holds.
        version: of the system.
    """

    def __init__(self, double: Double) -> None:
        self.double = double
        self.missing: set[str] = set()
        self.version = (15, 1)
        self.refused_init: set[str] = set()
        self._next = itertools.count(0x1000, 16)
        self._things: dict[int, object] = {}
        self._names: dict[object, int] = {}
        self._pools: list[list[int]] = []
        self._methods: dict[tuple[str, str], Method] = {}
        self._encodings: dict[int, bytes] = {}

    # --- addresses

    def address(self, thing) -> int:
        key = thing if isinstance(thing, (Object, Named)) else None
        if key is None:
            where = next(self._next)
            self._pools[-1].append(where)
        elif key in self._names:
            return self._names[key]
        else:
            where = self._names[key] = next(self._next)
        self._things[where] = thing
        return where

    def at(self, pointer):
        if pointer is None:
            return None
        where = pointer if isinstance(pointer, int) else pointer.value
        if not where:
            return None
        assert where in self._things, f"{where:#x} is used after its pool ended"
        return self._things[where]

    def named(self, kind, name) -> Named:
        for thing in self._names:
            if isinstance(thing, Named) and (thing.kind, thing.name) == (kind, name):
                return thing
        made = Named(kind, name)
        self.address(made)
        return made

    @contextmanager
    def autoreleasepool(self):
        mine: list[int] = []
        self._pools.append(mine)
        try:
            with self.double.pool():
                yield
        finally:
            self._pools.remove(mine)
            for where in mine:
                del self._things[where]

    # --- classes and methods

    def class_name(self, thing) -> str:
        if isinstance(thing, Object):
            return thing.class_name
        return _WORDS.get(type(thing)) or thing.name

    def get_class(self, name) -> Class:
        known = sdk.is_class(name) or name in (*_WORDS.values(), "NSProcessInfo")
        return Class(self.address(self.named("class", name)) if known else None)

    def object_getClass(self, pointer) -> Class:
        thing = self.at(pointer)
        if isinstance(thing, Named) and thing.kind == "class":
            return Class(self.address(self.named("meta", thing.name)))
        name = self.class_name(thing)
        if isinstance(thing, Object) and thing.protocols:
            name = f"_Private{'_'.join(thing.protocols)}"
        return Class(self.address(self.named("class", name)))

    def object_getClassName(self, pointer) -> bytes:
        return self.class_name(self.at(pointer)).encode()

    def class_getInstanceMethod(self, kind, selector) -> Method:
        found = self.at(kind)
        types_ = self.types(found.name, (), selector.text, "+" if found.kind == "meta" else "-")
        if types_ is None:
            return Method(None)
        where = next(self._next)
        self._encodings[where] = encoding(*types_)
        return Method(where)

    def method_getTypeEncoding(self, method) -> bytes:
        return self._encodings[method.value]

    def types(self, class_name, protocols, selector, kind):
        method = sdk.method(class_name, tuple(protocols), selector, kind)
        if method is not None:
            return method.returns, method.takes
        return FOUNDATION.get(kind + selector)

    # --- messages

    def send_message(self, receiver, selector, *args, restype, argtypes):
        assert isinstance(receiver, objc_id)
        assert isinstance(selector, SEL)
        thing = self.at(receiver)
        assert thing is not None, f"a message {selector.text} to nil"
        is_class = isinstance(thing, Named) and thing.kind == "class"
        kind = "+" if is_class else "-"
        protocols = thing.protocols if isinstance(thing, Object) else ()
        found = self.types(self.class_name(thing), protocols, selector.text, kind)
        assert found is not None, f"{self.class_name(thing)} has no {kind}{selector.text}"
        due = ctypes_for_method_encoding(encoding(*found)) if found[0] != "version" else None
        if due is not None:
            self._compare(restype, due[0], selector.text)
            assert len(argtypes) == len(due) - 3
            for given, wanted in zip(argtypes, due[3:], strict=True):
                self._compare(given, wanted, selector.text)
        got: list[object] = []
        CFUNCTYPE(None, *argtypes)(lambda *a: got.extend(a))(*args)
        answer = self._answer(thing, selector.text, found, got)
        return self._back(answer, restype)

    def _compare(self, given, due, selector):
        def family(kind):
            if kind is None:
                return "void"
            if issubclass(kind, objc_block):
                return "block"
            if issubclass(kind, objc_id):
                return "object"
            if kind in (c_bool, c_double, c_float) or issubclass(kind, SEL):
                return kind.__name__
            if kind in (c_void_p, c_char_p):
                return "pointer"
            return f"integer of {ctypes.sizeof(kind)}"

        assert family(given) == family(due), f"{selector}: {given} where {due} is due"

    def _back(self, answer, restype):
        if restype is None:
            return None
        if issubclass(restype, ctypes.Structure):
            return restype(*self.version, 0)
        if issubclass(restype, objc_id):
            return restype(None if answer is None else self.address(answer))
        if restype is c_void_p:
            return c_void_p(answer)
        return restype(answer).value

    def _answer(self, thing, selector, found, got):
        own = getattr(self, "on_" + selector.replace(":", "_"), None)
        if own is not None:
            return own(thing, *got)
        arguments = [self._in(a, kind) for a, kind in zip(got, found[1], strict=True)]
        if isinstance(thing, Named) and thing.kind == "fresh":
            if thing.name in self.refused_init:
                return None
            return self.double.new(thing.name, selector, *arguments)
        receiver = thing.name if isinstance(thing, Named) else thing
        answer = self.double.send(receiver, selector, *arguments)
        return answer

    def _in(self, value, kind):
        if kind.startswith("block("):
            return self._block(value, kind.removesuffix("?"))
        return self.at(value) if isinstance(value, objc_id) else value

    def _block(self, pointer, kind):
        made = self.at(pointer)
        if made is None:
            return None
        block = made()
        assert block is not None, "the block ended before the message was sent"
        returns, takes = checking.block_signature(kind)
        copied = block if returns == "void" else None

        def function(*arguments):
            alive = copied or made()
            assert alive is not None, "the block ended while it may be called"
            raw = [self.address(a) if isinstance(a, Object) else a for a in arguments]
            result = alive.callable(None, *raw)
            return None if returns == "void" else self.at(result)

        return SentBlock(returns.removesuffix("?"), takes, function)

    # --- what Foundation answers

    def on_alloc(self, thing):
        fresh = Named("fresh", thing.name)
        self.address(fresh)
        return fresh

    def on_retain(self, thing):
        self.double.keep(thing)
        return thing

    def on_release(self, thing):
        self.double.drop(thing)

    def on_respondsToSelector_(self, thing, selector):
        protocols = thing.protocols if isinstance(thing, Object) else ()
        return self.types(self.class_name(thing), protocols, selector.text, "-") is not None

    def on_isKindOfClass_(self, thing, kind):
        return self.class_name(thing) == self.at(kind).name

    def on_processInfo(self, thing):
        return self.named("info", "NSProcessInfo")

    def on_operatingSystemVersion(self, thing):
        return None

    def on_UTF8String(self, thing):
        return (thing.text if isinstance(thing, Object) else thing).encode()

    def on_objCType(self, thing):
        value = thing.value
        if isinstance(value, bool):
            return b"c"
        return b"d" if isinstance(value, float) else b"Q" if value >= 2**63 else b"q"

    def on_doubleValue(self, thing):
        return float(thing.value)

    def on_longLongValue(self, thing):
        return int(thing.value)

    def on_unsignedLongLongValue(self, thing):
        return int(thing.value)

    def on_stringWithUTF8String_(self, thing, text):
        return text.decode()

    def on_numberWithBool_(self, thing, value):
        return Number(value)

    on_numberWithDouble_ = on_numberWithLongLong_ = on_numberWithBool_
    on_numberWithUnsignedLongLong_ = on_numberWithBool_

    def _c_array(self, pointer, count):
        return [self.at(w) for w in (c_void_p * count).from_address(pointer)] if count else []

    def on_arrayWithObjects_count_(self, thing, pointer, count):
        return List(tuple(self._c_array(pointer, count)))

    def on_dictionaryWithObjects_forKeys_count_(self, thing, values, keys, count):
        pairs = zip(self._c_array(keys, count), self._c_array(values, count), strict=True)
        return Dictionary(tuple(pairs))

    def on_dataWithBytes_length_(self, thing, pointer, length):
        raw = ctypes.string_at(pointer, length)
        return Data(np.frombuffer(raw, np.uint8))

    def on_count(self, thing):
        if isinstance(thing, List):
            return len(thing.items)
        return self.double.send(thing, "count")

    def on_objectAtIndex_(self, thing, index):
        if isinstance(thing, List):
            return thing.items[index]
        return self.double.send(thing, "objectAtIndex:", index)

    def on_contents(self, thing):
        view = self.double.view(thing, thing.length)
        return ctypes.addressof((ctypes.c_ubyte * thing.length).from_buffer(view))


class Function:
    """A C function of a library."""

    def __init__(self, world, name):
        self.world = world
        self.name = name
        self.restype = self.argtypes = None

    def __call__(self, *arguments):
        assert self.argtypes == []
        return self.restype(self.world.address(self.world.double.function(self.name)))


class Library:
    def __init__(self, world):
        self.world = world

    def __getitem__(self, name):
        return Function(self.world, name)


def modules(world: World) -> dict[str, types.ModuleType]:
    """What to put into ``sys.modules``."""

    class Block:
        def __init__(self, func, restype, *argtypes):
            self.callable = CFUNCTYPE(restype, c_void_p, *argtypes)(lambda _, *a: func(*a))
            where = next(world._next)
            world._things[where] = weakref.ref(self)
            self._as_parameter_ = objc_block(where)

    def load_library(name):
        if name in world.missing:
            raise ValueError(f"Library {name!r} not found")
        return Library(world)

    made = {
        name: types.ModuleType(name)
        for name in (
            "rubicon",
            "rubicon.objc",
            "rubicon.objc.runtime",
            "rubicon.objc.types",
            "rubicon.objc.api",
        )
    }
    for name, module in made.items():
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__path__ = []
    runtime = made["rubicon.objc.runtime"]
    runtime.__dict__.update(
        objc_id=objc_id,
        objc_block=objc_block,
        SEL=SEL,
        libobjc=world,
        get_class=world.get_class,
        send_message=world.send_message,
        autoreleasepool=world.autoreleasepool,
        load_library=load_library,
    )
    made["rubicon.objc.types"].ctypes_for_method_encoding = ctypes_for_method_encoding
    made["rubicon.objc.api"].Block = Block
    return made
