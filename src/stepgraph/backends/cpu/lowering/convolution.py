"""Convolutions and products with a matrix of weights: the register-blocked kernels over panels.

A product of rows with a weight matrix is a 1 x 1 convolution, so dense layers use the same
kernels, and their weights the same layout.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stepgraph.backends.cpu.chains import panel_cuts, share_cuts
from stepgraph.backends.cpu.fusion import Group
from stepgraph.backends.cpu.layout_choice import Layouts
from stepgraph.backends.cpu.layouts import LANES, PANELS, ROWS, STEM, WEIGHTS, panels_of
from stepgraph.backends.cpu.lower import Lowering
from stepgraph.backends.cpu.lowering.few_rows import add_few_rows, suits_few_rows
from stepgraph.backends.cpu.lowering.winograd import (
    add_convolution,
    add_in_parts,
    add_weight_gradient,
)
from stepgraph.backends.cpu.native.geometry import COLUMNS, IMAGES, Convolution
from stepgraph.backends.cpu.native.taps import gathered, gathering, suits_gathering
from stepgraph.backends.cpu.native.winograd_shapes import suits_winograd
from stepgraph.backends.cpu.plan import NATIVE, At, Buffer, Grid, KernelSource, KernelStep, Scaled
from stepgraph.backends.cpu.registry import UPDATING, Updating, lowers, prefers
from stepgraph.graph.dtypes import float32
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import known_shape
from stepgraph.graph.tensor import Tensor
from stepgraph.graph.windows import resolve_padding

if TYPE_CHECKING:
    from stepgraph.backends.cpu.native.kernels import Kernels


def _native_kernels() -> Kernels:
    from stepgraph.backends.cpu.native.kernels import load_kernels

    return load_kernels()


@functools.cache
def native_source() -> KernelSource:
    """The module of hand-shaped kernels."""
    return KernelSource(NATIVE, _native_kernels)


# -- which shapes ---------------------------------------------------------------------------------


def _geometry(op: Operation, source: Tensor, weights: Tensor, rows: bool) -> Convolution | None:
    """The convolution that an op's settings describe; None if the kernels do not cover it."""
    a = op.attributes
    shapes = [known_shape(t.shape) for t in (source, weights)]
    plain = a["data_layout"] == "NHWC" and a["weights_layout"] == "HWIO" and a["groups"] == 1
    if not plain or any(t.dtype != float32 for t in (source, weights)) or 0 in shapes[0]:
        return None
    (images, height, width, channels), (kh, kw, _, out) = shapes
    (top, bottom), (left, right) = resolve_padding(
        (height, width),
        (kh, kw),
        strides=a["strides"],
        dilations=a["dilations"],
        padding=a["padding"],
        explicit_padding=a["explicit_padding"],
    )
    if min(top, bottom, left, right) < 0:
        return None
    size = (height, width)
    return Convolution(
        images,
        size,
        (channels, out),
        (kh, kw),
        a["strides"],
        a["dilations"],
        (top, bottom, left, right),
        rows,
    )


def _dense(rows: Tensor, weights: Tensor) -> Convolution | None:
    """A product of rows (..., K) with a matrix (K, N) as a 1 x 1 convolution."""
    shape, matrix = known_shape(rows.shape), known_shape(weights.shape)
    if len(matrix) != 2 or any(t.dtype != float32 for t in (rows, weights)):
        return None
    count = 1
    for size in shape[:-1]:
        count *= size
    if count == 0 or 0 in matrix:
        return None
    return Convolution(count, (1, 1), (matrix[0], matrix[1]), (1, 1))


Fixed = Collection[Operation]


def _parts(op: Operation, fixed: Fixed = ()) -> tuple[str, Tensor, Tensor, Tensor] | None:
    """What a product is: (pass, data, weights, result); data is x or dy.

    Args:
        op: the product.
        fixed: operations whose results are prepared, and so as good as weights.
    """
    a, b = op.inputs[:2]
    if op.type == "convolution_2d":
        return "forward", a, b, op.output
    if op.type == "convolution_2d_data_gradient":
        return "data", a, b, op.output
    if op.type == "convolution_2d_weights_gradient":
        return "weights", a, b, op.output
    first, second = op.attributes["transpose_primary"], op.attributes["transpose_secondary"]
    if b.rank == 2 and not first and (_is_weight(b) or b.operation in fixed):
        return ("data" if second else "forward"), a, b, op.output
    if first and not second and a.rank == 2 and b.rank == 2:
        return "weights", b, a, op.output
    return None


def _is_weight(tensor: Tensor) -> bool:
    return tensor.operation.type in ("variable", "constant")


