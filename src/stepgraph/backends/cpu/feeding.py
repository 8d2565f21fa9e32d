"""How feeds that are not arrays yet get to where a step reads them.

A `Deferred` (see `backends.base`) says what an array would be made of. Pictures and rows picked
from arrays are written by kernels that all threads share; others write themselves.

An array that lies as a step wants it is not copied: the launches that read it are told its address
(`lent_feeds` says of which feeds that holds). It must not change while the run is under way, which
`Executable.run` and `run_async` ask of their callers.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stepgraph.backends.cpu.kernels.library import addresses
from stepgraph.backends.cpu.kernels.pictures import (
    LONGEST_ROW,
    PicturesSpec,
    build_pictures,
    build_rows,
    fields,
)
from stepgraph.backends.cpu.layouts import LANES
from stepgraph.backends.cpu.native.pool import Pool, Program
from stepgraph.backends.cpu.plan import At, Buffer, KernelSource, KernelStep, Step
from stepgraph.graph.definition import Array

# Tasks that a batch is cut into: enough to be shared evenly, few enough to be worth a claim.
TASKS = 16
# Bytes that one thread writes sooner than a second one is told.
ALONE = 1 << 15
# Bytes from which on an array is read where it is; copying fewer takes less than a microsecond.
LENT = 1 << 12
# Memory ends at pages of no fewer bytes: what lies behind an array on its last page can be read.
PAGE = 4096
# The first arguments of the kernel for rows.
FIRST = ("index", "source", "out", "size")


def lent_feeds(steps: Sequence[Step], targets: Sequence[Buffer]) -> set[Buffer]:
    """Feeds that launches only read, by an address among their arguments.

    Args:
        steps: of a run; of chains their members.
        targets: what is read after the run.
    """
    kept_back = {b.root for b in targets}
    for step in steps:
        kept_back |= {b.root for b in step.writes}
        given = step.arguments.values() if isinstance(step, KernelStep) else ()
        addressed = {v.buffer if isinstance(v, At) else v for v in given if _is_place(v)}
        kept_back |= {b.root for b in step.reads} - {b.root for b in addressed}
    read = {b.root for step in steps for b in step.reads}
    return {b for b in read - kept_back if b.kind == "feed" and b.count * b.dtype.size >= LENT}


def _is_place(value: Any) -> bool:
    return isinstance(value, At | Buffer)


class Feeder:
    """Writes one feed's values, run after run, or tells its readers where they are.

    Args:
        place: where the step reads them.
        pool: whose threads write.
    """

    def __init__(self, place: Array, pool: Pool) -> None:
        self._place = place
        self._pool = pool
        # Argument slots of the launches that read it, and bytes from its start.
        self._readers: list[tuple[Array, int]] = []
        self._own = self._told = _address(place)
        self._known: dict[Any, tuple[Program, Array]] = {}
        # What the newest deferred value was made of, its launch, and its slots for places within
        # that: from step to step nothing else changes.
        self._source: Callable[[], Array | None] = _nothing
        self._scale: Any = None
        self._moved = False
        self._program: Program | None = None
        self._slots: Array = np.zeros(0, np.int64)

    def lend(self, readers: list[tuple[Array, int]]) -> None:
        """Says who may be told to read elsewhere.

        Args:
            readers: argument slots, each one number, with the bytes from the feed's start that it
                points to.
        """
        self._readers = readers

    def write(self, value: Any) -> None:
        """Writes an array, or what a `Deferred` stands for."""
        if isinstance(value, np.ndarray):
            if self._readers and self._lies_well(value):
                self._tell(_address(value))
                return
            self._tell(self._own)
            self._place[...] = value
            return
        self._tell(self._own)
        index, moves = value.index, getattr(value, "moves", None)
        scale = getattr(value, "normalize", None)
        if (
            self._source() is not value.source
            or self._scale is not scale
            or self._moved is not (moves is not None)
        ):
            self._program = self._prepared(value)
            self._source, self._scale = weakref.ref(value.source), scale
            self._moved = moves is not None
        if self._program is None or index.strides != (8,):
            value.write_into(self._place)
            return
        slots = self._slots
        slots[0] = _address(index)
        if moves is not None:
            if moves.strides[1] != 8:
                value.write_into(self._place)
                return
            first, step = _address(moves), moves.strides[0]
            slots[1:4] = first, first + step, first + 2 * step
        self._pool.run(self._program)

    def _lies_well(self, value: Array) -> bool:
        """Whether kernels can read an array as if it were the feed's own memory."""
        flags, own = value.flags, self._place
        if not (flags.c_contiguous and flags.aligned and value.dtype == own.dtype):
            return False
        # A last vector is read whole, as `Buffer.nbytes` makes room for.
        left = -(_address(value) + value.nbytes) % PAGE
        return value.shape == own.shape and left >= LANES * value.itemsize

    def _tell(self, address: int) -> None:
        """Makes the readers read from an address."""
        if address != self._told:
            for slot, offset in self._readers:
                slot[0] = address + offset
            self._told = address

    def _prepared(self, value: Any) -> Program | None:
        """The launch for what a value is made of; None if there is no kernel for it."""
        source, place = value.source, self._place
        if not (source.flags.c_contiguous and place.flags.c_contiguous and place.size):
            return None
        kernel: PicturesSpec | str
        arguments = {"source": _address(source), "out": _address(place)}
        if value.kind == "rows" and source.dtype == place.dtype:
            kernel = "rows"
            arguments["size"] = place.nbytes // len(place)
        elif value.kind == "pictures" and value.shape[2] * value.shape[3] <= LONGEST_ROW:
            scale = value.normalize
            moved = value.moves is not None
            _, height, width, channels = value.shape
            dtype = source.dtype.name
            kernel = PicturesSpec(height, width, channels, dtype, moved, scale is not None)
            if scale is not None:
                arguments |= {"mean": _address(scale[0]), "std": _address(scale[1])}
        else:
            return None
        if kernel not in self._known:
            self._known[kernel] = self._launch(kernel)
        program, slots = self._known[kernel]
        for number, name in enumerate(FIRST if isinstance(kernel, str) else fields(kernel)):
            if name in arguments:
                slots[number] = arguments[name]
        self._slots = slots
        return program

    def _launch(self, spec: PicturesSpec | str) -> tuple[Program, Array]:
        """A program of one launch, and its argument slots."""
        name = "rows" if isinstance(spec, str) else "pictures"
        source = KernelSource(
            (name,) if isinstance(spec, str) else (name, spec),
            build_rows if isinstance(spec, str) else functools.partial(build_pictures, spec),
        )
        layout, address = addresses([source])[source][name]
        count = len(self._place)
        block = count if self._place.nbytes <= ALONE else -(-count // TASKS)
        values = dict.fromkeys(layout.fields, 0) | {"count": count, "block": block}
        program = Program()
        program.launch(address, layout.pack(**values), -(-count // block), name)
        return program, program.slots(0)


def _nothing() -> None:
    return None


def _address(array: Array) -> int:
    number: int = array.__array_interface__["data"][0]
    return number
