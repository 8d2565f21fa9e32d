"""The strict double's numbers against NumPy and PyTorch, family by family, and what it refuses."""

import math

import numpy as np
import pytest

from tests.mps.double import Refused, sdk
from tests.mps.messages import List, normal, numbers, session

F32 = sdk.value("MPSDataTypeFloat32")
UNARY = "WithTensor:name:"
BINARY = "WithPrimaryTensor:secondaryTensor:name:"


def close(got, wanted, tolerance=2e-5):
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


def refuses(s, said, selector, *arguments):
    with pytest.raises(Refused, match=said):
        s.of(selector, *arguments)


# Element by element -------------------------------------------------------------------------------

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("sign", [NAN, -0.0, -3, 2], [0, 0, -1, 1]),
        ("round", [0.5, -0.5, 1.5, 2.5, -2.5, 0.49999997], [1, -1, 2, 3, -3, 0]),
        ("rint", [0.5, 1.5, 2.5, -2.5], [0, 2, 2, -2]),
        ("logarithm", [0, 1], [-INF, 0]),
        ("reciprocal", [-0.0, 4], [-INF, 0.25]),
        ("squareRoot", [-1, 4], [NAN, 2]),
        ("reLU", [NAN, -1, 2], [0, 0, 2]),
        ("signbit", [-0.0, 1, -2], [1, 0, 1]),
        ("truncate", [-1.7, 1.7], [-1, 1]),
        ("erf", [0, 0.5, -2], [math.erf(v) for v in (0, 0.5, -2)]),
        ("sigmoid", [0, 100, -100], [0.5, 1, 0]),
    ],
)
def test_special_values(s, name, given, wanted):
    got = s.of(name + UNARY, np.array(given, np.float32))
    np.testing.assert_allclose(got, np.array(wanted, np.float32), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "a", "b", "wanted"),
    [
        ("minimum", [NAN, 1, NAN], [2, NAN, NAN], [2, 1, NAN]),
        ("maximumWithNaNPropagation", [NAN, 1], [2, 3], [NAN, 3]),
        ("modulo", [-7, 7, -7], [3, -3, -3], [-1, 1, -1]),
        ("floorModulo", [-7, 7, 5], [3, -3, 0], [2, -2, 0]),
        ("divisionNoNaN", [1, 0, 1], [0, 0, NAN], [0, 0, NAN]),
        ("power", [-8, 2], [1 / 3, 3], [NAN, 8]),
        ("logicalXOR", [2, 0, 1], [0, 0, 3], None),
    ],
)
def test_special_pairs(s, name, a, b, wanted):
    a, b = np.array(a, np.float32), np.array(b, np.float32)
    if wanted is None:
        refuses(s, "must be one of", name + BINARY, a, b)
        return
    np.testing.assert_allclose(s.of(name + BINARY, a, b), np.array(wanted, np.float32), rtol=1e-6)


def test_result_types(s):
    a = np.array([1, 2, 3], np.int32)
    assert s.of("equal" + BINARY, a, a).dtype == np.bool_
    assert s.of("logicalAND" + BINARY, a, a).dtype == np.int32
    assert s.of("not" + UNARY, a).dtype == np.int32
    assert s.of("isNaN" + UNARY, a.astype("f")).dtype == np.bool_
    assert s.of("reductionArgMaximumWithTensor:axis:name:", a, 0).dtype == np.int32
    assert s.of("coordinateAlongAxis:withShape:name:", 0, numbers([3])).dtype == np.int32
    assert s.of("shapeOfTensor:name:", a).dtype == np.int32


def test_denormals_are_flushed_by_arithmetic_alone(s):
    tiny = np.array([1e-40, -1e-40, 2e-38], np.float32)
    double = s.of("addition" + BINARY, tiny, tiny)
    np.testing.assert_array_equal(double, np.array([0, 0, 4e-38], np.float32))
    assert np.signbit(s.of("multiplication" + BINARY, tiny, np.ones(1, "f")))[1]
    np.testing.assert_array_equal(s.of("identity" + UNARY, tiny), tiny)
    np.testing.assert_array_equal(s.of("negative" + UNARY, tiny), -tiny)


def test_half_is_not_ieee(s):
    h = np.array([NAN, -0.0, 1], np.float16)
    got = s.of("identity" + UNARY, h)
    assert np.isinf(got[0])
    assert not np.signbit(got[1])
    got = s.of("logarithm" + UNARY, np.array([0, NAN], np.float16))
    np.testing.assert_array_equal(got, np.array([-45440, 0], np.float16))
    refuses(s, "test in float32", "equal" + BINARY, h, h)
    refuses(s, "test in float32", "isNaN" + UNARY, h)


