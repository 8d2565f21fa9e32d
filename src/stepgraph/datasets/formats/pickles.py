"""Reads the pickles that CIFAR's "python version" consists of, without running any of them.

A pickle is a program; `pickle.load` runs it, with every function it names. These files need only
containers, numbers, strings and NumPy arrays, so they are read here by a small machine of their
own: `pickletools` splits the file into opcodes, the table below says what each means, and an
opcode or a global that is not in it is refused. An array is put together by `numpy.frombuffer`
after its shape, dtype and length were compared; NumPy's own reconstruction is not called.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepgraph.errors import DataError, describe

_RECONSTRUCT = "numpy.core.multiarray _reconstruct"
_DTYPE = "numpy dtype"
_ENCODE = "_codecs encode"  # how Python 3 writes bytes at protocol 2
GLOBALS = (_RECONSTRUCT, "numpy._core.multiarray _reconstruct", "numpy ndarray", _DTYPE, _ENCODE)

_MARK = object()
_CONSTANTS: dict[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, type] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 BINFLOAT FLOAT STRING BINSTRING SHORT_BINSTRING "
    "BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8".split()
)
_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_GETS = frozenset(("GET", "BINGET", "LONG_BINGET"))
_SEQUENCES: dict[str, type[list[Any]] | type[tuple[Any, ...]]] = {"LIST": list, "TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = frozenset(("PROTO", "FRAME"))


@dataclass(eq=False)
class _Global:
    """A name in the pickle; stands for itself and is never looked up."""

    name: str


@dataclass(eq=False)
class _Made:
    """What a pickle says to construct: the global, its arguments, its later state."""

    made_by: str
    arguments: tuple[Any, ...]
    state: Any = None


def read_pickle(data: bytes, what: str) -> Any:
    """Reads a pickle of dicts, lists, tuples, numbers, strings and arrays of uint8 or integers.

    Args:
        data: the file's content.
        what: what errors call it.

    Returns:
        The value; strings of Python 2 come as str (latin-1), arrays read-only.

    Raises:
        DataError: the pickle names any other object, uses an opcode these files do not need, is
            cut short or does not make sense. Nothing it names has been imported or called.

    Example:
        >>> import pickle
        >>> read_pickle(pickle.dumps({"labels": [3, 1]}, protocol=2), "example")
        {'labels': [3, 1]}
    """
    machine = _Machine(what)
    position = 0
    try:
        for opcode, argument, at in pickletools.genops(data):
            position = at or 0
            if opcode.name == "STOP":
                return _resolve(machine.finish(), what)
            machine.step(opcode.name, argument)
    except DataError as error:
        raise DataError(f"{error}\n  at: byte {position:,} of {len(data):,}") from None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(
            describe(
                what,
                f"not a well-formed pickle: {error}",
                got={"at": f"byte {position:,} of {len(data):,}"},
                fix="fetch the file again",
            )
        ) from error
    raise DataError(describe(what, f"the pickle ends after {len(data):,} bytes without its end"))


class _Machine:
    """The stack, the memo, and what each allowed opcode does to them."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def finish(self) -> Any:
        if len(self.stack) != 1:
            raise ValueError(f"{len(self.stack)} values are left at the end")
        return self.stack.pop()

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in _PUTS:
            self.memo[argument] = stack[-1]
        elif name in _GETS:
            stack.append(self.memo[argument])
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name not in _IGNORED:
            self.compose(name, argument)

    def compose(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in ("APPENDS", "APPEND"):
            items = self.since_mark() if name == "APPENDS" else [stack.pop()]
            _expect(list, stack[-1]).extend(items)
        elif name in ("SETITEMS", "SETITEM"):
            pairs = self.since_mark() if name == "SETITEMS" else self.pop_many(2)
            _expect(dict, stack[-1]).update(_pairs(pairs))
        elif name in ("DICT", "LIST", "TUPLE"):
            items = self.since_mark()
            stack.append(_pairs(items) if name == "DICT" else _SEQUENCES[name](items))
        elif name in _TUPLES:
            stack.append(tuple(self.pop_many(_TUPLES[name])))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            module = (
                argument
                if name == "GLOBAL"
                else " ".join(_expect(str, part) for part in self.pop_many(2))
            )
            if module not in GLOBALS:
                raise DataError(
                    describe(
                        self.what,
                        f"refused: the pickle names {module!r}",
                        expected="containers, numbers, strings and NumPy arrays only",
                        fix="fetch the file from its publisher; nothing in it was run",
                    )
                )
            stack.append(_Global(module))
        elif name == "REDUCE":
            function, arguments = self.pop_many(2)
            stack.append(_reduce(_expect(_Global, function).name, _expect(tuple, arguments)))
        elif name == "BUILD":
            state = stack.pop()
            _expect(_Made, stack[-1]).state = state
        else:
            raise DataError(
                describe(
                    self.what,
                    f"refused: pickle opcode {name}",
                    expected="containers, numbers, strings and NumPy arrays only",
                    fix="fetch the file from its publisher; nothing in it was run",
                )
            )

    def since_mark(self) -> list[Any]:
        for start in range(len(self.stack) - 1, -1, -1):
            if self.stack[start] is _MARK:
                items = self.stack[start + 1 :]
                del self.stack[start:]
                return items
        raise ValueError("no mark on the stack")

    def pop_many(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("the stack is empty")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items


def _pairs(items: list[Any]) -> dict[Any, Any]:
    keys = items[::2]
    for key in keys:
        # Hashing a deeply nested tuple would overflow the interpreter's stack.
        if not isinstance(key, (str, bytes, int)):
            raise TypeError(f"a {type(key).__name__} as a dictionary's key")
    return dict(zip(keys, items[1::2], strict=True))


def _expect(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(
            f"{kind.__name__.strip('_').lower()} expected, {type(value).__name__} found"
        )
    return value


def _reduce(name: str, arguments: tuple[Any, ...]) -> Any:
    if name == _ENCODE:
        text, encoding = arguments
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"text encoded as {encoding!r}")
        return _expect(str, text).encode("latin-1")
    return _Made(name, arguments)


def _resolve(value: Any, what: str) -> Any:
    """Replaces the arrays' descriptions, at the top and one container deep, by arrays."""
    if isinstance(value, dict):
        return {_text(key): _resolve_one(item, what) for key, item in value.items()}
    return _resolve_one(value, what)


def _resolve_one(value: Any, what: str) -> Any:
    return _array(value, what) if isinstance(value, _Made) else value


def _text(key: Any) -> Any:
    return key.decode("latin-1") if isinstance(key, bytes) else key


def _array(made: _Made, what: str) -> NDArray[Any]:
    _, shape, dtype_made, fortran_order, content = _expect(tuple, made.state)
    dtype_name = _text(_expect(_Made, dtype_made).arguments[0])
    byte_order = _text(dtype_made.state[1]) if dtype_made.state else "|"
    if dtype_name not in ("u1", "i1", "i2", "i4", "i8") or byte_order not in ("|", "<", ">"):
        raise DataError(
            describe(
                what,
                f"refused: an array of {dtype_name!r}",
                expected="an array of bytes or integers",
            )
        )
    data = content.encode("latin-1") if isinstance(content, str) else _expect(bytes, content)
    dtype = np.dtype(dtype_name).newbyteorder(byte_order)
    sizes = tuple(_expect(int, n) for n in _expect(tuple, shape))
    count = 1
    for size in sizes:
        count *= size
    if min(sizes, default=0) < 0 or count * dtype.itemsize != len(data):
        raise DataError(
            describe(
                what,
                f"an array of shape {sizes} with {len(data):,} bytes",
                expected=f"{count * dtype.itemsize:,} bytes",
                fix="fetch the file again",
            )
        )
    return np.frombuffer(data, dtype).reshape(sizes, order="F" if fortran_order else "C")
