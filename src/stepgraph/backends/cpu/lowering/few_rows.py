"""Flat products of few rows: kernels made for their number."""

from __future__ import annotations

from typing import Any

from stepgraph.backends.cpu.chains import panel_cuts
from stepgraph.backends.cpu.native.few_rows import DATA, WEIGHTS, cut, few_rows, few_rows_module
from stepgraph.backends.cpu.native.geometry import Convolution
from stepgraph.backends.cpu.native.target import host_target
from stepgraph.backends.cpu.plan import At, Buffer, Grid, KernelSource, KernelStep, Scaled


def few_rows_step(
    name: str,
    kind: str,
    shape: Convolution,
    operands: tuple[Buffer, Buffer, Buffer],
    factors: tuple[float | Scaled, float] = (1.0, 0.0),
) -> KernelStep | None:
    """The step of a product over all positions of few.

    Args:
        name: the step's.
        kind: ``forward``, ``data`` or ``weights``.
        shape: the convolution.
        operands: x, weights, y, or their gradients.
        factors: alpha and beta of the weight gradient.

    Returns:
        None if there are too many positions or it is no flat product.
    """
    spec = few_rows(kind, shape.images * shape.size[0] * shape.size[1], host_target())
    if spec is None or not shape.pointwise or shape.rows:
        return None
    x, w, y = operands
    written = {"forward": y, DATA: x, WEIGHTS: w}[kind]
    width, across = cut(spec, shape.in_panels, shape.out_panels)
    alpha, beta = factors
    arguments: dict[str, Any] = {
        **{"x": At(x), "w": At(w), "y": At(y), "alpha": alpha, "beta": beta},
        **{"in_panels": shape.in_panels, "out_panels": shape.out_panels, "width": width},
    }
    reads = [b for b in operands if b is not written]
    grid = Grid(panel_cuts(across, width), {written: (0, spec.rows)})
    return KernelStep(
        name,
        reads + ([alpha.buffer] if isinstance(alpha, Scaled) else []),
        [written],
        accumulates=beta != 0.0,
        source=KernelSource(("few_rows", spec), lambda: few_rows_module(spec)),
        kernel="few_rows",
        arguments=arguments,
        tasks=-(-across // width),
        grid=None if kind == WEIGHTS else grid,
        flops=2 * shape.multiply_adds(),
    )