def test_operands_must_agree(s):
    f, i = normal(2, 3), np.ones((2, 3), np.int32)
    refuses(s, "several data types: Float32, Int32", "addition" + BINARY, f, i)
    refuses(s, "do not broadcast", "addition" + BINARY, f, normal(2))
    for selector in ("minimumWithNaNPropagation" + BINARY, "power" + BINARY):
        refuses(s, "must be one of Float32", selector, i, i)
    for name in ("floor", "round", "exponent"):
        refuses(s, "must be one of Float32", name + UNARY, i)
    close(s.of("subtraction" + BINARY, f, normal(1, 3) * 0), f)


def test_whole_numbers(s):
    big = np.array([2**31 - 1, 65536], np.int32)
    np.testing.assert_array_equal(
        s.of("multiplication" + BINARY, big, big), np.array([1, 0], np.int32)
    )
    one = np.array([1, -5], np.int32)
    by = np.array([33, 34], np.int32)
    np.testing.assert_array_equal(s.of("bitwiseLeftShift" + BINARY, one, by), [2, -20])
    refuses(s, "logical or arithmetic", "bitwiseRightShift" + BINARY, one, by)
    bits = np.array([2**32 - 1], np.uint32)
    got = s.of("bitwiseRightShift" + BINARY, bits, np.array([28], np.uint32))
    np.testing.assert_array_equal(got, [15])
    refuses(s, "reads them signed", "lessThan" + BINARY, bits, bits)
    refuses(s, "division by 0", "division" + BINARY, by, by * 0)
    refuses(s, "negative", "division" + BINARY, one, by)


def test_select_and_clamp(s):
    p = np.array([NAN, 0, 2], np.float32)
    a, b = normal(3), normal(3)
    got = s.of("selectWithPredicateTensor:truePredicateTensor:falsePredicateTensor:name:", p, a, b)
    np.testing.assert_array_equal(got, [a[0], b[1], a[2]])
    clamp = "clampWithTensor:minValueTensor:maxValueTensor:name:"
    got = s.of(clamp, np.array([NAN, 5, -5], "f"), np.array([-1], "f"), np.array([1], "f"))
    assert got[0] in (-1, 1)
    np.testing.assert_array_equal(got[1:], [1, -1])


def test_activation_gradients(s, torch):
    x, g = normal(4, 5), normal(4, 5)
    for name, f in (("reLU", torch.relu), ("sigmoid", torch.sigmoid)):
        t = torch.tensor(x, requires_grad=True)
        f(t).backward(torch.tensor(g))
        got = s.of(f"{name}GradientWithIncomingGradient:sourceTensor:name:", g, x)
        close(got, t.grad)
    close(s.of("softMaxWithTensor:axis:name:", x, -1), torch.softmax(torch.tensor(x), -1))
    selector = "softMaxGradientWithIncomingGradient:sourceTensor:axis:name:"
    refuses(s, "softmax_gradient", selector, g, x, 1)
    close(s.of("leakyReLUWithTensor:alpha:name:", x, 0.1), np.where(x > 0, x, x * 0.1))


# Reductions ---------------------------------------------------------------------------------------


def test_reductions_keep_their_axes(s):
    x = normal(3, 4, 5)
    over = "reductionSumWithTensor:axes:name:"
    close(s.of(over, x, numbers([0, -1])), x.sum((0, 2), keepdims=True))
    close(s.of(over, x, numbers([2, 2, -1])), x.sum(2, keepdims=True))
    close(s.of(over, x, None), x.sum(keepdims=True))
    close(s.of(over, x, numbers([])), x)
    refuses(s, "axis 3 is outside rank 3", over, x, numbers([3]))
    scalar = s.send("constantWithScalar:dataType:", 1.0, F32)
    refuses(s, "rank of 1", over, scalar, None)
    close(s.of("reductionProductWithTensor:axis:name:", x, 1), x.prod(1, keepdims=True))


def test_reductions_and_nan(s):
    x = np.array([[NAN, 1, 3], [NAN, NAN, NAN]], np.float32)
    got = s.of("reductionMaximumWithTensor:axis:name:", x, 1)
    np.testing.assert_array_equal(got, [[3], [-INF]])
    got = s.of("reductionMinimumWithTensor:axis:name:", x, 1)
    np.testing.assert_array_equal(got, [[1], [INF]])
    got = s.of("reductionMaximumPropagateNaNWithTensor:axis:name:", x, 1)
    np.testing.assert_array_equal(got, [[NAN], [NAN]])
    got = s.of("reductionArgMaximumWithTensor:axis:name:", x, 1)
    np.testing.assert_array_equal(got, [[2], [-1]])
    x = np.array([3, 7, 7], np.int32)
    np.testing.assert_array_equal(s.of("reductionArgMaximumWithTensor:axis:name:", x, 0), [1])
    refuses(s, "UInt32", "reductionArgMaximumWithTensor:axis:name:", x.astype(np.uint32), 0)


