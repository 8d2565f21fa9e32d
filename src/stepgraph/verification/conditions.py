"""How far a correct result may be from the float64 one: a rule for every op, in one table.

An op is judged on the inputs that the device itself had, so nothing that went wrong before it
counts. Its float64 result on them is the truth. A device that rounds, in whatever order it adds,
comes as near to it as the op's condition allows; the rules say what that is, in units of the
dtype's rounding error `u` (2**-24 for float32):

=======  ==========================================  =============================================
rule     what a correct device does                  tolerance
=======  ==========================================  =============================================
MOVED    hands elements on, or decides               none: bits must agree
ROUNDED  computes each element from a few            16 u (abs(y) + what relative changes of the
                                                     inputs by 1 change in y)
NEAR 1   the same by way of 1 + t                    16 u more
SUMMED   adds n products in some order               (8 + 2 sqrt(n)) u times the op's value on the
                                                     absolutes of its inputs: sum(abs(a) abs(b));
                                                     (16 + 8 sqrt(n)) u for plain sums, where equal
                                                     terms may round alike
SPREAD   anything else                               (16 + 8 sqrt(n)) u times the largest change in
                                                     y that relative changes of the inputs make
=======  ==========================================  =============================================

SUMMED and SPREAD measure against the tensor's largest scale, not each element's: fast algorithms
(Winograd's, blocked sums) mix neighbours. Numbers below the smallest normal one count as zero,
because Apple's GPUs flush them.

Source: N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., chapters 1 to 4; the
square root of n in place of n is its statistical form (section 2.8).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepgraph.backends.reference.interpreter import call
from stepgraph.graph.definition import Array, OpDefinition
from stepgraph.graph.dtypes import DType, float64
from stepgraph.graph.operation import Operation
from stepgraph.graph.tensor import Tensor

ROUNDOFF = {"float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}
_FEW = 16.0
# (constant, per square root of the number of terms).
_PLAIN = (16.0, 8.0)
_PRODUCTS = (8.0, 2.0)
_CHANGE = 2.0**-30
_PATTERNS = 3

Evaluate = Callable[[Sequence[Array]], tuple[Array, ...]]


@dataclass(frozen=True)
class Question:
    """What a rule may ask about an operation.

    Attributes:
        operation: that is judged.
        inputs: in float64 where they are floats.
        expected: its float64 outputs on them.
        evaluate: the same for other inputs.
    """

    operation: Operation
    inputs: list[Array]
    expected: tuple[Array, ...]
    evaluate: Evaluate

    def floats(self) -> list[int]:
        """Positions of the inputs whose values, not only their shapes, make the result."""
        ignored = self.operation.definition.shape_only
        return [i for i, a in enumerate(self.inputs) if a.dtype.kind == "f" and i not in ignored]


@dataclass(frozen=True)
class Rule:
    """Attributes: `name` in reports, `scales` gives for each output what `u` is multiplied by."""

    name: str
    scales: Callable[[Question], list[Array]]


def _moved(question: Question) -> list[Array]:
    return [np.zeros(()) for _ in question.expected]


def _rounded(question: Question) -> list[Array]:
    """Each operand is changed alone: together, changes might cancel."""
    change = [np.zeros(y.shape) for y in question.expected]
    for position in question.floats():
        largest = [np.zeros(y.shape) for y in question.expected]
        for sign in (1.0, -1.0):
            moved = list(question.inputs)
            moved[position] = moved[position] * (1.0 + sign * _CHANGE)
            for one, found in zip(largest, _differences(question, moved), strict=True):
                np.maximum(one, found, out=one)
        change = [total + one for total, one in zip(change, largest, strict=True)]
    return [_FEW * (_finite(y) + d) for y, d in zip(question.expected, change, strict=True)]


def _near_one(question: Question) -> list[Array]:
    return [scale + _FEW for scale in _rounded(question)]


def _summed(question: Question) -> list[Array]:
    positions = ABSOLUTE.get(question.operation.type, tuple(question.floats()))
    moved = [np.abs(a) if i in positions else a for i, a in enumerate(question.inputs)]
    scales = [_finite(y) for y in question.evaluate(moved)]
    constant, root = _PRODUCTS if len(positions) > 1 else _PLAIN
    factor = constant + root * math.sqrt(_terms(question, positions))
    return [factor * _largest(scale) for scale in scales]


def _spread(question: Question) -> list[Array]:
    rng = np.random.default_rng(0)
    positions = question.floats()
    change = [np.zeros(()) for _ in question.expected]
    for _ in range(_PATTERNS if positions else 0):
        moved = list(question.inputs)
        for i in positions:
            signs = rng.integers(0, 2, moved[i].shape) * 2.0 - 1.0
            moved[i] = moved[i] * (1.0 + _CHANGE * signs)
        found = [_largest(d) for d in _differences(question, moved)]
        change = [np.maximum(a, b) for a, b in zip(change, found, strict=True)]
    constant, root = _PLAIN
    factor = constant + root * math.sqrt(_terms(question, positions))
    return [
        factor * np.maximum(d, _largest(_finite(y)))
        for y, d in zip(question.expected, change, strict=True)
    ]


def _differences(question: Question, inputs: Sequence[Array]) -> list[Array]:
    """What a change of the inputs changes in the outputs, in units of the change."""
    with np.errstate(all="ignore"):
        return [
            _finite(np.asarray(a, float) - np.asarray(b, float)) / _CHANGE
            for a, b in zip(question.evaluate(inputs), question.expected, strict=True)
        ]


def _terms(question: Question, positions: Sequence[int]) -> float:
    """How many terms make an element: from the sizes of operands and result."""
    size = max(1, question.expected[0].size)
    sizes = [max(1, question.inputs[i].size) for i in positions]
    if len(sizes) == 2:
        return max(1.0, math.sqrt(sizes[0] * sizes[1] / size))
    return max([1.0, *(s / size for s in sizes)])


def _finite(values: Array) -> Array:
    magnitude = np.abs(np.asarray(values, float))
    return np.where(np.isfinite(magnitude), magnitude, 0.0)


def _largest(values: Array) -> Array:
    return np.asarray(np.max(values, initial=0.0))


MOVED = Rule("moved", _moved)
ROUNDED = Rule("rounded", _rounded)
NEAR_ONE = Rule("near one", _near_one)
SUMMED = Rule("summed", _summed)
SPREAD = Rule("spread", _spread)

# Operands whose absolutes make the scale of a sum, where not every float operand is one.
ABSOLUTE: dict[str, tuple[int, ...]] = {
    "max_pooling_2d_gradient": (0,),
}

_MOVING = (
    *("broadcast_like", "reshape_like", "broadcast", "reshape", "permute"),
    *("expand_dims", "squeeze", "flatten_2d", "reverse", "identity", "stop_gradient"),
    *("slice", "strided_slice", "strided_slice_gradient", "slice_update", "concat"),
    *("concat_gradient", "tile", "gather", "gather_nd", "gather_along_axis", "top_k"),
    *("sort", "relu", "relu_gradient", "absolute", "negative", "sign", "ceil", "floor"),
    *("round", "rint", "truncate", "minimum", "maximum", "clamp", "select", "reduction_maximum"),
    *("reduction_minimum", "max_pooling_2d", "max_pooling_2d_at_maximum", "resize_nearest"),
)
_SUMMING = (
    *("convolution_2d", "convolution_2d_data_gradient", "convolution_2d_weights_gradient"),
    *("depthwise_convolution_2d", "depthwise_convolution_2d_data_gradient"),
    *("depthwise_convolution_2d_weights_gradient", "convolution_transpose_2d"),
    *("matrix_multiplication", "reduction_sum", "mean", "cumulative_sum", "sum_to_like"),
    *("avg_pooling_2d", "avg_pooling_2d_gradient", "max_pooling_2d_gradient", "gather_gradient"),
    *("gather_nd_gradient", "gather_along_axis_gradient", "tile_gradient", "pad_gradient"),
    *("resize_nearest_gradient", "resize_bilinear", "resize_bilinear_gradient"),
    "normalization_beta_gradient",
)

# Ops that are not judged as `rule_of` says for want of an entry.
CONDITIONS: dict[str, Rule] = {
    **dict.fromkeys(_MOVING, MOVED),
    **dict.fromkeys(_SUMMING, SUMMED),
    # They move elements beside a number that the dtype may not hold exactly.
    **dict.fromkeys(("fill_like", "pad", "one_hot"), ROUNDED),
    **dict.fromkeys(("softplus", "gelu", "sigmoid", "tanh"), NEAR_ONE),
}


def rule_of(definition: OpDefinition) -> Rule:
    """The table's rule; without one ROUNDED for elementwise ops and SPREAD for others.

    Example:
        >>> from stepgraph.graph.ops import OPS
        >>> [rule_of(OPS[name]).name for name in ("relu", "exponent", "mean", "variance")]
        ['moved', 'rounded', 'summed', 'spread']
    """
    return CONDITIONS.get(definition.name, ROUNDED if definition.elementwise else SPREAD)


def expect(operation: Operation, inputs: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """The float64 outputs of an operation, and how far from them a device may be.

    Args:
        operation: of a program: all sizes known, no effects.
        inputs: what a device had, in its dtypes.

    Returns:
        The outputs in float64 (integers and booleans as they are), and a tolerance for each,
        broadcastable to it; 0 where bits must agree.
    """

    def evaluate(given: Sequence[Array]) -> tuple[Array, ...]:
        return evaluate_wide(operation, given)

    wide = [widened(a) for a in inputs]
    expected = evaluate(wide)
    dtypes = [t.dtype for t in (*operation.inputs, *operation.outputs) if t.dtype.is_float]
    unit = max((ROUNDOFF[d.name] for d in dtypes), default=0.0)
    if all(not t.dtype.is_float for t in operation.outputs):
        scales = _moved(Question(operation, wide, expected, evaluate))
    else:
        question = Question(operation, wide, expected, evaluate)
        scales = rule_of(operation.definition).scales(question)
    tolerances = []
    for tensor, scale in zip(operation.outputs, scales, strict=True):
        exact = not tensor.dtype.is_float
        smallest = 0.0 if exact else float(np.finfo(tensor.dtype.name).tiny)
        tolerances.append(np.zeros(()) if exact else unit * scale + smallest)
    return list(expected), tolerances


def evaluate_wide(operation: Operation, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """An operation's outputs by its reference, computed in float64."""
    # A random op's dtype says which bits of a word it takes; float32 and float64 take the same.
    random = "stream" in operation.attributes
    attributes = {k: _wide_attribute(v, random) for k, v in operation.attributes.items()}
    if operation.regions:
        return _with_regions(operation, inputs)
    definition = operation.definition
    assert definition.reference is not None, definition
    with np.errstate(all="ignore"):
        found = definition.reference(*inputs, **attributes)
    results = found if isinstance(found, tuple) else (found,)
    return tuple(np.asarray(r) for r in results)


def widened(array: Array) -> Array:
    """Floats as float64, which holds them exactly."""
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _wide_attribute(value: Any, random: bool) -> Any:
    if isinstance(value, DType) and value.is_float and not (random and value.name == "float16"):
        return float64
    return widened(value) if isinstance(value, np.ndarray) else value


def _with_regions(operation: Operation, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """Control flow: its regions are copied with their dtypes widened, then run."""
    from stepgraph.compiler.pipeline import compile_program
    from stepgraph.verification.single import single_graph

    single = single_graph(operation)
    program = compile_program(
        single.graph,
        {t: t.shape for t in single.feeds.values()},
        single.outputs,
        (),
        float_dtype=float64,
        disable=("fold", "collapse", "simplify", "merge_common"),
    )
    given = dict(zip(operation.inputs, inputs, strict=True))
    values: dict[Tensor, Array] = {}
    for source, feed in single.feeds.items():
        if feed.name in program.feeds:
            values[program.feeds[feed.name]] = given[source]
    for inner in program.operations():
        if inner.outputs[0] not in values:
            values.update(zip(inner.outputs, call(inner, values), strict=True))
    return tuple(values[t] for t in program.targets)
