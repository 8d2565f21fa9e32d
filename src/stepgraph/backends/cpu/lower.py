"""From a program to steps: layouts chosen, groups lowered in an order that frees memory early."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np

from stepgraph.backends.base import located
from stepgraph.backends.cpu.conversions import convert_weights
from stepgraph.backends.cpu.fusion import Fusion, Group, read_by
from stepgraph.backends.cpu.kinds import kind_of
from stepgraph.backends.cpu.layout_choice import Layouts
from stepgraph.backends.cpu.layouts import PANELS, ROWS, Layout, same_places
from stepgraph.backends.cpu.moments import lower_moments, pairs_of_moments
from stepgraph.backends.cpu.native import storage
from stepgraph.backends.cpu.nest_steps import copy_step
from stepgraph.backends.cpu.nests import lower_group
from stepgraph.backends.cpu.plan import Buffer, PythonStep, Step
from stepgraph.backends.cpu.prepared import fixed_operations
from stepgraph.backends.cpu.registry import LOWERINGS, UPDATING
from stepgraph.backends.cpu.schedule import descents_in_gradients, schedule
from stepgraph.backends.cpu.views import copy_all
from stepgraph.compiler.program import Program
from stepgraph.errors import FeedError
from stepgraph.graph.definition import Array
from stepgraph.graph.dtypes import DType
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import known_shape
from stepgraph.graph.tensor import Tensor


class Lowering:
    """What lowerings use: values in the layout they need, results, scratch, steps.

    Attributes:
        program: what is lowered.
        steps: so far.
        fusion: how operations were grouped.
        layouts: what layout each tensor prefers.
        feeds, targets: buffers by feed name, and in order of the targets.
        threads: how many will run it; only scratch memory depends on it.
        disabled: names of passes that are switched off.
        fixed: operations that give the same in every run (see `prepared`).
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
        self.disabled = frozenset(disable)
        self.steps: list[Step] = []
        self.feeds: dict[str, Buffer] = {}
        self._state = state
        self._buffers: dict[Tensor, dict[Layout, Buffer]] = {}
        self._variables: dict[str, Buffer] = {}
        self._variable_of = {t: n for n, t in program.variables.items()}
        operations = program.operations()
        folds = not {"fold_updates", "in_place", "layout"} & set(disable)
        self.fixed = fixed_operations(program) if "prepare" not in disable else set()
        self.fusion = Fusion(
            operations,
            kind_of,
            program.results(),
            enabled="fuse" not in disable,
            absorbed=descents_in_gradients(program, operations) if folds else {},
            fixed=self.fixed,
            keep_dear="keep_dear" not in disable,
        )
        laid_out = operations if "layout" not in disable else []
        self.layouts = Layouts(laid_out, self.fusion.kind, self.fixed)
        groups, self._in_place = schedule(program, self.fusion, "in_place" not in disable)
        self._run(groups)

    def _run(self, groups: Sequence[Group]) -> None:
        for name, tensor in self.program.feeds.items():
            shape = known_shape(tensor.shape)
            self.feeds[name] = Buffer(shape, tensor.dtype, ROWS, name, "feed")
            self._buffers[tensor] = {ROWS: self.feeds[name]}
        pairs = pairs_of_moments(self.fusion) if "moments" not in self.disabled else {}
        done: set[Group] = set()
        for group in groups:
            if group in done:
                continue
            if group in pairs and lower_moments(self, group, pairs[group]):
                done.add(pairs[group])
                continue
            if not group.is_heavy:
                lower_group(self, group)
                continue
            self._lower_heavy(group)
        self.targets = [self._target(t) for t in self.program.targets]
        self._write_back()

    def _lower_heavy(self, group: Group) -> None:
        op, *updates = group.operations
        if all(0 in known_shape(t.shape) for t in op.outputs) and not op.regions:
            for tensor in op.outputs:
                self.output(tensor, ROWS)
            return
        if group.updates and updates and UPDATING[op.type].lower(self, group):
            return
        lowering = LOWERINGS.get(op.type)
        if lowering is None or not lowering(self, op):
            self._fallback(op)
        for update in updates:
            shape = known_shape(update.output.shape)
            lower_group(self, Group([update], shape, stored=[update.output]))

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
            buffer = self._variable(self._variable_of[tensor], tensor)
            self._buffers[tensor] = {buffer.layout: buffer}
        elif tensor.operation.type == "constant":
            value = tensor.operation.attributes["value"]
            buffer = Buffer(value.shape, tensor.dtype, ROWS, tensor.name, "constant")
            buffer.storage = _padded(ROWS.pack(np.asarray(value)))
            self._buffers[tensor] = {ROWS: buffer}
        else:
            raise AssertionError(f"{tensor.name} is read before it is made")
        return self._buffers[tensor]

    def _variable(self, name: str, tensor: Tensor) -> Buffer:
        """A variable's memory, in the layout that its use in this program prefers.

        Args:
            name: the variable's.
            tensor: its value at the start of the run, or the one it gets.
        """
        if name not in self._variables:
            layout = self.layouts.get(self.program.variables.get(name, tensor))
            shape = known_shape(tensor.shape)
            self._variables[name] = self._state(name, layout, shape, tensor.dtype)
        return self._variables[name]

    def output(self, tensor: Tensor, layout: Layout) -> Buffer:
        """A new buffer for a result; the variable's own where it is updated in place."""
        shape = known_shape(tensor.shape)
        name = self._in_place.get(tensor)
        if name is not None:
            buffer = self._variable(name, tensor)
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
        shape = known_shape(tensor.shape)
        # Nothing is computed here that could be computed in a variable's place.
        self._in_place.pop(tensor, None)
        if buffer.root.kind == "state" and buffer.root.name in self.program.updates:
            # The variable may be overwritten before the view is read.
            view = Buffer(shape, tensor.dtype, buffer.layout, tensor.name)
            copy_all(self, buffer, view, "keep old value")
        else:
            view = Buffer(shape, tensor.dtype, buffer.layout, tensor.name, "view", base=buffer)
        self._buffers.setdefault(tensor, {})[buffer.layout] = view

    def scratch(self, shape: tuple[int, ...], dtype: DType, name: str) -> Buffer:
        """A buffer for intermediate results of a lowering."""
        return Buffer(shape, dtype, ROWS, name)

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
        plain = source.root.kind in ("arena", "feed")
        if plain and same_places(source.shape, source.layout, layout):
            named = f"{name}@{layout}"
            return Buffer(source.shape, source.dtype, layout, named, "view", base=source)
        target = Buffer(source.shape, source.dtype, layout, f"{name}@{layout}")
        if source.kind == "constant":
            values = source.layout.unpack(source.flat()[: source.count], source.shape)
            target.kind, target.storage = "constant", _padded(layout.pack(values))
            return target
        pair = {source.layout, layout}
        native = source.dtype.name in ("float32", "int32", "int64", "bool")
        if pair == {ROWS, PANELS} and native and source.count and source.shape:
            self.add(copy_step(source, target))
        elif not convert_weights(self, source, target):
            self.add(PythonStep(f"convert to {layout}", [source], [target], function=list))
        return target

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
                try:
                    found = reference(*[given[k] for k in place_of], **attributes)
                except FeedError as error:
                    raise located(error, op) from None
                return found if isinstance(found, tuple) else (found,)

        self.add(PythonStep(f"{op.type} (NumPy)", reads, writes, function=function))

    def _target(self, tensor: Tensor) -> Buffer:
        """A target's rows; a copy of a variable that this run changes."""
        buffer = self.value(tensor, ROWS)
        if buffer.root.kind != "state" or tensor not in self._variable_of:
            return buffer
        copy = Buffer(buffer.shape, buffer.dtype, ROWS, f"{buffer.name}/before")
        copy_all(self, buffer, copy, "keep old value")
        return copy

    def _write_back(self) -> None:
        """Variables whose new value was not computed in place are copied at the end."""
        pending = []
        for name, tensor in self.program.updates.items():
            if self._in_place.get(tensor) == name:
                continue
            pending.append((self._variable(name, tensor), tensor))
        # All values are made in the variables' layouts first: one may be another's old value.
        sources = [self.value(tensor, target.layout) for target, tensor in pending]
        staged = []
        for source, (target, _) in zip(sources, pending, strict=True):
            if source.kind == "state" and any(source is t for t, _ in pending):
                copy = Buffer(source.shape, source.dtype, source.layout, f"{source.name}/old")
                copy_all(self, source, copy, "keep old value")
                source = copy
            staged.append((source, target))
        for source, target in staged:
            copy_all(self, source, target, f"assign {target.name}")


def _padded(flat: Array) -> Array:
    """Constant elements with room for a last vector to be read whole."""
    slack = 128 // flat.dtype.itemsize
    whole = storage.zeros(flat.size + slack, flat.dtype)
    whole[: flat.size] = flat
    return whole
