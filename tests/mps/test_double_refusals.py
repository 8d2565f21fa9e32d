"""Each refusal of the strict double's rules, by a message that it refuses."""

import numpy as np
import pytest

from tests.mps.descriptors import LAYOUT, convolution, depthwise, pooling
from tests.mps.double import Double, NotModelled, Refused, sdk
from tests.mps.messages import (
    Block,
    Data,
    Dictionary,
    List,
    data_type,
    normal,
    numbers,
    session,
)

F32, BOOL = data_type("float32"), data_type("bool")
X = normal(2, 3, 4)
ONE = np.ones(1, np.float32)
AT = np.array([0, 1], np.int32)
FLAT = np.arange(4, dtype=np.int32)
NHWC = sdk.value(LAYOUT + "NHWC")
HW = sdk.value(LAYOUT + "HW")
MASKS = "startMask:endMask:squeezeMask:name:"
GATHER = "gatherWithUpdatesTensor:indicesTensor:axis:batchDimensions:name:"
GATHER_ND = "gatherNDWithUpdatesTensor:indicesTensor:batchDimensions:name:"
ALONG = "gatherAlongAxis:withUpdatesTensor:indicesTensor:name:"
SCATTER = "scatterWithUpdatesTensor:indicesTensor:shape:axis:mode:name:"
SCATTER_ND = "scatterNDWithUpdatesTensor:indicesTensor:shape:batchDimensions:mode:name:"
SCATTER_ALONG = "scatterAlongAxis:withUpdatesTensor:indicesTensor:shape:mode:name:"
HOT = "oneHotWithIndicesTensor:depth:axis:dataType:onValue:offValue:name:"
RESIZE = "resizeTensor:size:mode:centerResult:alignCorners:layout:name:"
RESIZE_GRADIENT = "resizeWithGradientTensor:input:mode:centerResult:alignCorners:layout:name:"
PAD = "padTensor:withPaddingMode:leftPadding:rightPadding:constantValue:name:"
PAD_GRADIENT = (
    "padGradientWithIncomingGradientTensor:sourceTensor:paddingMode:leftPadding:rightPadding:name:"
)
DEPTH = "depthToSpace2DTensor:widthAxis:heightAxis:depthAxis:blockSize:usePixelShuffleOrder:name:"
SPACE = DEPTH.replace("depthToSpace", "spaceToDepth")
LEAKY = "leakyReLUGradientWithIncomingGradient:sourceTensor:alphaTensor:name:"
SLICE = f"sliceTensor:starts:ends:strides:{MASKS}"
UPDATE = f"sliceUpdateDataTensor:updateTensor:starts:ends:strides:{MASKS}"
SIZE = "sliceTensor:startTensor:sizeTensor:squeezeMask:name:"
GAMMA = (
    "normalizationGammaGradientWithIncomingGradientTensor:sourceTensor:meanTensor:varianceTensor:"
    "reductionAxes:epsilon:name:"
)
BETA = "normalizationBetaGradientWithIncomingGradientTensor:sourceTensor:reductionAxes:name:"
DESCENT = "stochasticGradientDescentWithLearningRateTensor:valuesTensor:gradientTensor:name:"
SCALAR = object()  # a constant of rank 0


def n(*values):
    return numbers(values)


