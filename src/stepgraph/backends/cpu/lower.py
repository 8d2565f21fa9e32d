"""From a program to steps: layouts chosen, groups lowered in an order that frees memory early."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Sequence

import numpy as np

from stepgraph.backends.cpu.fusion import Fusion, Group, count, read_by
from stepgraph.backends.cpu.kernels.nest import NestSpec, Operand, build_nest
from stepgraph.backends.cpu.kernels.scalar_ops import emitter
from stepgraph.backends.cpu.layouts import PANELS, ROWS, Layout
from stepgraph.backends.cpu.nests import REDUCTIONS, lower_group, supported_axes
from stepgraph.backends.cpu.plan import At, Buffer, KernelSource, KernelStep, PythonStep, Step
from stepgraph.backends.cpu.registry import LOWERINGS, PREFERENCES, UPDATING
from stepgraph.backends.cpu.walks import collapse, place, walk
from stepgraph.compiler.program import Program
from stepgraph.graph.definition import Array
from stepgraph.graph.dtypes import DType
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import known_shape
from stepgraph.graph.tensor import Tensor

SOURCES = ("placeholder", "variable", "constant", "parameter")


def same_memory(op: Operation) -> bool:
    """A reshape that only adds or removes leading axes of size 1."""
    if op.type not in ("reshape", "expand_dims", "squeeze"):
        return False
    a, b = (list(known_shape(t.shape)) for t in (op.inputs[0], op.output))
    while a and a[0] == 1:
        a.pop(0)
    while b and b[0] == 1:
        b.pop(0)
    return a == b


def kind_of(op: Operation) -> str:
    """``map``, ``reduce``, ``heavy`` or ``source``; see `fusion`."""
    if op.type in SOURCES:
        return "source"
    if any(count(t) == 0 for t in (*op.inputs, *op.outputs)):
        return "heavy"
    if op.type == "broadcast" and op.output.dtype.name in ("float32", "int32", "int64", "bool"):
        return "map"
    if same_memory(op) and op.output.dtype.name in ("float32", "int32", "int64", "bool"):
        return "map"
    if op.type in REDUCTIONS:
        tensor = op.inputs[0]
        good = tensor.dtype.name == "float32" and count(tensor) > 0
        return (
            "reduce"
            if good and supported_axes(known_shape(tensor.shape), op.attributes["axes"])
            else "heavy"
        )
    dtypes = tuple(t.dtype.name for t in op.inputs)
    plain = len(op.outputs) == 1 and op.output.dtype.name in ("float32", "int32", "int64", "bool")
    if plain and op.definition.elementwise and emitter(op.type, dtypes) is not None:
        return "map"
    return "heavy"


class Layouts:
    """The layout of every tensor, decided before anything is lowered.

    Attributes:
        of: tensor to layout.
    """

    def __init__(self, operations: Sequence[Operation], kinds: dict[Operation, str]) -> None:
        self.of: dict[Tensor, Layout] = {}
        for op in operations:
            if op.type in PREFERENCES:
                PREFERENCES[op.type](self, op)
        for _ in range(2):  # the second turn reaches optimizer slots through what the first decided
            for op in operations:
                if kinds[op] == "map":
                    self._spread(op)

    def _spread(self, op: Operation) -> None:
        """Results of elementwise ops, and variables beside them, follow the laid-out operand."""
        same = [t for t in op.inputs if t.shape == op.output.shape]
        chosen = next((self.of[t] for t in [op.output, *same] if t in self.of), None)
        if chosen is None or chosen is ROWS:
            return
        self.of.setdefault(op.output, chosen)
        for tensor in same:
            if tensor.operation.type == "variable":
                self.of.setdefault(tensor, chosen)

    def get(self, tensor: Tensor) -> Layout:
        """The layout a tensor is made in."""
        return self.of.get(tensor, ROWS)


class Lowering:
    """What lowerings use: values in the layout they need, results, scratch, steps.

    Attributes:
        program: what is lowered.
        steps: so far.
        fusion: how operations were grouped.
        layouts: what layout each tensor prefers.
        feeds, targets: buffers by feed name, and in order of the targets.
        threads: how many will run it; only scratch memory depends on it.
    """

    def __init__(
        self,
        program: Program,
        state: Callable[[str, Layout, tuple[int, ...], DType], Buffer],
        disable: Collection[str] = (),
        threads: int = 1,
    ) -> None:
        self.program = program
        self.threads = threads
        self.steps: list[Step] = []
        self.feeds: dict[str, Buffer] = {}
        self._state = state
        self._buffers: dict[Tensor, dict[Layout, Buffer]] = {}
        self._in_place: dict[Tensor, str] = {}
        self._variable_of = {t: n for n, t in program.variables.items()}
        operations = program.operations()
        self.fusion = Fusion(
            operations,
            kind_of,
            program.results(),
            enabled="fuse" not in disable,
            absorbed=self._updates_of_gradients(operations, disable),
        )
        self.layouts = Layouts(
            operations,
            self.fusion.kind if "layout" not in disable else dict.fromkeys(operations, ""),
        )
        if "layout" in disable:
            self.layouts.of.clear()
        self._allow_in_place = "in_place" not in disable
        self._run()

    # -- order ---------------------------------------------------------------------------------

    def _run(self) -> None:
        for name, tensor in self.program.feeds.items():
            shape = known_shape(tensor.shape)
            self.feeds[name] = Buffer(shape, tensor.dtype, ROWS, name, "feed")
            self._buffers[tensor] = {ROWS: self.feeds[name]}
        for group in self._ordered():
            if not group.is_heavy:
                lower_group(self, group)
                continue
            self._lower_heavy(group)
        self.targets = [self._target(t) for t in self.program.targets]
        self._write_back()

    def _lower_heavy(self, group: Group) -> None:
        op, *updates = group.operations
        if updates and group.updates:
            if UPDATING[op.type].lower(self, group):
                return
        lowering = LOWERINGS.get(op.type)
        if lowering is None or not lowering(self, op):
            self._fallback(op)
        for update in updates:
            shape = known_shape(update.output.shape)
            lower_group(self, Group([update], shape, stored=[update.output]))

    def _updates_of_gradients(
        self, operations: Sequence[Operation], disable: Collection[str]
    ) -> dict[Operation, Operation]:
        """Steps of gradient descent that can be written by the kernel of the weight gradient."""
        if "fold_updates" in disable or "in_place" in disable or "layout" in disable:
            return {}
        uses = Counter(id(t) for op in operations for t in read_by(op))
        uses.update(id(t) for t in self.program.results())
        found: dict[Operation, Operation] = {}
        for name, tensor in self.program.updates.items():
            update = tensor.operation
            if update.type != "stochastic_gradient_descent":
                continue
            rate, values, gradient = update.inputs
            maker = gradient.operation
            alone = uses[id(gradient)] == 1 and uses[id(tensor)] == 1
            own = self.program.variables.get(name) is values and count(rate) == 1
            if alone and own and maker.type in UPDATING and UPDATING[maker.type].fits(maker):
                found[update] = maker
        return found

    def _ordered(self) -> list[Group]:
        """Groups in an order that respects data, and lets updates happen as soon as they may."""
        groups = self.fusion.groups
        reads = {g: self._reads(g) for g in groups}
        before: dict[Group, set[Group]] = {g: set() for g in groups}
        for g, tensors in reads.items():
            for tensor in tensors:
                maker = self.fusion.group_of.get(tensor.operation)
                if maker is not None and maker is not g:
                    before[g].add(maker)
        if self._allow_in_place:
            self._plan_updates(reads, before)
        return _topological(groups, before, {g for g in groups if g.updates})

    def _reads(self, group: Group) -> list[Tensor]:
        if group.is_heavy:
            inside = set(group.operations)
            read = [t for op in group.operations for t in read_by(op)]
            return [t for t in read if t.operation not in inside]
        return self.fusion.expression(group)[1]

    def _plan_updates(
        self, reads: dict[Group, list[Tensor]], before: dict[Group, set[Group]]
    ) -> None:
        """Lets a group write a variable in place when every other reader can come first."""
        readers: dict[Tensor, list[Group]] = {}
        for g, tensors in reads.items():
            for tensor in tensors:
                if tensor in self._variable_of:
                    readers.setdefault(tensor, []).append(g)
        targets = set(self.program.targets)
        uses = Counter(id(t) for t in self.program.updates.values())
        for name, tensor in self.program.updates.items():
            group = self.fusion.group_of.get(tensor.operation)
            variable = self.program.variables.get(name)
            if group is None or uses[id(tensor)] > 1:
                continue
            if variable is not None and variable in targets:
                continue
            known = readers.get(variable, []) if variable is not None else []
            others = [g for g in known if g is not group]
            if any(_depends(g, {group}, before) for g in others):
                continue
            reads_own = variable is not None and group in readers.get(variable, ())
            if reads_own and group.is_heavy and len(group.operations) == 1:
                continue
            before[group].update(others)
            group.updates[name] = tensor
            self._in_place[tensor] = name

    # -- values --------------------------------------------------------------------------------

    def add(self, step: Step) -> None:
        """Appends a step."""
        self.steps.append(step)

    def number(self, tensor: Tensor) -> float | int | bool | None:
        """The number every element of a constant has; None if it is no such constant."""
        if tensor.operation.type != "constant":
            return None
        value: Array = tensor.operation.attributes["value"]
        if value.size == 0:
            return None
        if value.size == 1 or all(s == 0 for s in value.strides):
            number: float | int | bool = (
                value.reshape(-1)[0].item() if value.size == 1 else value.flat[0].item()
            )
            return number
        return None

    def value(self, tensor: Tensor, layout: Layout) -> Buffer:
        """A tensor's buffer in a layout, converted once if need be."""
        made = self._made(tensor)
        if layout not in made:
            source = next(iter(made.values()))
            made[layout] = self._convert(source, layout, tensor.name)
        return made[layout]

    def any_value(self, tensor: Tensor, layouts: Sequence[Layout], prefer: Layout) -> Buffer:
        """A tensor's buffer in one of several layouts, without conversion if possible."""
        made = self._made(tensor)
        if prefer in made and prefer in layouts:
            return made[prefer]
        for layout in layouts:
            if layout in made:
                return made[layout]
        return self.value(tensor, prefer if prefer in layouts else layouts[0])

    def _made(self, tensor: Tensor) -> dict[Layout, Buffer]:
        made = self._buffers.get(tensor)
        if made:
            return made
        if tensor in self._variable_of:
            name = self._variable_of[tensor]
            buffer = self._state(
                name, self.layouts.get(tensor), known_shape(tensor.shape), tensor.dtype
            )
            self._buffers[tensor] = {buffer.layout: buffer}
        elif tensor.operation.type == "constant":
            value = tensor.operation.attributes["value"]
            buffer = Buffer(value.shape, tensor.dtype, ROWS, tensor.name, "constant")
            buffer.storage = _padded(ROWS.pack(np.asarray(value)))
            self._buffers[tensor] = {ROWS: buffer}
        else:
            raise AssertionError(f"{tensor.name} is read before it is made")
        return self._buffers[tensor]

    def output(self, tensor: Tensor, layout: Layout) -> Buffer:
        """A new buffer for a result; the variable's own where it is updated in place."""
        shape = known_shape(tensor.shape)
        name = self._in_place.get(tensor)
        if name is not None:
            buffer = self._state(name, layout, shape, tensor.dtype)
            if buffer.layout is not layout:
                del self._in_place[tensor]
                buffer = Buffer(shape, tensor.dtype, layout, tensor.name)
        else:
            buffer = Buffer(shape, tensor.dtype, layout, tensor.name)
        self._buffers.setdefault(tensor, {})[layout] = buffer
        return buffer

    def has(self, tensor: Tensor, layout: Layout) -> bool:
        """Whether a tensor's value is there in a layout already."""
        return layout in self._made(tensor)

    def alias(self, tensor: Tensor, buffer: Buffer) -> None:
        """Makes a buffer that exists a result as well: a view of other shape, same memory."""
        view = Buffer(
            known_shape(tensor.shape), tensor.dtype, buffer.layout, tensor.name, "view", base=buffer
        )
        self._buffers.setdefault(tensor, {})[buffer.layout] = view

    def scratch(self, shape: tuple[int, ...], dtype: DType, name: str) -> Buffer:
        """A buffer for intermediate results of a lowering."""
        return Buffer(shape, dtype, ROWS, name)

    def updated_in_place(self, tensor: Tensor) -> str | None:
        """The variable whose memory a result is written to."""
        return self._in_place.get(tensor)

    def layout_of_group(self, group: Group, inputs: Sequence[Tensor]) -> Layout:
        """The layout a nest's full operands agree on best."""
        full = group.shape or ()
        for tensor in [*group.stored, *inputs]:
            if known_shape(tensor.shape) != full:
                continue
            made = self._buffers.get(tensor)
            choices: list[Layout] = [self.layouts.get(tensor), *(made or ())]
            for layout in choices:
                if layout is not ROWS:
                    return layout
        return ROWS

    # -- conversions, fallbacks, ends ----------------------------------------------------------

    def _convert(self, source: Buffer, layout: Layout, name: str) -> Buffer:
        target = Buffer(source.shape, source.dtype, layout, f"{name}@{layout}")
        if source.kind == "constant":
            values = source.layout.unpack(source.flat()[: source.count], source.shape)
            target.kind, target.storage = "constant", _padded(layout.pack(values))
            return target
        pair = {source.layout, layout}
        native = source.dtype.name in ("float32", "int32", "int64", "bool")
        if pair == {ROWS, PANELS} and native and source.count and source.shape:
            self.copy(source, target)
        else:
            self.add(PythonStep(f"convert to {layout}", [source], [target], function=list))
        return target

    def copy(self, source: Buffer, target: Buffer) -> None:
        """A step that copies between rows and panels."""
        shape = source.shape or (1,)
        walks = [walk(shape, shape, b.layout) for b in (source, target)]
        sizes, _ = collapse(list(shape[:-1]), walks, set())
        grid = place(sizes, shape[-1], set(), False, True)
        arguments: dict[str, object] = {"rows": grid.rows, "mid": grid.mid}
        block = max(1, min(grid.mid, 1024))
        arguments |= {"row_block": grid.rows, "mid_block": block, "row_blocks": 1}
        blocks = -(-grid.mid // block)
        arguments |= {"mid_blocks": blocks}
        arguments |= {f"outer{k}": size for k, size in enumerate(grid.outer)}
        operands = []
        for label, buffer, w in zip(("in0", "out0"), (source, target), walks, strict=True):
            outer = [0] * len(grid.outer)
            row = mid = 0
            for stride, (where, k) in zip(w.lead, grid.order, strict=True):
                if where == "outer":
                    outer[k] = stride
                elif where == "row":
                    row = stride
                else:
                    mid = stride
            outer[grid.chunk] = w.chunk
            arguments[label] = At(buffer)
            arguments |= {f"{label}_o{k}": s for k, s in enumerate(outer) if s}
            if row:
                arguments[f"{label}_r"] = row
            if mid:
                arguments[f"{label}_m"] = mid
            operands.append(
                Operand(buffer.dtype.name, tuple(map(bool, outer)), bool(row), bool(mid), "next")
            )
        # To panels the lanes past the end are filled with zeros, to rows they are left out.
        zero = grid.masked and target.layout is PANELS
        spec = NestSpec(
            (operands[0],),
            (),
            ((0, operands[1]),),
            masked=grid.masked,
            chunk=grid.chunk,
            zeros=zero,
        )
        if grid.masked:
            arguments["lanes"] = grid.lanes
        self.add(
            KernelStep(
                f"{source.layout} to {target.layout}",
                [source],
                [target],
                source=KernelSource(("nest", spec), lambda: build_nest(spec)),
                kernel="nest",
                arguments=arguments,
                tasks=int(np.prod(grid.outer, dtype=np.int64)) * blocks,
            )
        )

    def _fallback(self, op: Operation) -> None:
        """The op's NumPy reference, between launches."""
        reference = op.definition.reference
        attributes = op.attributes
        number_of = {t: k for k, t in enumerate(dict.fromkeys(op.inputs))}
        distinct = list(number_of)
        skipped = set(op.inputs) - set(read_by(op))
        reads = [self.value(t, ROWS) for t in distinct if t not in skipped]
        writes = [self.output(t, ROWS) for t in op.outputs]
        place_of = [number_of[t] for t in op.inputs]
        if op.regions or reference is None:
            from stepgraph.backends.cpu.regions import region_function

            function = region_function(op, distinct, self.threads)
        else:
            # What only lends its shape is not kept in memory for that.
            shapes = {
                k: np.broadcast_to(np.zeros((), t.dtype.numpy), known_shape(t.shape))
                for k, t in enumerate(distinct)
                if t in skipped
            }

            def function(arrays: Sequence[Array]) -> Sequence[Array]:
                queue = iter(arrays)
                given = [shapes[k] if k in shapes else next(queue) for k in range(len(distinct))]
                found = reference(*[given[k] for k in place_of], **attributes)
                return found if isinstance(found, tuple) else (found,)

        self.add(PythonStep(f"{op.type} (NumPy)", reads, writes, function=function))

    def _target(self, tensor: Tensor) -> Buffer:
        """A target's rows; a copy of a variable that this run changes."""
        buffer = self.value(tensor, ROWS)
        if buffer.root.kind != "state" or tensor not in self._variable_of:
            return buffer
        copy = Buffer(buffer.shape, buffer.dtype, ROWS, f"{buffer.name}/before")
        self.add(PythonStep("keep old value", [buffer], [copy], function=list))
        return copy

    def _write_back(self) -> None:
        """Variables whose new value was not computed in place are copied at the end."""
        pending = []
        for name, tensor in self.program.updates.items():
            if self._in_place.get(tensor) == name:
                continue
            shape = known_shape(tensor.shape)
            layout = self.layouts.get(self.program.variables.get(name, tensor))
            pending.append((self._state(name, layout, shape, tensor.dtype), tensor))
        # All values are made in the variables' layouts first: one may be another's old value.
        sources = [self.value(tensor, target.layout) for target, tensor in pending]
        staged = []
        for source, (target, _) in zip(sources, pending, strict=True):
            if source.kind == "state" and any(source is t for t, _ in pending):
                copy = Buffer(source.shape, source.dtype, source.layout, f"{source.name}/old")
                self.add(PythonStep("keep old value", [source], [copy], function=list))
                source = copy
            staged.append((source, target))
        for source, target in staged:
            self.add(PythonStep(f"assign {target.name}", [source], [target], function=list))


def _padded(flat: Array) -> Array:
    """Constant elements with room for a last vector to be read whole."""
    slack = 128 // flat.dtype.itemsize
    whole = np.zeros(flat.size + slack, flat.dtype)
    whole[: flat.size] = flat
    return whole


def _depends(group: Group, on: set[Group], before: dict[Group, set[Group]]) -> bool:
    seen: set[Group] = set()
    stack = [group]
    while stack:
        at = stack.pop()
        if at in on:
            return True
        if at not in seen:
            seen.add(at)
            stack.extend(before[at])
    return False


def _topological(
    groups: Sequence[Group], before: dict[Group, set[Group]], early: set[Group]
) -> list[Group]:
    """Respects `before`; otherwise the program's order, the `early` ones as soon as may be."""
    after: dict[Group, list[Group]] = {g: [] for g in groups}
    missing = {g: len(before[g]) for g in groups}
    for g in groups:
        for b in before[g]:
            after[b].append(g)
    rank = {
        g: (-1 if g in early else max(op.serial for op in g.operations), i)
        for i, g in enumerate(groups)
    }
    by_rank = {rank[g]: g for g in groups}
    ready = [rank[g] for g in groups if not missing[g]]
    heapq.heapify(ready)
    ordered: list[Group] = []
    while ready:
        g = by_rank[heapq.heappop(ready)]
        ordered.append(g)
        for a in after[g]:
            missing[a] -= 1
            if not missing[a]:
                heapq.heappush(ready, rank[a])
    assert len(ordered) == len(groups), "groups depend on each other in a circle"
    return ordered
