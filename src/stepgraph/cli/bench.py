"""``stepgraph bench``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from click.core import ParameterSource

from stepgraph.cli import bench_against, output
from stepgraph.cli.options import (
    POSITIVE,
    NamedOption,
    Rate,
    json_option,
    model_names,
    name_value,
    threads_option,
)
from stepgraph.runs.defaults import JOB
from stepgraph.runs.learner import build_model, canonical_model
from stepgraph.runs.memory import memory_peak

if TYPE_CHECKING:
    from stepgraph.backends.base import StepTime
    from stepgraph.models import Model


@click.command("bench")
@click.option(
    "--model",
    "models",
    cls=NamedOption,
    names=model_names,
    metavar="NAME",
    multiple=True,
    help=f"Network to time; may be repeated.  [default: {JOB['model']}; all with --against]",
)
@click.option(
    "--model-option",
    "model_options",
    multiple=True,
    metavar="NAME=VALUE",
    callback=name_value,
    help="Further argument of the network's builder. May be repeated.",
)
@click.option(
    "--batch-size",
    "batches",
    type=POSITIVE,
    multiple=True,
    help="May be repeated.  [default: 64; 8, 64 and 256 with --against]",
)
@click.option("--image-size", type=POSITIVE, default=JOB["image_size"], show_default=True)
@click.option("--channels", type=POSITIVE, default=JOB["channels"], show_default=True)
@click.option("--optimizer", default="sgd", show_default=True, help="Any optimizer of the library.")
@click.option("--steps", type=POSITIVE, default=20, show_default=True, help="Steps that count.")
@click.option("--device", default="cpu", show_default=True)
@threads_option
@click.option("--profile", is_flag=True, help="Print where a step's time goes.")
@click.option(
    "--against",
    metavar="LIBRARY",
    help='Print the speed table beside another library that is installed: "torch".',
)
@click.option(
    "--seconds",
    type=Rate(zero=True),
    default=10.0,
    show_default=True,
    help="Time for each row of that table.",
)
@click.option(
    "--compile/--no-compile",
    "compiled",
    default=None,
    help="With --against torch: time torch.compile too.  [default: where there is a C++ compiler]",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    models: tuple[str, ...],
    model_options: dict[str, object],
    batches: tuple[int, ...],
    image_size: int,
    channels: int,
    optimizer: str,
    steps: int,
    device: str,
    threads: int | None,
    profile: bool,
    against: str | None,
    seconds: float,
    compiled: bool | None,
    as_json: bool,
) -> None:
    """Time a network's training step on random pictures.

    Prints the least and the median time of a step, pictures a second, how long compiling took
    and the memory planned. With --profile also what each fused operation costs, how many
    floating-point operations a second it does, and what share of this machine's peak that is.

    With --against torch every network takes turns with PyTorch's ways to do the same step, plain
    gradient descent, on the networks' own shapes: medians in milliseconds, and how many times as
    long PyTorch's fastest way takes. STEPGRAPH_CPU_TARGET=avx2 in the environment holds both to
    the instructions of processors without AVX-512.
    """
    names = [canonical_model(name) for name in models]
    if against is not None:
        for option in ("model_options", "image_size", "channels", "optimizer", "steps", "profile"):
            if ctx.get_parameter_source(option) is not ParameterSource.DEFAULT:
                flag = option.removesuffix("s") if option == "model_options" else option
                raise click.UsageError(f"--{flag.replace('_', '-')} says nothing with --against.")
        if device != "cpu":
            raise click.UsageError("--against measures the device cpu.")
        bench_against.table(against, names, batches, threads, seconds, compiled, as_json)
        return
    shape = [image_size, image_size, channels]
    for name in names or [canonical_model(JOB["model"])]:
        for batch_size in batches or [64]:
            made = build_model(name, shape, 10, model_options)
            _bench(made, name, batch_size, optimizer, steps, device, threads, profile, as_json)


def _bench(
    made: Model,
    name: str,
    batch_size: int,
    optimizer: str,
    steps: int,
    device: str,
    threads: int | None,
    profile: bool,
    as_json: bool,
) -> None:
    """Times one network with one batch size."""
    options: dict[str, Any] = {"threads": threads} if threads else {}
    start = time.perf_counter()
    made.compile(
        optimizer=optimizer,
        loss="sparse_categorical_crossentropy",
        device=device,
        nonfinite="ignore",
        **options,
    )
    rng = np.random.default_rng(0)
    x = rng.random((batch_size, *made.input_shape[1:]), dtype=np.float32)
    y = rng.integers(0, 10, batch_size)
    planned, held = _planned(made, x, y)
    expected = memory_peak() + planned
    made.train_on_batch(x, y)
    first = time.perf_counter() - start
    times = _timed(made, x, y, steps)
    facts = {
        "model": name,
        "batch_size": batch_size,
        "device": device,
        "first_step_seconds": first,
        "least_milliseconds": min(times) * 1e3,
        "median_milliseconds": statistics.median(times) * 1e3,
        "images_per_second": batch_size / statistics.median(times),
        "planned_megabytes": planned / 1e6,
        "held_megabytes": held / 1e6,
        "expected_process_megabytes": expected / 1e6,
        "peak_process_megabytes": memory_peak() / 1e6,
    }
    costs = _profile(made, x, y, device, threads) if profile else []
    if as_json:
        output.emit("bench", **facts, profile=costs)
        return
    print(f"{name}, batches of {batch_size}, {optimizer}, on {device}")
    print(f"first step    {first:8.2f} s (compiling included)")
    print(f"step, least   {facts['least_milliseconds']:8.2f} ms")
    print(f"step, median  {facts['median_milliseconds']:8.2f} ms")
    print(f"images        {facts['images_per_second']:8.0f} a second")
    print(f"planned       {facts['planned_megabytes']:8.1f} MB of intermediate values")
    print(f"held          {facts['held_megabytes']:8.1f} MB of weights, their state, constants")
    print(
        f"process       {facts['expected_process_megabytes']:8.1f} MB expected before the first run"
    )
    print(f"              {facts['peak_process_megabytes']:8.1f} MB held at most")
    if costs:
        _print_costs(costs)


def _timed(model: Model, x: Any, y: Any, steps: int) -> list[float]:
    model.train_on_batch(x, y)
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        model.train_on_batch(x, y)
        times.append(time.perf_counter() - start)
    return times


def _planned(model: Model, x: Any, y: Any) -> tuple[int, int]:
    """Bytes that a run adds to the process, and those of variables and constants it uses.

    Compiles, and so has to come before the first run.
    """
    step = model.runtime.step("train", (False,))
    feeds = dict(zip(step.feeds, (x, y), strict=True))
    return step.executable.planned_bytes(feeds), step.executable.held_bytes(feeds)


def _profile(
    model: Model, x: Any, y: Any, device: str, threads: int | None, runs: int = 5
) -> list[dict[str, Any]]:
    """What each kind of step costs: seconds a run, launches, operations a second, share of peak."""
    step = model.runtime.step("train", (False,))
    feeds = dict(zip(step.feeds, [x, y], strict=True))
    rounds: list[Sequence[StepTime]] = [step.executable.profile(feeds) for _ in range(runs)]
    top = _peak_speed(device, threads)
    costs: dict[str, dict[str, Any]] = {}
    for position, first in enumerate(rounds[0]):
        seconds = min(r[position].seconds for r in rounds)
        cost = costs.setdefault(
            first.name, {"operation": first.name, "launches": 0, "seconds": 0.0, "flops": 0}
        )
        cost["launches"] += 1
        cost["seconds"] += seconds
        cost["flops"] += first.flops
    whole = sum(c["seconds"] for c in costs.values())
    for cost in costs.values():
        speed = cost["flops"] / cost["seconds"]
        cost["share_of_time"] = cost["seconds"] / whole
        cost["gflops_per_second"] = speed / 1e9
        cost["share_of_peak"] = speed / top if top else 0.0
    return sorted(costs.values(), key=lambda c: -float(c["seconds"]))


def _peak_speed(device: str, threads: int | None) -> float:
    if device.partition(":")[0] != "cpu":
        return 0.0
    from stepgraph.backends.cpu.native.peak import peak_flops
    from stepgraph.backends.cpu.native.pool import Pool, shared_pool
    from stepgraph.backends.cpu.native.target import host_target

    return peak_flops(Pool(threads) if threads else shared_pool(), host_target())


def _print_costs(costs: Sequence[dict[str, Any]]) -> None:
    total = {k: sum(c[k] for c in costs) for k in ("launches", "seconds", "flops", "share_of_time")}
    for k in ("gflops_per_second", "share_of_peak"):
        total[k] = sum(c[k] * c["share_of_time"] for c in costs)
    total["operation"] = "all of them"
    columns = ("operation", "launches", "ms", "of time", "GFLOP/s", "of peak")
    rows = [
        (
            cost["operation"],
            str(cost["launches"]),
            f"{cost['seconds'] * 1e3:.2f}",
            f"{cost['share_of_time']:.1%}",
            f"{cost['gflops_per_second']:.0f}" if cost["flops"] else "",
            f"{cost['share_of_peak']:.0%}" if cost["flops"] and cost["share_of_peak"] else "",
        )
        for cost in (*costs, total)
    ]
    output.table(columns, rows, right=(1, 2, 3, 4, 5))
