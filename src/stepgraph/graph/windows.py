"""What convolutions and poolings share: a window that slides over height and width.

Inference asks `Window` for sizes, backends ask `resolve_padding`, the NumPy references use the
rest. Arrays are NHWC and weights HWIO in here; `to_nhwc` and `to_hwio` bring other layouts there.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np

from stepgraph.errors import nearest
from stepgraph.graph.core import GraphCore
from stepgraph.graph.definition import Array, OpDefinition
from stepgraph.graph.shapes import Misfit, Shape, bad_shape
from stepgraph.graph.tensor import Tensor

Pair: TypeAlias = tuple[int, int]
PairLike: TypeAlias = int | Sequence[int]
Sizes: TypeAlias = tuple[int | None, int | None]
Pads: TypeAlias = tuple[Pair, Pair]
PadsLike: TypeAlias = Sequence[Sequence[int]]
T = TypeVar("T")

# What users may write (lower case) to the name that is stored: MPSGraph's padding styles.
PADDINGS: dict[str, str] = {
    "explicit": "explicit",
    "tf_valid": "TF_VALID",
    "valid": "TF_VALID",
    "tf_same": "TF_SAME",
    "same": "TF_SAME",
}
PADDING_STYLES = ("explicit", "TF_VALID", "TF_SAME")
# Layout to the permutation that brings it to NHWC, or HWIO.
DATA_LAYOUTS: dict[str, tuple[int, ...]] = {"NHWC": (0, 1, 2, 3), "NCHW": (0, 2, 3, 1)}
WEIGHTS_LAYOUTS: dict[str, tuple[int, ...]] = {"HWIO": (0, 1, 2, 3), "OIHW": (2, 3, 1, 0)}
_AXES = ("height", "width")
NO_PADS: Pads = ((0, 0), (0, 0))


@dataclass(frozen=True)
class Window:
    """Size and movement of a window, each as (height, width).

    Attributes:
        kernel: taps per axis.
        strides: steps between two windows.
        dilations: steps between two taps.
        padding: ``"explicit"``, ``"TF_VALID"`` or ``"TF_SAME"``.
        explicit_padding: ((top, bottom), (left, right)); counts when padding is explicit.
    """

    kernel: Pair
    strides: Pair = (1, 1)
    dilations: Pair = (1, 1)
    padding: str = "TF_VALID"
    explicit_padding: Pads = NO_PADS

    @staticmethod
    def of(kernel: Sequence[int | None], attributes: Mapping[str, Any]) -> Window:
        """The window that an operation's attributes describe.

        Raises:
            Misfit: a size of the kernel is unknown or below 1.
        """
        sizes = tuple(size for size in kernel if size is not None and size > 0)
        if len(sizes) != 2:
            raise bad_shape(
                f"the kernel is {' x '.join('?' if k is None else str(k) for k in kernel)}",
                expected="a known size of 1 or more in height and width",
            )
        return Window(
            (sizes[0], sizes[1]),
            attributes["strides"],
            attributes.get("dilations", (1, 1)),
            attributes["padding"],
            attributes["explicit_padding"],
        )

    @property
    def extent(self) -> Pair:
        """Pixels from the first to the last tap."""
        (kh, kw), (dh, dw) = self.kernel, self.dilations
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1

    @property
    def taps(self) -> int:
        """How many taps it has."""
        return self.kernel[0] * self.kernel[1]

    def pads(self, sizes: Pair) -> Pads:
        """((top, bottom), (left, right)) for a source of known size."""
        return resolve_padding(
            sizes,
            self.kernel,
            strides=self.strides,
            dilations=self.dilations,
            padding=self.padding,
            explicit_padding=self.explicit_padding,
        )

    def output(self, sizes: Sizes) -> Sizes:
        """Number of windows in height and width; None where the size is unknown.

        Raises:
            Misfit: the window does not fit into the padded source.
        """
        return self._windows(sizes, 0), self._windows(sizes, 1)

    def _windows(self, sizes: Sizes, axis: int) -> int | None:
        size, stride, extent = sizes[axis], self.strides[axis], self.extent[axis]
        if size is None:
            return None
        if self.padding == "TF_SAME":
            return -(-size // stride)
        before, after = self.explicit_padding[axis] if self.padding == "explicit" else (0, 0)
        if size + before + after < extent:
            raise bad_shape(
                f"the window covers {extent} pixels of {_AXES[axis]}, the source has {size} "
                f"and {before + after} of padding",
                expected="a window no larger than the padded source",
                fix="pad with padding='TF_SAME', or use a smaller kernel or dilation",
            )
        return (size + before + after - extent) // stride + 1

    def sizes_for(self, windows: Sizes) -> Sizes:
        """The source size that a transposed convolution of this window gives, by Keras's rule.

        The smallest that every stride fits into: ``windows * stride`` for TF_SAME,
        ``windows * stride + max(extent - stride, 0)`` for TF_VALID; for explicit padding PyTorch's
        ``(windows - 1) * stride + extent - padding``.
        """
        found: list[int | None] = []
        for axis, count in enumerate(windows):
            stride, extent = self.strides[axis], self.extent[axis]
            if count is None:
                found.append(None)
            elif self.padding == "TF_SAME":
                found.append(count * stride)
            elif self.padding == "TF_VALID":
                found.append(count * stride + max(extent - stride, 0))
            else:
                size = (count - 1) * stride + extent - sum(self.explicit_padding[axis])
                if size < 0:
                    raise bad_shape(
                        f"the padding of {_AXES[axis]} takes away more than there is",
                        expected=f"at most {(count - 1) * stride + extent} in all",
                    )
                found.append(size)
        return found[0], found[1]

    def slices(self, output: Pair) -> Iterator[tuple[int, int, tuple[slice, ...]]]:
        """For each tap, row by row: (row, column, index of what it sees in a padded NHWC array)."""
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                index = [slice(None)]
                for tap, count, stride, dilation in zip(
                    (i, j), output, self.strides, self.dilations, strict=True
                ):
                    start = tap * dilation
                    stop = start + (count - 1) * stride + 1 if count else start
                    index.append(slice(start, stop, stride))
                yield i, j, tuple(index)


def resolve_padding(
    sizes: Pair,
    kernel: Pair,
    *,
    strides: Pair = (1, 1),
    dilations: Pair = (1, 1),
    padding: str = "TF_VALID",
    explicit_padding: Pads = NO_PADS,
) -> Pads:
    """The padding in pixels that a padding style means for a source of known size.

    TF_SAME gives ``ceil(size / stride)`` windows; what has to be added for that goes half before
    and half behind, the odd pixel behind (bottom, right).

    Args:
        sizes: height and width of the source.
        kernel: taps in height and width.
        strides: steps between two windows.
        dilations: steps between two taps.
        padding: ``"explicit"``, ``"TF_VALID"`` or ``"TF_SAME"``.
        explicit_padding: returned as it is when padding is explicit.

    Returns:
        ((top, bottom), (left, right)).

    Example:
        >>> resolve_padding((32, 31), (3, 3), strides=(2, 2), padding="TF_SAME")
        ((0, 1), (1, 1))
    """
    if padding == "explicit":
        return explicit_padding
    if padding == "TF_VALID":
        return NO_PADS
    pads = []
    for size, taps, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
        pads.append((total // 2, total - total // 2))
    return pads[0], pads[1]


# -- settings given by a user --------------------------------------------------------------------


def as_pair(value: PairLike, what: str, least: int = 1) -> Pair:
    """A number for both axes, or one for height and one for width.

    Raises:
        Misfit: it is neither, or a number is below `least`.
    """
    try:
        items = (value, value) if not isinstance(value, Sequence) else tuple(value)
        numbers = tuple(operator.index(item) for item in items)
    except TypeError:
        numbers = ()
    if len(numbers) != 2 or min(numbers) < least:
        raise bad_shape(
            f"{what}={value!r}",
            expected=f"an integer of {least} or more, or two: (height, width)",
        )
    return numbers[0], numbers[1]


def as_pads(value: PadsLike) -> Pads:
    """((top, bottom), (left, right)) of non-negative integers."""
    try:
        rows = tuple(tuple(operator.index(n) for n in row) for row in value)
    except TypeError:
        rows = ()
    if len(rows) != 2 or any(len(row) != 2 or min(row) < 0 for row in rows):
        raise bad_shape(
            f"explicit_padding={value!r}",
            expected="((top, bottom), (left, right)) of non-negative integers",
        )
    return (rows[0][0], rows[0][1]), (rows[1][0], rows[1][1])


def as_choice(value: str, what: str, choices: Iterable[str]) -> str:
    """One of some names, upper or lower case.

    Raises:
        Misfit: it is none of them.
    """
    names = {choice.lower(): choice for choice in choices}
    if str(value).lower() in names:
        return names[str(value).lower()]
    raise bad_shape(
        f"{what}={value!r}",
        expected=" or ".join(repr(c) for c in names.values()),
        fix=nearest(str(value), names.values()),
    )


def window_attributes(
    strides: PairLike, padding: str, explicit_padding: PadsLike, data_layout: str
) -> dict[str, Any]:
    """The attributes that every windowed op stores, checked and in their one spelling."""
    style = PADDINGS.get(str(padding).lower()) or as_choice(padding, "padding", PADDING_STYLES)
    pads = as_pads(explicit_padding)
    if style != "explicit" and pads != NO_PADS:
        raise bad_shape(
            f"explicit_padding={pads} beside padding={style!r}, which would ignore it",
            fix="pass padding='explicit', or leave explicit_padding out",
        )
    return {
        "strides": as_pair(strides, "strides"),
        "padding": style,
        "explicit_padding": pads,
        "data_layout": as_choice(data_layout, "data_layout", DATA_LAYOUTS),
    }


def checked(
    graph: GraphCore,
    definition: OpDefinition,
    inputs: Sequence[Tensor],
    name: str | None,
    make: Callable[[], T],
) -> T:
    """What `make` returns; a misfit in it is reported as the op's own."""
    try:
        return make()
    except Misfit as misfit:
        raise graph._worded(misfit, definition, inputs, name) from None


