"""What a message to an Objective-C object is made of, and who can carry one.

Everything above the bridge speaks in these words alone: a receiver, a selector spelled as the SDK
spells it, and arguments whose Objective-C kind is said, never guessed: a Python int is a C integer
or an enum's value, a `Number` is an ``NSNumber``, a `List` an ``NSArray``. So the same lowering can
be sent to the framework, written to a file, printed as source, or held against the SDK's facts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

# An object on the other side. Two handles are equal when they stand for the same object.
Handle = Hashable


@dataclass(frozen=True)
class Number:
    """An ``NSNumber``: of an int, a float or a bool, as the Python type says."""

    value: int | float | bool


@dataclass(frozen=True)
class List:
    """An ``NSArray`` of objects: handles, numbers, lists."""

    items: tuple[Any, ...]


@dataclass(frozen=True)
class Dictionary:
    """An ``NSDictionary``; pairs of key and value, whose order promises nothing."""

    pairs: tuple[tuple[Any, Any], ...]


@dataclass(frozen=True, eq=False)
class Data:
    """An ``NSData`` of a row-major array's bytes; the receiver copies it."""

    array: npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Block:
    """A C block that runs a Python function.

    Attributes:
        returns: type of its result in the SDK's spelling, as ``NSArray<MPSGraphTensor>``; "void".
        takes: types of its arguments, likewise.
        function: is given handles, ints and floats, returns a value as an argument would be.
    """

    returns: str
    takes: tuple[str, ...]
    function: Callable[..., Any]


# None is nil; a str is an NSString; int, float and bool are C values (enums are ints).
Argument = Handle | Number | List | Dictionary | Data | Block | str | int | float | bool | None


def numbers(values: Sequence[int]) -> List:
    """A shape, a list of axes or strides: an ``NSArray`` of ``NSNumber``."""
    return List(tuple(Number(int(np.int64(v))) for v in values))


class Bridge(Protocol):
    """Carries messages.

    An object returned by `send` is autoreleased: its handle is good until the innermost `pool` that
    was open at the time ends, unless `keep` was called on it. An object made by `new`, or returned
    by a selector of the ``new``, ``copy`` or ``alloc`` family, is owned by the caller until `drop`.
    """

    def send(self, receiver: Handle | str, selector: str, *arguments: Argument) -> Any:
        """Sends a message, to an object or (a str) to a class, and returns its result.

        Objects come back as handles, nil and void as None, C values as int, float or bool.
        """

    def new(self, class_name: str, initializer: str = "init", *arguments: Argument) -> Handle:
        """An object from ``[[class alloc] initializer...]``, owned by the caller."""

    def function(self, name: str, *arguments: Argument) -> Any:
        """Calls a C function of the frameworks, as ``MTLCreateSystemDefaultDevice``."""

    def items(self, array: Handle) -> list[Any]:
        """The elements of an ``NSArray``; numbers as int or float, strings as str."""

    def text(self, string: Handle) -> str:
        """An ``NSString`` as str."""

    def view(self, buffer: Handle, length: int) -> memoryview:
        """The bytes of an ``MTLBuffer`` in shared memory, writable, good while it is owned."""

    def pool(self) -> AbstractContextManager[None]:
        """An autorelease pool for what happens inside."""

    def keep(self, handle: Handle) -> Handle:
        """Makes the caller an owner of an object, past the end of the pool; returns the handle."""

    def drop(self, handle: Handle) -> None:
        """Ends the caller's ownership of an object; its handle must not be used again."""

    def system(self) -> str:
        """The operating system that answers and its version, as ``macOS 15.1`` or ``iOS 18.0``."""
