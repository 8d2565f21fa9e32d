"""Holds an argument against the type that the SDK gives it.

What comes back is the argument as the double works with it: an `Object`, a list or dictionary of
such, a Python number, a NumPy array for ``NSData``, a Python callable for a block.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import numpy as np

from stepgraph.backends.mps.messages import Block, Data, Dictionary, List, Number

from . import dtypes, sdk
from .errors import NotModelled, Refused
from .objects import Heap, Object

_INTEGERS = {
    "NSUInteger": (0, 2**64 - 1),
    "size_t": (0, 2**64 - 1),
    "uint64_t": (0, 2**64 - 1),
    "unsigned long": (0, 2**64 - 1),
    "unsigned long long": (0, 2**64 - 1),
    "NSInteger": (-(2**63), 2**63 - 1),
    "long": (-(2**63), 2**63 - 1),
    "long long": (-(2**63), 2**63 - 1),
    "uint32_t": (0, 2**32 - 1),
    "unsigned int": (0, 2**32 - 1),
    "int": (-(2**31), 2**31 - 1),
    "unsigned short": (0, 2**16 - 1),
    "short": (-(2**15), 2**15 - 1),
    "unsigned char": (0, 255),
    "char": (-128, 127),
}


@functools.cache
def split(text: str) -> tuple[str, ...]:
    """The parts between the commas of a type's brackets."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "<(") - (c in ">)")
        if c == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return tuple(p for p in (*parts, text[start:].strip()) if p)


@functools.cache
def generic(kind: str) -> tuple[str, tuple[str, ...]]:
    """``NSArray<X>`` as ("NSArray", ("X",))."""
    name, _, rest = kind.partition("<")
    return (name, split(rest[:-1])) if rest else (name, ())


@functools.cache
def block_signature(kind: str) -> tuple[str, tuple[str, ...]]:
    returns, _, takes = kind[len("block(") : -1].partition(";")
    return returns, tuple(t.rstrip("?") for t in split(takes))


