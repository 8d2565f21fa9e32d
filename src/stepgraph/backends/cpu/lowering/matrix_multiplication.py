"""Matrix products: with weights as a convolution over panels, others in place by strides."""

from __future__ import annotations

import math
from typing import Any

from stepgraph.backends.cpu.layouts import ROWS
from stepgraph.backends.cpu.lower import Lowering
from stepgraph.backends.cpu.lowering.convolution import lower_product, native_source
from stepgraph.backends.cpu.native.matmul import MatrixProduct
from stepgraph.backends.cpu.plan import At, KernelStep
from stepgraph.backends.cpu.registry import lowers
from stepgraph.graph.dtypes import float32
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import known_shape


@lowers("matrix_multiplication")
def _lower(ctx: Lowering, op: Operation) -> bool:
    return lower_product(ctx, op) or _lower_strided(ctx, op)


def _lower_strided(ctx: Lowering, op: Operation) -> bool:
    """A batch of products of row-major matrices; batches of one side may be shared."""
    a, b = op.inputs
    shapes = [known_shape(t.shape) for t in (a, b, op.output)]
    if any(0 in s for s in shapes) or a.dtype != float32:
        return False
    (*lead_a, ar, ac), (*lead_b, br, bc), (*lead_c, rows, columns) = shapes
    batch = math.prod(lead_c)
    step_a, step_b = math.prod(lead_a), math.prod(lead_b)
    if step_a not in (1, batch) or step_b not in (1, batch):
        return False
    first, second = op.attributes["transpose_primary"], op.attributes["transpose_secondary"]
    product = MatrixProduct(
        batch,
        rows,
        ar if first else ac,
        columns,
        (ar * ac if step_a == batch and batch > 1 else 0, *((1, ac) if first else (ac, 1))),
        (br * bc if step_b == batch and batch > 1 else 0, *((1, bc) if second else (bc, 1))),
        (rows * columns, columns),
    )
    from stepgraph.backends.cpu.native.kernels import load_kernels

    values, tasks = product.arguments(load_kernels().blocking)
    x, y = ctx.value(a, ROWS), ctx.value(b, ROWS)
    target = ctx.output(op.output, ROWS)
    size = values["scratch_size"] * ctx.threads
    scratch = ctx.scratch((size,), float32, f"{op.name}/scratch")
    arguments: dict[str, Any] = {
        **values,
        "a": At(x),
        "b": At(y),
        "c": At(target),
        "scratch": At(scratch),
        "alpha": 1.0,
        "beta": 0.0,
    }
    ctx.add(
        KernelStep(
            name=op.type,
            reads=[x, y],
            writes=[target, scratch],
            source=native_source(),
            kernel="matrix_product",
            arguments=arguments,
            tasks=tasks,
            flops=2 * batch * rows * columns * product.depth,
        )
    )
    return True
