"""Known faults of the framework: where, what goes wrong, the way around, who says so.

A fault is gone around in one of three ways. `ALWAYS`: what runs into it is never sent, on any
system. `SWITCH`: only on the systems that have it; a lowering asks ``builder.quirk(name)``.
`LIMIT`: the operation is refused with an error that says why. None of it is left to the user.
"""

from __future__ import annotations

from dataclasses import dataclass

from stepgraph.backends.mps.system import Version

ALWAYS, SWITCH, LIMIT = "always", "switch", "limit"


@dataclass(frozen=True)
class Quirk:
    """A fault of the framework.

    Attributes:
        name: what a lowering asks for it by.
        ops: our ops that would show it; none where it is not a matter of single ops.
        what: what goes wrong.
        around: what is done instead.
        how: `ALWAYS`, `SWITCH` or `LIMIT`.
        source: who says so: the SDK's headers, a project that measured it or works around it.
        first: the first system that has it; None for all so far.
        fixed: the first system that has it no more; None for none so far.
    """

    name: str
    ops: tuple[str, ...]
    what: str
    around: str
    how: str
    source: str
    first: Version | None = None
    fixed: Version | None = None

    def applies(self, version: Version) -> bool:
        """Whether a system of that version has it."""
        if self.first is not None and version < self.first:
            return False
        return self.fixed is None or version < self.fixed

    @property
    def systems(self) -> str:
        """Which systems have it, for people."""
        if self.first is None and self.fixed is None:
            return "all"
        if self.first is None:
            return f"before {self.fixed}"
        return f"from {self.first}" + (f" to before {self.fixed}" if self.fixed else "")


_WINDOWS = (
    "convolution_2d",
    "convolution_2d_data_gradient",
    "convolution_2d_weights_gradient",
    "depthwise_convolution_2d",
    "max_pooling_2d",
    "avg_pooling_2d",
)
_GATHERS = ("gather", "gather_along_axis", "scatter", "scatter_along_axis", "scatter_nd")
_REDUCTIONS = (
    "reduction_sum",
    "reduction_product",
    "reduction_maximum",
    "reduction_minimum",
    "mean",
    "variance",
)

