"""The speed table: whole training steps of each network beside another library's, in one run."""

from __future__ import annotations

import gc
import importlib
import inspect
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from stepgraph import optimizers, utils
from stepgraph.applications import APPLICATIONS
from stepgraph.backends.cpu.native.target import TARGET_VARIABLE
from stepgraph.errors import UnsupportedError, describe, nearest
from stepgraph.graph.definition import Array
from stepgraph.models import Model
from stepgraph.rivals.turns import take_turns

BATCHES = (8, 64, 256)
CLASSES = 10


@dataclass(frozen=True)
class Rival:
    """A library to measure against.

    Attributes:
        module: what measures it.
        package: what it needs.
        held_to: a target of ``STEPGRAPH_CPU_TARGET`` to the environment variables that hold the
            rival to the same instructions; it reads them when it is imported.
    """

    module: str
    package: str
    held_to: Mapping[str, Mapping[str, str]]


# By the name on the command line.
RIVALS = {
    "torch": Rival(
        "stepgraph.rivals.pytorch",
        "torch",
        {
            "avx512": {},
            "avx2": {
                "ATEN_CPU_CAPABILITY": "avx2",
                "ONEDNN_MAX_CPU_ISA": "AVX2",
                "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            },
            "sse": {
                "ATEN_CPU_CAPABILITY": "default",
                "ONEDNN_MAX_CPU_ISA": "SSE41",
                "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
            },
        },
    )
}

OWN = ("train_on_batch", "compiled step")


@dataclass(frozen=True)
class Row:
    """What one network took with one batch size.

    Attributes:
        model: its name.
        batch_size: pictures in a step.
        milliseconds: way to the median of its times; stepgraph's ways first.
        least: way to its least time.
        failed: way to why it could not be measured.
    """

    model: str
    batch_size: int
    milliseconds: dict[str, float]
    least: dict[str, float]
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def best(self) -> str:
        """The rival's fastest way."""
        theirs = {w: t for w, t in self.milliseconds.items() if w not in OWN}
        return min(theirs, key=lambda way: theirs[way])

    def ratio(self, own: str = OWN[0]) -> float:
        """How many times as long the rival's fastest way takes, by medians."""
        return self.milliseconds[self.best] / self.milliseconds[own]


def rival(name: str) -> ModuleType:
    """The module that measures a rival, which is held to the instructions we are held to.

    Raises:
        UnsupportedError: there is no such rival, it is not installed, or it knows no such limit.
    """
    if name not in RIVALS:
        raise UnsupportedError(
            describe("bench", f"cannot measure against '{name}'", fix=nearest(name, RIVALS))
        )
    found = RIVALS[name]
    target = os.environ.get(TARGET_VARIABLE)
    if target:
        if target not in found.held_to:
            raise UnsupportedError(
                describe(
                    "bench",
                    f"'{name}' cannot be held to the instructions of {TARGET_VARIABLE}={target}",
                    fix=f"unset it, or use one of {', '.join(found.held_to)}",
                )
            )
        limits = found.held_to[target]
        if found.package in sys.modules and any(os.environ.get(k) != v for k, v in limits.items()):
            raise UnsupportedError(
                describe(
                    "bench",
                    f"'{name}' was imported before it could be held to {TARGET_VARIABLE}={target}",
                    fix=f"do not import {found.package} before",
                )
            )
        os.environ.update(limits)
    try:
        importlib.import_module(found.package)
    except ImportError as error:
        raise UnsupportedError(
            describe(
                "bench",
                f"'{name}' cannot be measured here: {error}",
                fix=f"install it beside stepgraph (pip install {found.package}); stepgraph itself "
                "never needs it",
            )
        ) from error
    return importlib.import_module(found.module)


def build(name: str, seed: int = 0, **options: Any) -> Model:
    """A network with seeded weights, without dropout, whose masks no other library draws."""
    builder = APPLICATIONS[name].builder
    if "dropout" in inspect.signature(builder).parameters:
        options = {"dropout": 0.0, **options}
    utils.set_random_seed(seed)
    return builder(**options)


def pictures(model: Model, batch_size: int) -> tuple[Array, Array]:
    """Random pictures and classes."""
    rng = np.random.default_rng(0)
    x = rng.random((batch_size, *model.input_shape[1:]), dtype=np.float32)
    return x, rng.integers(0, CLASSES, batch_size)


def own_steps(
    model: Model, threads: int, optimizer: Any = None, loss: str = "sparse_categorical_crossentropy"
) -> dict[str, Callable[[Array, Array], float]]:
    """`train_on_batch`, and the executable below it; both train the same weights."""
    model.compile(
        optimizer or optimizers.SGD(1e-3), loss, threads=threads, device="cpu", nonfinite="ignore"
    )
    step = model.runtime.step("train", (False,))

    def compiled(x: Array, y: Array) -> float:
        return float(step.executable.run(dict(zip(step.feeds, (x, y), strict=True)))[0])

    return dict(zip(OWN, (model.train_on_batch, compiled), strict=True))


def measure(
    name: str,
    batch_size: int,
    other: ModuleType,
    ways: Sequence[str],
    *,
    threads: int,
    seconds: float = 10.0,
    least: int = 5,
) -> Row:
    """One row of the table.

    Args:
        name: in `APPLICATIONS`.
        batch_size: pictures in a step.
        other: from `rival`.
        ways: of its `WAYS`, which to measure.
        threads: of both.
        seconds: for all ways together, preparations aside.
        least: steps of each way that are timed at least.
    """
    model = build(name)
    x, y = pictures(model, batch_size)
    steps = own_steps(model, threads)
    failed = {}
    for way in ways:
        try:
            (step,) = other.training_steps(name, model, way)
            step(x, y)
        except Exception as error:
            if way != "torch.compile":  # a compiler that does not work here is no reason to stop
                raise
            failed[way] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        else:
            steps[way] = step
    programs = {way: _bound(step, x, y) for way, step in steps.items()}
    for program in programs.values():
        program()
    times = take_turns(programs, seconds, least)
    return Row(
        name,
        batch_size,
        {way: 1e3 * statistics.median(found) for way, found in times.items()},
        {way: 1e3 * min(found) for way, found in times.items()},
        failed,
    )


def _bound(step: Callable[[Array, Array], float], x: Array, y: Array) -> Callable[[], float]:
    return lambda: step(x, y)


def rows(
    models: Sequence[str],
    batches: Sequence[int],
    other: ModuleType,
    ways: Sequence[str],
    **options: Any,
) -> Iterator[Row]:
    """The table, row by row; `options` are those of `measure`."""
    for name in models:
        for batch_size in batches:
            yield measure(name, batch_size, other, ways, **options)
            other.forget()
            gc.collect()


def machine() -> str:
    """The processor's name, for the head of a table.

    Example:
        >>> bool(machine())
        True
    """
    from stepgraph.backends.base import devices

    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{model} ({devices()['cpu']}), {platform.system()}"
