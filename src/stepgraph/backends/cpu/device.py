"""The CPU engine as a device: compile, plan, run."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from stepgraph.backends.base import StepTime
from stepgraph.backends.cpu import lowering as _lowerings
from stepgraph.backends.cpu.chains import chained
from stepgraph.backends.cpu.crop_taps import crop_taps
from stepgraph.backends.cpu.feeding import Feeder, lent_feeds
from stepgraph.backends.cpu.fold_scales import fold_scales
from stepgraph.backends.cpu.kernels.library import addresses, fetch_module
from stepgraph.backends.cpu.lower import Lowering
from stepgraph.backends.cpu.memory import Arena
from stepgraph.backends.cpu.native import storage
from stepgraph.backends.cpu.native.chain import ENTRY, TILED_ENTRY, chain_module
from stepgraph.backends.cpu.native.emit import Arguments
from stepgraph.backends.cpu.native.pool import Pool, default_threads, shared_pool
from stepgraph.backends.cpu.native.pool import Program as NativeProgram
from stepgraph.backends.cpu.plan import (
    At,
    Buffer,
    ChainStep,
    KernelSource,
    KernelStep,
    PythonStep,
    Scaled,
    Step,
    Tile,
)
from stepgraph.backends.cpu.pooled_activations import pooled_activations
from stepgraph.backends.cpu.prepared import split, variables_of
from stepgraph.backends.cpu.registry import LOWERINGS
from stepgraph.backends.cpu.rewrites import normal_forms
from stepgraph.backends.cpu.state import CpuState
from stepgraph.backends.cpu.variable_shapes import settle_shapes
from stepgraph.compiler.pipeline import PASSES, Pass, compile_program
from stepgraph.compiler.program import Program
from stepgraph.errors import GraphError, describe, nearest
from stepgraph.graph.definition import Array, OpDefinition
from stepgraph.graph.dtypes import DType
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import Shape
from stepgraph.graph.tensor import Tensor, Variable

assert _lowerings.FAMILIES  # importing them fills the table

# The passes on the program, in order: this engine's rules come around the others.
ALL_PASSES: dict[str, Pass] = {
    "normal_forms": normal_forms,
    "pooled_activations": pooled_activations,
    **PASSES,
    "fold_scales": fold_scales,
    "crop_taps": crop_taps,
}
# Passes that cost more than they win where their results are not prepared.
FOR_PREPARED = ("fold_scales", "crop_taps")
# What this engine does after them; each can be switched off by name, as the passes can.
OWN_PASSES = (
    *("variable_shapes", "fuse", "layout", "in_place", "fold_updates", "share_memory", "winograd"),
    *("moments", "chain", "tiles", "ask_ahead", "gather_taps", "few_rows", "prepare", "keep_dear"),
    "lend_feeds",
)

# Composites that run faster spelled out, because the parts fuse with what stands around them.
SPELLED_OUT = (
    *("mean", "variance", "normalize", "layer_normalization", "batch_normalization"),
    *("normalization_gradient", "normalization_gamma_gradient", "normalization_beta_gradient"),
    "adam",
)


def supports(definition: OpDefinition) -> bool:
    """Whether an op is lowered as it stands; others with a decomposition are spelled out."""
    if definition.name in SPELLED_OUT:
        return False
    return (
        definition.name in LOWERINGS or definition.elementwise or definition.reference is not None
    )


# The launch that fills in an argument of the next one.
FETCH = "fetch"
# A launch that only holds the arguments of a chain's member.
PART = "part"


class CpuRunner:
    """A program with its memory and launches, ready to run."""

    def __init__(
        self, program: Program, state: CpuState, pool: Pool, disable: Collection[str]
    ) -> None:
        self.program = program
        self._pool = pool
        self._state = state
        self._disable = disable
        self._build()

    def _build(self) -> None:
        """Lowers the program, plans its memory, lays out its launches."""
        share = "share_memory" not in self._disable
        search = "variable_shapes" not in self._disable
        program = settle_shapes(self.program, self._state.shapes, search)
        lowering = Lowering(program, self._state.buffer, self._disable, self._pool.threads)
        self.steps: list[Step] = lowering.steps
        kept = [*lowering.feeds.values(), *lowering.targets]
        self.prepared: list[Step] = []
        results: list[Buffer] = []
        if "prepare" not in self._disable:
            self.prepared, self.steps, results = split(self.steps, program.updates, kept)
        self._prepared_arena = Arena(self.prepared, results, share=share)
        for buffer in self._prepared_arena.buffers:
            buffer.kind = "prepared"
        self._prepared_from = variables_of(self.prepared)
        if "chain" not in self._disable:
            tiled, asking = (name not in self._disable for name in ("tiles", "ask_ahead"))
            self.steps = chained(self.steps, kept, self._pool.threads, tiled, asking)
        self.arena = Arena(self.steps, kept, share=share)
        feeds = lowering.feeds.items()
        feeders = {b: Feeder(b.elements.reshape(b.shape), self._pool) for _, b in feeds}
        self._feeders = [(n, feeders[b]) for n, b in feeds]
        self._results = [b.elements.reshape(b.shape) for b in lowering.targets]
        # Launches that fetch an argument: (their record, the record they fill in, its slot).
        self._fetches: list[tuple[int, int, int]] = []
        # Arguments that are addresses in feeds: (the feed, record, slot, bytes from its start).
        self._feed_slots: list[tuple[Buffer, int, int, int]] = []
        # What chains look up while they run.
        self._tables: list[Array] = []
        self._preparing = self._load(self.prepared) if self.prepared else None
        self._native = self._load(self.steps)
        if "lend_feeds" not in self._disable:
            self._lend(feeders, lowering.targets)
        self._version = self._state.version
        # State of the variables that prepared launches read when they last ran.
        self._latest = -1
        self._written: dict[str, int] | None = None

    def _load(self, steps: Sequence[Step]) -> NativeProgram:
        native = NativeProgram()
        self._fetches.clear()
        self._feed_slots.clear()
        kernels = [s for step in steps for s in _kernels_of(step)]
        table = addresses([s.source for s in kernels if s.source is not None])
        chains: list[tuple[ChainStep, list[tuple[int, int]], Array]] = []
        for step in steps:
            if isinstance(step, PythonStep):
                native.call(step.run)
                continue
            launched, fields = [], []
            for member in _kernels_of(step):
                assert member.source is not None
                alone = member is step
                layout, address = table[member.source][member.kernel]
                number = self._launch(native, member, layout, address, alone)
                launched.append((address, number))
                fields.append(list(layout.fields))
            if isinstance(step, ChainStep):
                chains.append((step, launched, self._launch_chain(native, step, fields)))
        for chain, launched, entries in chains:
            wheres = [(address, native.slots(number).ctypes.data) for address, number in launched]
            ranges = (one for ranges in chain.ranges for one in ranges)
            entries[:, :ENTRY] = [
                (*wheres[member], first, count) for member, first, count in ranges
            ]
        for fetch, number, slot in self._fetches:
            native.slots(fetch)[1] = native.slots(number)[slot : slot + 1].ctypes.data
        return native

    def _lend(self, feeders: Mapping[Buffer, Feeder], targets: Sequence[Buffer]) -> None:
        """Lets launches read feeds where their arrays are."""
        members: list[Step] = []
        for step in self.steps:
            members += _kernels_of(step) or [step]
        lent = lent_feeds(members, targets)
        readers: dict[Buffer, list[tuple[Array, int]]] = {feed: [] for feed in lent}
        for feed, number, slot, offset in self._feed_slots:
            if feed in lent:
                readers[feed].append((self._native.slots(number)[slot : slot + 1], offset))
        for feed, slots in readers.items():
            feeders[feed].lend(slots)

    def _launch_chain(
        self, native: NativeProgram, step: ChainStep, fields: Sequence[Sequence[str]]
    ) -> Array:
        """Adds the launch of a chain; returns its table, yet to be filled in.

        Args:
            native: what it becomes part of.
            step: the chain.
            fields: the names of each member's arguments, in order.
        """
        source = KernelSource(("chain",), chain_module)
        kernel = "tiled_chain" if step.tiles else "chain"
        layout, address = addresses([source])[source][kernel]
        lengths = [len(ranges) for ranges in step.ranges]
        starts = storage.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=starts[1:])
        width = TILED_ENTRY if step.tiles else ENTRY
        entries: Array = storage.zeros(int(starts[-1]) * width, np.int64).reshape(-1, width)
        self._tables += [starts, entries]
        tables: dict[str, float] = {"starts": starts.ctypes.data, "table": entries.ctypes.data}
        if step.tiles:
            moves = _moves(step, fields, entries)
            self._tables.append(moves)
            tables |= {"moves": moves.ctypes.data, "stride": step.tile_bytes}
        native.launch(address, layout.pack(**tables), step.tasks, step.name)
        return entries

    def _launch(
        self,
        native: NativeProgram,
        step: KernelStep,
        layout: Arguments,
        address: int,
        alone: bool,
    ) -> int:
        """Adds a launch; float arguments that lie in memory are fetched by a launch before it.

        What is part of a chain gets a launch of no tasks, which holds its arguments.
        """
        fetched = {n: v for n, v in step.arguments.items() if isinstance(v, Scaled)}
        records = []
        for value in fetched.values():
            source = KernelSource(("fetch",), fetch_module)
            fetch_layout, fetch_address = addresses([source])[source]["fetch"]
            packed = fetch_layout.pack(source=_number(value.buffer), target=0, factor=value.factor)
            records.append(native.launch(fetch_address, packed, 1, FETCH))
        values = {
            name: 0.0 if name in fetched else _number(value)
            for name, value in step.arguments.items()
        }
        tasks, name = (step.tasks, step.name) if alone else (0, PART)
        number = native.launch(address, layout.pack(**values), tasks, name)
        slots = list(layout.fields)
        for name, value in step.arguments.items():
            place = At(value) if isinstance(value, Buffer) else value
            if isinstance(place, At) and place.buffer.root.kind == "feed":
                offset = place.offset * place.buffer.flat().itemsize
                self._feed_slots.append((place.buffer.root, number, slots.index(name), offset))
        for record, name in zip(records, fetched, strict=True):
            self._fetches.append((record, number, slots.index(name)))
        return number

    @property
    def planned_bytes(self) -> int:
        """Memory planned for intermediate values and feeds."""
        return self.arena.nbytes

    @property
    def held_bytes(self) -> int:
        """Memory of the variables and constants that the steps touch, and of what is prepared."""
        steps = [*self.prepared, *self.steps]
        buffers = {b.root for step in steps for b in (*step.reads, *step.writes)}
        held = sum(b.nbytes for b in buffers if b.kind in ("state", "constant"))
        return held + self._prepared_arena.nbytes

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Runs once."""
        self._ready()
        self._feed(feeds)
        try:
            self._pool.run(self._native)
        finally:
            self._mark_updates()
        return [rows.copy() for rows in self._results]

    def _ready(self) -> None:
        """Lays the program out anew if memory moved, prepares anew what was made of old values."""
        state = self._state
        if self._version != state.version:
            self._build()
        if self._latest == state.latest or self._preparing is None:
            return
        # Looked up before: a value written meanwhile is newer than what is prepared.
        latest, written = state.latest, {n: state.written[n] for n in self._prepared_from}
        if self._written != written:
            self._pool.run(self._preparing)
        self._latest, self._written = latest, written

    def _mark_updates(self) -> None:
        if self.program.updates:
            own = self._latest == self._state.latest
            self._state.mark_written(self.program.updates)
            # What it updates itself it has not prepared.
            self._latest = self._state.latest if own else self._latest

    def _feed(self, feeds: Mapping[str, Array]) -> None:
        for name, feeder in self._feeders:
            feeder.write(feeds[name])

    def profile(self, feeds: Mapping[str, Array]) -> list[StepTime]:
        """Runs once, launch by launch; each figure includes about a microsecond for starting it.

        What is prepared is not among them.
        """
        self._ready()
        self._feed(feeds)
        found = []
        steps = iter(self.steps)
        try:
            times = self._pool.profile(self._native)
        finally:
            self._mark_updates()
        for name, seconds in times:
            if name == PART:
                continue
            if name == FETCH:
                found.append(StepTime(name, seconds, 0))
            else:
                step = next(steps)
                found.append(StepTime(step.name, seconds, step.flops))
        return found

    def describe(self) -> str:
        """The steps, the buffers they touch, the planned memory."""
        lines = [f"program {self.program.graph.name} on cpu, {self._pool.threads} threads"]
        if self.prepared:
            lines.append("  prepared, and again after a variable is written:")
        lines += [f"    {_in_words(step)}" for step in self.prepared]
        lines += [f"  {_in_words(step)}" for step in self.steps]
        python = sum(isinstance(s, PythonStep) for s in self.steps)
        lines.append(f"  {len(self.steps) - python} launches, {python} Python steps")
        planned, naive = self.arena.nbytes / 1e6, self.arena.naive / 1e6
        lines.append(f"  arena {planned:.1f} MB (without sharing {naive:.1f} MB)")
        kept = self._prepared_arena.nbytes
        if self.prepared:
            lines.append(f"  {len(self.prepared)} prepared steps, {kept / 1e6:.1f} MB")
        lines.append(f"  variables and constants {(self.held_bytes - kept) / 1e6:.1f} MB")
        return "\n".join(lines)


