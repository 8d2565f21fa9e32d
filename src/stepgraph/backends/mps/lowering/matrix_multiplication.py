"""Products of matrices (MPSGraphMatrixMultiplicationOps)."""

from __future__ import annotations

from stepgraph.backends.mps.lowering.emitter import Emitter, Value, count, lowering
from stepgraph.backends.mps.lowering.table import Lowering, only_dtypes
from stepgraph.graph.operation import Operation

# Longer sums of products are cut in pieces where the quirk applies.
_LONGEST = 32768


def product(e: Emitter, a: Value, b: Value) -> Value:
    """``a @ b``, broadcast over the axes before the last two."""
    if b.rank == 2 and a.rank > 2:
        # One large product instead of one for each matrix of a batch.
        *lead, rows, inner = a.shape
        flat = e.reshape(a, (count(lead) * rows, inner))
        return e.reshape(product(e, flat, b), (*lead, rows, b.shape[1]))
    inner = a.shape[-1]
    if inner <= _LONGEST or not e.b.quirk("matmul_long_inner"):
        return _product(e, a, b)
    total = None
    for start in range(0, inner, _LONGEST):
        length = min(_LONGEST, inner - start)
        left = e.part(a, a.rank - 1, start, length)
        right = e.part(b, b.rank - 2, start, length)
        made = _product(e, left, right)
        total = made if total is None else e.add(total, made)
    assert total is not None
    return total


def _product(e: Emitter, a: Value, b: Value) -> Value:
    rank = max(a.rank, b.rank)
    lead = tuple(
        max(m, n)
        for m, n in zip(
            (*(1,) * (rank - a.rank), *a.shape[:-2]),
            (*(1,) * (rank - b.rank), *b.shape[:-2]),
            strict=True,
        )
    )
    shape = (*lead, a.shape[-2], b.shape[-1])
    selector = "matrixMultiplicationWithPrimaryTensor:secondaryTensor:name:"
    return e.send(selector, a, b, shape=shape, dtype=a.dtype)


def _from_softmax(operation: Operation) -> bool:
    primary, secondary = operation.inputs
    return primary.operation.type == "softmax" and primary.rank > 2 and secondary.rank > 2


def _matrix_multiplication(e: Emitter, operation: Operation, a: Value, b: Value) -> Value:
    if operation.attributes["transpose_primary"]:
        a = e.swap(a, a.rank - 2, a.rank - 1)
    if operation.attributes["transpose_secondary"]:
        b = e.swap(b, b.rank - 2, b.rank - 1)
    if _from_softmax(operation) and e.b.quirk("attention_miscompiled"):
        turned = product(e, e.swap(b, b.rank - 2, b.rank - 1), e.swap(a, a.rank - 2, a.rank - 1))
        return e.swap(turned, turned.rank - 2, turned.rank - 1)
    return product(e, a, b)


LOWERINGS: dict[str, Lowering] = {
    "matrix_multiplication": lowering(
        _matrix_multiplication,
        (
            only_dtypes(
                "float16",
                "float32",
                reason="the framework ends the process at a product of integers",
                source="measured by doom-fish/mpsgraph-rs, lucid, mccl-jax",
            ),
        ),
    ),
}

DECOMPOSED: dict[str, str] = {}
