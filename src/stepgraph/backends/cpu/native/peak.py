"""How fast this machine multiplies and adds at best: what achieved speeds are a share of.

Every thread runs chains of fused multiply-adds on registers, enough of them to hide the
instruction's latency; no memory is touched. On machines that lower their clock under wide vectors,
or share cores with others, the peak moves with the load, so measure it beside what it judges.
"""

from __future__ import annotations

import time

import numpy as np

from stepgraph.backends.cpu.native.compile import build
from stepgraph.backends.cpu.native.emit import Module, f32, i64, pointer, vector
from stepgraph.backends.cpu.native.pool import Pool, Program
from stepgraph.backends.cpu.native.target import Target

CHAINS = 12
TURNS = 50_000
TASKS_PER_THREAD = 8


def best_seconds(pool: Pool, program: Program, seconds: float) -> float:
    """Least time of one run among those that fit into the given time."""
    pool.run(program)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        pool.run(program)
        times.append(time.perf_counter() - start)
    return min(times)


def peak_flops(pool: Pool, target: Target, seconds: float = 0.3) -> float:
    """Floating-point operations a second of all threads together, float32.

    Args:
        pool: whose threads.
        target: the processor; must be this one.
        seconds: how long to measure.
    """
    module = Module("peak")
    with module.kernel("peak", {"out": pointer(f32), "turns": i64}) as (f, x):
        half = f.constant(vector(f32, target.lanes), 0.5)
        sums = [f.variable(half) for _ in range(CHAINS)]
        with f.loop(0, x.turns, nonempty=True):
            for total in sums:
                total.set(f.fma(total.get(), half, half))
        for number, total in enumerate(sums):
            (x.out + (x.task * 16 * CHAINS + 16 * number)).store(total.get())
    library = build(str(module), module.kernels, target=target)
    tasks = TASKS_PER_THREAD * pool.threads
    out = np.zeros(tasks * 16 * CHAINS, np.float32)
    program = Program()
    packed = module.kernels["peak"].pack(out=out.ctypes.data, turns=TURNS)
    program.launch(library["peak"], packed, tasks)
    return 2 * tasks * TURNS * CHAINS * target.lanes / best_seconds(pool, program, seconds)
