"""The lowered program: buffers, and steps that read and write them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stepgraph.backends.cpu.kernels.ahead import Lines
from stepgraph.backends.cpu.layouts import LANES, Layout
from stepgraph.graph.definition import Array
from stepgraph.graph.dtypes import DType


@dataclass(eq=False)
class Buffer:
    """A place for one tensor.

    Attributes:
        shape: logical shape.
        dtype: element type.
        layout: how the elements lie.
        name: the tensor's, for people.
        kind: ``arena`` (planned), ``state`` (a variable), ``constant``, ``feed``, ``view`` (of
            `base`), ``tile`` (never whole in memory, see `Tile`).
        storage: the elements, flat; set when memory is planned.
        base: whose memory a view shares.
    """

    shape: tuple[int, ...]
    dtype: DType
    layout: Layout
    name: str
    kind: str = "arena"
    storage: Array | None = None
    base: Buffer | None = None

    @property
    def root(self) -> Buffer:
        """The buffer whose memory this is."""
        return self.base.root if self.base is not None else self

    @functools.cached_property
    def count(self) -> int:
        """Elements stored."""
        return self.layout.count(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes stored, with room for a last vector of 16 lanes to be read whole."""
        return -(-self.count * self.dtype.size // 64) * 64 + LANES * self.dtype.size

    def flat(self) -> Array:
        """The elements stored."""
        storage = self.root.storage
        assert storage is not None, self.name
        return storage

    @functools.cached_property
    def elements(self) -> Array:
        """The elements stored, without the room behind them; once memory is planned."""
        return self.flat()[: self.count]

    def __repr__(self) -> str:
        return f"<{self.name} {self.dtype} {self.shape} {self.layout}>"


@dataclass(eq=False)
class Step:
    """Something done in a run.

    Attributes:
        name: for people and profiles.
        reads: buffers read.
        writes: buffers written.
        aliases: buffers read that the first written one may take over, element by element.
        accumulates: whether what is written must hold its old value before.
        flops: floating-point operations, for profiles.
    """

    name: str
    reads: list[Buffer]
    writes: list[Buffer]
    aliases: tuple[Buffer, ...] = ()
    accumulates: bool = False
    flops: int = 0


@dataclass(frozen=True)
class Grid:
    """How the tasks of a launch tile what it reads and writes: ``task = part * rows + row``.

    Attributes:
        panels: where parts begin among the panels of 16 channels, and their number at the end.
        rows: for each buffer in panels that tasks read or write tile by tile, where rows of tasks
            begin among its positions, and how many of these there are at the end.
        pitches: for some of these, the arguments that say how many elements lie between panels.
    """

    panels: tuple[int, ...]
    rows: Mapping[Buffer, tuple[int, ...]]
    pitches: Mapping[Buffer, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for cuts in (self.panels, *self.rows.values()):
            # Otherwise tasks of a chain would run at tiles that are not theirs.
            assert all(a < b for a, b in itertools.pairwise(cuts)), (
                f"cuts that do not go up: {cuts}"
            )


# The map whose positions a kernel goes over, and what makes its source with lines to ask for.
Asking = tuple[Buffer, Callable[[tuple[Lines, ...]], "KernelSource"]]


@dataclass(eq=False)
class KernelStep(Step):
    """A launch of a native kernel.

    Attributes:
        source: what makes the kernel's module.
        kernel: its name there.
        arguments: name to number, or to a `Buffer` whose address is meant (optionally offset in
            bytes).
        tasks: how many.
        grid: which task touches what, if that is simple enough to say (`chains`).
        asking: how the same kernel asks for lines of other maps on the way (`ahead`), if it can.
    """

    source: KernelSource | None = None
    kernel: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    tasks: int = 1
    grid: Grid | None = None
    asking: Asking | None = None


@dataclass(frozen=True)
class Tile:
    """A value of which a thread keeps only the tile that its task is about.

    Attributes:
        buffer: the value; has no memory of its own.
        offset: where the tile lies, in bytes from the start of the thread's tiles.
        starts: for each task of the chain, where its tile begins in the whole value, in bytes.
    """

    buffer: Buffer
    offset: int
    starts: tuple[int, ...]


@dataclass(eq=False)
class ChainStep(Step):
    """Launches run as one: each of its tasks runs some tasks of every one of them, in order.

    Attributes:
        members: the launches.
        ranges: for each task, (member, first task, count) in order.
        tiles: values of which each thread keeps only the tile of its task.
        tile_memory: where these tiles lie, `tile_bytes` for each thread.
    """

    members: list[KernelStep] = field(default_factory=list)
    ranges: list[list[tuple[int, int, int]]] = field(default_factory=list)
    tiles: list[Tile] = field(default_factory=list)
    tile_memory: Buffer | None = None
    tile_bytes: int = 0

    @property
    def tasks(self) -> int:
        """How many."""
        return len(self.ranges)


@dataclass(eq=False)
class PythonStep(Step):
    """A call into Python between launches: what has no kernel."""

    function: Callable[[Sequence[Array]], Sequence[Array]] | None = None

    def run(self) -> None:
        """Unpacks the inputs, computes, packs the outputs."""
        assert self.function is not None
        inputs = [b.layout.unpack(b.elements, b.shape) for b in self.reads]
        with np.errstate(all="ignore"):
            outputs = self.function(inputs)
        for buffer, value in zip(self.writes, outputs, strict=True):
            buffer.elements[...] = buffer.layout.pack(np.asarray(value, buffer.dtype.numpy))


# The key of the one module with products and convolutions (`native.kernels`).
NATIVE = ("native",)


@dataclass(frozen=True)
class KernelSource:
    """A module of kernels that can be built when needed.

    Attributes:
        key: identifies the module's contents; equal keys make equal code. Plain values and
            dataclasses of them, so that what was compiled is found by it (`native.recall`).
        build: makes the module.
    """

    key: Any
    build: Callable[[], Any]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KernelSource) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True)
class At:
    """An address inside a buffer, as a kernel argument.

    Attributes:
        buffer: which.
        offset: elements from its start.
    """

    buffer: Buffer
    offset: int = 0


@dataclass(frozen=True)
class Scaled:
    """A float argument that is read from memory when its launch begins.

    Attributes:
        buffer: holds one float.
        factor: multiplies it.
    """

    buffer: Buffer
    factor: float