def test_cumulative(s):
    x = normal(3, 4)
    full = "cumulative{}WithTensor:axis:exclusive:reverse:name:"
    close(s.of(full.format("Sum"), x, 1, False, False), np.cumsum(x, 1))
    wanted = np.flip(np.cumsum(np.flip(x, 1), 1), 1) - x
    close(s.of(full.format("Sum"), x, -1, True, True), wanted)
    got = s.of(full.format("Maximum"), x, 1, True, False)
    np.testing.assert_array_equal(got[:, 0], np.finfo(np.float32).min)
    deep = np.ones((2, 1, 1, 1, 1), "f")
    refuses(s, "last four", full.format("Sum"), deep, 0, False, False)


# Statistics, products, losses ---------------------------------------------------------------------


def test_statistics(s):
    x = normal(4, 3, 2)
    axes = numbers([0, 2])
    mean = s.of("meanOfTensor:axes:name:", x, axes)
    close(mean, x.mean((0, 2), keepdims=True))
    close(s.of("varianceOfTensor:axes:name:", x, axes), x.var((0, 2), keepdims=True))
    about = "varianceOfTensor:meanTensor:axes:name:"
    close(s.of(about, x, mean * 0, axes), np.square(x).mean((0, 2), keepdims=True))


def test_normalization_and_gradients(s, torch):
    x, g = normal(4, 5, 3, 6), normal(4, 5, 3, 6)
    gamma, beta = normal(1, 1, 1, 6), normal(1, 1, 1, 6)
    axes, epsilon = numbers([0, 1, 2]), 1e-3
    mean = x.mean((0, 1, 2), keepdims=True)
    variance = x.var((0, 1, 2), keepdims=True)
    tx = torch.tensor(x).permute(0, 3, 1, 2).requires_grad_()
    tg = torch.tensor(gamma.ravel(), requires_grad=True)
    tb = torch.tensor(beta.ravel(), requires_grad=True)
    ty = torch.nn.functional.batch_norm(tx, None, None, tg, tb, training=True, eps=epsilon)
    ty.backward(torch.tensor(g).permute(0, 3, 1, 2))
    plain = "normalizationWithTensor:meanTensor:varianceTensor:gammaTensor:betaTensor:epsilon:name:"
    got = s.of(plain, x, mean, variance, gamma, beta, epsilon)
    close(got, ty.detach().permute(0, 2, 3, 1))
    close(s.of(plain, x, mean, variance, None, beta.ravel(), epsilon), (got - beta) / gamma + beta)
    incoming = "GradientWithIncomingGradientTensor:sourceTensor:"
    statistics = "meanTensor:varianceTensor:"
    dg = s.of(
        f"normalizationGamma{incoming}{statistics}reductionAxes:epsilon:name:",
        g,
        x,
        mean,
        variance,
        axes,
        epsilon,
    )
    close(dg.ravel(), tg.grad, 1e-4)
    db = s.of(f"normalizationBeta{incoming}reductionAxes:name:", g, x, axes)
    close(db.ravel(), tb.grad, 1e-4)
    source = (
        f"normalization{incoming}{statistics}gammaTensor:gammaGradientTensor:betaGradientTensor:"
        "reductionAxes:epsilon:name:"
    )
    got = s.of(source, g, x, mean, variance, gamma, dg, db, axes, epsilon)
    close(got, tx.grad.permute(0, 2, 3, 1), 1e-4)
    refuses(s, "unstated", source, g, x, mean, variance, gamma, None, db, axes, epsilon)
    refuses(s, "widens", plain, x[:1], mean, np.repeat(variance, 4, 0), None, None, epsilon)
    refuses(s, "the axes leave", source, g, x, mean[0], variance, gamma, dg, db, axes, epsilon)


def test_products(s):
    a, b = normal(2, 1, 3, 4), normal(5, 4, 6)
    selector = "matrixMultiplication" + BINARY
    close(s.of(selector, a, b), a @ b)
    refuses(s, "ranks of", selector, normal(4), b)
    refuses(s, "times", selector, b, a)
    i = np.ones((2, 2), np.int32)
    refuses(s, "must be one of", selector, i, i)
    a = s.send("softMaxWithTensor:axis:name:", s.placeholder([3, 20, 20]), 2, None)
    refuses(s, "attention", selector, a, normal(3, 20, 64))
    with pytest.raises(Refused, match="differentiation is wrong"):
        s.send("gradientForPrimaryTensor:withTensors:name:", a, List((a,)), None)
    wide = s.placeholder([1, 32769])
    tall = s.placeholder([32769, 1], name="y")
    refuses(s, "split", selector, wide, tall)