CASES = [
    # Activations, arithmetic.
    ("is not", "reLUGradientWithIncomingGradient:sourceTensor:name:", X, X[:1]),
    ("widens", "leakyReLUWithTensor:alphaTensor:name:", ONE, np.ones(3, "f")),
    ("is not", LEAKY, X, X[:1], ONE),
    ("alpha widens", LEAKY, ONE, ONE, np.ones(3, "f")),
    ("remainder", "moduloWithPrimaryTensor:secondaryTensor:name:", AT, AT * 0),
    # Shapes.
    ("does not fit into", "reshapeTensor:withShape:name:", X, n(5, -1)),
    ("nothing to join", "concatTensors:dimension:name:", [], 0),
    ("rank 0 cannot be joined", "concatTensor:withTensor:dimension:name:", SCALAR, SCALAR, 0),
    ("equal shapes", "concatTensors:dimension:interleave:name:", [X, X[:1]], 0, True),
    ("nothing to stack", "stackTensors:axis:name:", [], 0),
    ("must be positive", "splitTensor:splitSizes:axis:name:", X, n(3, 0), 1),
    ("no parts", "splitTensor:numSplits:axis:name:", X, 0, 1),
    ("must be positive", "tileTensor:withMultiplier:name:", X, n(1, 0, 1)),
    ("higher rank", "broadcastTensor:toShape:name:", X, n(3, 4)),
    ("no elements", "shapeOfTensor:name:", SCALAR),
    ("rank 0 fails", "reinterpretCastTensor:toType:name:", SCALAR, data_type("int32")),
    ("one size", "reinterpretCastTensor:toType:name:", X, data_type("float16")),
    ("no bits", "reinterpretCastTensor:toType:name:", X > 0, data_type("int8")),
    ("stand twice", "squeezeTensor:axes:name:", X[:1], n(0, -3)),
    ("stand twice", "expandDimsOfTensor:axes:name:", X, n(0, 0)),
    ("bad axes", SPACE, X, 1, 1, 2, 2, True),
    ("a block of 0", SPACE, X, 1, 0, 2, 0, True),
    ("not made of blocks", SPACE, X, 1, 0, 2, 2, True),
    ("bad axes", DEPTH, X, 0, 1, 3, 2, True),
    ("depth of", DEPTH, X, 0, 2, 1, 2, True),
    # Slices and padding.
    ("outside rank 3", "sliceTensor:dimension:start:length:name:", X, 3, 0, 1),
    ("2 starts for rank 3", SLICE, X, n(0, 0), n(1, 1, 1), n(1, 1, 1), 0, 0, 0),
    ("bits beyond rank", SLICE, X, n(0, 0, 0), n(1, 1, 1), n(1, 1, 1), 8, 0, 0),
    ("index 2 is outside", SLICE, X, n(2, 0, 0), n(3, 1, 1), n(1, 1, 1), 0, 0, 1),
    ("a squeeze mask", UPDATE, X, X, n(0, 0, 0), n(2, 3, 4), n(1, 1, 1), 0, 0, 1),
    ("an update of", UPDATE, X, X, n(0, 0, 0), n(1, 3, 4), n(1, 1, 1), 0, 0, 0),
    ("rank 0 cannot be padded", PAD, SCALAR, 4, n(), n(), 0.0),
    ("0.5 for int32", PAD, AT, 0, n(1), n(0), 0.5),
    ("nothing is left", PAD, X, 4, n(-1, 0, 0), n(-1, 0, 0), 0.0),
    ("a gradient of", PAD_GRADIENT, X, X, 4, n(1, 0, 0), n(0, 0, 0)),
    ("negative paddings", PAD_GRADIENT, X[1:], X, 4, n(-1, 0, 0), n(0, 0, 0)),
    # Gather, scatter, one-hot, top-k.
    ("axis 3 is outside", GATHER, X, AT, 3, 0),
    ("batchDimensions 2", GATHER, X, AT, 2, 2),
    ("batches", GATHER, X, np.zeros((3, 2), "i4"), 1, 1),
    ("indices of rank 0", GATHER, FLAT, "rank 0", 0, 0),
    ("indices of rank 0", GATHER_ND, FLAT, "rank 0", 0),
    ("batchDimensions 1", GATHER_ND, X, AT, 1),
    ("batches", GATHER_ND, X, np.zeros((3, 1), "i4"), 1),
    ("4 indices after 0", GATHER_ND, X, FLAT, 0),
    ("indices of", ALONG, 0, X, AT),
    ("indices of", ALONG, 0, X, np.zeros((2, 3, 3), "i4")),
    ("updates of rank 0", SCATTER, SCALAR, AT, n(4), 0, 0),
    ("-1 is no value", SCATTER, X, AT, n(4, 3, 4), 0, -1),
    ("only Add is clear", SCATTER, X, AT, n(4, 3, 4), 0, 2),
    ("updates of", SCATTER_ND, X, AT[:, None], n(4, 3, 3), 0, 0),
    ("indices of", SCATTER_ALONG, 0, X, AT, n(4, 3, 4), 0),
    ("updates of", SCATTER_ALONG, 0, X, np.zeros((2, 3, 4), "i4"), n(4, 3, 3), 0),
    ("integer division", SCATTER_ALONG, 0, AT, AT, n(4), 3),
    ("outside rank 2", HOT, AT, 3, 2, F32, 1.0, 0.0),
    ("a depth of 0", HOT, AT, 0, 0, F32, 1.0, 0.0),
    ("written as 255", HOT, AT, 3, 0, BOOL, 1.0, 0.0),
    ("only the last four", "topKWithSourceTensor:axis:k:name:", np.ones([2] * 5, "f"), 0, 1),
    ("a gradient of", "topKWithGradientTensor:source:axis:k:name:", X, X, 0, 1),
    # Reductions, statistics, linear algebra, optimizers.
    ("rank of 1", "reductionArgMinimumWithTensor:axis:name:", SCALAR, 0),
    ("rank of 1", "meanOfTensor:axes:name:", SCALAR, n()),
    ("rank of 1", "varianceOfTensor:axes:name:", SCALAR, n()),
    ("a mean of", "varianceOfTensor:meanTensor:axes:name:", X[:1], X, n(0)),
    ("a gradient of", GAMMA, X[:1], X, ONE, ONE, n(0), 0.1),
    ("a gradient of", BETA, X[:1], X, n(0)),
    ("a rank of 2", "bandPartWithTensor:numLower:numUpper:name:", ONE, 0, 0),
    ("no square", "inverseOfTensor:name:", X),
    ("where the values are", DESCENT, ONE, X, X[:1]),
    # Resizing.
    ("layout 6", RESIZE, X, n(2, 2), 1, True, False, HW),
    ("rank 3 for a layout of 4", RESIZE, X, n(2, 2), 1, True, False, NHWC),
    ("size", RESIZE, X[None], n(2, 2, 2), 1, True, False, NHWC),
    ("at once", RESIZE, X[None], n(2, 2), 1, True, True, NHWC),
    ("layout 6", RESIZE_GRADIENT, X, X, 1, True, False, HW),
    ("a gradient of", RESIZE_GRADIENT, X[None], X[None, ..., :1], 1, True, False, NHWC),
]


