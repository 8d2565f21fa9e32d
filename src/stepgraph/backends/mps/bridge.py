"""The bridge to the real frameworks: the one place that knows rubicon-objc.

Of rubicon only the lower half is used (typed messages, encodings, blocks, pools), not its wrapper
objects: those retain what they wrap and let go whenever Python collects them, on any thread. Here a
handle is an address, and who owns what is exactly as `messages.Bridge` says.

Argument and result types come from the runtime's own method encodings; a selector that the running
system does not have is an exception, not a crash. An argument of the wrong kind is one too, as far
as the encodings tell: they know an object from a number, not one class from another.
"""

from __future__ import annotations

import importlib
import importlib.util
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import (
    Structure,
    c_bool,
    c_char_p,
    c_double,
    c_float,
    c_long,
    c_longlong,
    c_ubyte,
    c_ulong,
    c_ulonglong,
    c_void_p,
)
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepgraph.backends.mps.messages import (
    Argument,
    Block,
    Bridge,
    Data,
    Dictionary,
    Handle,
    List,
    Number,
)
from stepgraph.errors import DeviceError, UnsupportedError, describe

PLATFORMS = {"darwin": "macOS", "ios": "iOS"}

# CoreGraphics is what makes Metal find a default device on macOS.
_FRAMEWORKS = (
    "CoreGraphics",
    "Metal",
    "MetalPerformanceShaders",
    "MetalPerformanceShadersGraph",
)

# Methods of private classes behind protocols, which may answer without listing them.
_ENCODINGS: dict[str, bytes] = {
    "contents": b"^v16@0:8",
    "name": b"@16@0:8",
    "newBufferWithLength:options:": b"@32@0:8Q16Q24",
    "newCommandQueue": b"@16@0:8",
    "currentAllocatedSize": b"Q16@0:8",
    "recommendedMaxWorkingSetSize": b"Q16@0:8",
    "hasUnifiedMemory": b"B16@0:8",
}

# C types of block arguments; every other spelling is an object's.
_C_TYPES: dict[str, Any] = {
    "BOOL": c_bool,
    "double": c_double,
    "NSInteger": c_long,
    "NSUInteger": c_ulong,
    "uint64_t": c_ulonglong,
}


class _Version(Structure):
    """``NSOperatingSystemVersion``."""

    _fields_ = (("major", c_long), ("minor", c_long), ("patch", c_long))


@dataclass(frozen=True)
class Object:
    """A handle: the address of an Objective-C object."""

    address: int

    def __repr__(self) -> str:
        return f"<object at {self.address:#x}>"


def unavailable() -> str | None:
    """Why the frameworks cannot be reached from here; None when they can."""
    if sys.platform not in PLATFORMS:
        return "MPSGraph exists on macOS and iOS only"
    about = getattr(platform, "ios_ver", None) if sys.platform == "ios" else None  # Python 3.13
    if about is not None and about().is_simulator:
        return "the iOS simulator has no working MPSGraph: run on a device or a Mac"
    try:
        found = importlib.util.find_spec("rubicon.objc")
    except ModuleNotFoundError:
        found = None
    return None if found else "rubicon-objc is missing: pip install 'rubicon-objc>=0.5.1'"


def connect() -> Bridge:
    """The bridge to this machine's frameworks.

    Raises:
        UnsupportedError: there are none.
    """
    reason = unavailable()
    if reason:
        raise UnsupportedError(describe("mps", reason, fix='use device="cpu"'))
    return RubiconBridge()