def test_cross_entropy(s, torch):
    x = normal(4, 5)
    y = np.eye(5, dtype="f")[[1, 0, 3, 3]]
    selector = "softMaxCrossEntropyWithSourceTensor:labelsTensor:axis:reductionType:name:"
    loss = s.send(selector, s.constant(x), s.constant(y), 1, 1, None)
    refuses(s, "reshape it first", "negative" + UNARY, loss)
    with pytest.raises(Refused, match="reshape it first"):
        s.run({}, [loss])
    got = s.of("reshapeTensor:withShape:name:", loss, numbers([1]))
    wanted = torch.nn.functional.cross_entropy(
        torch.tensor(x), torch.tensor([1, 0, 3, 3]), reduction="sum"
    )
    close(got, [wanted])
    refuses(s, "divisor of the mean", selector, x, y, 1, 2)
    refuses(s, "labels of", selector, x, y[:, :4], 1, 1)
    gradient = (
        "softMaxCrossEntropyGradientWithIncomingGradientTensor:sourceTensor:labelsTensor:"
        "axis:reductionType:name:"
    )
    scale = np.array([0.25], "f")
    refuses(s, "softmax_cross_entropy_gradient", gradient, scale, x, y, 1, 1)
    with session(faults=["softmax_cross_entropy_gradient"]) as faulty:
        wrong = faulty.of(gradient, scale, x, y, 1, 1)
        right = 0.25 * (torch.softmax(torch.tensor(x), 1).numpy() - y)
        assert abs(wrong - right).max() > 0.1


# Shapes -------------------------------------------------------------------------------------------


def test_shapes(s):
    x = np.arange(24, dtype="f").reshape(2, 3, 4)
    cases = [
        ("reshapeTensor:withShape:name:", (numbers([4, -1]),), x.reshape(4, 6)),
        ("transposeTensor:permutation:name:", (numbers([2, 0, 1]),), x.transpose(2, 0, 1)),
        ("transposeTensor:dimension:withDimension:name:", (0, 2), x.swapaxes(0, 2)),
        ("expandDimsOfTensor:axes:name:", (numbers([0, -1]),), x[None, ..., None]),
        ("reverseTensor:axes:name:", (numbers([-1, 0]),), np.flip(x, (0, 2))),
        ("flatten2DTensor:axis:name:", (1,), x.reshape(2, 12)),
        ("flatten2DTensor:axis:name:", (0,), x.reshape(1, 24)),
        ("tileTensor:withMultiplier:name:", (numbers([1, 2, 1]),), np.tile(x, (1, 2, 1))),
        ("sliceTensor:dimension:start:length:name:", (2, -3, 2), x[:, :, 1:3]),
        ("shapeOfTensor:name:", (), np.array([2, 3, 4])),
        ("castTensor:toType:name:", (sdk.value("MPSDataTypeInt32"),), x.astype(np.int32)),
    ]
    for selector, arguments, wanted in cases:
        np.testing.assert_array_equal(s.of(selector, x, *arguments), wanted, selector)
    one = x[:1, :, :1]
    np.testing.assert_array_equal(s.of("squeezeTensor:name:", one), one.squeeze())
    got = s.of("squeezeTensor:axes:name:", one, numbers([-1]))
    np.testing.assert_array_equal(got, one[..., 0])
    np.testing.assert_array_equal(s.of("squeezeTensor:axes:name:", one, numbers([])), one)
    got = s.of("broadcastTensor:toShape:name:", one, numbers([5, 2, 3, 4]))
    np.testing.assert_array_equal(got, np.broadcast_to(one, (5, 2, 3, 4)))
    got = s.of("concatTensors:dimension:name:", [x, x[:, :1]], -2)
    np.testing.assert_array_equal(got, np.concatenate([x, x[:, :1]], 1))
    np.testing.assert_array_equal(s.of("stackTensors:axis:name:", [x, x], -1), np.stack([x, x], -1))
    parts = s.of("splitTensor:numSplits:axis:name:", np.arange(7, dtype="f"), 3, 0)
    assert [list(p) for p in parts] == [[0, 1, 2], [3, 4, 5], [6]]
    got = s.of("reinterpretCastTensor:toType:name:", x, sdk.value("MPSDataTypeInt32"))
    np.testing.assert_array_equal(got, x.view(np.int32))