@pytest.mark.parametrize(
    ("said", "selector", "arguments"),
    [(said, selector, arguments) for said, selector, *arguments in CASES],
    ids=[f"{selector.partition(':')[0]}-{said}" for said, selector, *_ in CASES],
)
def test_rules(s, said, selector, arguments):
    def made(a):
        if a is SCALAR:
            return s.send("constantWithScalar:dataType:", 1.0, F32)
        if isinstance(a, str):
            return s.send("constantWithScalar:dataType:", 1.0, data_type("int32"))
        return a

    with pytest.raises(Refused, match=said):
        s.of(selector, *(made(a) for a in arguments))


def refuses(said, function, *arguments):
    with pytest.raises(Refused, match=said):
        function(*arguments)


def test_shape_tensors(s):
    start, wide = s.constant(np.zeros(3, "i4")), s.constant(np.array([1, 1, 9], "i4"))
    refuses("a start and a size", s.of, SIZE, X, s.constant(AT), wide, 0)
    refuses("starts, sizes", s.of, SIZE, X, start, start, 0)
    refuses("past the end", s.of, SIZE, X, start, wide, 0)
    reshape = "reshapeTensor:withShapeTensor:name:"
    refuses("int32 or int64", s.of, reshape, X, s.constant(np.ones(3, "f")))
    refuses("rank 1", s.of, reshape, X, s.constant(np.array([[24]], "i4")))
    refuses("must be one number", s.of, "flatten2DTensor:axisTensor:name:", X, s.constant(AT))
    gradient = f"sliceGradientTensor:fwdInShapeTensor:starts:ends:strides:{MASKS}"
    shape = s.constant(np.array([2, 3, 4], "i4"))
    part = n(0, 0, 0), n(1, 3, 4), n(1, 1, 1)
    refuses("a gradient of", s.of, gradient, X, shape, *part, 0, 0, 0)


def test_constants_and_variables(s):
    data = Data(np.array([0, 7], np.uint8))
    refuses("must be 0 or 1", s.send, "constantWithData:shape:dataType:", data, n(2), BOOL)
    x = s.placeholder([2])
    refuses("must be a constant", s.send, "variableFromTensorWithTensor:name:", x, None)
    bfloat = sdk.value("MPSDataTypeBFloat16")
    with pytest.raises(NotModelled):
        s.send("placeholderWithShape:dataType:name:", n(2), bfloat, None)
    huge = 1e300
    epsilon = "normalizationWithTensor:meanTensor:varianceTensor:gammaTensor:betaTensor:epsilon:"
    refuses("does not fit float", s.of, epsilon + "name:", X, ONE, ONE, None, None, huge)


