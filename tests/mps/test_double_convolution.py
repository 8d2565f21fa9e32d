"""The strict double's convolutions and pooling against PyTorch, and what they refuse."""

import itertools

import numpy as np
import pytest

from tests.mps.descriptors import LAYOUT, convolution, depthwise, pooling
from tests.mps.double import Refused, sdk
from tests.mps.messages import normal, numbers, session

GRADIENTS = "GradientWithIncomingGradientTensor:"
LAST = "outputShape:forwardConvolutionDescriptor:name:"


def close(got, wanted, tolerance=2e-5):
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance * abs(wanted).max())


CASES = [
    {},
    {"strides": (2, 1)},
    {"pads": ((1, 2), (0, 3))},
    {"dilations": (2, 3), "pads": ((2, 2), (3, 3))},
    {"groups": 2, "strides": (1, 2), "pads": ((1, 1), (1, 0))},
    {"data": "NCHW", "pads": ((1, 0), (0, 1))},
    {"weights": "OIHW", "strides": (2, 2), "groups": 2},
    {"data": "NCHW", "weights": "OIHW", "pads": ((1, 1), (1, 1)), "strides": (2, 3)},
]


@pytest.mark.parametrize("how", CASES)
def test_convolution_and_gradients(s, torch, how):
    groups, pads = how.get("groups", 1), how.get("pads", ((0, 0), (0, 0)))
    x, w = normal(2, 9, 8, 4), normal(3, 2, 4 // groups, 6)
    tx = torch.tensor(x).permute(0, 3, 1, 2).requires_grad_()
    tw = torch.tensor(w).permute(3, 2, 0, 1).requires_grad_()
    padded = torch.nn.functional.pad(tx, (*pads[1], *pads[0]))
    ty = torch.nn.functional.conv2d(
        padded,
        tw,
        stride=how.get("strides", 1),
        dilation=how.get("dilations", 1),
        groups=groups,
    )
    g = normal(*ty.permute(0, 2, 3, 1).shape)
    ty.backward(torch.tensor(g).permute(0, 3, 1, 2))
    data = (0, 3, 1, 2) if how.get("data") == "NCHW" else (0, 1, 2, 3)
    kernel = (3, 2, 0, 1) if how.get("weights") == "OIHW" else (0, 1, 2, 3)
    d = convolution(s, **how)
    x, w, g = (np.ascontiguousarray(a.transpose(o)) for a, o in ((x, data), (w, kernel), (g, data)))

    def same(got, wanted, order):
        close(got, wanted.detach().numpy().transpose(order))

    to_nhwc = (0, 2, 3, 1)
    same(
        s.of("convolution2DWithSourceTensor:weightsTensor:descriptor:name:", x, w, d),
        ty,
        [to_nhwc[i] for i in data],
    )
    same(
        s.of(f"convolution2DData{GRADIENTS}weightsTensor:{LAST}", g, w, numbers(x.shape), d),
        tx.grad,
        [to_nhwc[i] for i in data],
    )
    same(
        s.of(f"convolution2DWeights{GRADIENTS}sourceTensor:{LAST}", g, x, numbers(w.shape), d),
        tw.grad,
        [(2, 3, 1, 0)[i] for i in kernel],
    )


@pytest.mark.parametrize("style", ["TF_VALID", "TF_SAME", "ONNX_SAME_LOWER"])
def test_padding_styles(s, torch, style):
    x, w = normal(1, 8, 7, 2), normal(3, 4, 2, 3)
    d = convolution(s, strides=(2, 3), style=sdk.value("MPSGraphPaddingStyle" + style))
    got = s.of("convolution2DWithSourceTensor:weightsTensor:descriptor:name:", x, w, d)
    # Of 8 by stride 2: 4 results, which need 9; of 7 by stride 3: 3, which need 10.
    small, large = (0, 1), (1, 2)
    if style == "ONNX_SAME_LOWER":
        small, large = (1, 0), (2, 1)
    if style == "TF_VALID":
        small = large = (0, 0)
    tx = torch.nn.functional.pad(torch.tensor(x).permute(0, 3, 1, 2), (*large, *small))
    wanted = torch.nn.functional.conv2d(tx, torch.tensor(w).permute(3, 2, 0, 1), stride=(2, 3))
    close(got, wanted.permute(0, 2, 3, 1))


def test_transposed_convolution(s, torch):
    x, w = normal(2, 4, 5, 6), normal(3, 3, 4, 6)
    d = convolution(s, strides=(2, 2), pads=((1, 1), (1, 1)))
    selector = "convolutionTranspose2DWithSourceTensor:weightsTensor:outputShape:descriptor:name:"
    got = s.of(selector, x, w, numbers([2, 7, 9, 4]), d)
    wanted = torch.nn.functional.conv_transpose2d(
        torch.tensor(x).permute(0, 3, 1, 2),
        torch.tensor(w).permute(3, 2, 0, 1),
        stride=2,
        padding=1,
    )
    close(got, wanted.permute(0, 2, 3, 1))
    uneven = convolution(s, strides=(2, 1))
    with pytest.raises(Refused, match="transpose_convolution_strides"):
        s.of(selector, x, w, numbers([2, 9, 7, 4]), uneven)


def test_the_shape_behind_a_cast_is_not_to_be_asked_for(s):
    half = s.placeholder([1, 4, 4, 2], "float16")
    x = s.send("castTensor:toType:name:", half, sdk.value("MPSDataTypeFloat32"), None)
    w = s.placeholder([1, 1, 2, 2], name="w")
    plain = "convolution2DWithSourceTensor:weightsTensor:descriptor:name:"
    y = s.send(plain, x, w, convolution(s), None)
    assert s.double.send(y, "shape") is None


def test_convolution_3d(s, torch):
    x, w = normal(2, 5, 6, 7, 4), normal(3, 2, 3, 2, 6)
    d = s.double.new("MPSGraphConvolution3DOpDescriptor")
    settings = {
        "strideInX": 1,
        "strideInY": 2,
        "strideInZ": 1,
        "paddingFront": 1,
        "paddingBack": 2,
        "paddingLeft": 1,
        "groups": 2,
        "dataLayout": sdk.value(LAYOUT + "NDHWC"),
        "weightsLayout": sdk.value(LAYOUT + "DHWIO"),
    }
    for name, value in settings.items():
        s.double.send(d, f"set{name[0].upper()}{name[1:]}:", value)
    tx = torch.tensor(x).permute(0, 4, 1, 2, 3).requires_grad_()
    tw = torch.tensor(w).permute(4, 3, 0, 1, 2).requires_grad_()
    padded = torch.nn.functional.pad(tx, (1, 0, 0, 0, 1, 2))
    ty = torch.nn.functional.conv3d(padded, tw, stride=(1, 2, 1), groups=2)
    g = normal(*ty.permute(0, 2, 3, 4, 1).shape)
    ty.backward(torch.tensor(g).permute(0, 4, 1, 2, 3))
    plain = "convolution3DWithSourceTensor:weightsTensor:descriptor:name:"
    close(s.of(plain, x, w, d), ty.detach().permute(0, 2, 3, 4, 1))
    data = f"convolution3DData{GRADIENTS}weightsTensor:{LAST}"
    close(s.of(data, g, w, numbers(x.shape), d), tx.grad.permute(0, 2, 3, 4, 1))
    weights = f"convolution3DWeights{GRADIENTS}sourceTensor:{LAST}"
    close(s.of(weights, g, x, numbers(w.shape), d), tw.grad.permute(2, 3, 4, 1, 0))
    s.double.drop(d)


DEPTHWISE = "depthwiseConvolution2DWithSourceTensor:weightsTensor:descriptor:name:"
DEPTHWISE_DATA = f"depthwiseConvolution2DData{GRADIENTS}weightsTensor:outputShape:descriptor:name:"
DEPTHWISE_WEIGHTS = (
    f"depthwiseConvolution2DWeights{GRADIENTS}sourceTensor:outputShape:descriptor:name:"
)


def test_depthwise_convolution(s, torch):
    x, w = normal(2, 7, 6, 5), normal(3, 3, 5, 1)
    pads = ((1, 1), (1, 1))
    tx = torch.tensor(x).permute(0, 3, 1, 2).requires_grad_()
    tw = torch.tensor(w).permute(2, 3, 0, 1).requires_grad_()
    ty = torch.nn.functional.conv2d(tx, tw, padding=1, stride=(1, 2), groups=5)
    g = normal(*ty.permute(0, 2, 3, 1).shape)
    ty.backward(torch.tensor(g).permute(0, 3, 1, 2))
    d = depthwise(s, pads, (1, 2))
    close(s.of(DEPTHWISE, x, w, d), ty.detach().permute(0, 2, 3, 1))
    close(s.of(DEPTHWISE_DATA, g, w, numbers(x.shape), d), tx.grad.permute(0, 2, 3, 1))
    with pytest.raises(Refused, match="depthwise_weights_gradient_padding"):
        s.of(DEPTHWISE_WEIGHTS, g, x, numbers(w.shape), d)
    around = np.pad(x, [(0, 0), *pads, (0, 0)])
    bare = depthwise(s, strides=(1, 2))
    wanted = tw.grad.permute(2, 3, 0, 1)
    close(s.of(DEPTHWISE_WEIGHTS, g, around, numbers(w.shape), bare), wanted)
    with session(faults=["depthwise_weights_gradient_padding"]) as faulty:
        d = depthwise(faulty, pads, (1, 2))
        got = faulty.of(DEPTHWISE_WEIGHTS, g, x, numbers(w.shape), d)
        assert abs(got - wanted.numpy()).max() > 0.1
    with pytest.raises(Refused, match="multiplier above 1"):
        s.of(DEPTHWISE, x, normal(3, 3, 5, 2), depthwise(s))


def test_convolutions_refuse(s):
    x, w = s.placeholder([1, 8, 8, 4]), s.placeholder([3, 3, 4, 6], name="w")
    g = s.placeholder([1, 6, 6, 6], name="g")
    plain = "convolution2DWithSourceTensor:weightsTensor:descriptor:name:"

    def refuses(said, selector, *arguments):
        with pytest.raises(Refused, match=said):
            s.send(selector, *arguments, None)

    refuses("weights for 3 channels", plain, x, w, convolution(s, weights="OIHW"))
    refuses("the source has 8", plain, x, w, convolution(s, data="NCHW"))
    refuses("in 2 groups", plain, x, w, convolution(s, groups=2))
    refuses("stride or dilation of 0", plain, x, w, convolution(s, strides=(0, 1)))
    refuses("a kernel of 9 on 8", plain, x, w, convolution(s, dilations=(4, 1)))
    refuses("ExplicitOffset", plain, x, w, convolution(s, style=3))
    refuses("weights layout", plain, x, w, convolution(s, weights="NHWC"))
    refuses("rank 3 must be 4", plain, s.placeholder([8, 8, 4]), w, convolution(s))
    half = s.placeholder([3, 3, 4, 6], "float16")
    refuses("several data types", plain, x, half, convolution(s))
    data = f"convolution2DData{GRADIENTS}weightsTensor:{LAST}"
    refuses("where", data, g, w, numbers([1, 9, 8, 4]), convolution(s))
    same = convolution(s, style=sdk.value("MPSGraphPaddingStyleTF_SAME"))
    refuses("SAME style are unverified", data, g, w, numbers([1, 8, 8, 4]), same)
    weights = f"convolution2DWeights{GRADIENTS}sourceTensor:{LAST}"
    refuses("weights for 8 channels", weights, g, x, numbers([1, 8, 8, 4]), convolution(s))
    by_tensor = data.replace("outputShape:", "outputShapeTensor:")
    fed = s.placeholder([4], "int32", "shape")
    refuses("must be a constant", by_tensor, g, w, fed, convolution(s))


# Pooling ------------------------------------------------------------------------------------------


POOL = "Pooling2DWithSourceTensor:descriptor:name:"
POOL_GRADIENT = "Pooling2DGradientWithGradientTensor:sourceTensor:descriptor:name:"


@pytest.mark.parametrize(
    ("kind", "layout"), list(itertools.product(["max", "avg"], ["NHWC", "NCHW"]))
)
@pytest.mark.parametrize("counted", [False, True])
def test_pooling(s, torch, kind, layout, counted):
    f = torch.nn.functional
    x = normal(2, 9, 8, 3)
    tx = torch.tensor(x).permute(0, 3, 1, 2).requires_grad_()
    if kind == "max":
        ty = f.max_pool2d(tx, (3, 2), (2, 2), padding=(1, 0))
    else:
        ty = f.avg_pool2d(tx, (3, 2), (2, 2), padding=(1, 0), count_include_pad=counted)
    g = normal(*ty.shape)
    ty.backward(torch.tensor(g))
    order = (0, 1, 2, 3) if layout == "NCHW" else (0, 2, 3, 1)
    x = x.transpose(0, 3, 1, 2)
    x, g = (np.ascontiguousarray(a.transpose(order)) for a in (x, g))
    pads = ((1, 1), (0, 0))
    d = pooling(s, (3, 2), (2, 2), pads, layout, includeZeroPadToAverage=counted)
    close(s.of(kind + POOL, x, d), ty.detach().numpy().transpose(order))
    close(s.of(kind + POOL_GRADIENT, g, x, d), tx.grad.numpy().transpose(order))


def test_pooling_rounds_up_in_ceil_mode(s, torch):
    x = normal(1, 8, 8, 2)
    tx = torch.tensor(x).permute(0, 3, 1, 2)
    for kind, f in (
        ("max", lambda t: torch.nn.functional.max_pool2d(t, 3, 2, ceil_mode=True)),
        (
            "avg",
            lambda t: torch.nn.functional.avg_pool2d(
                t, 3, 2, ceil_mode=True, count_include_pad=False
            ),
        ),
    ):
        got = s.of(kind + POOL, x, pooling(s, (3, 3), (2, 2), ceilMode=True))
        close(got, f(tx).permute(0, 2, 3, 1))
    both = pooling(s, (3, 3), (2, 2), ceilMode=True, includeZeroPadToAverage=True)
    with pytest.raises(Refused, match="average_ceil_with_padding"):
        s.of("avg" + POOL, x, both)


@pytest.mark.parametrize("axes", [2, 3, 4])
def test_pooling_indices_and_back(s, torch, axes):
    x = normal(2, 3, 6, 5)
    mode = sdk.value(f"MPSGraphPoolingReturnIndicesGlobalFlatten{axes}D")
    d = pooling(s, (2, 2), (2, 2), layout="NCHW", returnIndicesMode=mode)
    values, places = s.of("maxPooling2DReturnIndicesWithSourceTensor:descriptor:name:", x, d)
    tx = torch.tensor(x, requires_grad=True)
    ty, ti = torch.nn.functional.max_pool2d(tx, 2, return_indices=True)
    close(values, ty.detach())
    assert places.dtype == np.int32
    wanted = ti.numpy()
    if axes > 2:
        wanted = wanted + np.arange(3).reshape(1, 3, 1, 1) * 30
    if axes > 3:
        wanted = wanted + np.arange(2).reshape(2, 1, 1, 1) * 90
    np.testing.assert_array_equal(places, wanted)
    g = normal(*values.shape)
    ty.backward(torch.tensor(g))
    back = "maxPooling2DGradientWithGradientTensor:indicesTensor:outputShape:descriptor:name:"
    close(s.of(back, g, places, numbers(x.shape), d), tx.grad)
    none = pooling(s, (2, 2), (2, 2), layout="NCHW")
    with pytest.raises(Refused, match="None"):
        s.of("maxPooling2DReturnIndicesWithSourceTensor:descriptor:name:", x, none)


def test_pooling_4d(s):
    x = normal(2, 4, 4, 3)
    factory = "descriptorWithKernelSizes:strides:dilationRates:paddingValues:paddingStyle:"

    def four(kernel, strides, pads):
        return s.double.send(
            "MPSGraphPooling4DOpDescriptor",
            factory,
            numbers(kernel),
            numbers(strides),
            numbers([1] * 4),
            numbers(pads),
            0,
        )

    got = s.of(
        "maxPooling4DWithSourceTensor:descriptor:name:",
        x,
        four([1, 2, 2, 3], [1, 2, 2, 1], [0] * 8),
    )
    wanted = x.reshape(2, 2, 2, 2, 2, 3).max((2, 4, 5))[..., None]
    close(got, wanted)
    with pytest.raises(Refused, match="6 padding values, not 8"):
        s.of(
            "avgPooling4DWithSourceTensor:descriptor:name:",
            x,
            four([1, 2, 2, 1], [1] * 4, [0] * 6),
        )