class RubiconBridge:
    """`messages.Bridge` over rubicon-objc."""

    def __init__(self) -> None:
        self._runtime: Any = importlib.import_module("rubicon.objc.runtime")
        self._types_of: Any = importlib.import_module(
            "rubicon.objc.types"
        ).ctypes_for_method_encoding
        self._make_block: Any = importlib.import_module("rubicon.objc.api").Block
        self._libraries = {name: self._load(name) for name in _FRAMEWORKS}
        self._selectors: dict[str, Any] = {}
        self._classes: dict[str, Any] = {}
        self._methods: dict[tuple[int, str], tuple[Any, list[Any]]] = {}
        # What a block raised, to be raised again where Python code stands.
        self._raised: list[BaseException] = []

    # --- messages

    def send(self, receiver: Handle | str, selector: str, *arguments: Argument) -> Any:
        """See `messages.Bridge`."""
        pointer = self._class(receiver) if isinstance(receiver, str) else self._pointer(receiver)
        return self._send(pointer, selector, arguments)

    def new(self, class_name: str, initializer: str = "init", *arguments: Argument) -> Handle:
        """See `messages.Bridge`."""
        fresh = self._plain(self._class(class_name), "alloc", self._runtime.objc_id)
        made = self._send(fresh, initializer, arguments)
        if made is None:
            raise DeviceError(describe("mps", f"[[{class_name} alloc] {initializer}] gave nil"))
        handle: Handle = made
        return handle

    def function(self, name: str, *arguments: Argument) -> Any:
        """See `messages.Bridge`; functions without arguments that create an object."""
        if name != "MTLCreateSystemDefaultDevice" or arguments:
            raise NotImplementedError(f"function {name} with {len(arguments)} arguments")
        call = self._libraries["Metal"][name]
        call.restype, call.argtypes = self._runtime.objc_id, []
        return self._value(call())

    def _send(self, pointer: Any, selector: str, arguments: tuple[Argument, ...]) -> Any:
        restype, argtypes = self._signature(pointer, selector)
        if len(arguments) != len(argtypes):
            raise TypeError(f"{selector} takes {len(argtypes)} arguments, not {len(arguments)}")
        alive: list[Any] = []  # blocks must outlive the call
        values = [
            self._argument(a, t, selector, alive) for a, t in zip(arguments, argtypes, strict=True)
        ]
        try:
            result = self._runtime.send_message(
                pointer, self._selector(selector), *values, restype=restype, argtypes=argtypes
            )
        finally:
            alive.clear()
            if self._raised:
                raise self._raised.pop(0)
        return self._value(result)

    def _plain(
        self, pointer: Any, selector: str, restype: Any, argtypes: tuple[Any, ...] = (), *args: Any
    ) -> Any:
        """A message of a selector that every system has, its types given."""
        return self._runtime.send_message(
            pointer, self._selector(selector), *args, restype=restype, argtypes=list(argtypes)
        )

    def _signature(self, pointer: Any, selector: str) -> tuple[Any, list[Any]]:
        library = self._runtime.libobjc
        kind = library.object_getClass(pointer)
        key = (kind.value, selector)
        if key not in self._methods:
            method = library.class_getInstanceMethod(kind, self._selector(selector))
            if method.value:
                encoding = library.method_getTypeEncoding(method)
            elif selector in _ENCODINGS and self._responds(pointer, selector):
                encoding = _ENCODINGS[selector]
            else:
                name = library.object_getClassName(pointer).decode()
                raise UnsupportedError(
                    describe(
                        "mps",
                        f"{name} has no '{selector}' on {self.system()}",
                        fix='a newer system has it; or use device="cpu"',
                    )
                )
            restype, _, _, *argtypes = self._types_of(encoding)
            self._methods[key] = (restype, argtypes)
        return self._methods[key]

    def _responds(self, pointer: Any, selector: str) -> bool:
        kind = (self._runtime.SEL,)
        return bool(
            self._plain(pointer, "respondsToSelector:", c_bool, kind, self._selector(selector))
        )

    # --- arguments

    def _argument(self, value: Argument, kind: Any, selector: str, alive: list[Any]) -> Any:
        if issubclass(kind, self._runtime.objc_block):
            if value is None:
                return None
            if isinstance(value, Block):
                return self._block(value, alive)
        elif issubclass(kind, self._runtime.objc_id):
            return self._object(value, selector)
        elif kind in (c_double, c_float):
            if isinstance(value, float):
                return value
        elif kind is c_bool:
            if isinstance(value, bool):
                return value
        elif isinstance(value, int):
            return int(value)
        elif value is None and issubclass(kind, c_void_p):
            return None
        raise TypeError(f"{selector}: {value!r} where {kind.__name__} is due")

    def _object(self, value: Any, selector: str) -> Any:
        """An object to be passed; made here, it lives as long as the pool around."""
        if value is None:
            return None
        if isinstance(value, Object):
            return self._pointer(value)
        if isinstance(value, str):
            return self._string(value)
        if isinstance(value, Number):
            return self._number(value.value)
        if isinstance(value, List):
            return self._array([self._object(item, selector) for item in value.items])
        if isinstance(value, Dictionary):
            return self._dictionary(
                [self._object(key, selector) for key, _ in value.pairs],
                [self._object(item, selector) for _, item in value.pairs],
            )
        if isinstance(value, Data):
            return self._data(value)
        raise TypeError(f"{selector}: {value!r} where an object is due")

    def _string(self, text: str) -> Any:
        return self._made("NSString", "stringWithUTF8String:", (c_char_p,), text.encode())

    def _number(self, value: int | float | bool) -> Any:
        if isinstance(value, bool):
            return self._made("NSNumber", "numberWithBool:", (c_bool,), value)
        if isinstance(value, float):
            return self._made("NSNumber", "numberWithDouble:", (c_double,), value)
        if value >= 2**63:
            return self._made("NSNumber", "numberWithUnsignedLongLong:", (c_ulonglong,), value)
        return self._made("NSNumber", "numberWithLongLong:", (c_longlong,), value)

    def _array(self, items: list[Any]) -> Any:
        kinds = (c_void_p, c_ulong)
        return self._made(
            "NSArray", "arrayWithObjects:count:", kinds, self._c_array(items), len(items)
        )

    def _dictionary(self, keys: list[Any], values: list[Any]) -> Any:
        return self._made(
            "NSDictionary",
            "dictionaryWithObjects:forKeys:count:",
            (c_void_p, c_void_p, c_ulong),
            self._c_array(values),
            self._c_array(keys),
            len(keys),
        )

    def _data(self, data: Data) -> Any:
        # Copied: who keeps the NSData, and how long, is not said anywhere.
        array = np.ascontiguousarray(data.array)
        kinds = (c_void_p, c_ulong)
        return self._made("NSData", "dataWithBytes:length:", kinds, array.ctypes.data, array.nbytes)

    def _c_array(self, items: list[Any]) -> Any:
        if any(item is None for item in items):
            raise TypeError("nil among the elements of a collection")
        return (c_void_p * len(items))(*(item.value for item in items))

    def _made(self, kind: str, selector: str, argtypes: tuple[Any, ...], *arguments: Any) -> Any:
        made = self._plain(self._class(kind), selector, self._runtime.objc_id, argtypes, *arguments)
        if not made.value:
            raise MemoryError(f"[{kind} {selector}] gave nil")
        return made

    def _block(self, block: Block, alive: list[Any]) -> Any:
        """A C block; what its function raises is raised once the message has returned.

        A block that is called later, on another thread, is kept by who copied it.
        """
        function = self._guarded(block)
        identity = self._runtime.objc_id
        restype = None if block.returns == "void" else identity
        if block.returns in _C_TYPES:
            raise NotImplementedError(f"a block that returns {block.returns}")
        made = self._make_block(
            function, restype, *(_C_TYPES.get(t, identity) for t in block.takes)
        )
        alive.append(made)
        return made

    def _guarded(self, block: Block) -> Callable[..., int | None]:
        def function(*arguments: Any) -> int | None:
            try:
                result = block.function(*(self._value(a) for a in arguments))
                if block.returns == "void":
                    return None
                pointer = self._object(result, "a block's result")
                # ctypes takes an address for a returned pointer, not the pointer object.
                return None if pointer is None else int(pointer.value)
            except BaseException as error:
                self._raised.append(error)
                return None

        return function

    # --- results

    def _value(self, result: Any) -> Any:
        if isinstance(result, self._runtime.objc_id):
            return Object(result.value) if result.value else None
        if isinstance(result, c_void_p):
            return result.value
        return result

    def items(self, array: Handle) -> list[Any]:
        """See `messages.Bridge`."""
        count = self.send(array, "count")
        return [self._element(self.send(array, "objectAtIndex:", i)) for i in range(count)]

    def _element(self, handle: Any) -> Any:
        pointer = self._pointer(handle)
        if self._is_a(pointer, "NSString"):
            return self.text(handle)
        if not self._is_a(pointer, "NSNumber"):
            return handle
        code = self._plain(pointer, "objCType", c_char_p)
        if code in (b"d", b"f"):
            return float(self._plain(pointer, "doubleValue", c_double))
        if code == b"Q":
            return int(self._plain(pointer, "unsignedLongLongValue", c_ulonglong))
        return int(self._plain(pointer, "longLongValue", c_longlong))

    def _is_a(self, pointer: Any, name: str) -> bool:
        kind = (self._runtime.objc_id,)
        return bool(self._plain(pointer, "isKindOfClass:", c_bool, kind, self._class(name)))

    def text(self, string: Handle) -> str:
        """See `messages.Bridge`."""
        found: bytes | None = self._plain(self._pointer(string), "UTF8String", c_char_p)
        return (found or b"").decode("utf-8", "replace")

    def view(self, buffer: Handle, length: int) -> memoryview:
        """See `messages.Bridge`."""
        address = self.send(buffer, "contents")
        if not address:
            raise DeviceError(describe("mps", "a buffer's memory cannot be reached from here"))
        return memoryview((c_ubyte * length).from_address(address)).cast("B")

    # --- ownership

    @contextmanager
    def pool(self) -> Iterator[None]:
        """See `messages.Bridge`."""
        with self._runtime.autoreleasepool():
            yield

    def keep(self, handle: Handle) -> Handle:
        """See `messages.Bridge`."""
        self._plain(self._pointer(handle), "retain", self._runtime.objc_id)
        return handle

    def drop(self, handle: Handle) -> None:
        """See `messages.Bridge`."""
        self._plain(self._pointer(handle), "release", None)

    # --- the system

    def system(self) -> str:
        """See `messages.Bridge`."""
        info = self._plain(self._class("NSProcessInfo"), "processInfo", self._runtime.objc_id)
        version = self._plain(info, "operatingSystemVersion", _Version)
        return f"{PLATFORMS[sys.platform]} {version.major}.{version.minor}"

    def _load(self, name: str) -> Any:
        try:
            return self._runtime.load_library(name)
        except (ValueError, OSError) as error:
            raise UnsupportedError(
                describe("mps", f"the framework {name} cannot be loaded: {error}")
            ) from error

    def _selector(self, name: str) -> Any:
        if name not in self._selectors:
            self._selectors[name] = self._runtime.SEL(name)
        return self._selectors[name]

    def _class(self, name: str) -> Any:
        if name not in self._classes:
            found = self._runtime.get_class(name)
            if found is None or not found.value:
                raise UnsupportedError(
                    describe("mps", f"no class {name} on this system", fix='use device="cpu"')
                )
            self._classes[name] = found
        return self._classes[name]

    def _pointer(self, handle: Any) -> Any:
        if not isinstance(handle, Object):
            raise TypeError(f"{handle!r} is no object of this bridge")
        return self._runtime.objc_id(handle.address)
