"""Tensors with a part replaced (MPSGraphTensorShapeOps): slice_update."""

from __future__ import annotations

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
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.slicing import (
    STRIDED_SLICE,
    as_flags,
    python_slices,
    slice_attributes,
    sliced_shape,
)
from stepgraph.graph.shapes import (
    Spec,
    bad_shape,
    format_shape,
    known_shape,
)
from stepgraph.graph.slices import Ints
from stepgraph.graph.tensor import Tensor


def _update_infer(data: Spec, update: Spec, **attributes: Any) -> Spec:
    require_same_dtype(data, update)
    shape = sliced_shape(data, **attributes)
    require_shape(update.shape, shape, "the update", "the slice")
    return data


def _update_reference(data: Array, update: Array, **attributes: Any) -> Array:
    result = data.copy()
    result[python_slices(attributes, data.ndim)] = update
    return result


def _update_gradient(op: Operation, grads: Grads) -> Gradients:
    graph, grad = op.graph, arrived(grads)
    attributes = dict(op.attributes)
    cleared = graph._one(SLICE_UPDATE, (grad, graph.zeros_like(op.inputs[1])), attributes)
    squeeze = {"squeeze_mask": (False,) * grad.rank}
    return [cleared, graph._one(STRIDED_SLICE, (grad,), {**attributes, **squeeze})]


def _update_samples(rng: np.random.Generator) -> Iterator[Sample]:
    data = rng.standard_normal((4, 5)).astype("float32")
    update = rng.standard_normal((2, 3)).astype("float32")
    yield Sample((data, update, (1, 0)))
    yield Sample((data, update, (0, 4), (3, -2)), label="strides")
    yield Sample((data, update, (-2, -3)), label="from the end")
    yield Sample((data, update[:0, :2], (4, 0)), label="empty")
    yield Sample((data, data * 2, (0, 0)), label="everything")


def _update_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.slice_update(g.placeholder((4,)), g.placeholder((3,)), (2,)),
        r"update is \(3,\), that of the slice \(2,\)",
    )
    yield Misuse(
        lambda g: g.slice_update(g.placeholder((4,)), g.placeholder((None,)), (2,)), "give ends="
    )


SLICE_UPDATE = OpDefinition(
    "slice_update",
    inputs=("data", "update"),
    infer=_update_infer,
    reference=_update_reference,
    gradient=_update_gradient,
    mpsgraph="sliceUpdateDataTensor:updateTensor:starts:ends:strides:startMask:endMask:"
    "squeezeMask:name:",
    samples=_update_samples,
    misuses=_update_misuses,
)


def _ends_of(
    starts: Sequence[int], strides: Sequence[int], lengths: Ints
) -> tuple[list[int], list[bool]]:
    """Where slices of these lengths end, and which of them reach the end of their axis."""
    ends, open_ends = [], []
    for start, stride, length in zip(starts, strides, lengths, strict=True):
        last = start + stride * (length - 1)
        end = last + (1 if stride > 0 else -1) if length else start
        # Counting from the other side, the index behind the last would change its meaning.
        crossed = bool(length) and (start < 0) != (end < 0)
        ends.append(end)
        open_ends.append(crossed)
    return ends, open_ends


DEFINITIONS = (SLICE_UPDATE,)


class SliceUpdateOps(GraphCore):
    """Parts of tensors replaced."""

    def slice_update(
        self,
        data: Tensor,
        update: Tensor,
        starts: Sequence[int],
        strides: Sequence[int] | None = None,
        ends: Sequence[int] | None = None,
        start_mask: int | Sequence[bool] = 0,
        end_mask: int | Sequence[bool] = 0,
        name: str | None = None,
    ) -> Tensor:
        """`data` with a slice of it replaced by `update`.

        Args:
            data: tensor of any shape.
            update: what to put there, of the slice's shape and the dtype of `data`.
            starts: first index of each axis; negative counts from the end.
            strides: step of each axis; 1 without it.
            ends: index behind the last; found from the sizes of `update` without it.
            start_mask: axes whose start is ignored, as for `strided_slice`.
            end_mask: axes whose end is ignored.
            name: label.

        Raises:
            ShapeError: the update does not fit.

        Source: MPSGraph ``sliceUpdateDataTensor:updateTensor:starts:ends:strides:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x, new = graph.constant([1, 2, 3, 4]), graph.constant([8, 9])
            >>> graph.run(targets=[graph.slice_update(x, new, [0], [2])])[0]
            array([8, 2, 9, 4], dtype=int32)
        """
        steps = tuple(strides) if strides is not None else (1,) * data.rank
        open_ends = as_flags(end_mask, data.rank)
        if ends is None:
            if len(starts) != update.rank or None in update.shape:
                misfit = bad_shape(
                    f"{format_shape(update.shape)} does not tell where the slice ends",
                    fix="give ends=, and end_mask= for axes that are replaced to their end",
                )
                raise self._worded(misfit, SLICE_UPDATE, (data, update), name)
            ends, found = _ends_of(starts, steps, known_shape(update.shape))
            open_ends = tuple(a or b for a, b in zip(open_ends, found, strict=True))
        attributes = slice_attributes(data.rank, starts, ends, steps, start_mask, open_ends)
        return self._one(SLICE_UPDATE, (data, update), attributes, name=name)