def test_products_on_the_newest_system():
    with session(version=(26, 2)) as s:
        wide = s.send("broadcastTensor:toShape:name:", s.placeholder([1, 2]), n(2, 2), None)
        product = "matrixMultiplicationWithPrimaryTensor:secondaryTensor:name:"
        refuses("materialize", s.send, product, wide, wide, None)


def test_extents_above_65536():
    plain = "convolution2DWithSourceTensor:weightsTensor:descriptor:name:"
    for version in ((18, 0), (18, 1)):
        with session(version=version) as s:
            x, w = s.placeholder([1, 70000, 1, 1]), s.placeholder([1, 1, 1, 1], name="w")
            if version == (18, 1):
                s.send(plain, x, w, convolution(s), None)
            else:
                refuses("before iOS 18.1", s.send, plain, x, w, convolution(s), None)


def test_convolutions(s):
    start, last = "GradientWithIncomingGradientTensor:", "forwardConvolutionDescriptor:name:"
    x, w, g = normal(1, 8, 8, 4), normal(3, 3, 4, 6), normal(1, 6, 6, 6)
    plain = "convolution2DWithSourceTensor:weightsTensor:descriptor:name:"
    refuses("0 groups", s.of, plain, x, w, convolution(s, groups=0))
    refuses("data layout", s.of, plain, x, w, convolution(s, data="HWC"))
    refuses("5 outputs in 2", s.of, plain, x, normal(3, 3, 2, 5), convolution(s, groups=2))
    data = f"convolution2DData{start}weightsTensor:outputShape:{last}"
    refuses("rank 3", s.of, data, g, w, n(8, 8, 4), convolution(s))
    weights = f"convolution2DWeights{start}sourceTensor:outputShape:{last}"
    refuses("rank 3", s.of, weights, g, x, n(3, 3, 4), convolution(s))
    refuses("where", s.of, weights, g, x, n(3, 2, 4, 6), convolution(s))
    back = f"convolutionTranspose2DData{start}weightsTensor:outputShape:{last}"
    refuses("comes out", s.of, back, x, w, n(1, 6, 6, 5), convolution(s))
    plain = "depthwiseConvolution2DWithSourceTensor:weightsTensor:descriptor:name:"
    single = normal(3, 3, 4, 1)
    g = normal(1, 6, 6, 4)
    refuses("weights for 5", s.of, plain, x, normal(3, 3, 5, 1), depthwise(s))
    data = f"depthwiseConvolution2DData{start}weightsTensor:outputShape:descriptor:name:"
    refuses("rank 3", s.of, data, g, single, n(8, 8, 4), depthwise(s))
    refuses("where", s.of, data, g, single, n(1, 9, 8, 4), depthwise(s))
    weights = f"depthwiseConvolution2DWeights{start}sourceTensor:outputShape:descriptor:name:"
    refuses("rank 3", s.of, weights, g, x, n(3, 3, 4), depthwise(s))
    refuses("where", s.of, weights, g, x, n(2, 3, 4, 1), depthwise(s))


def test_pooling(s):
    x = normal(1, 8, 8, 4)
    plain = "maxPooling2DWithSourceTensor:descriptor:name:"
    refuses("rank 3 must be 4", s.of, plain, x[0], pooling(s, (2, 2), (2, 2)))
    refuses("a 0 in the window", s.of, plain, x, pooling(s, (0, 2), (2, 2)))
    refuses("data layout", s.of, plain, x, pooling(s, (2, 2), (2, 2), layout="HWIO"))
    refuses("a window of 9 on 8", s.of, plain, x, pooling(s, (9, 2), (1, 1)))
    pads = ((2, 0), (0, 0))
    refuses("only pads in a window", s.of, plain, x, pooling(s, (2, 2), (1, 1), pads))
    beyond = pooling(s, (2, 2), (3, 3), ((0, 1), (0, 0)), ceilMode=True)
    refuses("behind the source", s.of, plain, x, beyond)
    gradient = "maxPooling2DGradientWithGradientTensor:sourceTensor:descriptor:name:"
    refuses("a gradient of", s.of, gradient, x, x, pooling(s, (2, 2), (2, 2)))
    indices = "maxPooling2DReturnIndicesWithSourceTensor:descriptor:name:"
    mode = "MPSGraphPoolingReturnIndices"
    local = pooling(s, (2, 2), (2, 2), returnIndicesMode=sdk.value(mode + "LocalFlatten2D"))
    refuses("local to a window", s.of, indices, x, local)
    settings = {
        "returnIndicesMode": sdk.value(mode + "GlobalFlatten2D"),
        "returnIndicesDataType": data_type("int64"),
    }
    refuses("int32 only", s.of, indices, x, pooling(s, (2, 2), (2, 2), **settings))
    settings["returnIndicesDataType"] = data_type("int32")
    back = "maxPooling2DGradientWithGradientTensor:indicesTensor:outputShape:descriptor:name:"
    d = pooling(s, (2, 2), (2, 2), **settings)
    refuses("for", s.of, back, x, np.zeros(x.shape, "i4"), n(1, 8, 8, 4), d)
    four = s.double.send(
        "MPSGraphPooling4DOpDescriptor",
        "descriptorWithKernelSizes:paddingStyle:",
        n(1, 2, 2),
        0,
    )
    refuses("3 kernelSizes", s.of, "maxPooling4DWithSourceTensor:descriptor:name:", x, four)


