"""Whatever `fit` is given as batches of arrays that fit a model's placeholders."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from stepgraph.datasets import Batches, draws
from stepgraph.datasets.pictures import Pictures, Rows
from stepgraph.errors import DataError, FeedError, describe
from stepgraph.graph.shapes import Shape, format_shape, same_shape
from stepgraph.layers import KerasTensor
from stepgraph.models.objective import Objective, Output, class_weights
from stepgraph.utils import mix

Array = NDArray[Any]

# Seconds below which a batch is prepared between two steps instead of by a thread: handing it over
# costs about a tenth of a millisecond where every processor is at work on the step.
QUICK = 2e-4


class Batch:
    """Arrays of one step, as the placeholders take them.

    Attributes:
        x: one per input.
        y: one per trained output.
        w: of samples, one per output; None where there are none.
        size: number of samples.
    """

    __slots__ = ("size", "w", "x", "y")

    def __init__(self, x: list[Array], y: list[Array], w: list[Array | None]) -> None:
        self.x, self.y, self.w = x, y, w
        self.size = len(x[0]) if x else 0

    def cut(self, part: slice) -> Batch:
        """Some of its samples, as a view."""
        x, y = ([a[part] for a in group] for group in (self.x, self.y))
        return Batch(x, y, [None if a is None else a[part] for a in self.w])

    def pick(self, index: NDArray[np.int64], deferred: bool) -> Batch:
        """Samples at some positions; deferred: to be written where a step reads them."""
        take: Any = Rows if deferred else _taken
        x, y = ([take(a, index) for a in group] for group in (self.x, self.y))
        return Batch(x, y, [None if a is None else a[index] for a in self.w])


def _taken(array: Array, index: NDArray[np.int64]) -> Array:
    taken: Array = np.take(array, index, axis=0)
    return taken


class Preparer:
    """Turns what a user hands over into a `Batch`.

    Args:
        inputs: of the model.
        objective: its outputs; None where only inputs matter.
        class_weight: class number to weight.
    """

    def __init__(
        self,
        inputs: Sequence[KerasTensor],
        objective: Objective | None = None,
        class_weight: Mapping[int, float] | None = None,
    ) -> None:
        self.inputs = [(t.name, (None, *t.shape[1:]), np.dtype(t.dtype)) for t in inputs]
        self.outputs = objective.outputs if objective else []
        self.class_weight = class_weight
        if class_weight and len(self.outputs) > 1:
            raise DataError(
                describe(
                    "class_weight",
                    "is for models of one output",
                    fix="give sample_weight for each output",
                )
            )

    def __call__(self, x: Any, y: Any = None, w: Any = None) -> Batch:
        """A batch, its shapes and dtypes checked."""
        if type(x) is np.ndarray and len(self.inputs) == 1 and not self.outputs:
            # As is: what predictions for single samples are mostly given.
            _, shape, dtype = self.inputs[0]
            if x.dtype == dtype and x.ndim == len(shape) and x.shape[1:] == shape[1:]:
                return Batch([x], [], [])
        xs = [
            _input(name, shape, dtype, value)
            for (name, shape, dtype), value in zip(
                self.inputs, _split("x", x, [i[0] for i in self.inputs]), strict=True
            )
        ]
        if not self.outputs:
            return Batch(xs, [], [])
        names = [output.name for output in self.outputs]
        labels = _split("y", y, names)
        ys = [
            _label(output, value)
            for output, value in zip(self.outputs, labels, strict=True)
            if output.loss is not None
        ]
        weights: list[Array | None] = [None] * len(names)
        if w is not None:
            given = (
                _split("sample_weight", w, names)
                if isinstance(w, list | tuple | Mapping)
                else [w] * len(names)
            )
            weights = [None if v is None else _weight(v, len(xs[0])) for v in given]
        if self.class_weight:
            by_class = class_weights(ys[0], self.outputs[0].sparse, self.class_weight)
            by_class = _weight(by_class, len(xs[0]))
            weights[0] = by_class if weights[0] is None else weights[0] * by_class
        batch = Batch(xs, ys, weights)
        for what, arrays in (("x", xs), ("y", ys)):
            for array in arrays:
                if len(array) != batch.size:
                    raise DataError(
                        describe(
                            what,
                            f"has {len(array)} samples, the first input {batch.size}",
                            expected="as many samples in every array",
                        )
                    )
        return batch


def _split(what: str, value: Any, names: Sequence[str]) -> list[Any]:
    """One entry per input or output."""
    if isinstance(value, Mapping):
        missing = [name for name in names if name not in value]
        if missing:
            raise FeedError(
                describe(
                    what,
                    f"nothing for '{missing[0]}'",
                    got={"keys": ", ".join(map(str, value))},
                    expected=", ".join(names),
                )
            )
        return [value[name] for name in names]
    if len(names) == 1:
        single = isinstance(value, list | tuple) and len(value) == 1
        return [value[0] if single and isinstance(value[0], np.ndarray) else value]
    if isinstance(value, list | tuple) and len(value) == len(names):
        return list(value)
    got = f"{len(value)}" if isinstance(value, list | tuple) else type(value).__name__
    raise FeedError(
        describe(
            what,
            f"got {got} where {len(names)} arrays are due",
            expected=f"a list, or a dictionary of {', '.join(names)}",
        )
    )


def _input(name: str, shape: Shape, dtype: np.dtype[Any], value: Any) -> Array:
    if isinstance(value, Pictures) and value.dtype == dtype and same_shape(value.shape, shape):
        return cast(Array, value)
    array = np.asarray(value)
    if array.dtype != dtype:
        if array.dtype.kind not in "biuf":
            raise FeedError(describe(f"input '{name}'", f"cannot take {array.dtype} values"))
        array = _cast(f"input '{name}'", array, dtype)
    if array.ndim == len(shape) - 1 and shape[-1] == 1:
        array = array[..., None]
    if array.ndim != len(shape) or not same_shape(array.shape, shape):
        raise FeedError(
            describe(
                f"input '{name}'",
                "data of another shape than the model was made for",
                got={"data": format_shape(array.shape)},
                expected=format_shape(shape),
                fix="the first axis counts samples; reshape the data or the Input",
            )
        )
    return array


def _label(output: Output, value: Any) -> Array:
    if value is None:
        raise DataError(
            describe(
                f"output '{output.name}'", "there are no labels", fix="give y, or (x, y) batches"
            )
        )
    array = np.asarray(value)
    shape = output.label_shape
    if output.sparse:
        if array.ndim == len(shape) + 1 and array.shape[-1] == 1:
            array = array[..., 0]
    elif array.ndim == len(shape) - 1 and shape[-1] == 1:
        array = array[..., None]
    if array.ndim != len(shape) or not same_shape(array.shape, shape):
        raise FeedError(
            describe(
                f"output '{output.name}'",
                "labels of another shape than its loss needs",
                got={"labels": format_shape(array.shape), "loss": getattr(output.loss, "name", "")},
                expected=format_shape(shape),
                fix=_label_fix(output, array),
            )
        )
    if not output.sparse:
        return array if array.dtype == output.dtype else array.astype(output.dtype)
    classes = output.shape[-1]
    if array.size and classes and (array.min() < 0 or array.max() >= classes):
        raise DataError(
            describe(
                f"output '{output.name}'",
                f"class numbers run from {array.min()} to {array.max()}",
                expected=f"0 to {classes - 1}",
            )
        )
    return _cast(f"output '{output.name}'", array, np.dtype(np.int32))


def _cast(what: str, array: Array, dtype: np.dtype[Any]) -> Array:
    """The array in another dtype; floats that are to count things must be whole."""
    if array.dtype == dtype:
        return array
    if dtype.kind in "iu" and array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            converted = array.astype(dtype)
        if not np.array_equal(converted, array):
            raise FeedError(describe(what, f"takes whole numbers ({dtype}), got fractions"))
        return converted
    return array.astype(dtype)


def _label_fix(output: Output, array: Array) -> str:
    if not output.sparse and array.ndim < len(output.shape):
        return (
            "loss='sparse_categorical_crossentropy' takes class numbers; or utils.to_categorical(y)"
        )
    if output.sparse and array.ndim == len(output.shape):
        return "loss='categorical_crossentropy' takes one-hot labels"
    return "make labels and the last layer's output alike"


def _weight(value: Any, size: int) -> Array:
    array = np.asarray(value, np.float32)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (size,):
        raise DataError(
            describe(
                "sample_weight",
                f"has shape {array.shape}",
                expected=f"({size},), one weight per sample",
            )
        )
    return array


# -- sources ------------------------------------------------------------------------------------


class ArraySource:
    """Arrays in memory, cut into batches; the last one may be smaller.

    Args:
        batch: all samples.
        batch_size: samples per step.
        shuffle: another order each pass.
        seed: of the orders.
        deferred: whether shuffled batches are to be written where a step reads them.
    """

    def __init__(
        self,
        batch: Batch,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        deferred: bool = False,
    ) -> None:
        if batch_size < 1:
            raise DataError(describe("fit", f"batch_size={batch_size}", expected="1 or more"))
        # Samples are picked from contiguous arrays; of others NumPy would make a copy each time.
        batch.x, batch.y = ([np.ascontiguousarray(a) for a in g] for g in (batch.x, batch.y))
        self.batch, self.batch_size, self.shuffle, self.seed = batch, batch_size, shuffle, seed
        self.deferred = deferred

    @property
    def steps(self) -> int | None:
        """Steps of a pass."""
        return -(-self.batch.size // self.batch_size)

    def batches(self, epoch: int, iteration: int) -> Generator[Batch, None, None]:
        """One pass; its order is a function of the seed and the steps trained before it."""
        count, size = self.batch.size, self.batch_size
        order = draws.permutation(count, mix(self.seed, iteration), 0) if self.shuffle else None
        for start in range(0, count, size):
            part = slice(start, start + size)
            if order is None:
                yield self.batch.cut(part)
            else:
                yield self.batch.pick(order[part], self.deferred)


class BatchSource:
    """An object that gives batches: an iterator, a generator, or something with length and items.

    Args:
        data: what gives batches ``x``, ``(x, y)`` or ``(x, y, sample_weight)``.
        prepare: turns one into a `Batch`.
        shuffle: take the items of a sequence in another order each pass.
        seed: of the orders.
        deferred: whether a data set's pictures are to be written where a step reads them.
    """

    def __init__(
        self, data: Any, prepare: Preparer, shuffle: bool, seed: int, deferred: bool = False
    ) -> None:
        # A class of the user's may have changed what a batch is.
        self.deferred = deferred and type(data) is Batches
        self.data, self.prepare, self.shuffle, self.seed = data, prepare, shuffle, seed
        self.indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__")
        # Data sets of ours can be read from any epoch on, so a resumed training goes on exactly.
        self.addressed = hasattr(data, "stream") and hasattr(data, "steps_per_epoch")
        self.once = not self.indexed and not self.addressed and iter(data) is data
        self._quick: bool | None = None

    @property
    def steps(self) -> int | None:
        """Steps of a pass, where known."""
        if self.addressed:
            return int(self.data.steps_per_epoch)
        return len(self.data) if hasattr(self.data, "__len__") else None

    def batches(self, epoch: int, iteration: int) -> Generator[Batch, None, None]:
        """One pass. Of an iterator there is only one, which goes on where it was."""
        if self.deferred:
            yield from self._deferred(epoch)
            return
        with closing(self._items(epoch, iteration)) as items:
            for item in items:
                yield self.prepare(*_unpacked(item))

    def _items(self, epoch: int, iteration: int) -> Generator[Any, None, None]:
        if self.addressed:
            yield from self._streamed(epoch)
        elif self.indexed:
            count = len(self.data)
            order = (
                draws.permutation(count, mix(self.seed, iteration), 0)
                if self.shuffle
                else np.arange(count)
            )
            finish = getattr(self.data, "on_epoch_end", None)
            for position, index in enumerate(order, 1):
                item = self.data[int(index)]
                # Before the last batch is handed out: nobody may ask for a further one.
                if position == count and finish:
                    finish()
                yield item
        else:
            yield from iter(self.data)

    def _deferred(self, epoch: int) -> Generator[Batch, None, None]:
        """A pass over a data set of ours whose pictures the device writes itself."""
        as_it_is: Batch | None = None
        for step in range(self.data.steps_per_epoch):
            item = self.data.deferred(epoch, step)
            if as_it_is is not None:
                yield Batch([item.x], [item.y][: len(as_it_is.y)], as_it_is.w)
                continue
            batch = self.prepare(*item)
            # Pictures of one set are all alike, and so are its one-hot labels: where the first
            # batch is taken as it is, so are the others.
            same = [id(a) for a in (*batch.x, *batch.y)] == [id(item.x), id(item.y)][
                : len(batch.y) + 1
            ]
            sparse = any(output.sparse for output in self.prepare.outputs)
            if same and not sparse and not any(w is not None for w in batch.w):
                as_it_is = batch
            yield batch

    def _streamed(self, epoch: int) -> Generator[Any, None, None]:
        """A pass over a data set of ours, prepared ahead by a thread where that is worth its while.

        The very first batches are prepared without one, and timed.
        """
        step, options = 0, {"epoch": epoch, "epochs": epoch + 1, "reuse": True}
        if self._quick is None:
            with self.data.stream(**options) as stream:
                while self._quick is None:
                    start = time.perf_counter()
                    batch = next(stream, None)
                    taken = time.perf_counter() - start
                    if batch is None:
                        return
                    yield batch
                    step += 1
                    # The first one also draws the order of the samples.
                    if step > 1:
                        self._quick = taken < QUICK
        ahead = 0 if self._quick else 1
        with self.data.stream(step=step, prefetch=ahead, **options) as stream:
            yield from stream


Source = ArraySource | BatchSource


def make_source(
    prepare: Preparer,
    x: Any,
    y: Any = None,
    w: Any = None,
    *,
    batch_size: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
    deferred: bool = False,
) -> Source:
    """A source of batches from arrays, or from an object that gives batches.

    `deferred` is for devices that write pictures and picked rows where they read them.
    """
    if x is None:
        raise DataError(describe("fit", "there is no data", fix="give x"))
    arrays = isinstance(x, np.ndarray | list | tuple | Mapping) or hasattr(x, "__array__")
    if arrays:
        return ArraySource(prepare(x, y, w), batch_size or 32, shuffle, seed, deferred)
    if y is not None:
        raise DataError(
            describe(
                "fit",
                f"y was given beside {type(x).__name__}, which gives its own labels",
                fix="leave y out, or pass arrays",
            )
        )
    if not (
        hasattr(x, "__iter__")
        or hasattr(x, "__next__")
        or hasattr(x, "__getitem__")
        or hasattr(x, "stream")
    ):
        raise DataError(
            describe(
                "fit",
                f"cannot read batches from {type(x).__name__}",
                expected="arrays, an iterator of (x, y), or an object with len() and items",
            )
        )
    return BatchSource(x, prepare, shuffle, seed, deferred)


def endless(
    source: Source, epoch: int, iteration: Callable[[], int]
) -> Generator[Batch, None, None]:
    """Passes of a source one after the other; ends only where there is no second pass.

    Args:
        source: of batches.
        epoch: number of the first pass.
        iteration: called at each pass for the steps trained so far.
    """
    for number in itertools.count(epoch):
        empty = True
        with closing(source.batches(number, iteration())) as batches:
            for batch in batches:
                empty = False
                yield batch
        if empty or getattr(source, "once", False):
            return


def _unpacked(item: Any) -> tuple[Any, ...]:
    if isinstance(item, tuple) and 1 <= len(item) <= 3:
        return item
    return (item,)


def hold_out(batch: Batch, fraction: float) -> tuple[Batch, Batch]:
    """The first samples for training, the last `fraction` of them for validation."""
    if not 0 < fraction < 1:
        raise DataError(describe("fit", f"validation_split={fraction}", expected="between 0 and 1"))
    at = int(batch.size * (1.0 - fraction))
    if at in (0, batch.size):
        raise DataError(
            describe("fit", f"validation_split={fraction} of {batch.size} samples leaves none")
        )
    return batch.cut(slice(0, at)), batch.cut(slice(at, None))
