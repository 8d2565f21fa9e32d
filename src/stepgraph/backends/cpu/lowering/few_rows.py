"""Flat products of few rows: kernels made for their number."""

from __future__ import annotations

from typing import Any

from stepgraph.backends.cpu.chains import panel_cuts
from stepgraph.backends.cpu.layouts import ROWS
from stepgraph.backends.cpu.lower import Lowering
from stepgraph.backends.cpu.lowering.winograd import add_sum_of_parts
from stepgraph.backends.cpu.native.few_rows import DATA, WEIGHTS, cut, few_rows, few_rows_module
from stepgraph.backends.cpu.native.geometry import Convolution
from stepgraph.backends.cpu.native.held_weights import held_parts
from stepgraph.backends.cpu.native.product import PANEL, blocking_for
from stepgraph.backends.cpu.native.target import host_target
from stepgraph.backends.cpu.plan import At, Buffer, Grid, KernelSource, KernelStep, Scaled
from stepgraph.graph.dtypes import float32


def suits_few_rows(shape: Convolution) -> bool:
    """Whether it is a flat product over panels of so few positions."""
    rows = shape.images * shape.size[0] * shape.size[1]
    few = few_rows(DATA, rows, host_target()) is not None
    return few and shape.pointwise and not shape.rows


def add_few_rows(
    ctx: Lowering,
    name: str,
    source: KernelSource,
    kind: str,
    shape: Convolution,
    operands: tuple[Buffer, Buffer, Buffer],
    factors: tuple[float | Scaled, float] = (1.0, 0.0),
) -> bool:
    """Adds the launch of a product over all positions of few.

    Args:
        ctx: the lowering.
        name: the step's.
        source: the module of hand-shaped kernels.
        kind: ``forward``, ``data`` or ``weights``.
        shape: the convolution.
        operands: x, weights, y, or their gradients.
        factors: alpha and beta of the weight gradient.

    Returns:
        Whether it was: not if there are too many positions or it is no flat product.
    """
    spec = few_rows(kind, shape.images * shape.size[0] * shape.size[1], host_target())
    if spec is None or not suits_few_rows(shape):
        return False
    x, w, y = operands
    if kind == DATA and _add_in_order(ctx, name, source, shape, spec.rows, operands):
        return True
    written = {"forward": y, DATA: x, WEIGHTS: w}[kind]
    width, across = cut(spec, shape.in_panels, shape.out_panels)
    alpha, beta = factors
    arguments: dict[str, Any] = {
        **{"x": At(x), "w": At(w), "y": At(y), "alpha": alpha, "beta": beta},
        **{"in_panels": shape.in_panels, "out_panels": shape.out_panels, "width": width},
    }
    reads = [b for b in operands if b is not written]
    rows = shape.in_panels * PANEL if kind == WEIGHTS else spec.rows
    grid = Grid(panel_cuts(across, width), {written: (0, rows)})
    step = KernelStep(
        name,
        reads + ([alpha.buffer] if isinstance(alpha, Scaled) else []),
        [written],
        accumulates=beta != 0.0,
        source=KernelSource(("few_rows", spec), lambda: few_rows_module(spec)),
        kernel="few_rows",
        arguments=arguments,
        tasks=-(-across // width),
        grid=None if beta else grid,
        flops=2 * shape.multiply_adds(),
    )
    ctx.add(step)
    return True


def _add_in_order(
    ctx: Lowering,
    name: str,
    source: KernelSource,
    shape: Convolution,
    rows: int,
    operands: tuple[Buffer, Buffer, Buffer],
) -> bool:
    """Adds the data gradient in parts, and their sum, if no cache holds these weights."""
    parts = held_parts(shape.in_panels, shape.out_panels)
    if not parts or not blocking_for(host_target()).held:
        return False
    x, w, y = operands
    partial = Buffer((parts * x.count,), float32, ROWS, f"{x.name}/parts")
    step = KernelStep(name, [w, y], [partial], tasks=parts, flops=2 * shape.multiply_adds())
    step.source, step.kernel = source, "held_parts"
    step.arguments = {"x": At(partial), "w": At(w), "y": At(y), "rows": rows, "parts": parts}
    step.arguments |= {"in_panels": shape.in_panels, "out_panels": shape.out_panels}
    ctx.add(step)
    add_sum_of_parts(ctx, name, source, (parts, partial), x)
    return True
