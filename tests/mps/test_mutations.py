"""The engine, broken in many ways: the compact suite must notice each of them.

Half of the breaks are made between the engine and the double, as if a lowering had sent another
message; the others in the engine's own functions. A break that is never used, or that ends in
anything but a refusal or a wrong value, fails its test.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stepgraph.backends.mps import compiled, state
from stepgraph.backends.mps.lowering import LOWERINGS
from stepgraph.backends.mps.messages import Block, Data, List, Number, numbers
from stepgraph.errors import StepgraphError
from tests.mps.double import Double, Refused, sdk
from tests.mps.suite import run_suite

NOTICED = (AssertionError, Refused, StepgraphError)

# Changes the arguments of a message; None leaves them.
Change = Callable[[str, list[Any]], "list[Any] | None"]


class Mutant:
    """A bridge to a double on which some messages arrive changed."""

    def __init__(self, double: Double, change: Change) -> None:
        self._double = double
        self._change = change
        self.used = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._double, name)

    def send(self, receiver: Any, selector: str, *arguments: Any) -> Any:
        changed = self._change(selector, list(arguments))
        if changed is None:
            return self._double.send(receiver, selector, *arguments)
        self.used += 1
        if isinstance(changed, _Instead):
            return changed.result(self, receiver)
        return self._double.send(receiver, *changed)

    def new(self, class_name: str, initializer: str = "init", *arguments: Any) -> Any:
        changed = self._change(initializer, list(arguments))
        if changed is not None:
            self.used += 1
            initializer, *arguments = changed
        return self._double.new(class_name, initializer, *arguments)


class _Instead:
    """No message, but this result."""

    def __init__(self, result: Callable[[Mutant, Any], Any]) -> None:
        self.result = result


def change(start: str, how: Callable[[list[Any]], list[Any]]) -> Change:
    """Changes the arguments of all messages whose selector begins so."""

    def changed(selector: str, arguments: list[Any]) -> Any:
        return [selector, *how(arguments)] if selector.startswith(start) else None

    return changed


def swap(start: str, i: int = 0, j: int = 1) -> Change:
    """Two arguments exchanged."""

    def how(a: list[Any]) -> list[Any]:
        a[i], a[j] = a[j], a[i]
        return a

    return change(start, how)


def put(start: str, i: int, value: Any) -> Change:
    """Another argument: a value, or what a function makes of it."""

    def how(a: list[Any]) -> list[Any]:
        a[i] = value(a[i]) if callable(value) else value
        return a

    return change(start, how)


def say(start: str, other: str) -> Change:
    """Another selector."""

    def changed(selector: str, arguments: list[Any]) -> Any:
        if not selector.startswith(start):
            return None
        return [other + selector.removeprefix(start), *arguments]

    return changed


def skip(start: str) -> Change:
    """No message: its first argument is taken for its result."""

    def changed(selector: str, arguments: list[Any]) -> Any:
        if not selector.startswith(start):
            return None
        return _Instead(lambda mutant, receiver: arguments[0])

    return changed


def shifted(array: List) -> List:
    """Axes, sizes: each one more."""
    return numbers([n.value + 1 for n in array.items])


def turned(array: List) -> List:
    return List(array.items[::-1])


def plain(array: List) -> Any:
    """C integers where numbers are due."""
    return List(tuple(n.value for n in array.items))


def no_dependency(selector: str, arguments: list[Any]) -> Any:
    if not selector.startswith("controlDependency"):
        return None
    block: Block = arguments[1]
    return _Instead(lambda mutant, receiver: block.function())


def no_target_operations(selector: str, arguments: list[Any]) -> Any:
    if not selector.startswith("compileWithDevice") or arguments[3] is None:
        return None
    arguments[3] = None
    return [selector, *arguments]


def assigns_old_value(selector: str, arguments: list[Any]) -> Any:
    if not selector.startswith("assignVariable"):
        return None
    return [selector, arguments[0], arguments[0], *arguments[2:]]


def branches_return_nothing(selector: str, arguments: list[Any]) -> Any:
    if not selector.startswith("whileWith"):
        return None
    after: Block = arguments[2]
    arguments[2] = replace(after, function=lambda *a: after.function(*a) and None)
    return [selector, *arguments]


def reads_wider(selector: str, arguments: list[Any]) -> Any:
    """A predicate that is not of rank 0."""
    if not selector.startswith("whileWith"):
        return None
    before: Block = arguments[1]

    def function(*given: Any) -> Any:
        found = before.function(*given)
        return found.operation.inputs[0]

    arguments[1] = replace(before, function=function)
    return [selector, *arguments]


def enum(name: str) -> int:
    return sdk.value(name)


CONVOLUTION = "descriptorWithStrideInX:strideInY:dilationRateInX:dilationRateInY:groups:"
DEPTHWISE = "descriptorWithStrideInX:strideInY:dilationRateInX:dilationRateInY:paddingLeft:"
POOLING = "descriptorWithKernelWidth:"
LAYOUT = "MPSGraphTensorNamedDataLayout"
STYLE = "MPSGraphPaddingStyle"

MESSAGES: dict[str, Change] = {
    "subtraction: operands exchanged": swap("subtraction"),
    "division: operands exchanged": swap("division"),
    "power: operands exchanged": swap("power"),
    "atan2: operands exchanged": swap("atan2"),
    "modulo: operands exchanged": swap("modulo"),
    "matrix product: operands exchanged": swap("matrixMultiplication"),
    "select: branches exchanged": swap("selectWith", 1, 2),
    "comparison: strict where it is not": say("greaterThanOrEqualTo", "lessThanOrEqualTo"),
    "comparison: the wrong way round": say("greaterThanWith", "lessThanWith"),
    "NaN-propagating maximum replaced by minimum": say("maximumWithNaN", "minimumWithNaN"),
    "relu gradient: incoming and source exchanged": swap("reLUGradient"),
    "leaky relu: another slope": put("leakyReLUWithTensor", 1, 0.01),
    "leaky relu: a whole number for the slope": put("leakyReLUWithTensor", 1, 1),
    "convolution: OIHW for HWIO": put(CONVOLUTION, 11, enum(LAYOUT + "OIHW")),
    "convolution: NCHW for NHWC": put(CONVOLUTION, 10, enum(LAYOUT + "NCHW")),
    "convolution: a layout of another kind": put(CONVOLUTION, 10, enum(LAYOUT + "HWIO")),
    "convolution: a layout that does not exist": put(CONVOLUTION, 10, 77),
    "convolution: VALID for explicit": put(CONVOLUTION, 9, enum(STYLE + "TF_VALID")),
    "convolution: SAME for explicit": put(CONVOLUTION, 9, enum(STYLE + "TF_SAME")),
    "convolution: left and right padding exchanged": swap(CONVOLUTION, 5, 6),
    "convolution: horizontal and vertical padding exchanged": swap(CONVOLUTION, 5, 7),
    "convolution: strides exchanged": swap(CONVOLUTION, 0, 1),
    "convolution: dilations exchanged": swap(CONVOLUTION, 2, 3),
    "convolution: groups forgotten": put(CONVOLUTION, 4, 1),
    "convolution: an NSNumber for a C integer": put(CONVOLUTION, 0, Number),
    "convolution gradient: incoming and weights exchanged": swap("convolution2DDataGradient"),
    "convolution gradient: incoming and source exchanged": swap("convolution2DWeightsGradient"),
    "convolution gradient: another output shape": put("convolution2DWeights", 2, turned),
    "depthwise convolution: strides of 2": put(DEPTHWISE, 0, 2),
    "depthwise convolution: padding forgotten": put(DEPTHWISE, 4, 0),
    "pooling: width and height of the window exchanged": swap(POOLING, 0, 1),
    "pooling: strides exchanged": swap(POOLING, 2, 3),
    "pooling: top and bottom padding exchanged": swap(POOLING, 8, 9),
    "pooling: SAME with the extra at the top": put(POOLING, 10, enum(STYLE + "ONNX_SAME_LOWER")),
    "pooling: average for maximum": say("maxPooling2DWith", "avgPooling2DWith"),
    "pooling gradient: incoming and source exchanged": swap("avgPooling2DGradient"),
    "normalization: mean and variance exchanged": swap("normalizationWith", 1, 2),
    "normalization: gamma dropped": put("normalizationWith", 3, None),
    "normalization: another epsilon": put("normalizationWith", 5, 0.5),
    "normalization gradient: gamma's gradient dropped": put("normalizationGradientWith", 5, None),
    "normalization gradient: the two gradients exchanged": swap("normalizationGradientWith", 5, 6),
    "normalization gradient: other axes": put("normalizationGammaGradient", 4, numbers([0])),
    "statistics: other axes": put("meanOfTensor", 1, shifted),
    "reduction: other axes": put("reductionSum", 1, shifted),
    "reduction: all axes": put("reductionSum", 1, None),
    "reduction: a product for a sum": say("reductionSum", "reductionProduct"),
    "reduction: not reshaped afterwards": skip("reshapeTensor"),
    "softmax: another axis": put("softMaxWith", 1, 0),
    "softmax: the axis as an NSNumber": put("softMaxWith", 1, Number),
    "cumulative sum: from the end": put("cumulativeSum", 3, True),
    "cumulative sum: an int for a BOOL": put("cumulativeSum", 2, 1),
    "transposition: the inverse": put(
        "transposeTensor:permutation:",
        1,
        lambda a: numbers(np.argsort([n.value for n in a.items])),
    ),
    "transposition: forgotten": skip("transposeTensor:permutation:"),
    "concat: in the reverse order": put("concatTensors", 0, turned),
    "concat: another axis": put("concatTensors", 1, 0),
    "pad: left and right exchanged": swap("padTensor", 2, 3),
    "pad: another mode": put("padTensor", 1, enum("MPSGraphPaddingModeClampToEdge")),
    "slice: one further": put("sliceTensor:dimension:", 2, lambda start: start + 1),
    "slice: start and length exchanged": swap("sliceTensor:dimension:", 2, 3),
    "slice: starts and ends exchanged": swap("sliceTensor:starts:ends:strides:", 1, 2),
    "reshape: a Python list for an NSArray": put("reshapeTensor:withShape:", 1, [4]),
    "slice update: data and update exchanged": swap("sliceUpdateDataTensor"),
    "gather: another axis": put("gatherWithUpdates", 2, lambda axis: max(axis - 1, 0)),
    "gather: data and indices exchanged": swap("gatherWithUpdates"),
    "scatter: Set for Add": put("scatterWithData", 4, enum("MPSGraphScatterModeSet")),
    "sort: upwards": put("sortWithTensor", 2, False),
    "tile: multipliers turned": put("tileTensor", 1, turned),
    "cast: to float16": put("castTensor", 1, enum("MPSDataTypeFloat16")),
    "cast: forgotten": skip("castTensor"),
    "placeholder: C integers in the shape": put("placeholderWithShape", 0, plain),
    "placeholder: a tuple for the shape": put(
        "placeholderWithShape", 0, lambda a: tuple(n.value for n in a.items)
    ),
    "placeholder: NumPy's integers in the shape": put(
        "placeholderWithShape",
        0,
        lambda a: List(tuple(Number(np.int64(n.value)) for n in a.items)),
    ),
    "placeholder: float16": put("placeholderWithShape", 1, enum("MPSDataTypeFloat16")),
    "constant: another value": put("constantWithScalar", 0, lambda v: v + 0.5),
    "constant: a whole number for a double": put("constantWithScalar", 0, 1),
    "variable: another first value": put("variableWithData", 0, lambda d: Data(d.array + 1)),
    "assign: the old value": assigns_old_value,
    "assign: operands exchanged": swap("assignVariable"),
    "assign: never asked for": no_target_operations,
    "assign: not ordered behind the read": no_dependency,
    "loop: a block that returns nil": branches_return_nothing,
    "loop: a predicate of another rank": reads_wider,
    "selector misspelt": say("additionWithPrimary", "addWithPrimary"),
    "selector without its name": change("additionWithPrimary", lambda a: a[:-1]),
    "tensor data: another data type": put("initWithMTLBuffer", 2, enum("MPSDataTypeUInt32")),
    "tensor data: another shape": put("initWithMTLBuffer", 1, turned),
    "buffer: too small": put("newBufferWithLength", 0, lambda n: max(n // 2, 1)),
    "buffer: in private memory": put("newBufferWithLength", 1, 32),
    "run: inputs turned": put("runAsyncWithMTL", 1, turned),
    "run: results turned": put("runAsyncWithMTL", 2, turned),
    "run: no results": put("runAsyncWithMTL", 2, None),
    "run: inputs given as results": change("runAsyncWithMTL", lambda a: [a[0], a[2], a[2], a[3]]),
    "handler of another signature": put(
        "setCompletionHandler", 0, lambda b: replace(b, takes=b.takes[:1])
    ),
}


def no_pool(self: Any) -> Any:
    return nullcontext()


def no_keep(self: Any, handle: Any) -> Any:
    return handle


def no_drop(self: Any, handle: Any) -> None:
    return None


def as_given(bridge: Any, executable: Any, selector: str, ports: Any) -> Any:
    """Feeds in the order in which they were given."""
    return [port for _, port in ports]


def written_early(original: Any) -> Any:
    """The next step's feeds written into the memory of those under way."""

    def take(self: Any, feeds: Any) -> Any:
        for slot in self._slots:
            for buffer in slot.feeds:
                if buffer is not None:
                    buffer.array.fill(0)
        return original(self, feeds)

    return take


