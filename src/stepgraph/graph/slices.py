"""Python's slicing rules, worked out for known and unknown sizes."""

from __future__ import annotations

from dataclasses import dataclass

from stepgraph.graph.shapes import Shape, bad_shape

Flags = tuple[bool, ...]
Ints = tuple[int, ...]


@dataclass(frozen=True)
class Range:
    """The elements ``start, start + stride, ...`` of one axis, `length` of them.

    Attributes:
        start: index of the first, counted from the front.
        length: how many; None while the size of the axis is unknown.
        stride: step, negative to walk backwards.
    """

    start: int
    length: int | None
    stride: int


def resolve_slices(
    shape: Shape,
    starts: Ints,
    ends: Ints,
    strides: Ints,
    start_mask: Flags,
    end_mask: Flags,
    squeeze_mask: Flags | None = None,
) -> tuple[Range, ...]:
    """The range of every axis that a strided slice reads, by Python's slicing rules.

    Args:
        shape: of the tensor sliced; for known sizes every length is known.
        starts: first index of each axis; negative counts from the end.
        ends: index behind the last.
        strides: steps, not 0.
        start_mask: where True, the start is the axis's own first (or last, walking backwards).
        end_mask: where True, the range goes on to the axis's end.
        squeeze_mask: where True, only the index `start` is read.

    Raises:
        Misfit: a squeezed index is outside its axis.
    """
    found = []
    for axis, size in enumerate(shape):
        start, stride = starts[axis], strides[axis]
        if squeeze_mask is not None and squeeze_mask[axis]:
            if size is not None and not -size <= start < size:
                raise bad_shape(
                    f"index {start} is outside axis {axis} of size {size}",
                    expected=f"an index from {-size} to {size - 1}" if size else "a size above 0",
                )
            found.append(Range(start % size if size else start, 1, 1))
            continue
        key = slice(
            None if start_mask[axis] else start, None if end_mask[axis] else ends[axis], stride
        )
        if size is None:
            found.append(Range(start, _length_of_unknown(key), stride))
            continue
        indices = range(*key.indices(size))
        found.append(Range(indices.start if len(indices) else 0, len(indices), stride))
    return tuple(found)


def _length_of_unknown(key: slice) -> int | None:
    """0 where the slice is empty for every size; otherwise the length cannot be told."""
    start, end, step = key.start, key.stop, key.step
    if start is None or end is None or (start < 0) != (end < 0):
        return None
    return 0 if (end - start) * step <= 0 else None