def _convolution_of(op: Operation, stem: bool, fixed: Fixed = ()) -> Convolution | None:
    parts = _parts(op, fixed)
    if parts is None:
        return None
    kind, data, weights, result = parts
    if op.type == "matrix_multiplication":
        if kind == "weights":
            return _dense(op.inputs[0], result)
        return _dense(data if kind == "forward" else result, weights)
    if kind == "forward":
        return _geometry(op, data, weights, stem)
    if kind == "data":
        return _geometry(op, result, weights, False)
    return _geometry(op, op.inputs[1], result, stem)


# -- layouts --------------------------------------------------------------------------------------


@prefers(
    "convolution_2d",
    "convolution_2d_data_gradient",
    "convolution_2d_weights_gradient",
    "matrix_multiplication",
)
def _prefer(layouts: Layouts, op: Operation) -> None:
    parts = _parts(op, layouts.fixed)
    if parts is None:
        return
    kind, data, weights, result = parts
    if kind == "forward":
        stem = op.type == "convolution_2d" and _is_stem(data)
        if _convolution_of(op, stem, layouts.fixed) is None:
            return
        layouts.of.setdefault(weights, STEM if stem else WEIGHTS)
        layouts.of.setdefault(result, PANELS)
        if not stem:
            layouts.of.setdefault(data, PANELS)
        return
    if _convolution_of(op, False, layouts.fixed) is None:
        return
    if kind == "data":
        layouts.of.setdefault(weights, WEIGHTS)
        layouts.of.setdefault(result, PANELS)
        layouts.of.setdefault(data, PANELS)
        return
    source = op.inputs[1] if op.type != "matrix_multiplication" else op.inputs[0]
    stem = op.type != "matrix_multiplication" and _is_stem(source)
    layouts.of.setdefault(result, STEM if stem else WEIGHTS)
    grad = op.inputs[0] if op.type != "matrix_multiplication" else op.inputs[1]
    layouts.of.setdefault(grad, PANELS)


def _is_stem(source: Tensor) -> bool:
    """A first layer over few channels reads the images as they are fed."""
    return source.operation.type == "placeholder" and (source.shape[-1] or 0) < LANES


# -- lowerings ------------------------------------------------------------------------------------


@lowers("convolution_2d", "convolution_2d_data_gradient", "convolution_2d_weights_gradient")
def _lower_convolution(ctx: Lowering, op: Operation) -> bool:
    return _lower(ctx, op, None)


def lower_product(ctx: Lowering, op: Operation) -> bool:
    """A matrix product with weights; False if it is another kind of product."""
    return _parts(op, ctx.fixed) is not None and _lower(ctx, op, None)


def lower_with_update(ctx: Lowering, group: Group) -> bool:
    """A weight gradient whose only use is a step of gradient descent, written over the weights."""
    gradient, update = group.operations
    rate = update.inputs[0]
    number = ctx.number(rate)
    alpha: Any = -number if number is not None else Scaled(ctx.value(rate, ROWS), -1.0)
    return _lower(ctx, gradient, (update.output, alpha))


def _is_weight_gradient(op: Operation) -> bool:
    parts = _parts(op)
    return parts is not None and parts[0] == "weights" and _convolution_of(op, False) is not None


for _name in ("convolution_2d_weights_gradient", "matrix_multiplication"):
    UPDATING[_name] = Updating(_is_weight_gradient, lower_with_update)


