"""What is checked, without a window: every op, whole steps of networks, curves beside NumPy's.

Everything is compared with the reference, which runs wherever NumPy does.
"""

from __future__ import annotations

import ctypes
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import stepgraph as sg
from stepgraph.applications import APPLICATIONS
from stepgraph.backends.base import get_device
from stepgraph.errors import StepgraphError
from stepgraph.graph.ops import OPS
from stepgraph.verification import verify, verify_ops
from stepgraph.verification.report import describe_check, quantity_line

KINDS = ("ops", "verify", "curves")
# Rounding grows from step to step, in some networks a lot: how much is seen from NumPy's float32
# beside float64. A device may be off by so many times that, and by this part of the loss.
_CURVE_MARGIN, _CURVE_TOLERANCE = 10.0, 1e-3
_BATCH, _STEPS = 8, 3


@dataclass(frozen=True)
class Outcome:
    """One check.

    Attributes:
        kind: of `KINDS`.
        name: of the op or network.
        passed: whether the device's numbers agree.
        detail: what is wrong, several lines; or by how much it agrees.
        seconds: that it took.
    """

    kind: str
    name: str
    passed: bool
    detail: str
    seconds: float

    def __str__(self) -> str:
        head = f"{'ok  ' if self.passed else 'FAIL'} {self.kind} {self.name}, {self.seconds:.1f} s"
        return f"{head}: {self.detail}"


def machine(device: str) -> list[str]:
    """What this runs on, for the top of a log."""
    lines = [
        f"stepgraph {sg.__version__}, NumPy {np.__version__}, Python {platform.python_version()}",
        f"{platform.system()} {platform.release()}, {platform.machine()}, {sys.platform}",
        f"device {device}: {get_device(device)[0].summary()}",
    ]
    memory = available_memory()
    if memory is not None:
        lines.append(f"memory that iOS leaves this app: {memory / 1e6:.0f} MB")
    return lines


def available_memory() -> int | None:
    """Bytes that iOS lets this app still take; None elsewhere."""
    if sys.platform != "ios":
        return None
    function = ctypes.CDLL(None).os_proc_available_memory
    function.restype = ctypes.c_size_t
    return int(function())


def run(
    device: str,
    kinds: Sequence[str] = KINDS,
    names: Sequence[str] = (),
    folder: Path | None = None,
    announce: Callable[[str], None] = lambda line: None,
) -> Iterator[Outcome]:
    """Runs checks and yields what each found.

    Args:
        device: to be checked, such as ``"mps"``.
        kinds: of `KINDS`, in order.
        names: ops or networks; all without it.
        folder: where reproductions go.
        announce: told before each, so that one that ends the process has been named.
    """
    for kind in kinds:
        table = OPS if kind == "ops" else APPLICATIONS
        for name in table:
            if names and name not in names:
                continue
            if kind == "ops" and OPS[name].samples is None:
                continue
            announce(f"{kind} {name}")
            start = time.perf_counter()
            try:
                passed, detail = _CHECKS[kind](device, name, folder)
            except StepgraphError as error:
                passed, detail = False, str(error)
            yield Outcome(kind, name, passed, detail, time.perf_counter() - start)


def _op(device: str, name: str, folder: Path | None) -> tuple[bool, str]:
    del folder
    report = verify_ops(device, [name])
    if report.first is not None:
        return False, "\n".join(describe_check(report.first))
    if not report.operations:
        return True, "none of its samples is for this device"
    worst = max(check.comparison.ratio for check in report.operations)
    return True, f"{worst:.0%} of the tolerance at most"


def _verify(device: str, name: str, folder: Path | None) -> tuple[bool, str]:
    model = _network(name, "reference")
    x, y = _batch(name)
    path = None if folder is None else folder / f"divergence-{name}.npz"
    report = verify(model, x, y, device=device, steps=1, reproduction=path)
    if report.agrees:
        return True, report.verdict()
    lines = [report.verdict()]
    if report.first is not None:
        lines += describe_check(report.first)
    lines += [quantity_line(check) for check in report.diverging_quantities[:5]]
    if report.reproduction is not None:
        lines.append(f"reproduction: {report.reproduction}")
    return False, "\n".join(lines)


def _curves(device: str, name: str, folder: Path | None) -> tuple[bool, str]:
    del folder
    x, y = _batch(name)
    losses = []
    for place in (device, "reference", "reference:float64"):
        model = _network(name, place)
        losses.append([float(model.train_on_batch(x, y)) for _ in range(_STEPS)])
    found, rounded, expected = np.array(losses)
    spread = np.maximum.accumulate(np.abs(rounded - expected))
    allowed = _CURVE_MARGIN * spread + _CURVE_TOLERANCE * np.abs(expected)
    passed = bool((np.abs(found - expected) <= allowed).all())
    shown = ", ".join(f"{a:.4f} ({b:.4f})" for a, b in zip(found, expected, strict=True))
    return passed, f"losses, float64's in brackets: {shown}"


_CHECKS: dict[str, Callable[[str, str, Path | None], tuple[bool, str]]] = {
    "ops": _op,
    "verify": _verify,
    "curves": _curves,
}


def _shape(name: str) -> tuple[int, int, int]:
    return (28, 28, 1) if name == "lenet5" else (32, 32, 3)


def _network(name: str, device: str) -> sg.Model:
    sg.utils.clear_session()
    sg.utils.set_random_seed(0)
    model = APPLICATIONS[name].builder(input_shape=_shape(name), classes=10)
    model.compile(
        sg.optimizers.SGD(0.001, momentum=0.9),
        "sparse_categorical_crossentropy",
        device=device,
    )
    return model


def _batch(name: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.random((_BATCH, *_shape(name)), np.float32)
    return x, rng.integers(0, 10, _BATCH)