def test_shapes_refuse(s):
    x = normal(2, 3, 4)
    cases = [
        ("another volume", "reshapeTensor:withShape:name:", numbers([5, 5])),
        ("more than one -1", "reshapeTensor:withShape:name:", numbers([-1, -1])),
        ("no permutation", "transposeTensor:permutation:name:", numbers([0, 1])),
        ("no permutation", "transposeTensor:permutation:name:", numbers([0, 1, -1])),
        ("not 1", "squeezeTensor:axes:name:", numbers([0])),
        ("none from end", "flatten2DTensor:axis:name:", -1),
        ("broadcast_zeros", "broadcastTensor:toShape:name:", numbers([4, 3, 4])),
        ("wider than", "broadcastTensor:toShape:name:", numbers([1, 3, 4])),
        ("2 multipliers", "tileTensor:withMultiplier:name:", numbers([1, 2])),
        ("twice", "reverseTensor:axes:name:", numbers([0, 0])),
        ("not 4 in all", "splitTensor:splitSizes:axis:name:", numbers([1, 2]), 2),
        ("length 3 from 2", "sliceTensor:dimension:start:length:name:", 2, 2, 3),
        ("start 4", "sliceTensor:dimension:start:length:name:", 2, 4, 1),
    ]
    for said, selector, *arguments in cases:
        refuses(s, said, selector, x, *arguments)
    refuses(s, "leaves the last with 0", "splitTensor:numSplits:axis:name:", normal(6), 4, 0)
    refuses(s, "outside rank", "transposeTensor:dimension:withDimension:name:", x, 0, 3)
    refuses(s, "differ off axis", "concatTensors:dimension:name:", [x, x[:, :, :1]], 1)
    refuses(s, "several data types", "concatTensors:dimension:name:", [x, x.astype("i4")], 1)
    refuses(s, "several shapes", "stackTensors:axis:name:", [x, x[:1]], 0)
    tile = "tileGradientWithIncomingGradientTensor:sourceTensor:withMultiplier:name:"
    refuses(s, "tile_gradient", tile, x, x, numbers([1, 1, 1]))
    fed = s.placeholder([2], "int32", "axes")
    for form in (
        "reverseTensor:axesTensor:name:",
        "broadcastTensor:toShapeTensor:name:",
        "reshapeTensor:withShapeTensor:name:",
        "squeezeTensor:axesTensor:name:",
        "expandDimsOfTensor:axesTensor:name:",
    ):
        refuses(s, "must be a constant", form, x, fed)
    infinite = s.constant(np.array([-np.inf], "f"))
    refuses(s, "infinite constant", "castTensor:toType:name:", infinite, F32)
    with pytest.raises(Refused, match="nothing says what comes out"):
        s.of("castTensor:toType:name:", x * 1e12, sdk.value("MPSDataTypeInt32"))


MASKS = "startMask:endMask:squeezeMask:name:"


@pytest.mark.parametrize(
    ("starts", "ends", "strides", "masks", "index"),
    [
        ([0, 1, 1], [2, 3, 4], [1, 1, 2], (0, 0, 0), np.s_[:, 1:3, 1:4:2]),
        ([0, -1, 0], [2, -4, 9], [1, -1, 3], (0, 2, 0), np.s_[:, ::-1, ::3]),
        ([1, 0, -2], [0, 9, 0], [1, 2, 1], (0, 4, 1), np.s_[1, ::2, -2:]),
        ([5, 0, 0], [5, 1, 1], [1, 1, 1], (1, 1, 4), np.s_[:, :1, 0]),
    ],
)
def test_strided_slices(s, starts, ends, strides, masks, index):
    x = normal(2, 3, 4)
    given = [numbers(n) for n in (starts, ends, strides)]
    got = s.of(f"sliceTensor:starts:ends:strides:{MASKS}", x, *given, *masks)
    np.testing.assert_array_equal(got, x[index])


def test_slice_gradients_and_updates(s):
    x, g = normal(4, 5), normal(2, 3)
    part = [numbers(n) for n in ([1, 2], [3, 5], [1, 1])]
    wanted = np.zeros((4, 5), "f")
    wanted[1:3, 2:5] = g
    shape = s.constant(np.array([4, 5], np.int32))
    gradient = f"sliceGradientTensor:fwdInShapeTensor:starts:ends:strides:{MASKS}"
    np.testing.assert_array_equal(s.of(gradient, g, shape, *part, 0, 0, 0), wanted)
    strided = [numbers(n) for n in ([0, 0], [4, 5], [2, 2])]
    refuses(s, "refuses strides", gradient, g, shape, *strided, 0, 0, 0)
    refuses(s, "squeeze mask", gradient, g, shape, *part, 0, 0, 1)
    fed = s.placeholder([2], "int32", "shape")
    refuses(s, "must be a constant", gradient, g, fed, *part, 0, 0, 0)
    update = f"sliceUpdateDataTensor:updateTensor:starts:ends:strides:{MASKS}"
    wanted = x.copy()
    wanted[::2, ::2] = g
    np.testing.assert_array_equal(s.of(update, x, g, *strided, 0, 0, 0), wanted)
    refuses(s, "end mask", update, x, g, *strided, 0, 3, 0)
    refuses(s, "stride of 0", update, x, g, part[0], part[1], numbers([0, 1]), 0, 0, 0)
    empty = f"sliceTensor:starts:ends:strides:{MASKS}"
    refuses(s, "is empty", empty, x, *[numbers(n) for n in ([2, 0], [2, 5], [1, 1])], 0, 0, 0)


