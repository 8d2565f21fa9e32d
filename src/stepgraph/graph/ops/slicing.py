"""Parts of tensors (MPSGraphTensorShapeOps): slice, strided_slice, NumPy's indexing."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from stepgraph.graph.core import GraphCore
from stepgraph.graph.definition import (
    Array,
    Gradients,
    Grads,
    Misuse,
    OpDefinition,
    Sample,
    arrived,
    require_same_dtype,
    require_shape,
)
from stepgraph.graph.indexing import read_key
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import (
    Misfit,
    Shape,
    Spec,
    bad_shape,
    known_shape,
)
from stepgraph.graph.slices import Flags, Ints, resolve_slices
from stepgraph.graph.tensor import Tensor


def sliced_shape(
    x: Spec,
    *,
    starts: Ints,
    ends: Ints,
    strides: Ints,
    start_mask: Flags,
    end_mask: Flags,
    squeeze_mask: Flags | None = None,
) -> Shape:
    """The shape of what a strided slice reads, squeezed axes dropped."""
    for what, values in (("starts", starts), ("ends", ends), ("strides", strides)):
        if len(values) != x.rank:
            raise bad_shape(
                f"{what} has {len(values)} entries for a tensor of rank {x.rank}",
                expected="one entry per axis",
            )
    if 0 in strides:
        raise bad_shape("a stride is 0", expected="strides other than 0")
    ranges = resolve_slices(x.shape, starts, ends, strides, start_mask, end_mask, squeeze_mask)
    whole = [
        a and b and s in (1, -1) for a, b, s in zip(start_mask, end_mask, strides, strict=True)
    ]
    return tuple(
        x.shape[axis] if whole[axis] else r.length
        for axis, r in enumerate(ranges)
        if not (squeeze_mask and squeeze_mask[axis])
    )


def python_slices(attributes: dict[str, Any], rank: int) -> tuple[Any, ...]:
    """Python's own slices, for the references."""
    squeezed = attributes.get("squeeze_mask") or (False,) * rank
    return tuple(
        attributes["starts"][i]
        if squeezed[i]
        else builtins.slice(
            None if attributes["start_mask"][i] else attributes["starts"][i],
            None if attributes["end_mask"][i] else attributes["ends"][i],
            attributes["strides"][i],
        )
        for i in range(rank)
    )


# -- slice ---------------------------------------------------------------------------------------


def _slice_infer(x: Spec, *, dimension: int, start: int, length: int) -> Spec:
    size = x.shape[dimension]
    if length < 0:
        raise bad_shape(f"length {length} is negative", expected="a length of 0 or more")
    if size is not None:
        first = start + size if start < 0 else start
        if not 0 <= first <= first + length <= size:
            raise bad_shape(
                f"{length} elements from index {start} reach outside axis {dimension} "
                f"of size {size}",
                expected="start + length up to the size of the axis",
            )
    return Spec((*x.shape[:dimension], length, *x.shape[dimension + 1 :]), x.dtype)


def _slice_reference(x: Array, *, dimension: int, start: int, length: int) -> Array:
    first = start + x.shape[dimension] if start < 0 else start
    return np.take(x, range(first, first + length), axis=dimension)


def _slice_as_strided(op_or_x: Tensor, dimension: int, start: int, length: int) -> dict[str, Any]:
    rank = op_or_x.rank
    end = start + length
    at = [axis == dimension for axis in range(rank)]
    # A negative start counts from the end: what reaches the end has no index behind its last.
    open_end = start < 0 and end == 0
    return {
        "starts": tuple(start if a else 0 for a in at),
        "ends": tuple(end if a else 0 for a in at),
        "strides": (1,) * rank,
        "start_mask": tuple(not a for a in at),
        "end_mask": tuple(not a or open_end for a in at),
        "squeeze_mask": (False,) * rank,
    }


def _slice_decompose(graph: Any, x: Tensor, *, dimension: int, start: int, length: int) -> Tensor:
    result: Tensor = graph._one(STRIDED_SLICE, (x,), _slice_as_strided(x, dimension, start, length))
    return result


def _slice_gradient(op: Operation, grads: Grads) -> Gradients:
    attributes = _slice_as_strided(op.inputs[0], **op.attributes)
    return [op.graph._one(STRIDED_SLICE_GRADIENT, (arrived(grads), op.inputs[0]), attributes)]


