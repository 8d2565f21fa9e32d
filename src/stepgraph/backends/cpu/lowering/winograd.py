"""Convolutions with 3 x 3 kernels by Winograd's method, where that is expected to be faster."""

from __future__ import annotations

from typing import Any

from stepgraph.backends.cpu.layouts import ROWS
from stepgraph.backends.cpu.lower import Lowering
from stepgraph.backends.cpu.native.geometry import Convolution
from stepgraph.backends.cpu.native.partials import partial_sums
from stepgraph.backends.cpu.native.winograd_shapes import Winograd
from stepgraph.backends.cpu.plan import At, Buffer, KernelSource, KernelStep, Scaled
from stepgraph.graph.dtypes import float32


def add_convolution(
    ctx: Lowering,
    name: str,
    source: KernelSource,
    shape: Convolution,
    operands: tuple[Buffer, Buffer, Buffer],
    turned: bool,
) -> None:
    """Adds the steps of a forward pass, or of a data gradient if `turned`.

    Args:
        ctx: the lowering.
        name: of the op.
        source: the module of hand-shaped kernels.
        shape: the convolution.
        operands: data read (x or dy), weights, data written (y or dx).
        turned: see `native.winograd`.
    """
    from stepgraph.backends.cpu.native.kernels import load_kernels

    plan = Winograd(shape)
    data, weights, result = operands
    sizes, tasks = plan.convolution(load_kernels().blocking, turned)
    u = ctx.scratch((plan.u_size,), float32, f"{result.name}/transformed_weights")
    scratch = ctx.scratch((ctx.threads * sizes["scratch_size"],), float32, f"{result.name}/scratch")
    panels = {"in_panels": shape.in_panels, "out_panels": shape.out_panels}
    ctx.add(
        KernelStep(
            name=f"{name} (winograd weights)",
            reads=[weights],
            writes=[u],
            source=source,
            kernel="winograd_weights_turned" if turned else "winograd_weights",
            arguments={"w": At(weights), "u": At(u), **panels},
            tasks=plan.weight_tasks,
        )
    )
    arguments: dict[str, Any] = {**sizes, "alpha": 1.0, "beta": 0.0}
    buffers = {"x": At(data), "u": At(u), "y": At(result), "scratch": At(scratch)}
    ctx.add(
        KernelStep(
            name=f"{name} (winograd)",
            reads=[data, u],
            writes=[result, scratch],
            source=source,
            kernel="winograd_convolution",
            arguments=arguments | buffers,
            tasks=tasks,
            flops=2 * shape.multiply_adds(),
        )
    )


def add_weight_gradient(
    ctx: Lowering,
    name: str,
    source: KernelSource,
    shape: Convolution,
    operands: tuple[Buffer, Buffer, Buffer],
    alpha: float | Scaled,
    beta: float,
) -> None:
    """Adds the steps of a weight gradient.

    Args:
        ctx: the lowering.
        name: of the op.
        source: the module of hand-shaped kernels.
        shape: the convolution.
        operands: x, dy and the weights' gradient (or the weights, for a step of descent).
        alpha: factor of the gradient.
        beta: factor of what is there already.
    """
    x, dy, target = operands
    sizes, tasks = Winograd(shape).weight_gradient()
    scratch = ctx.scratch((ctx.threads * sizes["scratch_size"],), float32, f"{target.name}/scratch")
    step = KernelStep(
        name=f"{name} (winograd)",
        reads=[x, dy],
        writes=[scratch],
        source=source,
        kernel="winograd_weight_gradient",
        arguments={**sizes, "x": At(x), "y": At(dy), "scratch": At(scratch)},
        tasks=tasks,
        flops=2 * shape.multiply_adds(),
    )
    add_in_parts(ctx, name, source, step, (sizes["parts"], target), alpha, beta, visits=2)


def add_in_parts(
    ctx: Lowering,
    name: str,
    source: KernelSource,
    step: KernelStep,
    result: tuple[int, Buffer],
    alpha: float | Scaled,
    beta: float,
    visits: int,
) -> None:
    """Adds a weight gradient that comes in a number of parts, and the sum of these.

    A gradient that is added to weights must be whole before: every visit of a weight would round it
    once more, at the weight's size, and small updates would be lost. So where the kernel visits its
    result more than once, a step of descent goes through one part.

    Args:
        ctx: the lowering.
        name: of the op.
        source: the module of hand-shaped kernels.
        step: lacks ``w``, ``alpha`` and ``beta``, and the buffer written.
        result: number of parts; the weights' gradient, or the weights.
        alpha: factor of the gradient.
        beta: factor of what is there already.
        visits: how often the kernel adds to an element of its result.
    """
    parts, target = result
    scaled = [alpha.buffer] if isinstance(alpha, Scaled) else []
    if parts == 1 and (visits == 1 or beta == 0.0):
        step.arguments |= {"w": At(target), "alpha": alpha, "beta": beta}
        step.reads.extend(scaled)
        step.writes.insert(0, target)
        step.accumulates = beta != 0.0
        ctx.add(step)
        return
    size = target.count
    partial = Buffer((parts * size,), float32, ROWS, f"{target.name}/parts")
    step.arguments |= {"w": At(partial), "alpha": 1.0, "beta": 0.0}
    step.writes.insert(0, partial)
    ctx.add(step)
    add_sum_of_parts(ctx, name, source, (parts, partial), target, alpha, beta)


def add_sum_of_parts(
    ctx: Lowering,
    name: str,
    source: KernelSource,
    found: tuple[int, Buffer],
    target: Buffer,
    alpha: float | Scaled = 1.0,
    beta: float = 0.0,
) -> None:
    """Adds the launch that sums partial results.

    Args:
        ctx: the lowering.
        name: of the op.
        source: the module of hand-shaped kernels.
        found: how many partial results, and the buffer they lie in, one after the other.
        target: what is written.
        alpha: factor of the sum.
        beta: factor of what is there already.
    """
    parts, partial = found
    sizes, tasks = partial_sums(target.count, parts)
    step = KernelStep(f"{name} (sum of parts)", [partial], [target], tasks=tasks)
    step.reads.extend([alpha.buffer] if isinstance(alpha, Scaled) else [])
    step.accumulates = beta != 0.0
    step.source, step.kernel = source, "sum_partials"
    places = {"source": At(partial), "target": At(target)}
    step.arguments = {**sizes, **places, "alpha": alpha, "beta": beta}
    ctx.add(step)