@pytest.mark.parametrize(
    ("mode", "name"),
    [(0, "constant"), (1, "reflect"), (2, "symmetric"), (3, "edge"), (4, "zero")],
)
def test_padding(s, mode, name):
    x, g = normal(3, 4), normal(5, 7)
    pads = numbers([1, 2]), numbers([1, 1])
    selector = "padTensor:withPaddingMode:leftPadding:rightPadding:constantValue:name:"
    settings = {"constant_values": 2.5} if name == "constant" else {}
    numpy_name = "constant" if name == "zero" else name
    wanted = np.pad(x, [(1, 1), (2, 1)], numpy_name, **settings)
    np.testing.assert_array_equal(s.of(selector, x, mode, *pads, 2.5), wanted)
    gradient = (
        "padGradientWithIncomingGradientTensor:sourceTensor:paddingMode:leftPadding:"
        "rightPadding:name:"
    )
    if name in ("constant", "zero"):
        np.testing.assert_array_equal(s.of(gradient, g, x, mode, *pads), g[1:4, 2:6])
    else:
        refuses(s, "pad_gradient_mode", gradient, g, x, mode, *pads)
        with session(faults=["pad_gradient_mode"]) as faulty:
            got = faulty.of(gradient, g, x, mode, *pads)
            np.testing.assert_array_equal(got, g[1:4, 2:6])
    crop = s.of(selector, x, 4, numbers([-1, 0]), numbers([0, -2]), 0.0)
    np.testing.assert_array_equal(crop, x[1:, :-2])
    refuses(s, "periodic", selector, x, 5, *pads, 0.0)
    refuses(s, "1 and 1 paddings", selector, x, 4, numbers([1]), numbers([1]), 0.0)
    refuses(s, "reflect by", selector, x, 1, numbers([3, 0]), numbers([0, 0]), 0.0)


def test_space_and_depth(s, torch):
    x = normal(2, 4, 6, 8)
    depth = "depthToSpace2DTensor:widthAxis:heightAxis:depthAxis:blockSize:usePixelShuffleOrder:"
    space = depth.replace("depthToSpace", "spaceToDepth")
    shuffled = s.of(depth + "name:", x, 2, 1, 3, 2, True)
    wanted = torch.nn.functional.pixel_shuffle(torch.tensor(x).permute(0, 3, 1, 2), 2)
    np.testing.assert_array_equal(shuffled, wanted.permute(0, 2, 3, 1))
    for order in (True, False):
        there = s.of(space + "name:", x, 2, 1, 3, 2, order)
        back = s.of(depth + "name:", there, 2, 1, 3, 2, order)
        np.testing.assert_array_equal(back, x)


# Gather, scatter, sort ----------------------------------------------------------------------------

GATHER = "gatherWithUpdatesTensor:indicesTensor:axis:batchDimensions:name:"
ALONG = "gatherAlongAxis:withUpdatesTensor:indicesTensor:name:"
GATHER_ND = "gatherNDWithUpdatesTensor:indicesTensor:batchDimensions:name:"
SCATTER = "scatterWithDataTensor:updatesTensor:indicesTensor:axis:mode:name:"


def test_gather(s):
    x = normal(3, 4, 5)
    i = np.array([[0, 3], [1, 1]], np.int32)
    np.testing.assert_array_equal(s.of(GATHER, x, i, 1, 0), x[:, i])
    got = s.of(GATHER, x, np.array([[3, 9], [0, 1], [2, 2]], np.int32), 1, 1)
    np.testing.assert_array_equal(got[0], [x[0, 3], np.zeros(5)])
    np.testing.assert_array_equal(got[2], [x[2, 2], x[2, 2]])
    refuses(s, "above the axis", GATHER, x, i[:, :1], 0, 1)
    refuses(s, "must be one of Int32", GATHER, x, i.astype("f"), 1, 0)
    along = np.array([[[0], [1], [2], [3]]] * 3, np.int32)
    np.testing.assert_array_equal(s.of(ALONG, 2, x, along), np.take_along_axis(x, along, 2))
    nd = np.array([[0, 1], [2, 3], [5, 0]], np.int32)
    got = s.of(GATHER_ND, x, nd, 0)
    np.testing.assert_array_equal(got, [x[0, 1], x[2, 3], np.zeros(5)])
    got = s.of(GATHER_ND, x, np.array([[0], [1], [2]], np.int32), 1)
    np.testing.assert_array_equal(got, x[range(3), range(3)])