def _in_words(step: Step) -> str:
    reads = ", ".join(f"{b.name}:{b.layout}" for b in step.reads)
    writes = ", ".join(f"{b.name}:{b.layout}" for b in step.writes)
    tasks = f" x{step.tasks}" if isinstance(step, KernelStep | ChainStep) else ""
    return f"{writes} <- {step.name}{tasks}({reads})"


def _moves(step: ChainStep, fields: Sequence[Sequence[str]], entries: Array) -> Array:
    """The table of moved addresses; fills in where each entry's begin, and how many they are."""
    assert step.tile_memory is not None
    memory = step.tile_memory.flat().ctypes.data
    tile_of = {tile.buffer: tile for tile in step.tiles}
    found: list[list[tuple[int, Tile]]] = [
        [
            (slot, tile_of[value.buffer.root])
            for slot, value in enumerate(member.arguments[name] for name in names)
            if isinstance(value, At) and value.buffer.root in tile_of
        ]
        for member, names in zip(step.members, fields, strict=True)
    ]
    moves: list[tuple[int, int]] = []
    entry = 0
    for task, ranges in enumerate(step.ranges):
        for member, _, _ in ranges:
            if found[member]:
                slots = len(step.members[member].arguments)
                entries[entry, ENTRY:] = slots, len(moves), len(found[member])
                moves += [
                    (slot, memory + tile.offset - tile.starts[task]) for slot, tile in found[member]
                ]
            entry += 1
    table: Array = storage.zeros(2 * len(moves), np.int64).reshape(-1, 2)
    table[:] = moves
    return table


