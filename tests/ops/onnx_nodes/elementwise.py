"""Arithmetic, comparison, logic, activations, casts."""

from __future__ import annotations

from functools import reduce

import numpy as np

import stepgraph as sg
from tests.ops.onnx_import import Node, gap, require_dtype, rule

# Node type to the builder of the same meaning.
UNARY = {
    "Abs": "absolute",
    "Acos": "acos",
    "Acosh": "acosh",
    "Asin": "asin",
    "Asinh": "asinh",
    "Atan": "atan",
    "Atanh": "atanh",
    "BitwiseNot": "bitwise_not",
    "Ceil": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Erf": "erf",
    "Exp": "exponent",
    "Floor": "floor",
    "Identity": "identity",
    "IsNaN": "is_nan",
    "Log": "logarithm",
    "Neg": "negative",
    "Not": "logical_not",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Round": "rint",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Softplus": "softplus",
    "Sqrt": "square_root",
    "Tan": "tan",
    "Tanh": "tanh",
}
BINARY = {
    "Add": "addition",
    "And": "logical_and",
    "BitwiseAnd": "bitwise_and",
    "BitwiseOr": "bitwise_or",
    "BitwiseXor": "bitwise_xor",
    "Equal": "equal",
    "Greater": "greater_than",
    "GreaterOrEqual": "greater_than_or_equal_to",
    "Less": "less_than",
    "LessOrEqual": "less_than_or_equal_to",
    "Mul": "multiplication",
    "Or": "logical_or",
    "Sub": "subtraction",
    "Xor": "logical_xor",
}
VARIADIC = {"Max": "maximum", "Min": "minimum", "Sum": "addition"}


@rule(*UNARY)
def unary(n: Node) -> sg.Tensor:
    return getattr(n.graph, UNARY[n.type])(n[0])


@rule(*BINARY)
def binary(n: Node) -> sg.Tensor:
    return getattr(n.graph, BINARY[n.type])(n[0], n[1])


@rule(*VARIADIC)
def variadic(n: Node) -> sg.Tensor:
    return reduce(getattr(n.graph, VARIADIC[n.type]), n.tensors())


@rule("Mean")
def mean_of(n: Node) -> sg.Tensor:
    return reduce(n.graph.addition, n.tensors()) / len(n)


@rule("Div")
def division(n: Node) -> sg.Tensor:
    a, b = n[0], n[1]
    if a.dtype.is_float:
        return n.graph.division(a, b)
    if a.dtype.kind == "uint":
        return n.graph.floor_division(a, b)
    # Integers are divided towards zero.
    sizes = n.graph.floor_division(n.graph.absolute(a), n.graph.absolute(b))
    return sizes * n.graph.sign(a) * n.graph.sign(b)


@rule("Mod")
def remainder(n: Node) -> sg.Tensor:
    return (
        n.graph.modulo(n[0], n[1]) if n.attribute("fmod", 0) else n.graph.floor_modulo(n[0], n[1])
    )


@rule("Pow")
def power(n: Node) -> sg.Tensor:
    base, exponent = n[0], n[1]
    if base.dtype.is_integer and exponent.dtype.is_integer:
        raise gap("integer arithmetic")
    if base.dtype.is_integer and exponent.dtype.is_float:
        return n.graph.cast(n.graph.power(n.graph.cast(base, exponent.dtype), exponent), base.dtype)
    return n.graph.power(base, n.graph.cast(exponent, base.dtype))


@rule("BitShift")
def shift(n: Node) -> sg.Tensor:
    left = n.attribute("direction") == "LEFT"
    builder = n.graph.bitwise_left_shift if left else n.graph.bitwise_right_shift
    return builder(n[0], n[1])


@rule("IsInf")
def is_infinite(n: Node) -> sg.Tensor:
    found = n.graph.is_infinite(n[0])
    if not n.attribute("detect_negative", 1):
        found = found & (n[0] > 0)
    if not n.attribute("detect_positive", 1):
        found = found & (n[0] < 0)
    return found


@rule("Where")
def where(n: Node) -> sg.Tensor:
    return n.graph.select(n[0], n[1], n[2])