def _slice_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 5)).astype("float32")
    yield Sample((x, 1, 2, 3))
    yield Sample((x, 0, -2, 2), label="from the end")
    yield Sample((x, -1, 5, 0), label="empty")


def _slice_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.slice(g.placeholder((3,)), 0, 2, 2), "reach outside axis 0 of size 3")
    yield Misuse(lambda g: g.slice(g.placeholder((3,)), 0, -4, 1), "reach outside")
    yield Misuse(lambda g: g.slice(g.placeholder((None,)), 0, 0, -1), "length -1 is negative")
    yield Misuse(lambda g: g.slice(g.placeholder((3,)), 1, 0, 1), "axis 1 is outside")


# -- strided_slice -------------------------------------------------------------------------------


def _strided_infer(x: Spec, **attributes: Any) -> Spec:
    return Spec(sliced_shape(x, **attributes), x.dtype)


def _strided_reference(x: Array, **attributes: Any) -> Array:
    return np.array(x[python_slices(attributes, x.ndim)])


def _strided_gradient(op: Operation, grads: Grads) -> Gradients:
    inputs = (arrived(grads), op.inputs[0])
    return [op.graph._one(STRIDED_SLICE_GRADIENT, inputs, dict(op.attributes))]


def _strided_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((4, 5, 6)).astype("float32")
    yield Sample((x, (1, 0, -2), (3, 5, 6), (1, 2, 1)))
    yield Sample((x, (3, -1, 5), (0, 0, 0), (-1, -2, -2)), label="backwards")
    yield Sample(
        (x, (1, 9, 2), (0, 0, 4), (1, -1, 1)),
        {"start_mask": 0b010, "end_mask": 0b010, "squeeze_mask": 0b001},
        label="masks",
    )
    yield Sample((x, (3, 0, 0), (1, 9, 1), (1, 1, 1)), label="empty")


def _strided_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.strided_slice(g.placeholder((3, 4)), (0,), (1,), (1,)), "one entry per axis"
    )
    yield Misuse(lambda g: g.strided_slice(g.placeholder((3,)), (0,), (1,), (0,)), "a stride is 0")
    yield Misuse(
        lambda g: g.strided_slice(g.placeholder((3,)), (3,), (4,), (1,), squeeze_mask=1),
        "index 3 is outside axis 0 of size 3",
    )


# -- strided_slice_gradient ----------------------------------------------------------------------


def _strided_gradient_infer(incoming: Spec, like: Spec, **attributes: Any) -> Spec:
    require_same_dtype(incoming, like)
    shape = sliced_shape(like, **attributes)
    require_shape(incoming.shape, shape, "the gradient", "the slice")
    return like


def _strided_gradient_reference(incoming: Array, like: Array, **attributes: Any) -> Array:
    result = np.zeros(like.shape, incoming.dtype)
    result[python_slices(attributes, like.ndim)] = incoming
    return result


def _strided_gradient_gradient(op: Operation, grads: Grads) -> Gradients:
    return [op.graph._one(STRIDED_SLICE, (arrived(grads),), dict(op.attributes)), None]


def _strided_gradient_decompose(
    graph: Any, incoming: Tensor, like: Tensor, **attributes: Any
) -> Tensor:
    shape = known_shape(like.shape)
    ranges = resolve_slices(shape, **attributes)
    part = graph.reshape(incoming, tuple(r.length for r in ranges))
    if all(r.stride == 1 for r in ranges):
        before_after = tuple(
            (r.start, size - r.start - (r.length or 0))
            for r, size in zip(ranges, shape, strict=True)
        )
        padded: Tensor = graph.pad(part, before_after)
        return padded
    zeros = graph.constant(0, shape=shape, dtype=incoming.dtype)
    updated: Tensor = graph.slice_update(
        zeros, part, [r.start for r in ranges], [r.stride for r in ranges]
    )
    return updated