def test_random_numbers(s):
    d = s.double.send(
        "MPSGraphRandomOpDescriptor",
        "descriptorWithDistribution:dataType:",
        sdk.value("MPSGraphRandomDistributionNormal"),
        data_type("int32"),
    )
    refuses("no such numbers", s.of, "randomTensorWithShape:descriptor:name:", n(3), d)
    state = "randomUniformTensorWithShape:stateTensor:name:"
    refuses("a state of", s.of, state, n(3), AT)


def test_gamma_that_changes_along_the_axes(s):
    selector = (
        "normalizationGradientWithIncomingGradientTensor:sourceTensor:meanTensor:varianceTensor:"
        "gammaTensor:gammaGradientTensor:betaGradientTensor:reductionAxes:epsilon:name:"
    )
    x, small, wide = normal(2, 6), normal(2, 1), normal(1, 6)
    refuses("changes along", s.of, selector, x, x, small, small, wide, wide, wide, n(1), 0.1)
    refuses("a gradient of", s.of, selector, x[:1], x, small, small, wide, wide, wide, n(1), 0.1)


BRANCH = ("NSArray<MPSGraphTensor>", ())
IF = "ifWithPredicateTensor:thenBlock:elseBlock:name:"


def test_blocks(s):
    flag, x, y = s.placeholder([1], "bool"), s.placeholder([2]), s.placeholder([2], "int32", "y")

    def branch(function):
        return s.send(IF, flag, Block(*BRANCH, function), Block(*BRANCH, lambda: List((x,))), None)

    def feeds():
        return List((s.placeholder([2]),))

    def stores():
        return List((s.variable(np.ones(2, "f")),))

    refuses("placeholder is made inside", branch, feeds)
    refuses("variable is made inside", branch, stores)
    refuses("data types differ", branch, lambda: List((y,)))
    loss = "softMaxCrossEntropyWithSourceTensor:labelsTensor:axis:reductionType:name:"
    refuses("reshape it first", branch, lambda: List((s.send(loss, x, x, 0, 0, None),)))
    executable = s.compile({x: np.ones(2, "f")}, [s.send("identityWithTensor:name:", x, None)])
    run = "runWithMTLCommandQueue:inputsArray:resultsArray:executionDescriptor:"
    data = List((s.data(np.ones(2, "f"))[0],))

    def runs():
        s.double.send(executable, run, s.queue, data, None, None)
        return List((x,))

    refuses("run inside a block", branch, runs)

    def refused():
        return List((s.send("negativeWithTensor:name:", s.placeholder([2]), None),))

    refuses("placeholder is made inside", branch, refused)


def test_control_dependencies(s):
    selector = "controlDependencyWithOperations:dependentBlock:name:"
    x = s.placeholder([2])
    block = Block(*BRANCH, lambda: List((x,)))
    refuses("no operations", s.send, selector, List(()), block, None)
    other = s.double.new("MPSGraph")
    placeholder = "placeholderWithShape:dataType:name:"
    foreign = s.double.send(s.double.send(other, placeholder, n(2), F32, None), "operation")
    refuses("another graph's", s.send, selector, List((foreign,)), block, None)
    inner = []

    def makes():
        inner.append(s.send("negativeWithTensor:name:", x, None))
        return List((x,))

    flag = s.placeholder([1], "bool")
    s.send(IF, flag, Block(*BRANCH, makes), block, None)
    hidden = s.double.send(inner[0], "operation")
    refuses("made in a block", s.send, selector, List((hidden,)), block, None)