@rule("Clip")
def clip(n: Node) -> sg.Tensor:
    low, high = n.get(1), n.get(2)
    limits = None if not n[0].dtype.is_float else (-np.inf, np.inf)
    if limits is None:
        numbers = np.iinfo(n[0].dtype.numpy)
        limits = (int(numbers.min), int(numbers.max))
    return n.graph.clamp(
        n[0], limits[0] if low is None else low, limits[1] if high is None else high
    )


@rule("Cast")
def cast(n: Node) -> sg.Tensor:
    import onnx

    dtype = onnx.helper.tensor_dtype_to_np_dtype(n.attribute("to"))
    require_dtype(dtype)
    return n.graph.cast(n[0], dtype.name)


@rule("CastLike")
def cast_like(n: Node) -> sg.Tensor:
    return n.graph.cast(n[0], n[1].dtype)


# -- activations ---------------------------------------------------------------------------------


@rule("LeakyRelu")
def leaky_relu(n: Node) -> sg.Tensor:
    return n.graph.leaky_relu(n[0], n.attribute("alpha", 0.01))


@rule("PRelu")
def parametric_relu(n: Node) -> sg.Tensor:
    return n.graph.select(n[0] < 0, n[0] * n[1], n[0])


def _elu(n: Node, alpha: float, scale: float = 1.0) -> sg.Tensor:
    return n.graph.select(n[0] > 0, n[0], (n.graph.exponent(n[0]) - 1) * alpha) * scale


@rule("Elu")
def elu(n: Node) -> sg.Tensor:
    return _elu(n, n.attribute("alpha", 1.0))


@rule("Selu")
def selu(n: Node) -> sg.Tensor:
    return _elu(n, n.attribute("alpha", 1.6732632), n.attribute("gamma", 1.0507010))


@rule("Celu")
def celu(n: Node) -> sg.Tensor:
    alpha = n.attribute("alpha", 1.0)
    low = (n.graph.exponent(n[0] / alpha) - 1) * alpha
    return n.graph.maximum(n[0], 0) + n.graph.minimum(low, 0)


def _hard_sigmoid(n: Node, alpha: float, beta: float) -> sg.Tensor:
    return n.graph.clamp(n[0] * alpha + beta, 0, 1)


@rule("HardSigmoid")
def hard_sigmoid(n: Node) -> sg.Tensor:
    return _hard_sigmoid(n, n.attribute("alpha", 0.2), n.attribute("beta", 0.5))


@rule("HardSwish")
def hard_swish(n: Node) -> sg.Tensor:
    return n[0] * _hard_sigmoid(n, 1 / 6, 0.5)


@rule("Mish")
def mish(n: Node) -> sg.Tensor:
    return n[0] * n.graph.tanh(n.graph.softplus(n[0]))


@rule("Swish")
def swish(n: Node) -> sg.Tensor:
    alpha = n.attribute("alpha", 1.0)
    return n.graph.silu(n[0]) if alpha == 1.0 else n[0] * n.graph.sigmoid(n[0] * alpha)


@rule("Softsign")
def softsign(n: Node) -> sg.Tensor:
    return n[0] / (n.graph.absolute(n[0]) + 1)


@rule("Gelu")
def gelu(n: Node) -> sg.Tensor:
    return n.graph.gelu(n[0], approximate=n.attribute("approximate", "none") == "tanh")


@rule("ThresholdedRelu")
def thresholded_relu(n: Node) -> sg.Tensor:
    return n.graph.select(n[0] > n.attribute("alpha", 1.0), n[0], 0)


@rule("Shrink")
def shrink(n: Node) -> sg.Tensor:
    limit, bias = n.attribute("lambd", 0.5), n.attribute("bias", 0.0)
    low = n.graph.select(n[0] < -limit, n[0] + bias, 0)
    return n.graph.select(n[0] > limit, n[0] - bias, low)


@rule("Binarizer")
def binarizer(n: Node) -> sg.Tensor:
    return n.graph.cast(n[0] > n.attribute("threshold", 0.0), n[0].dtype)


@rule("Dropout")
def dropout(n: Node) -> list[sg.Tensor]:
    training = n.static(2) if n.importer.opset >= 12 else None
    rate = n.static(1) if n.importer.opset >= 12 else None
    if training is not None and training.item() and (rate is None or rate.item()):
        raise gap("random")
    kept = n.graph.broadcast(n.graph.constant(True), n[0].shape)
    return [n.graph.identity(n[0]), kept]