class Checker:
    """Checks arguments; needs the heap for what the handles stand for."""

    def __init__(self, heap: Heap) -> None:
        self.heap = heap

    def check(self, argument: Any, kind: str, where: str) -> Any:
        nullable, kind = kind.endswith("?"), kind.removesuffix("?")
        if kind in _INTEGERS:
            return self._integer(argument, kind, where)
        if kind == "BOOL":
            return self._plain(argument, bool, "BOOL", where)
        if kind in ("double", "float"):
            return self._float(argument, kind, where)
        if (enum := sdk.enum(kind)) is not None:
            return self._enum(argument, kind, enum, where)
        if argument is None:
            if not nullable:
                raise Refused(f"{where}: nil, but {kind} may not be nil")
            return None
        if kind.startswith("block("):
            return self._block(argument, kind, where)
        return self._object(argument, kind, where)

    def _plain(self, argument: Any, wanted: type, kind: str, where: str) -> Any:
        if type(argument) is not wanted:
            raise Refused(f"{where}: {_said(argument)}, but the SDK wants a C {kind}")
        return argument

    def _integer(self, argument: Any, kind: str, where: str) -> int:
        value = self._plain(argument, int, kind, where)
        low, high = _INTEGERS[kind]
        if not low <= value <= high:
            raise Refused(f"{where}: {value} does not fit {kind}")
        return value

    def _float(self, argument: Any, kind: str, where: str) -> float:
        value = self._plain(argument, float, kind, where)
        if kind == "float" and np.isfinite(value) and abs(value) > float(np.finfo(np.float32).max):
            raise Refused(f"{where}: {value} does not fit float")
        return value

    def _enum(self, argument: Any, kind: str, enum: dict, where: str) -> int:
        if isinstance(argument, IntEnum):
            if type(argument).__name__ != kind:
                raise Refused(f"{where}: {argument!r}, but the SDK wants a C {kind}")
            argument = int(argument)
        value = self._plain(argument, int, kind, where)
        if enum.get("flags"):
            known = functools.reduce(int.__or__, enum["values"].values(), 0)
            good = value >= 0 and value & ~known == 0
        else:
            good = value in enum["values"].values()
        if not good:
            raise Refused(f"{where}: {value} is no value of {kind}")
        if kind == "MPSDataType":
            dtypes.numpy(value)
        return value

    def _block(self, argument: Any, kind: str, where: str) -> Callable[..., Any]:
        if not isinstance(argument, Block):
            raise Refused(f"{where}: {_said(argument)}, but the SDK wants a {kind}")
        returns, takes = block_signature(kind)
        given = (argument.returns, tuple(argument.takes))
        if given != (returns.rstrip("?"), takes):
            raise Refused(
                f"{where}: a block({given[0]}; {', '.join(given[1])}), but the SDK wants {kind}"
            )
        return argument

    def _object(self, argument: Any, kind: str, where: str) -> Any:
        name, inner = generic(kind)
        if name == "id":
            return self._protocol(argument, inner, where)
        if isinstance(argument, Object):
            return self._instance(argument, name, inner, where)
        if isinstance(argument, str) and name == "NSString":
            return argument
        if isinstance(argument, Number) and name == "NSNumber":
            return self._number(argument, where)
        if isinstance(argument, Data) and name == "NSData":
            return self._data(argument, where)
        if isinstance(argument, List) and name == "NSArray":
            return self._list(argument, inner, where)
        if isinstance(argument, Dictionary) and name == "NSDictionary":
            return self._dictionary(argument, inner, where)
        raise Refused(f"{where}: {_said(argument)}, but the SDK wants {kind}")

    def _list(self, argument: List, inner: tuple[str, ...], where: str) -> list[Any]:
        if type(argument.items) is not tuple:
            raise Refused(f"{where}: a List's items must be a tuple")
        element = inner[0] if inner else "id"
        return [
            self.element(item, element, f"{where}, element {i}")
            for i, item in enumerate(argument.items)
        ]

    def element(self, item: Any, kind: str, where: str) -> Any:
        """An element of an array: never nil; numbers are whole, as in every MPSShape."""
        value = self.check(item, kind, where)
        if kind == "NSNumber" and isinstance(value, Number) and type(value.value) is not int:
            raise Refused(f"{where}: {value.value!r} where a whole number is due")
        return value.value if kind == "NSNumber" and isinstance(value, Number) else value

    def _dictionary(self, argument: Dictionary, inner: tuple[str, ...], where: str) -> list[Any]:
        key_kind, value_kind = inner or ("id", "id")
        pairs = [
            (self.check(k, key_kind, f"{where}, a key"), self.check(v, value_kind, f"{where}[{k}]"))
            for k, v in argument.pairs
        ]
        keys = [k if isinstance(k, str) else id(k) for k, _ in pairs]
        if len(set(keys)) != len(keys):
            raise Refused(f"{where}: a key stands twice")
        return pairs

    def _number(self, argument: Number, where: str) -> Number:
        if type(argument.value) not in (int, float, bool):
            raise Refused(f"{where}: a Number of {_said(argument.value)}")
        return argument

    def _data(self, argument: Data, where: str) -> np.ndarray:
        array = argument.array
        if not isinstance(array, np.ndarray) or not array.flags.c_contiguous:
            raise Refused(f"{where}: an NSData needs a row-major NumPy array")
        # Copied here: what happens to the array afterwards does not matter.
        return np.frombuffer(array.tobytes(), np.uint8)

    def _protocol(self, argument: Any, inner: tuple[str, ...], where: str) -> Any:
        if not inner:
            return (
                argument if not isinstance(argument, Object) else self.heap.check(argument, where)
            )
        if inner == ("NSCopying",) and isinstance(argument, (str, Number)):
            return argument
        o = self.heap.check(argument, where)
        has = sdk.protocols_of(o.class_name).union(*(sdk.protocols_of(p) for p in o.protocols))
        missing = [p for p in inner if p not in has]
        if missing:
            raise Refused(f"{where}: {o} does not conform to {missing[0]}")
        return o

    def _instance(self, argument: Object, name: str, inner: tuple[str, ...], where: str) -> Any:
        o = self.heap.check(argument, where)
        if name in ("void*", "const void*") or "*" in name or name == "dispatch_queue_t":
            raise NotModelled(f"{where}: {name} is not modelled")
        if name not in sdk.lineage(o.class_name):
            raise Refused(f"{where}: a {o.class_name}, but the SDK wants a {name}")
        if "NSArray" in sdk.lineage(o.class_name):
            return [
                self.element(item, inner[0] if inner else "id", f"{where}, element {i}")
                for i, item in enumerate(o.items)
            ]
        if name == "NSString":
            return o.text
        if name == "NSData":
            return o.bytes
        return o


def _said(argument: Any) -> str:
    words = {List: "an NSArray", Dictionary: "an NSDictionary", Number: "an NSNumber"}
    words |= {Data: "an NSData", Block: "a block", str: "an NSString"}
    for kind, word in words.items():
        if isinstance(argument, kind):
            return f"{word} {argument!r}" if kind is Number else word
    if isinstance(argument, bool):
        return f"a C BOOL {argument}"
    if type(argument) in (int, float):
        return f"a C {type(argument).__name__} {argument}"
    return f"{argument!r} of Python type {type(argument).__name__}"
