"""What a user holds: a graph compiled for a device, checked at every border."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from stepgraph.backends.base import OverlappingRunner, Runner, State, StepTime, get_device
from stepgraph.compiler.capture import live_operations
from stepgraph.errors import FeedError, GraphError, ShapeError, describe
from stepgraph.graph.definition import Array
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import (
    Shape,
    as_shape,
    element_count,
    format_shape,
    is_known,
    same_shape,
)
from stepgraph.graph.tensor import Tensor


@dataclass
class ExecutionDescriptor:
    """How an asynchronous run reports.

    Attributes:
        completion_handler: called once, on another thread, as ``handler(results, error)``: a list
            of arrays and None, or None and the exception.
        wait_until_completed: whether `Executable.run_async` returns only after the handler did.

    Source: ``MPSGraphExecutionDescriptor``.
    """

    completion_handler: Callable[[list[Array] | None, BaseException | None], object] | None = None
    wait_until_completed: bool = False


class Executable:
    """A graph compiled for one device and one set of feeds and targets.

    It shares the values of the graph's variables with every other executable of that graph on that
    device. Sizes not known at compile time, and booleans that steer an `if_`, are learnt from the
    values fed; each combination is compiled once and kept.
    """

    def __init__(
        self,
        graph: Graph,
        feeds: Mapping[Tensor, Shape],
        targets: Sequence[Tensor],
        operations: Sequence[Operation],
        device: str,
        options: Mapping[str, Any],
    ) -> None:
        self.device = device
        self.targets = list(targets)
        self._graph = graph
        self._feeds = dict(feeds)
        self._by_name = {t.name: t for t in feeds}
        self._operations = list(operations)
        self._options = dict(options)
        self._live = live_operations(targets, operations)
        self._steering = _steering(self._live, feeds)
        self._needed = {op.output for op in self._live if op.type == "placeholder"}
        self._runners: dict[Any, Runner] = {}
        # The runner of the newest run, and tensor, name, shape and dtype of what it was fed.
        self._newest: tuple[Runner, list[tuple[Tensor, str, Any, Any]]] | None = None
        self._device, self._variant = get_device(device)
        self._state = state_of(graph, device)
        self._lock: threading.RLock = _locks(graph, device)
        if all(is_known(s) for s in feeds.values()) and not self._steering:
            self._runner({}, dict(self._feeds))

    @property
    def feeds(self) -> dict[Tensor, Shape]:
        """The placeholders and their shapes, as far as they are known at compile time."""
        return dict(self._feeds)

    @property
    def operations(self) -> list[Operation]:
        """What must also happen in a run, as the caller listed it."""
        return list(self._operations)

    def feed_array(self, placeholder: Tensor, shape: Sequence[int] | None = None) -> Array:
        """An array to be filled with values for a placeholder and fed.

        Devices that share their memory with the processor read it where it lies if they can; others
        copy it, as they do any other array. It must not change while a run that was fed it is under
        way.

        Args:
            placeholder: among the feeds.
            shape: its sizes, if some are not known at compile time.

        Returns:
            Array of the placeholder's dtype; what is in it is not said.

        Raises:
            FeedError: there is no such feed.
            ShapeError: the shape does not fit, or is not known.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.placeholder((3,), name="x")
            >>> run = graph.compile([x], [x * 2.0], device="reference")
            >>> values = run.feed_array(x)
            >>> values[:] = [1.0, 2.0, 3.0]
            >>> run.run({x: values})[0]
            array([2., 4., 6.], dtype=float32)
        """
        if placeholder not in self._feeds:
            raise FeedError(describe("feed_array", f"{placeholder!r} is not among the feeds"))
        wanted = self._feeds[placeholder]
        sizes = tuple(shape) if shape is not None else wanted
        if not is_known(sizes) or not same_shape(sizes, wanted):
            raise ShapeError(
                describe(
                    "feed_array",
                    f"placeholder '{placeholder.name}' has shape {format_shape(wanted)}",
                    got={"shape": format_shape(sizes)},
                    fix="give all sizes: feed_array(placeholder, shape)",
                )
            )
        return self._device.feed_array(cast("tuple[int, ...]", sizes), placeholder.dtype)

    def run(self, feeds: Mapping[Tensor, Any] | None = None) -> list[Array]:
        """Runs once and returns the targets' values, in their order.

        Args:
            feeds: a value for each placeholder, of its shape and dtype: an array, what NumPy makes
                one of, or a batch's pictures that are not written yet (`Batches.deferred`). Arrays
                may be read where they lie: no other thread may change them meanwhile.

        Raises:
            FeedError: a placeholder is missing or unknown, or a value does not fit.
        """
        again = self._again(feeds or {})
        if again is not None:
            with self._lock:
                return again[0].run(again[1])
        arrays = self._checked(feeds or {})
        with self._lock:
            runner = self._runner(arrays, {t: a.shape for t, a in arrays.items()})
            if not self._steering:
                like = [(t, t.name, a.shape, a.dtype) for t, a in arrays.items()]
                self._newest = runner, like
            return runner.run({t.name: a for t, a in arrays.items()})

    def _again(self, feeds: Mapping[Tensor, Any]) -> tuple[Runner, dict[str, Array]] | None:
        """The runner and the values by name where feeds are as in the newest run; else None.

        What was checked then need not be checked again, which is most of what a short step's run
        costs in Python.
        """
        if self._newest is None:
            return None
        runner, like = self._newest
        if len(feeds) != len(like):
            return None
        values: dict[str, Array] = {}
        for tensor, name, shape, dtype in like:
            value: Any = feeds.get(tensor)
            if type(value) is np.ndarray:
                if not value.flags.c_contiguous:
                    return None
            elif not (self._device.defers and hasattr(value, "write_into")):
                return None
            if value.shape != shape or value.dtype != dtype:
                return None
            values[name] = value
        return runner, values

    def run_async(
        self,
        feeds: Mapping[Tensor, Any] | None = None,
        descriptor: ExecutionDescriptor | None = None,
    ) -> Future[list[Array]]:
        """Starts a run and returns at once; runs of one device happen in the order started.

        Args:
            feeds: as for `run`; checked before this returns. Arrays must not change until the end.
            descriptor: whom to tell. Its handler is called once, also with an error.

        Returns:
            A future of the results.

        Source: MPSGraph ``runAsyncWithFeeds:targetTensors:targetOperations:executionDescriptor:``.
        """
        descriptor = descriptor or ExecutionDescriptor()
        handler = descriptor.completion_handler
        given = dict(feeds or {})

        def task() -> list[Array]:
            try:
                results = outcome()
            except BaseException as error:
                if handler:
                    handler(None, error)
                raise
            if handler:
                handler(results, None)
            return results

        outcome = self._start(given)
        future = _queue().submit(task)
        if descriptor.wait_until_completed:
            future.exception()
        return future

    def _start(self, feeds: Mapping[Tensor, Any]) -> Callable[[], list[Array]]:
        """Starts a run if the device can, else plans it; gives what waits for the results."""
        arrays = self._checked(feeds)
        if not self._device.overlaps:
            return lambda: self.run(feeds)
        with self._lock:
            runner = self._runner(arrays, {t: a.shape for t, a in arrays.items()})
            overlapping = cast(OverlappingRunner, runner)
            return overlapping.start({t.name: a for t, a in arrays.items()}).result

    def describe(self, feeds: Mapping[Tensor, Any] | None = None) -> str:
        """The program as it runs on the device, for people.

        Args:
            feeds: as for `run`, to choose among programs; the first compiled one without it.
        """
        return self._chosen(feeds).describe()

    def planned_bytes(self, feeds: Mapping[Tensor, Any] | None = None) -> int:
        """Bytes planned for intermediate values of a run; 0 where a device plans nothing."""
        return self._chosen(feeds).planned_bytes

    def held_bytes(self, feeds: Mapping[Tensor, Any] | None = None) -> int:
        """Bytes of the variables and constants that a run uses; 0 where it is not known."""
        return self._chosen(feeds).held_bytes

    def profile(self, feeds: Mapping[Tensor, Any] | None = None) -> list[StepTime]:
        """Runs once, step by step, and says what each step took.

        The run counts: variables are updated as by `run`. Steps that a device fuses are one step.

        Args:
            feeds: as for `run`.
        """
        arrays = self._checked(feeds or {})
        with self._lock:
            runner = self._runner(arrays, {t: a.shape for t, a in arrays.items()})
            return runner.profile({t.name: a for t, a in arrays.items()})

    def _chosen(self, feeds: Mapping[Tensor, Any] | None) -> Runner:
        if feeds is None and self._runners:
            return next(iter(self._runners.values()))
        arrays = self._checked(feeds or {})
        with self._lock:
            return self._runner(arrays, {t: a.shape for t, a in arrays.items()})

    def _runner(self, arrays: Mapping[Tensor, Array], shapes: Mapping[Tensor, Shape]) -> Runner:
        values = {t.name: arrays[t] for t in self._steering}
        key = (
            tuple(shapes[t] for t in self._feeds if t in shapes),
            tuple(v.tobytes() for v in values.values()),
        )
        runner = self._runners.get(key)
        if runner is None:
            runner = self._runners[key] = self._device.prepare(
                self._graph,
                dict(shapes),
                self.targets,
                self._operations,
                values,
                self._state,
                self._variant,
                **self._options,
            )
        return runner

    def _checked(self, feeds: Mapping[Tensor, Any]) -> dict[Tensor, Array]:
        """Feeds as arrays of the right shape and dtype."""
        for tensor in feeds:
            if tensor not in self._feeds:
                raise FeedError(
                    describe(
                        "run",
                        f"{tensor!r} is not among the feeds this was compiled for",
                        got={"compiled feeds": ", ".join(self._by_name) or "none"},
                    )
                )
        arrays = {}
        for tensor, shape in self._feeds.items():
            if tensor not in feeds:
                if tensor not in self._needed:
                    continue
                raise FeedError(
                    describe(
                        "run",
                        f"no value for placeholder '{tensor.name}'",
                        got={"fed": ", ".join(t.name for t in feeds) or "nothing"},
                        expected=f"{tensor.dtype} {format_shape(shape)}",
                    )
                )
            arrays[tensor] = _fit(tensor, shape, feeds[tensor], self._device.defers)
        return arrays


def _fit(tensor: Tensor, shape: Shape, value: Any, defers: bool = False) -> Array:
    if defers and hasattr(value, "write_into") and value.dtype == tensor.dtype.numpy:
        deferred: Array = value
        if same_shape(value.shape, shape):
            return deferred
    array = np.asarray(value)
    wanted = tensor.dtype.numpy
    if array.dtype != wanted:
        same_kind = np.can_cast(array.dtype, wanted, "same_kind")
        if not same_kind and not (array.dtype.kind in "iu" and tensor.dtype.is_integer):
            raise FeedError(
                describe(
                    "run",
                    f"placeholder '{tensor.name}' is {tensor.dtype}, the value {array.dtype}",
                    fix=f"convert it: value.astype('{tensor.dtype}')",
                )
            )
        converted = array.astype(wanted)
        if tensor.dtype.is_integer and not np.array_equal(converted, array):
            raise FeedError(
                describe("run", f"a value for '{tensor.name}' does not fit {tensor.dtype}")
            )
        array = converted
    if not same_shape(array.shape, shape):
        raise FeedError(
            describe(
                "run",
                f"placeholder '{tensor.name}' has shape {format_shape(shape)}, "
                f"the value {format_shape(array.shape)}",
            )
        )
    return np.ascontiguousarray(array).reshape(array.shape)


def _steering(live: Sequence[Operation], feeds: Mapping[Tensor, Shape]) -> list[Tensor]:
    """Single booleans fed that alone decide the predicate of an `if_`: one program per value.

    The predicate may be computed from them, as in ``is_training & flag``.
    """
    steering: set[Tensor] = set()
    for operation in live:
        if operation.type == "if":
            steering |= _single_bools(operation.inputs[0]) or set()
    return [t for t in feeds if t in steering]


def _single_bools(tensor: Tensor) -> set[Tensor] | None:
    """The single booleans fed that alone decide a tensor; None where something else has a say."""
    found: set[Tensor] = set()
    seen: set[Operation] = set()
    stack = [tensor]
    while stack:
        current = stack.pop()
        operation = current.operation
        if operation.type == "placeholder":
            if not current.dtype.is_bool or element_count(current.shape) != 1:
                return None
            found.add(current)
        elif not operation.definition.pure or operation.regions:
            return None
        elif operation not in seen:
            seen.add(operation)
            stack.extend(operation.inputs)
    return found


def compile_graph(
    graph: Graph,
    feeds: Sequence[Tensor] | Mapping[Tensor, Any],
    targets: Sequence[Tensor],
    operations: Sequence[Operation],
    device: str,
    **options: Any,
) -> Executable:
    """What `Graph.compile` does."""
    shapes: dict[Any, Any] = (
        dict(feeds) if isinstance(feeds, Mapping) else {t: t.shape for t in feeds}
    )
    checked: dict[Tensor, Shape] = {}
    for tensor, shape in shapes.items():
        if not isinstance(tensor, Tensor) or tensor.operation.type != "placeholder":
            raise FeedError(describe("compile", f"{tensor!r} is no placeholder"))
        if tensor.graph is not graph:
            raise FeedError(describe("compile", f"{tensor!r} belongs to another graph"))
        size = as_shape(shape, f"feed '{tensor.name}'")
        if not same_shape(size, tensor.shape):
            raise ShapeError(
                describe(
                    "compile",
                    f"placeholder '{tensor.name}' has shape {format_shape(tensor.shape)}",
                    got={"shape": format_shape(size)},
                )
            )
        checked[tensor] = tuple(
            a if a is not None else b for a, b in zip(tensor.shape, size, strict=True)
        )
    _check_results(graph, targets, operations)
    for operation in live_operations(targets, operations):
        if operation.type == "placeholder" and operation.output not in checked:
            raise FeedError(
                describe(
                    "compile",
                    f"the targets need placeholder '{operation.name}', "
                    "which is not among the feeds",
                    got={"feeds": ", ".join(t.name for t in checked) or "none"},
                    created_at=operation.created_at,
                )
            )
    return Executable(graph, checked, targets, operations, device, options)


def _check_results(
    graph: Graph, targets: Sequence[Tensor], operations: Sequence[Operation]
) -> None:
    if not targets and not operations:
        raise GraphError(describe("compile", "neither targets nor operations are asked for"))
    for target in targets:
        if not isinstance(target, Tensor):
            raise GraphError(
                describe(
                    "compile",
                    f"{target!r} among the targets is no tensor",
                    fix="operations belong in operations=",
                )
            )
    for item in itertools.chain((t.operation for t in targets), operations):
        if not isinstance(item, Operation):
            raise GraphError(
                describe("compile", f"{item!r} is no operation", fix="tensors belong in targets=")
            )
        if item.graph is not graph:
            raise GraphError(describe("compile", f"{item!r} belongs to another graph"))
        if item.block is not graph.block:
            raise GraphError(
                describe(
                    "compile",
                    f"'{item.name}' stands inside a control-flow block",
                    fix="return its value from the block",
                )
            )


def state_of(graph: Graph, device: str) -> State:
    """The values of a graph's variables on a device, made when first asked for."""
    if device not in graph.states:
        backend, variant = get_device(device)
        graph.states[device] = (backend.new_state(graph.variables, variant), threading.RLock())
    state: State = graph.states[device][0]
    return state


def _locks(graph: Graph, device: str) -> threading.RLock:
    lock: threading.RLock = graph.states[device][1]
    return lock


_executor: ThreadPoolExecutor | None = None


def _queue() -> ThreadPoolExecutor:
    """One thread, so that asynchronous runs happen in the order they were started."""
    global _executor
    if _executor is None:
        _executor = ThreadPoolExecutor(1, thread_name_prefix="stepgraph-run")
    return _executor
