"""Which operations a run needs, in which order, and the run itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from . import dtypes
from .errors import Refused
from .objects import Object


def predecessors(op: Object) -> list[Object]:
    return [t.operation for t in (*op.inputs, *op.captures)] + op.control


def order(roots: Iterable[Object], inside: Any = None) -> list[Object]:
    """All operations that the roots need, each after what it needs itself.

    With `inside`, only those of that scope: the others are done already.
    """
    done: set[int] = set()
    result: list[Object] = []
    for root in roots:
        stack = [(root, False)]
        while stack:
            op, ready = stack.pop()
            if op.serial in done or (inside is not None and op.scope is not inside):
                continue
            if ready:
                done.add(op.serial)
                result.append(op)
            else:
                stack.append((op, True))
                stack += [(p, False) for p in reversed(predecessors(op)) if p.serial not in done]
    return result


def check_order(schedule: Sequence[Object], targets: Sequence[Object], *, hangs: bool) -> None:
    """Refuses reads and assigns of one variable that nothing orders, and two assigns of one."""
    nested = [(op, op) for op in schedule] + [
        (inner, op) for op in schedule for inner in _inner_operations(op)
    ]
    assigns = _assigns(op for op, _ in nested)
    if not assigns:
        return
    outer = {op.serial: top for op, top in nested}
    readers = _readers((op for op, _ in nested), assigns)
    for t in targets:
        if t.operation.serial in assigns:
            raise Refused(
                f"variable {t.operation.name!r} is a target of a run that assigns it: "
                "nothing says whether the old or the new value comes back"
            )
    before = _ancestors(schedule, {outer[o.serial].serial for rs in readers.values() for o in rs})
    after = _ancestors(schedule, {outer[a.serial].serial for a in assigns.values()})
    for serial, assign in assigns.items():
        top = outer[assign.serial].serial
        for reader in readers.get(serial, ()):
            r = outer[reader.serial].serial
            if r in before[top]:
                continue
            if top in after[r]:
                if hangs:
                    raise Refused(
                        f"variable {assign.variable.name!r} is read after its assign in one run: "
                        "seen to hang on macOS 26"
                    )
                continue
            raise Refused(
                f"variable {assign.variable.name!r} is read by {reader.selector} "
                f"({reader.name}) and assigned in one run, and nothing orders the two"
            )


def _assigns(operations: Iterable[Object]) -> dict[int, Object]:
    """Variable to the operation that assigns it."""
    assigns: dict[int, Object] = {}
    for op in operations:
        if (v := getattr(op, "variable", None)) is not None:
            if v.serial in assigns:
                raise Refused(f"variable {v.name!r} is assigned twice in one run")
            assigns[v.serial] = op
    return assigns


def _readers(operations: Iterable[Object], assigns: dict[int, Object]) -> dict[int, list[Object]]:
    """Variable to the operations that take its value."""
    readers: dict[int, list[Object]] = {}
    for op in operations:
        for i, t in enumerate(op.inputs):
            written = op.kind == "assign" and i == 0
            if t.operation.kind == "variable" and t.operation.serial in assigns and not written:
                readers.setdefault(t.operation.serial, []).append(op)
    return readers


def _inner_operations(op: Object) -> list[Object]:
    found = []
    for scope in getattr(op, "regions", ()):
        for inner in scope.operations:
            found += [inner, *_inner_operations(inner)]
    return found


class _Bits:
    """A set of operations as the bits of a whole number."""

    def __init__(self, bits: int, places: dict[int, int]) -> None:
        self.bits, self.places = bits, places

    def __contains__(self, serial: int) -> bool:
        return bool(self.bits >> self.places[serial] & 1)


def _ancestors(schedule: Sequence[Object], marked: set[int]) -> dict[int, _Bits]:
    """For each operation, which of the marked ones come before it."""
    places = {serial: i for i, serial in enumerate(sorted(marked))}
    bits: dict[int, int] = {}
    found: dict[int, _Bits] = {}
    for op in schedule:
        b = 0
        for p in predecessors(op):
            b |= bits.get(p.serial, 0)
        found[op.serial] = _Bits(b, places)
        bits[op.serial] = b | (1 << places[op.serial] if op.serial in places else 0)
    return found


class Run:
    """One pass over a schedule: values of tensors, variables of one graph on one device."""

    def __init__(self, state: Any, device: Any, values: dict[int, np.ndarray]) -> None:
        self.state = state
        self.device = device
        self.values = values

    def variable(self, op: Object) -> np.ndarray:
        return self.state.storage.setdefault((self.device, op.serial), op.value)

    def assign(self, op: Object, value: np.ndarray) -> None:
        self.state.storage[self.device, op.serial] = np.array(value)

    def execute(self, schedule: Sequence[Object], last: dict[int, list[int]] | None = None) -> None:
        for op in schedule:
            self._one(op)
            if last is not None:
                for serial in last.get(op.serial, ()):
                    self.values.pop(serial, None)

    def _value(self, tensor: Object) -> np.ndarray:
        """A tensor's value; a variable's is looked up anew, as an assign may have come between."""
        source = tensor.operation
        return self.variable(source) if source.kind == "variable" else self.values[tensor.serial]

    def _one(self, op: Object) -> None:
        if op.kind in ("placeholder", "argument"):
            return
        if op.kind == "variable":
            self.values[op.outputs[0].serial] = self.variable(op)
            return
        inputs = [self._value(t) for t in op.inputs]
        try:
            with np.errstate(all="ignore"):
                result = op.compute(self, *inputs) if op.kind in _RUN else op.compute(*inputs)
        except Refused as error:
            raise Refused(f"{op.selector} ({op.name}): {error}") from error
        if len(op.outputs) == 1 and not isinstance(result, (list, tuple)):
            result = [result]
        for tensor, value in zip(op.outputs, result or (), strict=True):
            array = np.asarray(value)
            if array.shape != tensor.shape or array.dtype != dtypes.numpy(tensor.dtype):
                raise AssertionError(
                    f"the double's own {op.selector} gave {array.dtype} {array.shape}, "
                    f"not {dtypes.NAMES[tensor.dtype]} {tensor.shape}"
                )
            self.values[tensor.serial] = array


# Operations that need the run itself, not their inputs alone.
_RUN = ("read", "assign", "region", "random")


def last_uses(schedule: Sequence[Object], keep: set[int]) -> dict[int, list[int]]:
    """Which values are done with after which operation."""
    last: dict[int, int] = {}
    for op in schedule:
        for t in (*op.inputs, *op.captures, *op.outputs):
            last[t.serial] = op.serial
    found: dict[int, list[int]] = {}
    for value, op_serial in last.items():
        if value not in keep:
            found.setdefault(op_serial, []).append(value)
    return found