def _strided_gradient_samples(rng: np.random.Generator) -> Iterator[Sample]:
    like = rng.standard_normal((4, 5)).astype("float32")
    for label, arguments in (
        ("padded", {"starts": (1, 2), "ends": (3, 5), "strides": (1, 1)}),
        ("strided", {"starts": (3, 0), "ends": (0, 5), "strides": (-2, 2)}),
        ("squeezed", {"starts": (2, 1), "ends": (0, 4), "strides": (1, 2), "squeeze_mask": 1}),
    ):
        keys: dict[str, Any] = {"start_mask": (False,) * 2, "end_mask": (False,) * 2, **arguments}
        keys["squeeze_mask"] = as_flags(keys.get("squeeze_mask", 0), 2)
        part = like[python_slices(keys, 2)]
        incoming = rng.standard_normal(part.shape).astype("float32")
        yield Sample((incoming, like), arguments, differentiable=(0,), label=label)


def _strided_gradient_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.strided_slice_gradient(
            g.placeholder((2,)), g.placeholder((5,)), (0,), (3,), (1,)
        ),
        r"gradient is \(2,\), that of the slice \(3,\)",
    )


SLICE = OpDefinition(
    "slice",
    inputs=("x",),
    infer=_slice_infer,
    reference=_slice_reference,
    gradient=_slice_gradient,
    decompose=_slice_decompose,
    mpsgraph="sliceTensor:dimension:start:length:name:",
    samples=_slice_samples,
    misuses=_slice_misuses,
)
STRIDED_SLICE = OpDefinition(
    "strided_slice",
    inputs=("x",),
    infer=_strided_infer,
    reference=_strided_reference,
    gradient=_strided_gradient,
    mpsgraph="sliceTensor:starts:ends:strides:startMask:endMask:squeezeMask:name:",
    samples=_strided_samples,
    misuses=_strided_misuses,
)
STRIDED_SLICE_GRADIENT = OpDefinition(
    "strided_slice_gradient",
    inputs=("incoming", "like"),
    infer=_strided_gradient_infer,
    reference=_strided_gradient_reference,
    gradient=_strided_gradient_gradient,
    decompose=_strided_gradient_decompose,
    shape_only=(1,),
    mpsgraph="sliceGradientTensor:fwdInShapeTensor:starts:ends:strides:startMask:endMask:"
    "squeezeMask:name:",
    samples=_strided_gradient_samples,
    misuses=_strided_gradient_misuses,
)
DEFINITIONS = (SLICE, STRIDED_SLICE, STRIDED_SLICE_GRADIENT)


def as_flags(mask: int | Sequence[bool], rank: int) -> Flags:
    """A mask as one bool per axis; of an int, bit ``i`` stands for axis ``i``."""
    if isinstance(mask, int):
        return tuple(bool(mask >> axis & 1) for axis in range(rank))
    return tuple(bool(flag) for flag in mask)