def test_loops(s):
    x, count = s.placeholder([1]), s.placeholder([1], "int32", "count")
    array = "NSArray<MPSGraphTensor>"
    before = Block("MPSGraphTensor", (array, "NSMutableArray<MPSGraphTensor>"), None)
    start = s.send("isNaNWithTensor:name:", x, None)
    truth = s.send("reshapeTensor:withShape:name:", start, n(), None)

    class Filled:
        def __init__(self, fill):
            self.fill = fill

        def __call__(self, inputs, results):
            if self.fill:
                s.double.send(results, "addObject:", s.double.items(inputs)[0])
            return truth

    def loop(fill):
        first = Block(before.returns, before.takes, Filled(fill))
        after = Block(array, (array,), lambda inputs: List(tuple(s.double.items(inputs))))
        return s.send("whileWithInitialInputs:before:after:name:", List((x,)), first, after, None)

    refuses("filled in no results", loop, False)
    (out,) = s.double.items(loop(True))
    assert s.run({x: ONE}, [out])[0] == 1
    forward = "forLoopWithLowerBound:upperBound:step:initialBodyArguments:body:name:"
    body = Block(array, ("MPSGraphTensor", array), lambda i, a: List(tuple(s.double.items(a))))
    (out,) = s.double.items(s.send(forward, count, count, count, List((x,)), body, None))
    with pytest.raises(Refused, match="must be positive"):
        s.run({x: ONE, count: np.array([-1], "i4")}, [out])


def test_feeds_without_shape(s):
    x = s.placeholder([1])
    target = s.send("identityWithTensor:name:", x, None)
    compile_ = "compileWithDevice:feeds:targetTensors:targetOperations:compilationDescriptor:"
    for shape, said in ((None, "has no shape"), (n(), "has rank 0")):
        kind = s.double.new("MPSGraphShapedType", "initWithShape:dataType:", shape, F32)
        feeds = Dictionary(((x, kind),))
        refuses(said, s.send, compile_, s.graph_device, feeds, List((target,)), None, None)


def test_data_of_the_wrong_length(s):
    initializer = "initWithDevice:data:shape:dataType:"
    arguments = s.graph_device, Data(np.ones(3, "f")), n(2), F32
    refuses("12 bytes of data for 8", s.double.new, "MPSGraphTensorData", initializer, *arguments)


def test_data_of_a_committed_buffer_must_live(s):
    x = s.placeholder([1])
    executable = s.compile({x: ONE}, [s.send("identityWithTensor:name:", x, None)])
    data, result = s.data(ONE)[0], s.data(ONE)[0]
    buffer = s.double.send("MPSCommandBuffer", "commandBufferFromCommandQueue:", s.queue)
    encode = "encodeToCommandBuffer:inputsArray:resultsArray:executionDescriptor:"
    with s.double.pool():
        s.double.send(executable, encode, buffer, List((data,)), List((result,)), None)
    s.double.drop(data)
    s.double.send(buffer, "commit")
    refuses("ended before it ran", s.double.send, buffer, "waitUntilCompleted")


def test_handles_that_are_none(s):
    refuses("is no object", s.double.send, 7, "options")
    refuses("is no object", s.double.drop, "graph")
    refuses("no MTLBuffer", s.double.view, s.graph, 4)
    with pytest.raises(NotModelled):
        s.double.send("NSNumber", "numberWithInt:", 3)
    with pytest.raises(ValueError, match="no such fault"):
        Double(faults=["gremlins"])


def test_void_blocks_return_nothing(s):
    x = s.placeholder([1])
    executable = s.compile({x: ONE}, [s.send("identityWithTensor:name:", x, None)])
    d = s.double.new("MPSGraphExecutableExecutionDescriptor")
    takes = ("NSArray<MPSGraphTensorData>", "NSError")
    s.double.send(d, "setCompletionHandler:", Block("void", takes, lambda results, error: 7))
    run = "runAsyncWithMTLCommandQueue:inputsArray:resultsArray:executionDescriptor:"
    arrays = [List((s.data(ONE)[0],)) for _ in range(2)]
    s.double.send(executable, run, s.queue, *arrays, d)
    s.queue.worker.submit(lambda: None).result()
    refuses("from a block that returns void", s.double.raise_failures)