# -- layouts -------------------------------------------------------------------------------------


def nhwc_sizes(shape: Shape, data_layout: str) -> Shape:
    """(batch, height, width, channels) of a shape in some layout."""
    return tuple(shape[i] for i in DATA_LAYOUTS[data_layout])


def data_shape(batch: int | None, sizes: Sizes, channels: int | None, data_layout: str) -> Shape:
    """A shape in some layout."""
    order = (batch, *sizes, channels)
    return tuple(order[DATA_LAYOUTS[data_layout].index(i)] for i in range(4))


def hwio_sizes(shape: Shape, weights_layout: str) -> Shape:
    """(height, width, in, out) of the shape of weights in some layout."""
    return tuple(shape[i] for i in WEIGHTS_LAYOUTS[weights_layout])


def to_nhwc(x: Array, data_layout: str) -> Array:
    """A view in NHWC."""
    return x.transpose(DATA_LAYOUTS[data_layout])


def from_nhwc(x: Array, data_layout: str) -> Array:
    """An array in the layout wanted."""
    return np.ascontiguousarray(x.transpose(np.argsort(DATA_LAYOUTS[data_layout])))


def to_hwio(w: Array, weights_layout: str) -> Array:
    """A view in HWIO."""
    return w.transpose(WEIGHTS_LAYOUTS[weights_layout])


