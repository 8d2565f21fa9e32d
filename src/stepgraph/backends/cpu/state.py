"""Variables in the engine's own layouts, kept so between steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import numpy as np

from stepgraph.backends.cpu.layouts import ROWS, Layout
from stepgraph.backends.cpu.native import storage
from stepgraph.backends.cpu.plan import Buffer
from stepgraph.errors import ShapeError, describe
from stepgraph.graph.definition import Array
from stepgraph.graph.dtypes import DType
from stepgraph.graph.shapes import format_shape, known_shape
from stepgraph.graph.tensor import Variable


class CpuState:
    """The values of one graph's variables.

    A variable's layout is chosen by the first executable that uses it and kept, so that
    executables of one graph (training, evaluation) share its memory. So is its shape there, which
    may be another of as many elements (see `variable_shapes`).

    Attributes:
        shapes: variables whose shape here is not their own.
        version: grows when memory moves; executables are then laid out anew.
        written: when each variable was written last, as a number that grows.
        latest: the newest of these numbers.
    """

    def __init__(self, variables: Mapping[str, Variable]) -> None:
        self._variables = variables
        self._buffers: dict[str, Buffer] = {}
        self._pending: dict[str, Array] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.version = 0
        self.written: dict[str, int] = {}
        self.latest = 0
        self._clock = itertools.count(1)

    def buffer(self, name: str, layout: Layout, shape: tuple[int, ...], dtype: DType) -> Buffer:
        """The variable's memory; in `layout` if it is used for the first time."""
        present = self._buffers.get(name)
        if shape != self._own_shape(name):
            self.shapes[name] = shape
        moved = present is not None and present.layout is ROWS and layout is not ROWS
        if moved or (present is not None and present.shape != shape):
            self._pending[name] = self.read(name)
            del self._buffers[name]
            self.version += 1
        if name not in self._buffers:
            buffer = Buffer(shape, dtype, layout, name, "state")
            buffer.storage = storage.zeros(buffer.nbytes // dtype.size, dtype.numpy)
            self._buffers[name] = buffer
            value = self._pending.pop(name, None)
            self._store(buffer, self._variables[name].initial if value is None else value)
        return self._buffers[name]

    def read(self, name: str) -> Array:
        """A copy of a variable's value, row-major."""
        buffer = self._buffers.get(name)
        if buffer is None:
            return np.array(self._pending.get(name, self._variables[name].initial))
        value = buffer.layout.unpack(buffer.flat()[: buffer.count], buffer.shape)
        return np.array(value.reshape(self._own_shape(name)))

    def write(self, name: str, value: Array) -> None:
        """Gives a variable a value of its shape."""
        variable = self._variables[name]
        array = np.asarray(value)
        if array.shape != variable.shape:
            raise ShapeError(
                describe(
                    "set_value",
                    f"variable '{name}' has shape {format_shape(variable.shape)}, "
                    f"the value {format_shape(array.shape)}",
                )
            )
        array = array.astype(variable.dtype.numpy)
        if name in self._buffers:
            self._store(self._buffers[name], array)
        else:
            self._pending[name] = array

    def mark_written(self, names: Iterable[str]) -> None:
        """Says that variables have other values from now on; called after they were written."""
        now = next(self._clock)
        self.written |= dict.fromkeys(names, now)
        self.latest = now

    def _store(self, buffer: Buffer, value: Array) -> None:
        packed = buffer.layout.pack(np.asarray(value, buffer.dtype.numpy).reshape(buffer.shape))
        buffer.flat()[: buffer.count] = packed
        self.mark_written([buffer.name])

    def _own_shape(self, name: str) -> tuple[int, ...]:
        return known_shape(self._variables[name].shape)

    def planned(self, name: str) -> tuple[tuple[int, ...], Layout]:
        """Shape and layout of a variable, for people."""
        buffer = self._buffers.get(name)
        return self._own_shape(name), buffer.layout if buffer else ROWS