def of_its_own(original: Any) -> Any:
    """A variable for every program, none shared."""

    def variable(self: Any, name: str) -> Any:
        self.handles.pop(name, None)
        return original(self, name)

    return variable


def nothing(*arguments: Any, **settings: Any) -> None:
    return None


def same_memory(original: Any) -> Any:
    """Results in the memory of the feeds."""

    def fill(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        self.outputs = List(self.inputs.items[:1] + self.outputs.items[1:])

    return fill


# Name: where, what, and what is there instead.
ENGINE: dict[str, tuple[Any, str, Any]] = {
    "no autorelease pool": (Mutant, "pool", no_pool),
    "executables and variables are not kept": (Mutant, "keep", no_keep),
    "nothing is ever dropped": (Mutant, "drop", no_drop),
    "feeds in the order given": (compiled, "_ordered", as_given),
    "buffers used again too early": (
        compiled.Compiled,
        "_take",
        written_early(compiled.Compiled._take),
    ),
    "results in the memory of the feeds": (
        compiled.Slot,
        "fill",
        same_memory(compiled.Slot.fill),
    ),
    "variables that executables do not share": (
        state.MpsState,
        "variable",
        of_its_own(state.MpsState.variable),
    ),
    "values read before a run taken for those after it": (state.MpsState, "changed", nothing),
    "values written never sent": (state.MpsState, "flush", nothing),
}

# Op: the op as which it is lowered instead.
LOWERED_AS = {
    "addition": "subtraction",
    "sigmoid": "tanh",
    "reduction_maximum": "reduction_minimum",
    "reduction_arg_maximum": "reduction_arg_minimum",
    "leaky_relu": "relu",
    "exponent": "logarithm",
    "rint": "floor",
    "avg_pooling_2d": "max_pooling_2d",
}


def broken(changed: Change = lambda selector, arguments: None) -> tuple[list[str], list[Mutant]]:
    """Runs the suite; what it noticed."""
    mutants: list[Mutant] = []

    def wrap(double: Double) -> Mutant:
        mutants.append(Mutant(double, changed))
        return mutants[0]

    noticed = []
    try:
        run_suite(wrap)
    except NOTICED as error:
        noticed.append(f"{type(error).__name__}: {error}")
    return noticed, mutants


def test_nothing_is_noticed_where_nothing_is_broken():
    noticed, _ = broken()
    assert noticed == []


@pytest.mark.parametrize("name", MESSAGES)
def test_a_wrong_message_is_noticed(name):
    noticed, mutants = broken(MESSAGES[name])
    assert mutants[0].used, "the suite never sends this message"
    assert noticed, "nothing was noticed"


@pytest.mark.parametrize("name", ENGINE)
def test_a_fault_of_the_engine_is_noticed(name, monkeypatch):
    where, what, instead = ENGINE[name]
    monkeypatch.setattr(where, what, instead, raising=False)
    assert broken()[0], "nothing was noticed"


@pytest.mark.parametrize("op", LOWERED_AS)
def test_a_wrong_lowering_is_noticed(op, monkeypatch):
    monkeypatch.setitem(LOWERINGS, op, LOWERINGS[LOWERED_AS[op]])
    assert broken()[0], "nothing was noticed"
