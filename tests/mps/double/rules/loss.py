"""MPSGraphLossOps, MPSGraphMatrixMultiplicationOps and small linear algebra."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.mps.double import dtypes, sdk
from tests.mps.double.graph import Builder
from tests.mps.double.objects import Object
from tests.mps.double.rules.activation import softmax
from tests.mps.double.rules.reduction import kept
from tests.mps.double.rules.shapes import constants

_SUM = sdk.value("MPSGraphLossReductionTypeSum")
_MEAN = sdk.value("MPSGraphLossReductionTypeMean")


def _operands(b: Builder, source: Object, labels: Object, axis: int) -> tuple[int, int]:
    b.dtype(source, dtypes.FLOATS)
    kind = b.same_dtype(source, labels)
    b.need(source.shape == labels.shape, f"labels of {labels.shape} for {source.shape}")
    return kind, b.axis(axis, len(source.shape))


def cross_entropy(b: Builder, source: Object, labels: Object, axis: int, how: int) -> Object:
    kind, axis = _operands(b, source, labels, axis)
    b.need(how != _MEAN, "the divisor of the mean is undocumented: take the sum and divide")
    shape = (1,) if how == _SUM else kept(source.shape, [axis])

    def compute(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        wide = x.astype(np.float64)
        wide = wide - wide.max(axis=axis, keepdims=True)
        log = wide - np.log(np.exp(wide).sum(axis=axis, keepdims=True))
        loss = -(y * log).sum(axis=axis, keepdims=True)
        return np.reshape(loss.sum() if how == _SUM else loss, shape).astype(x.dtype)

    out = b.one([source, labels], shape, kind, compute)
    out.unsettled = True
    return out


def cross_entropy_gradient(
    b: Builder, incoming: Object, source: Object, labels: Object, axis: int, how: int
) -> Object:
    kind, axis = _operands(b, source, labels, axis)
    b.fault("softmax_cross_entropy_gradient", "shapes and scale are unsettled: compose it")
    # The fault: the incoming gradient is not read.
    return b.one(
        [incoming, source, labels],
        source.shape,
        kind,
        lambda g, x, y: softmax(x, axis) - y,
    )


def _attention(b: Builder, x: Object, y: Object) -> None:
    """Softmax times values, of some sizes, is compiled wrongly on macOS 26."""
    batch = int(np.prod(x.shape[:-2], dtype=np.int64))
    softmaxed = x.operation.selector.startswith("softMaxWithTensor")
    if b.double.version >= (26, 0) and softmaxed and y.shape[-1] == 64 and batch >= 3:
        b.need(
            not 17 <= x.shape[-1] <= 24,
            f"attention over {x.shape[-1]} places is compiled wrongly: transpose both operands",
        )


def autodiff(b: Builder, primary: Object, tensors: list[Object]) -> Object:
    raise b.refuse("the framework's own differentiation is wrong for several ops")


def product(b: Builder, x: Object, y: Object) -> Object:
    b.dtype(x, (*dtypes.FLOATS, dtypes.COMPLEX64), "primary")
    kind = b.same_dtype(x, y)
    b.need(min(len(x.shape), len(y.shape)) >= 2, f"ranks of {x.shape}, {y.shape} below 2")
    inner = x.shape[-1]
    b.need(inner == y.shape[-2], f"{x.shape} times {y.shape}")
    b.need(inner <= 32768, f"an inner extent of {inner} is wrong on M1 and M2: split at 32768")
    if b.double.version >= (26, 2):
        for t in (x, y):
            lazy = t.operation.selector.startswith("broadcastTensor")
            b.need(not lazy, "a broadcast operand is wrong on 26.2: materialize it")
    _attention(b, x, y)
    shape = (*b.broadcast(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1])
    return b.one([x, y], shape, kind, np.matmul)


def band_part(b: Builder, x: Object, lower: int, upper: int) -> Object:
    b.need(len(x.shape) >= 2, "a rank of 2 at least")
    rows, columns = np.indices(x.shape[-2:])
    keep = ((lower < 0) | (rows - columns <= lower)) & ((upper < 0) | (columns - rows <= upper))
    return b.one([x], x.shape, x.dtype, lambda v: np.where(keep, v, v.dtype.type(0)))


def inverse(b: Builder, x: Object) -> Object:
    b.dtype(x, (dtypes.FLOAT32,))
    b.need(len(x.shape) >= 2 and x.shape[-1] == x.shape[-2], f"{x.shape} is no square matrix")
    return b.one([x], x.shape, x.dtype, np.linalg.inv)


_LOSS = "softMaxCrossEntropy"
_TAIL = "sourceTensor:labelsTensor:axis:reductionType:name:"
RULES: dict[str, Any] = {
    f"{_LOSS}WithSourceTensor:labelsTensor:axis:reductionType:name:": cross_entropy,
    f"{_LOSS}GradientWithIncomingGradientTensor:{_TAIL}": cross_entropy_gradient,
    "matrixMultiplicationWithPrimaryTensor:secondaryTensor:name:": product,
    "bandPartWithTensor:numLower:numUpper:name:": band_part,
    "bandPartWithTensor:numLowerTensor:numUpperTensor:name:": constants(band_part, scalar=[1, 2]),
    "inverseOfTensor:name:": inverse,
    "gradientForPrimaryTensor:withTensors:name:": autodiff,
}