def _kernels_of(step: Step) -> list[KernelStep]:
    """The kernels that a step launches."""
    if isinstance(step, ChainStep):
        return step.members
    return [step] if isinstance(step, KernelStep) else []


def _number(value: Any) -> float:
    if isinstance(value, Buffer):
        value = At(value)
    if isinstance(value, At):
        if value.buffer.root.kind == "tile":
            return 0  # moved in each task
        flat = value.buffer.flat()
        return flat.ctypes.data + value.offset * flat.itemsize
    number: float = value
    return number


class CpuDevice:
    """This machine's processor."""

    name = "cpu"
    overlaps = False
    defers = True

    def unavailable(self) -> str | None:
        """Llvmlite is imported by this module, so it is there."""
        return None

    def summary(self) -> str:
        """One line for people."""
        from stepgraph.backends.cpu.native.target import host_target

        target = host_target()
        return f"{target.cpu}, {target.vector_bits}-bit vectors, {default_threads()} threads"

    def supports(self, definition: OpDefinition) -> bool:
        """Whether an op is lowered as it stands."""
        return supports(definition)

    def new_state(self, variables: Mapping[str, Variable], variant: str) -> CpuState:
        """Fresh values."""
        if variant:
            raise GraphError(describe("device", f"'cpu' has no variant '{variant}'"))
        return CpuState(variables)

    def feed_array(self, shape: Sequence[int], dtype: DType) -> Array:
        """An array; a run reads it where it lies, or copies it (`feeding`)."""
        return np.empty(tuple(shape), dtype.numpy)

    def prepare(
        self,
        graph: Graph,
        feeds: Mapping[Tensor, Shape],
        targets: Sequence[Tensor],
        operations: Sequence[Operation],
        values: Mapping[str, Array],
        state: Any,
        variant: str,
        *,
        disable: Sequence[str] = (),
        threads: int | None = None,
    ) -> CpuRunner:
        """Compiles; see `Graph.compile`."""
        for name in disable:
            if name not in ALL_PASSES and name not in OWN_PASSES:
                known = [*ALL_PASSES, *OWN_PASSES]
                raise GraphError(describe("disable", f"no pass '{name}'", fix=nearest(name, known)))
        program = compile_program(
            graph,
            feeds,
            targets,
            operations,
            values=values,
            supports=supports,
            passes=ALL_PASSES,
            disable=[
                name
                for name in ALL_PASSES
                if name in disable or ("prepare" in disable and name in FOR_PREPARED)
            ],
        )
        return CpuRunner(program, state, _pool(threads), disable)


@functools.cache
def _pool(threads: int | None) -> Pool:
    return shared_pool() if threads is None else Pool(threads)


DEVICE = CpuDevice()