def from_hwio(w: Array, weights_layout: str) -> Array:
    """An array in the layout wanted."""
    return np.ascontiguousarray(w.transpose(np.argsort(WEIGHTS_LAYOUTS[weights_layout])))


# -- NumPy ---------------------------------------------------------------------------------------


def accumulator(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype to add up in: float16 overflows and rounds too soon."""
    return np.dtype("float32") if dtype == np.float16 else dtype


def known_output(window: Window, sizes: Pair) -> Pair:
    """`Window.output` for known sizes."""
    height, width = window.output(sizes)
    assert height is not None
    assert width is not None
    return height, width


def padded(x: Array, pads: Pads, value: float = 0.0) -> Array:
    """An NHWC array with a border."""
    if pads == NO_PADS:
        return x
    (top, bottom), (left, right) = pads
    n, h, w, c = x.shape
    result = np.full((n, h + top + bottom, w + left + right, c), value, x.dtype)
    result[:, top : top + h, left : left + w] = x
    return result


def cropped(x: Array, pads: Pads) -> Array:
    """An NHWC array without its border."""
    (top, bottom), (left, right) = pads
    return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]


def patches(x: Array, window: Window, output: Pair) -> Array:
    """What each window of a padded NHWC array sees: a view (n, rows, columns, *kernel, c)."""
    n, _, _, c = x.shape
    (sh, sw), (dh, dw) = window.strides, window.dilations
    step_n, step_h, step_w, step_c = x.strides
    return np.lib.stride_tricks.as_strided(
        x,
        (n, *output, *window.kernel, c),
        (step_n, step_h * sh, step_w * sw, step_h * dh, step_w * dw, step_c),
        writeable=False,
    )


def counts(window: Window, sizes: Pair, include_padding: bool) -> Array:
    """How many pixels each window averages over, as (rows, columns, 1)."""
    output = known_output(window, sizes)
    if include_padding:
        return np.full((*output, 1), window.taps, np.float64)
    ones = padded(np.ones((1, *sizes, 1)), window.pads(sizes))
    total = np.zeros((1, *output, 1))
    for _, _, index in window.slices(output):
        total += ones[index]
    return np.asarray(total[0])