def _grid(writer: Buffer, values: dict[str, int], width: int) -> Grid | None:
    """How tasks tile what they write: groups of panels, shares of its positions."""
    *lead, channels = writer.shape
    positions, units = math.prod(lead), values["units"]
    if values["mode"] == IMAGES and values["parts"] > 1:
        return None
    rows = share_cuts(units, values["parts"], positions // units)
    return Grid(panel_cuts(panels_of(channels), width), {writer: rows})


def _weights_grid(
    target: Buffer | None, dy: Buffer, shape: Convolution, values: dict[str, int], width: int
) -> Grid | None:
    """How tasks tile a weight gradient that stays one, or the data of one that is split.

    That is groups of output panels, and shares of what lies in each of them, or of the images.
    """
    panels = panel_cuts(shape.out_panels, width)
    if values["splits"] == 1:
        if target is None:
            return None
        # Of one output panel: the kernel's units, and what lies in each.
        units, size = values["units"], math.prod(shape.w_shape[1:-1])
        rows = share_cuts(units, values["parts"], size // units)
        return Grid(panels, {target: rows}, {target: ("w_pitch",)})
    if values["parts"] != 1 or values["mode"] != COLUMNS:
        return None
    return Grid(panels, {dy: share_cuts(shape.images, values["splits"], math.prod(shape.out_size))})


def _gathered(
    ctx: Lowering, op: Operation, reader: Buffer, shape: Convolution
) -> tuple[Buffer, Convolution]:
    """Adds the launch that gathers taps; gives what it writes, and the product that is left."""
    sizes, tasks = gathering(shape)
    flat = gathered(shape)
    taps = Buffer((flat.images, flat.channels[0]), float32, PANELS, f"{op.output.name}/taps")
    step = KernelStep(f"{op.type} (taps)", [reader], [taps], tasks=tasks)
    step.source, step.kernel = native_source(), "gather_taps"
    step.arguments = {**sizes, "x": At(reader), "y": At(taps)}
    ctx.add(step)
    return taps, flat


def _rows_kept(ctx: Lowering, op: Operation, source: Tensor, shape: Convolution) -> Convolution:
    """A dense layer's shape, reading what is there in rows alone (what was fed, say) as it lies."""
    few = "few_rows" not in ctx.disabled and suits_few_rows(shape)
    reads = op.type == "matrix_multiplication" and any(t is source for t in op.inputs)
    suits = reads and shape.fits_rows and not few
    return replace(shape, rows=True) if suits and not ctx.has(source, PANELS) else shape


def _lower(ctx: Lowering, op: Operation, update: tuple[Tensor, Any] | None) -> bool:
    parts = _parts(op, ctx.fixed)
    if parts is None:
        return False
    kind, data, weights, result = parts
    dense = op.type == "matrix_multiplication"
    source = {"forward": data, "data": result}.get(kind)
    if source is None:
        source = op.inputs[0] if dense else op.inputs[1]
    stem = not dense and kind != "data" and _is_stem(source)
    shape = _convolution_of(op, stem, ctx.fixed)
    if shape is None:
        return False
    shape = _rows_kept(ctx, op, source, shape)
    inner, outer = STEM if stem else WEIGHTS, ROWS if shape.rows else PANELS
    from stepgraph.backends.cpu.native.kernels import load_kernels

    blocking = load_kernels().blocking
    name = op.type + (" with update" if update else "")
    small = "few_rows" not in ctx.disabled
    suits = not dense and suits_winograd(shape, kind, weights.operation in ctx.fixed)
    winograd = suits and "winograd" not in ctx.disabled
    if kind != "weights":
        reader, writer = ctx.value(data, outer), ctx.output(result, PANELS)
        w = ctx.value(weights, inner)
        if winograd:
            operands = (reader, w, writer)
            add_convolution(ctx, name, native_source(), shape, operands, kind == "data")
            return True
        forward = kind == "forward"
        if forward and "gather_taps" not in ctx.disabled and suits_gathering(shape):
            reader, shape = _gathered(ctx, op, reader, shape)
        x, y = (reader, writer) if forward else (writer, reader)
        if small and add_few_rows(ctx, name, native_source(), kind, shape, (x, w, y)):
            return True
        values, tasks = (shape.forward if forward else shape.data_gradient)(blocking)
        step = KernelStep(name, [reader, w], [writer], tasks=tasks)
        step.kernel = "convolution_forward" if forward else "convolution_data_gradient"
        step.arguments = {**values, "x": At(x), "w": At(w), "y": At(y), "alpha": 1.0, "beta": 0.0}
        step.grid = _grid(writer, values, blocking.panels)
    else:
        x = ctx.value(source, outer)
        y = ctx.value(op.inputs[1] if dense else op.inputs[0], PANELS)
        target, (alpha, beta) = ctx.output(update[0] if update else result, inner), (1.0, 0.0)
        if update:
            alpha, beta = update[1], 1.0
        if winograd:
            operands = (x, y, target)
            add_weight_gradient(ctx, name, native_source(), shape, operands, alpha, beta)
            return True
        operands = (x, target, y)
        if small and add_few_rows(ctx, name, native_source(), kind, shape, operands, (alpha, beta)):
            return True
        values, tasks = shape.weight_gradient(blocking, stored=update is None)
        step = KernelStep(name, [x, y], [], tasks=tasks, kernel="convolution_weight_gradient")
        step.arguments = {**values, "x": At(x), "y": At(y)}
        stored = None if update else target
        step.grid = _weights_grid(stored, y, shape, values, blocking.panels)
    step.source = native_source()
    step.flops = 2 * shape.multiply_adds()
    step.arguments["scratch"] = 0
    if values["scratch_size"]:
        size = ctx.threads * values["scratch_size"]
        scratch = ctx.scratch((size,), float32, f"{op.name}/scratch")
        step.writes.append(scratch)
        step.arguments["scratch"] = At(scratch)
    if kind == "weights":
        in_parts, visits = (values["splits"], target), shape.weight_visits(values)
        add_in_parts(ctx, name, native_source(), step, in_parts, alpha, beta, visits)
    else:
        ctx.add(step)
    return True
