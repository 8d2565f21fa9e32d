"""Compiling and running: feeds, targets, results, command queues, handlers."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import dtypes, running
from .errors import Refused, need
from .graph import check_shape
from .objects import Object


@dataclass
class Program:
    """What was compiled: everything a run needs."""

    graph: Object
    state: Any
    device: Any
    feeds: list[Object]
    targets: list[Object]
    schedule: list[Object]
    last: dict[int, list[int]]
    has_variables: bool


def _device_key(device: Object | None) -> str:
    return "default" if device is None else device.metal.name


def compile_graph(
    double: Any,
    graph: Object,
    device: Object | None,
    feeds: Sequence[tuple[Object, Object]],
    targets: Sequence[Object],
    operations: Sequence[Object] | None,
) -> Program:
    """Checks feeds and targets against the graph, orders its operations."""
    state = graph.state
    need(state.blocks == 0, "a graph is compiled or run inside a block")
    need(targets, "no target tensors: whether that is allowed is unsettled, ask for one")
    for t in (*targets, *(op for op in operations or ())):
        need(t.graph is graph, f"{t} is another graph's")
        need(t.scope is state.top, f"{t} was made in a block and is unusable outside of it")
    for t in targets:
        need(t.shape != (), f"target {t} has rank 0: reshape it to [1]")
        need(
            not getattr(t, "unsettled", False), f"target {t} has no stated shape: reshape it first"
        )
    need(len({t.serial for t in targets}) == len(targets), "a target stands twice")
    for tensor, kind in feeds:
        need(tensor.graph is graph, f"feed {tensor} is another graph's")
        need(tensor.operation.kind == "placeholder", f"feed {tensor} is no placeholder")
        where = f"feed {tensor.operation.name!r}"
        need(kind.shape is not None, f"{where} has no shape")
        shape = check_shape(kind.shape, where)
        need(shape != (), f"{where} has rank 0: make it [1]")
        need(shape == tensor.shape, f"{where} has shape {shape}, the placeholder {tensor.shape}")
        names = dtypes.NAMES[kind.dtype], dtypes.NAMES[tensor.dtype]
        need(kind.dtype == tensor.dtype, f"{where} is {names[0]}, the placeholder {names[1]}")
    roots = [t.operation for t in targets] + list(operations or ())
    schedule = running.order(roots)
    fed = {t.serial for t, _ in feeds}
    for op in schedule:
        if op.kind == "placeholder" and op.outputs[0].serial not in fed:
            raise Refused(f"placeholder {op.name!r} is needed by the targets, but not fed")
    running.check_order(schedule, targets, hangs=double.version >= (26, 0))
    keep = {t.serial for t in targets}
    return Program(
        graph=graph,
        state=state,
        device=_device_key(device),
        feeds=feed_order(double, [t for t, _ in feeds]),
        targets=list(targets),
        schedule=schedule,
        last=running.last_uses(schedule, keep),
        has_variables=any(op.kind == "variable" for op in schedule),
    )


def feed_order(double: Any, feeds: list[Object]) -> list[Object]:
    """An order of the feeds that is neither theirs nor the placeholders': both mean nothing."""
    if "feeds_in_given_order" in double.faults or len(feeds) < 2:
        return list(feeds)
    mixed = sorted(feeds, key=lambda t: zlib.crc32(str(t.operation.name).encode()))
    forbidden = [[t.serial for t in feeds], sorted(t.serial for t in feeds)]
    for _ in range(len(mixed)):
        if [t.serial for t in mixed] not in forbidden:
            return mixed
        mixed = [*mixed[1:], mixed[0]]
    # Two feeds, given in the reverse order of their creation: no third order exists.
    return list(reversed(feeds))


def check_data(data: Object, tensor: Object, what: str) -> None:
    names = dtypes.NAMES[data.dtype], dtypes.NAMES[tensor.dtype]
    need(data.shape == tensor.shape, f"{what} has shape {data.shape}, not {tensor.shape}")
    need(data.dtype == tensor.dtype, f"{what} is {names[0]}, not {names[1]}")


def check_run(program: Program, inputs: Sequence[Object], results: Sequence[Object] | None) -> None:
    """Input and result data against feeds and targets."""
    need(len(inputs) == len(program.feeds), f"{len(inputs)} inputs for {len(program.feeds)} feeds")
    for i, (data, tensor) in enumerate(zip(inputs, program.feeds, strict=True)):
        check_data(data, tensor, f"input {i}, for {tensor.operation.name!r},")
    if program.has_variables:
        need(not program.graph.ended, "the graph whose variables an executable uses has ended")
    if results is None:
        return
    need(
        len(results) == len(program.targets),
        f"{len(results)} results for {len(program.targets)} targets",
    )
    for i, (data, tensor) in enumerate(zip(results, program.targets, strict=True)):
        check_data(data, tensor, f"result {i}")
    sources = {id(d.memory) for d in inputs}
    written = [id(d.memory) for d in results]
    need(not sources & set(written), "one buffer is both input and result of a run")
    need(len(set(written)) == len(written), "one buffer takes two results of a run")


def fresh_results(double: Any, program: Program) -> list[Object]:
    """New tensor data for the targets."""
    return [double.metal.tensor_data(t.shape, t.dtype) for t in program.targets]


def execute(program: Program, inputs: Sequence[Object], results: Sequence[Object]) -> None:
    """Reads the inputs, computes, writes the results."""
    values = {t.serial: array_of(d) for d, t in zip(inputs, program.feeds, strict=True)}
    # An input may be a target itself and lives until the end.
    run = running.Run(program.state, program.device, values)
    run.execute(program.schedule, program.last)
    for data, tensor in zip(results, program.targets, strict=True):
        array_of(data)[...] = run.values[tensor.serial]


def array_of(data: Object) -> np.ndarray:
    """A view of a tensor data's elements."""
    kind = dtypes.numpy(data.dtype)
    count = int(np.prod(data.shape, dtype=np.int64)) * kind.itemsize
    return data.memory[:count].view(kind).reshape(data.shape)
