"""A mean and a variance over the same positions, lowered as one launch over the map.

Both are sums, and fusion makes two groups of them, because the second needs the first's result.
Where the first is nothing but a sum over all positions of a map in panels, and the second sums
squared distances from its mean, one kernel makes both (`kernels.moments`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from stepgraph.backends.cpu.chains import block_cuts, panel_cuts
from stepgraph.backends.cpu.fusion import Fusion, Group, count
from stepgraph.backends.cpu.kernels.moments import moments_module
from stepgraph.backends.cpu.layouts import LANES, PANELS, ROWS, panels_of
from stepgraph.backends.cpu.native.geometry import TILE_ROWS, tile_rows
from stepgraph.backends.cpu.nest_steps import MOVES
from stepgraph.backends.cpu.plan import At, Grid, KernelSource, KernelStep
from stepgraph.graph.dtypes import float32
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import known_shape
from stepgraph.graph.tensor import Tensor

if TYPE_CHECKING:
    from stepgraph.backends.cpu.lower import Lowering

SOURCE = KernelSource(("moments",), moments_module)


def pairs_of_moments(fusion: Fusion) -> dict[Group, Group]:
    """The group of each sum whose mean another group takes squared distances from."""
    alone = {
        group.operations[0].output: group
        for group in fusion.groups
        if not group.is_heavy and _is_plain_sum(fusion, group)
    }
    found: dict[Group, Group] = {}
    for group in fusion.groups:
        if group.is_heavy or len(group.operations) != 3:
            continue
        total = _distances_from(group)
        first = alone.get(total) if total is not None else None
        if first is not None and first not in found:
            found[first] = group
    return found


def _is_plain_sum(fusion: Fusion, group: Group) -> bool:
    """A sum of a stored map over everything but channels."""
    if len(group.operations) != 1 or group.operations[0].type != "reduction_sum":
        return False
    (op,) = group.operations
    axes = tuple(range(len(group.shape or ()) - 1))
    _, read = fusion.expression(group)
    whole = len(read) == 1 and read[0] is op.inputs[0]
    return bool(axes) and group.axes == axes and whole


def _distances_from(group: Group) -> Tensor | None:
    """The sum S if a group is sum((x - S / n) ** 2), and S the sum of x over the same axes."""
    by_type = {op.type: op for op in group.operations}
    if by_type.keys() != {"subtraction", "square", "reduction_sum"}:
        return None
    subtraction, square, last = (by_type[t] for t in ("subtraction", "square", "reduction_sum"))
    if last.inputs[0] is not square.output or square.inputs[0] is not subtraction.output:
        return None
    x, mean = subtraction.inputs
    total = _mean_of(mean, count(x))
    if total is None or any(t is not last.output for t in group.stored):
        return None
    first = total.operation
    same = first.type == "reduction_sum" and first.inputs[0] is x
    return total if same and first.attributes["axes"] == last.attributes["axes"] else None


def _mean_of(mean: Tensor, size: int) -> Tensor | None:
    """The sum that a mean of so many numbers in all is made from; None if it is no such mean."""
    op = _moved(mean)
    if op.type not in ("multiplication", "division"):
        return None
    sides = [_moved(t) for t in op.inputs]
    constants = [k for k, side in enumerate(sides) if side.type == "constant"]
    if constants != [1] and (constants != [0] or op.type == "division"):
        return None
    total = sides[1 - constants[0]].output
    number = np.asarray(sides[constants[0]].attributes["value"]).reshape(-1)
    if total.operation.type != "reduction_sum" or number.size == 0 or count(total) == 0:
        return None
    terms = size / count(total)
    wanted = terms if op.type == "division" else 1 / terms
    return total if np.allclose(number, wanted, rtol=1e-6, atol=0.0) else None


def _moved(tensor: Tensor) -> Operation:
    """What makes a tensor's numbers, whatever shape they are brought into."""
    while tensor.operation.type in MOVES:
        tensor = tensor.operation.inputs[0]
    return tensor.operation


def lower_moments(ctx: Lowering, first: Group, second: Group) -> bool:
    """Adds the steps of both groups; False if the map does not lie in panels."""
    (op,), last = first.operations, second.operations[-1]
    x = op.inputs[0]
    *lead, channels = known_shape(x.shape)
    if x.dtype != float32 or not ctx.has(x, PANELS):
        return False
    source = ctx.value(x, PANELS)
    positions, panels = math.prod(lead), panels_of(channels)
    size = (lead[1], lead[2]) if len(lead) == 3 else (1, 1)
    block = tile_rows(positions, size) or TILE_ROWS
    blocks = -(-positions // block)
    results = [ctx.output(o.output, ROWS) for o in (op, last)]
    parts = results
    if blocks > 1:
        shape = (blocks, panels, LANES)
        parts = [ctx.scratch(shape, float32, f"{o.name}/partial") for o in (op, last)]
    sizes: dict[str, Any] = {"positions": positions, "panels": panels}
    sizes |= {"block": block, "blocks": blocks, "x": At(source)}
    sizes |= {"sums": At(parts[0]), "squares": At(parts[1])}
    ctx.add(
        KernelStep(
            "moments",
            [source],
            list(parts),
            source=SOURCE,
            kernel="moments",
            arguments=sizes,
            tasks=panels * blocks,
            grid=Grid(panel_cuts(panels, 1), {source: block_cuts(positions, block)}),
        )
    )
    if blocks > 1:
        arguments = {**sizes, "sum": At(results[0]), "square": At(results[1])}
        ctx.add(
            KernelStep(
                "moments: total",
                list(parts),
                results,
                source=SOURCE,
                kernel="total",
                arguments=arguments,
                tasks=panels,
            )
        )
    return True