def test_unsettled_places(s):
    x = normal(3)
    i = np.array([-1], np.int32)
    refuses(s, "negative indices", GATHER, x, i, 0, 0)
    refuses(s, "negative indices", ALONG, 0, x, i)
    refuses(s, "negative indices", SCATTER, x, x[:1], i, 0, 0)
    nan = np.array([1, NAN], "f")
    refuses(s, "NaN among", "sortWithTensor:axis:name:", nan, 0)
    refuses(s, "NaN among", "argSortWithTensor:axis:name:", nan, 0)
    refuses(s, "NaN among", "topKWithSourceTensor:axis:k:name:", nan, 0, 1)


def test_large_whole_numbers_do_not_survive_a_gather(s):
    x = np.array([2**24 + 1, 5], np.int32)
    i = np.array([0, 1], np.int32)
    refuses(s, "integer_gather", GATHER, x, i, 0, 0)
    with session(faults=["integer_gather"]) as faulty:
        np.testing.assert_array_equal(faulty.of(GATHER, x, i, 0, 0), [2**24, 5])
    bits = x.view(np.float32)
    np.testing.assert_array_equal(s.of(GATHER, bits, i, 0, 0).view(np.int32), x)


def test_scatter(s):
    data, u = normal(4, 3), normal(3, 3)
    i = np.array([1, 1, 9], np.int32)
    wanted = data.copy()
    wanted[1] += u[0] + u[1]
    close(s.of(SCATTER, data, u, i, 0, sdk.value("MPSGraphScatterModeAdd")), wanted)
    set_ = sdk.value("MPSGraphScatterModeSet")
    refuses(s, "winner is unspecified", SCATTER, data, u, i, 0, set_)
    refuses(s, "must have rank 1", SCATTER, data, u, i[None], 0, 0)
    refuses(s, "updates of", SCATTER, data, u[:2], i, 0, 0)
    nd = "scatterNDWithUpdatesTensor:indicesTensor:shape:batchDimensions:mode:name:"
    got = s.of(nd, u, i[:, None], numbers([4, 3]), 0, 0)
    close(got, wanted - data)
    along = "scatterAlongAxis:withUpdatesTensor:indicesTensor:shape:mode:name:"
    got = s.of(along, 1, u, np.zeros((3, 3), np.int32), numbers([3, 2]), 5)
    close(got[:, 0], u.max(1))
    np.testing.assert_array_equal(got[:, 1], np.finfo("f").min)


def test_one_hot_top_k_sort(s, torch):
    i = np.array([2, 0], np.int32)
    full = "oneHotWithIndicesTensor:depth:axis:dataType:onValue:offValue:name:"
    got = s.of(full, i, 3, 0, F32, 5.0, -1.0)
    np.testing.assert_array_equal(got, np.where(np.eye(3)[i].T, 5, -1))
    np.testing.assert_array_equal(s.of("oneHotWithIndicesTensor:depth:name:", i, 3), np.eye(3)[i])
    refuses(s, "unsettled", "oneHotWithIndicesTensor:depth:name:", i, 2)
    x = normal(4, 6)
    values, places = s.of("topKWithSourceTensor:axis:k:name:", x, 0, 3)
    wanted = torch.topk(torch.tensor(x), 3, 0)
    np.testing.assert_array_equal(values, wanted.values)
    np.testing.assert_array_equal(places, wanted.indices)
    refuses(s, "7 of 6", "topKWithSourceTensor:axis:k:name:", x, 1, 7)
    got = s.of("sortWithTensor:axis:descending:name:", x, 1, True)
    np.testing.assert_array_equal(got, -np.sort(-x, 1))
    got = s.of("argSortWithTensor:axis:name:", x, 1)
    np.testing.assert_array_equal(got, np.argsort(x, 1))
    refuses(s, "must be one of", "sortWithTensor:axis:name:", x.astype(np.uint8), 1)


# Optimizers, random numbers, resizing -------------------------------------------------------------