_TABLE: tuple[Quirk, ...] = (
    # --- graphs and runs
    Quirk(
        "abort_on_invalid_argument",
        (),
        "a wrong argument ends the process instead of raising",
        "shapes, dtypes and limits are checked in Python before a message is sent",
        ALWAYS,
        "measured by kern0x1b/charon, doom-fish/mpsgraph-rs",
    ),
    Quirk(
        "own_gradients_wrong",
        (),
        "gradientForPrimaryTensor fails or is wrong for means, cross-entropies, gathers and more",
        "gradients are operations of the graph; the selector is never sent",
        ALWAYS,
        "EmergeTools/talks, KevinCoble/MPSGraphDSL, ChanLumerico/lucid",
    ),
    Quirk(
        "feeds_without_order",
        (),
        "a compiled graph takes its feeds in an order of its own",
        "feeds and targets are matched by identity with feedTensors and targetTensors",
        ALWAYS,
        "liuliu/ccv, prisma-ai/MPSX, DrewsChessMachine",
    ),
    Quirk(
        "feed_shapes_change",
        (),
        "sizes left open abort in reshapes, broadcasts and gradients, or run with wrong numbers",
        "one executable is compiled for each set of sizes",
        ALWAYS,
        "measured by ChanLumerico/lucid, EmergeTools/talks",
    ),
    Quirk(
        "rank_zero",
        (),
        "tensors of rank 0 crash as feeds, targets and in reductions",
        "they have shape (1,) on the GPU",
        ALWAYS,
        "pytorch/pytorch 80165, tillahoffmann/jax-mps",
    ),
    Quirk(
        "empty_tensors",
        (),
        "a tensor without elements ends the process when it runs",
        "such values are made in Python and never sent",
        ALWAYS,
        "measured by kern0x1b/charon",
    ),
    Quirk(
        "too_many_elements",
        (),
        "2^31 elements or more, or more than 16 axes, abort or wrap around",
        "refused with an error",
        LIMIT,
        "pytorch/pytorch 84039, 158824, 197636",
    ),
    Quirk(
        "no_float64",
        (),
        "the GPU has no double precision",
        "refused with an error",
        LIMIT,
        "MPSDataType",
    ),
    Quirk(
        "reads_and_assigns_unordered",
        (),
        "a variable read and assigned in one run is seen with its old or its new value",
        "one read at the start; the assign depends on it, by its value or a control dependency",
        ALWAYS,
        "measured by DrewsChessMachine",
    ),
    Quirk(
        "assign_then_read_hangs",
        (),
        "an assign followed by a read of the variable in one run hangs",
        "reads behind an assign get the assigned tensor itself",
        ALWAYS,
        "measured by ChanLumerico/lucid",
        first=Version(26),
    ),
    Quirk(
        "aliased_buffers",
        (),
        "one buffer as feed and result of a run is overwritten before it is read",
        "feeds and results have buffers of their own",
        ALWAYS,
        "measured by ChanLumerico/lucid",
        first=Version(26),
    ),
    Quirk(
        "shared_results",
        (),
        "results that the framework allocates are shared by runs under way",
        "every run under way has result buffers of its own",
        ALWAYS,
        "measured by DrewsChessMachine",
    ),
    Quirk(
        "memory_accumulates",
        (),
        "temporaries of runs pile up until the process ends",
        "one autorelease pool a run",
        ALWAYS,
        "pytorch/pytorch 145512, KevinCoble/MPSGraphDSL",
    ),
    Quirk(
        "bool_scalars",
        ("constant", "pad"),
        "a scalar of dtype bool is written as 255",
        "bools are sent as bytes",
        ALWAYS,
        "pytorch/pytorch, aten/src/ATen/native/mps",
    ),
    Quirk(
        "scalars_are_doubles",
        ("constant", "pad"),
        "scalar constants travel as doubles: integers above 2^53 lose bits",
        "those are sent as data",
        ALWAYS,
        "MPSGraphMemoryOps.h",
    ),
    # --- single ops
    Quirk(
        "nan_ignored",
        ("relu", "minimum", "maximum", "clamp", "reduction_maximum", "reduction_minimum"),
        "reLU, minimum, maximum and clamp drop NaN, so that a broken loss looks sound",
        "the selectors that propagate NaN",
        ALWAYS,
        "measured by kern0x1b/charon, pytorch/pytorch 183571",
    ),
    Quirk(
        "sign_of_nan",
        ("sign",),
        "sign gives 0 for NaN",
        "NaN is selected",
        ALWAYS,
        "measured by kern0x1b/charon",
    ),
    Quirk(
        "half_precision_nan",
        ("is_nan", "is_finite", "is_infinite", "equal", "less_than", "greater_than"),
        "NaN in half precision becomes infinite or 0, and compares as true",
        "tests and comparisons of half precision are made in float32",
        ALWAYS,
        "measured by kern0x1b/charon",
    ),
    Quirk(
        "unsigned_as_signed",
        ("less_than", "greater_than", "minimum", "maximum", "sort", "reduction_arg_maximum"),
        "unsigned numbers are compared as signed ones; sorts of them abort",
        "the top bit is turned around before",
        ALWAYS,
        "measured by Lazarus-931/mccl-jax",
    ),
    Quirk(
        "integer_division",
        ("floor_division", "modulo", "floor_modulo"),
        "which way quotients of negative integers are rounded is not said",
        "only numbers that are not negative are divided",
        ALWAYS,
        "Lazarus-931/mccl-jax",
    ),
    Quirk(
        "shifts_wrap",
        ("bitwise_left_shift", "bitwise_right_shift"),
        "the places to shift by count modulo the number of bits",
        "more of them give 0, or the sign",
        ALWAYS,
        "tillahoffmann/jax-mps",
    ),
    Quirk(
        "casts_out_of_range",
        ("cast",),
        "what a cast to fewer bits makes of a value out of range is not said",
        "integers are brought into the range first",
        ALWAYS,
        "MPSGraphTensorShapeOps.h says nothing",
    ),
    Quirk(
        "reductions_keep_axes",
        _REDUCTIONS,
        "reduced axes stay, with size 1",
        "a reshape where they are not wanted",
        ALWAYS,
        "measured by kern0x1b/charon",
    ),
    Quirk(
        "broadcast_fills_zeros",
        ("broadcast",),
        "widening an axis of more than 1 element fills it with zeros",
        "only NumPy's broadcasts are sent",
        ALWAYS,
        "measured by kern0x1b/charon",
    ),
    Quirk(
        "same_padding",
        _WINDOWS,
        "how gradients of TF_SAME pad is not verified; pooling refuses other styles",
        "paddings are computed in Python and always explicit",
        ALWAYS,
        "MPSGraphCore.h; Lazarus-931/mccl-jax",
    ),
    Quirk(
        "transposed_convolution_strides",
        ("convolution_transpose_2d",),
        "convolutionTranspose2D is wrong for different strides in height and width",
        "it is sent as the data gradient of a convolution",
        ALWAYS,
        "tillahoffmann/jax-mps",
    ),
    Quirk(
        "weights_gradient_shape",
        ("convolution_2d_weights_gradient",),
        "the header asks for the source's shape; what works is the weights'",
        "the weights' shape",
        ALWAYS,
        "pytorch/pytorch, Convolution.mm; ChanLumerico/lucid",
    ),
    Quirk(
        "large_convolutions",
        ("convolution_2d",),
        "extents above 2^16 give wrong numbers",
        "refused with an error",
        LIMIT,
        "pytorch/pytorch, Convolution.mm",
        fixed=Version(18, 1),
    ),
    Quirk(
        "depthwise_weights_gradient_padding",
        ("depthwise_convolution_2d_weights_gradient",),
        "the selector ignores the descriptor's padding",
        "the source is padded first",
        ALWAYS,
        "measured by ChanLumerico/lucid",
    ),
    Quirk(
        "softmax_gradient_source",
        ("softmax",),
        "whether softMaxGradient wants the input or the output is told both ways",
        "the gradient is spelt out in simpler ops",
        ALWAYS,
        "MPSGraphActivationOps.h against ChanLumerico/lucid",
    ),
    Quirk(
        "softmax_cross_entropy",
        ("softmax_cross_entropy", "softmax_cross_entropy_gradient"),
        "the shape of its result and the divisor of its mean are not said, its gradient was wrong",
        "spelt out in simpler ops, from logits",
        ALWAYS,
        "EmergeTools/talks, DrewsChessMachine",
    ),
    Quirk(
        "statistics_broadcast",
        ("normalize", "normalization_gradient", "normalization_gamma_gradient"),
        "statistics of fewer axes than the source broadcast in some versions only",
        "they are sent with as many axes",
        ALWAYS,
        "MPSGraphNormalizationOps.h; EmergeTools/talks",
    ),
    Quirk(
        "strided_slice_gradient",
        ("strided_slice_gradient",),
        "sliceGradient refuses strides and squeezed axes",
        "spelt out in simpler ops",
        ALWAYS,
        "measured by kern0x1b/charon",
    ),
    Quirk(
        "tile_gradient",
        ("tile_gradient",),
        "tileGradient reads outside of the gradient",
        "a reshape and a sum",
        ALWAYS,
        "measured by kern0x1b/charon",
    ),
    Quirk(
        "pad_gradient",
        ("pad_gradient",),
        "padGradient does not read the mode: gradients of mirrored elements are cut off",
        "a scatter back to where the elements came from",
        ALWAYS,
        "measured by kern0x1b/charon",
    ),
    Quirk(
        "integer_gathers",
        _GATHERS,
        "elements travel as float32: integers above 2^24 lose bits",
        "integers travel as floats of the same bits",
        ALWAYS,
        "tillahoffmann/jax-mps",
    ),
    Quirk(
        "gather_nd",
        ("gather_nd",),
        "gatherND was seen to give wrong elements",
        "a gather of rows",
        ALWAYS,
        "lc0",
    ),
    Quirk(
        "one_hot_outside",
        ("one_hot",),
        "what oneHot gives for an index outside is not said",
        "a comparison with every class",
        ALWAYS,
        "MPSGraphOneHotOps.h says nothing",
    ),
    Quirk(
        "top_k_ranks",
        ("top_k", "sort", "arg_sort"),
        "high ranks crash, and the order of equal elements is not said",
        "rows of a matrix, and equal elements told apart by their place",
        ALWAYS,
        "pytorch/pytorch 154890",
    ),
    Quirk(
        "cumulative_axis",
        ("cumulative_sum",),
        "the axis must be one of the last four",
        "other axes are joined before",
        ALWAYS,
        "measured by kern0x1b/charon",
    ),
    Quirk(
        "integer_products",
        ("matrix_multiplication",),
        "a product of integers ends the process",
        "refused with an error",
        LIMIT,
        "measured by doom-fish/mpsgraph-rs, ChanLumerico/lucid",
    ),
    Quirk(
        "random_numbers",
        ("random_uniform", "random_normal", "dropout"),
        "random bits are not specified, and each run repeats them",
        "Philox in 32-bit integer ops: the same numbers on every device",
        ALWAYS,
        "MPSGraphRandomOps.h",
    ),
    Quirk(
        "adam_result",
        ("adam",),
        "its first result is called the update and used as the new value",
        "spelt out in simpler ops",
        ALWAYS,
        "MPSGraphOptimizerOps.h",
    ),
    Quirk(
        "reciprocal_square_root_missing",
        ("reciprocal_square_root",),
        "the selector reciprocalSquareRoot does not exist yet",
        "reverseSquareRoot, which newer systems deprecate",
        SWITCH,
        "@nativescript/types-ios 9.1.2",
        fixed=Version(18),
    ),
    Quirk(
        "slice_update_missing",
        ("slice_update",),
        "the selector sliceUpdate does not exist yet",
        "the update is padded to the size of the data and selected by a mask",
        SWITCH,
        "MPSGraphTensorShapeOps, iOS 18",
        fixed=Version(18),
    ),
    Quirk(
        "matmul_long_inner",
        ("matrix_multiplication",),
        "products over more than 32768 elements are wrong on M1 and M2",
        "a sum of shorter products",
        SWITCH,
        "pytorch/pytorch 177116",
    ),
    Quirk(
        "attention_miscompiled",
        ("matrix_multiplication",),
        "softmax(Q K^T) V of 3 matrices and more is miscompiled on M1 Pro",
        "the transposed product, transposed back",
        SWITCH,
        "measured by ChanLumerico/lucid",
        first=Version(26),
    ),
)

QUIRKS: dict[str, Quirk] = {quirk.name: quirk for quirk in _TABLE}