class SlicingOps(GraphCore):
    """Parts of tensors."""

    def slice(
        self, x: Tensor, dimension: int, start: int, length: int, name: str | None = None
    ) -> Tensor:
        """`length` elements along one axis, from index `start`.

        Args:
            x: tensor of rank 1 or more.
            dimension: the axis; negative counts from the end.
            start: first index; negative counts from the end.
            length: how many; all of them must exist.
            name: label in printed graphs and errors; made unique when taken.

        Raises:
            ShapeError: the elements reach outside the axis.

        Source: MPSGraph ``sliceTensor:dimension:start:length:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.slice(graph.constant([1, 2, 3, 4]), 0, 1, 2)])[0]
            array([2, 3], dtype=int32)
        """
        attributes = {
            "dimension": self._axis(SLICE, x, dimension),
            "start": int(start),
            "length": int(length),
        }
        return self._one(SLICE, (x,), attributes, name=name)

    def strided_slice(
        self,
        x: Tensor,
        starts: Sequence[int],
        ends: Sequence[int],
        strides: Sequence[int],
        start_mask: int | Sequence[bool] = 0,
        end_mask: int | Sequence[bool] = 0,
        squeeze_mask: int | Sequence[bool] = 0,
        name: str | None = None,
    ) -> Tensor:
        """Python's ``start:end:stride`` along every axis; ``x[...]`` (`get_item`) says it shorter.

        Args:
            x: tensor of any shape.
            starts: first index of each axis; negative counts from the end.
            ends: index behind the last of each axis.
            strides: step of each axis, negative to walk backwards.
            start_mask: axes whose start is ignored: one bool per axis, or an int of one bit per
                axis (bit 0 for axis 0).
            end_mask: axes whose end is ignored.
            squeeze_mask: axes of which only the index `starts` is taken, and which are dropped.
            name: label.

        Raises:
            ShapeError: an entry is missing, a stride is 0 or a squeezed index is outside its axis.

        Source: MPSGraph ``sliceTensor:starts:ends:strides:startMask:endMask:squeezeMask:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([[1, 2, 3], [4, 5, 6]])
            >>> graph.run(targets=[graph.strided_slice(x, (0, 2), (2, 0), (1, -1))])[0]
            array([[3, 2],
                   [6, 5]], dtype=int32)
        """
        attributes = slice_attributes(x.rank, starts, ends, strides, start_mask, end_mask)
        attributes["squeeze_mask"] = as_flags(squeeze_mask, x.rank)
        return self._one(STRIDED_SLICE, (x,), attributes, name=name)

    def strided_slice_gradient(
        self,
        incoming: Tensor,
        like: Tensor,
        starts: Sequence[int],
        ends: Sequence[int],
        strides: Sequence[int],
        start_mask: int | Sequence[bool] = 0,
        end_mask: int | Sequence[bool] = 0,
        squeeze_mask: int | Sequence[bool] = 0,
        name: str | None = None,
    ) -> Tensor:
        """The gradient of `strided_slice`: zeros like `like`, with `incoming` in the slice.

        Args:
            incoming: gradient of the slice.
            like: the tensor that was sliced; only its shape is read.
            starts: as for `strided_slice`, and so on.
            ends: index behind the last of each axis.
            strides: step of each axis.
            start_mask: axes whose start is ignored.
            end_mask: axes whose end is ignored.
            squeeze_mask: axes dropped.
            name: label.

        Source: MPSGraph ``sliceGradientTensor:fwdInShapeTensor:starts:ends:strides:...``.
        """
        attributes = slice_attributes(like.rank, starts, ends, strides, start_mask, end_mask)
        attributes["squeeze_mask"] = as_flags(squeeze_mask, like.rank)
        return self._one(STRIDED_SLICE_GRADIENT, (incoming, like), attributes, name=name)

    def get_item(self, x: Tensor, key: Any, name: str | None = None) -> Tensor:
        """NumPy's indexing: what ``x[key]`` means.

        Integers, slices with any step, None and ``...`` as in NumPy's basic indexing. One list,
        array or integer tensor may stand for an axis: its elements are gathered (`Graph.gather`).
        Negative indices in a list or array count from the end, where the size is known; those in a
        tensor do not.

        Args:
            x: tensor of any shape.
            key: index, or tuple of them.
            name: label.

        Raises:
            ShapeError: an index is outside its axis, or there are too many.
            GraphError: the key is of a kind that cannot be done, such as a mask of bools.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([[1, 2, 3], [4, 5, 6]])
            >>> graph.run(targets=[x[..., ::-1], x[1, None, :2], x[:, [2, 0]]])
            [array([[3, 2, 1],
                   [6, 5, 4]], dtype=int32), array([[4, 5]], dtype=int32), array([[3, 1],
                   [6, 4]], dtype=int32)]
        """
        try:
            parsed = read_key(x.shape, key)
        except Misfit as misfit:
            raise self._worded(misfit, STRIDED_SLICE, (x,), name or "get_item") from None
        label = name or "get_item"
        graph = self._graph
        if parsed.slices is not None:
            x = self._one(STRIDED_SLICE, (x,), parsed.slices, name=label)
        if parsed.new_axes:
            x = graph.expand_dims(x, parsed.new_axes, name=label)
        if parsed.indices is not None:
            x = graph.gather(x, self.as_tensor(parsed.indices), axis=parsed.index_axis, name=label)
        return x


def slice_attributes(
    rank: int,
    starts: Sequence[int],
    ends: Sequence[int],
    strides: Sequence[int],
    start_mask: int | Sequence[bool],
    end_mask: int | Sequence[bool],
) -> dict[str, Any]:
    """The attributes stored, from what a user may write."""
    return {
        "starts": tuple(int(i) for i in starts),
        "ends": tuple(int(i) for i in ends),
        "strides": tuple(int(i) for i in strides),
        "start_mask": as_flags(start_mask, rank),
        "end_mask": as_flags(end_mask, rank),
    }