def test_optimizers(s):
    v, m, u, g = normal(3), normal(3), abs(normal(3)), normal(3)

    def one(value):
        return np.array([value], "f")

    selector = "stochasticGradientDescentWithLearningRateTensor:valuesTensor:gradientTensor:name:"
    close(s.of(selector, one(0.1), v, g), v - 0.1 * g)
    refuses(s, "not one element", selector, v, v, g)
    adam = (
        "adamWithLearningRateTensor:beta1Tensor:beta2Tensor:epsilonTensor:beta1PowerTensor:"
        "beta2PowerTensor:valuesTensor:momentumTensor:velocityTensor:maximumVelocityTensor:"
        "gradientTensor:name:"
    )
    numbers_ = [one(n) for n in (0.1, 0.9, 0.99, 1e-3, 0.9**3, 0.99**3)]
    value, momentum, velocity = s.of(adam, *numbers_, v, m, u, None, g)
    wanted_m, wanted_u = 0.9 * m + 0.1 * g, 0.99 * u + 0.01 * g * g
    close(momentum, wanted_m)
    close(velocity, wanted_u)
    rate = 0.1 * np.sqrt(1 - 0.99**3) / (1 - 0.9**3)
    close(value, v - rate * wanted_m / (np.sqrt(wanted_u) + 1e-3))
    *_, peak = s.of(adam, *numbers_, v, m, u, u + 9, g)
    close(peak, np.maximum(u + 9, wanted_u))


def test_random_numbers(s):
    shape = numbers([4000])
    uniform = "randomUniformTensorWithShape:seed:name:"
    tensor = s.send(uniform, shape, 7, None)
    first, again = s.run({}, [tensor])[0], s.run({}, [tensor])[0]
    np.testing.assert_array_equal(first, again)
    assert first.min() >= 0
    assert first.max() < 1
    assert abs(first.mean() - 0.5) < 0.03
    free = s.send("randomUniformTensorWithShape:name:", shape, None)
    assert (s.run({}, [free])[0] != s.run({}, [free])[0]).any()
    d = s.double.send(
        "MPSGraphRandomOpDescriptor",
        "descriptorWithDistribution:dataType:",
        0,
        sdk.value("MPSDataTypeInt32"),
    )
    s.double.send(d, "setMinInteger:", 1)
    s.double.send(d, "setMaxInteger:", 3)
    got = s.of("randomTensorWithShape:descriptor:seed:name:", shape, d, 1)
    assert set(got) == {1, 2, 3}
    state = s.send("randomPhiloxStateTensorWithSeed:name:", 3, None)
    selector = "randomUniformTensorWithShape:stateTensor:name:"
    values, following = s.double.items(s.send(selector, shape, state, None))
    more, _ = s.double.items(s.send(selector, shape, following, None))
    one, two = s.run({}, [values, more])
    assert (one != two).any()
    refuses(s, "not stated", "dropoutTensor:rate:name:", normal(3), 0.5)


@pytest.mark.parametrize(("center", "align"), [(True, False), (False, True)])
def test_resizing(s, torch, center, align):
    x = normal(2, 5, 4, 3)
    layout = sdk.value("MPSGraphTensorNamedDataLayoutNHWC")
    selector = "resizeTensor:size:mode:centerResult:alignCorners:layout:name:"
    got = s.of(selector, x, numbers([7, 9]), 1, center, align, layout)
    tx = torch.tensor(x).permute(0, 3, 1, 2).requires_grad_()
    ty = torch.nn.functional.interpolate(tx, (7, 9), mode="bilinear", align_corners=align)
    close(got, ty.detach().permute(0, 2, 3, 1))
    g = normal(2, 7, 9, 3)
    ty.backward(torch.tensor(g).permute(0, 3, 1, 2))
    gradient = "resizeWithGradientTensor:input:mode:centerResult:alignCorners:layout:name:"
    got = s.of(gradient, g, x, 1, center, align, layout)
    close(got, tx.grad.permute(0, 2, 3, 1))
    refuses(s, "rounding", selector, x, numbers([7, 9]), 0, center, align, layout)


def test_resizing_to_the_nearest(s, torch):
    x = normal(1, 5, 4, 3)
    selector = (
        "resizeNearestWithTensor:sizeTensor:nearestRoundingMode:centerResult:alignCorners:"
        "layout:name:"
    )
    size = s.constant(np.array([8, 6], np.int32))
    layout = sdk.value("MPSGraphTensorNamedDataLayoutNHWC")
    floor = sdk.value("MPSGraphResizeNearestRoundingModeFloor")
    got = s.of(selector, x, size, floor, False, False, layout)
    tx = torch.tensor(x).permute(0, 3, 1, 2)
    wanted = torch.nn.functional.interpolate(tx, (8, 6), mode="nearest")
    np.testing.assert_array_equal(got, wanted.permute(0, 2, 3, 1))
    fed = s.placeholder([2], "int32", "size")
    refuses(s, "must be a constant", selector, x, fed, floor, False, False, layout)


def test_band_part_and_inverse(s):
    x = normal(2, 4, 5)
    got = s.of("bandPartWithTensor:numLower:numUpper:name:", x, 1, -1)
    np.testing.assert_array_equal(got, np.triu(x, -1))
    square = normal(3, 4, 4)
    close(s.of("inverseOfTensor:name:", square) @ square, np.eye(4) + np.zeros((3, 1, 1)), 1e-3)
