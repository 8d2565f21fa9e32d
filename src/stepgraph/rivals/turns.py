"""Programs that take turns, so that whatever else a machine does meets all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

# Seconds of a turn: nothing runs, the program runs untimed, it is timed.
REST, WARM, TIMED = 0.02, 0.01, 0.03
# A rest goes on, up to so long, while the process takes more than this share of one processor.
LONGEST_REST, IDLE = 1.0, 0.1
# Runs of a program that are timed in a turn at least.
LEAST = 3

Key = TypeVar("Key", bound=Hashable)


def take_turns(
    programs: Mapping[Key, Callable[[], Any]], seconds: float, least: int = 5
) -> dict[Key, list[float]]:
    """Times of programs that take turns until the time is spent.

    A turn begins with a rest, because another library's threads may watch for work for some time
    before they sleep (ONNX Runtime's for 50 milliseconds and more), and take a processor from
    whoever comes next; it lasts until they do. Then come runs that are not timed, because the
    caches are still the other's.

    Args:
        programs: what to run, by name; everything that happens only once has happened.
        seconds: for all of them together.
        least: runs of each that are timed at least.

    Returns:
        Seconds of each timed run.

    Example:
        >>> times = take_turns({"a": lambda: 1, "b": lambda: 2}, 0.1, least=2)
        >>> sorted(times), min(map(len, times.values())) >= 2
        (['a', 'b'], True)
    """
    times: dict[Key, list[float]] = {name: [] for name in programs}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, times.values())) < least:
        for name, program in programs.items():
            _rest()
            start = now = time.perf_counter()
            while now < start + WARM:
                program()
                now = time.perf_counter()
            start, count = now, 0
            while now < start + TIMED or count < min(least, LEAST):
                before = time.perf_counter()
                program()
                now = time.perf_counter()
                times[name].append(now - before)
                count += 1
    return times


def _rest() -> None:
    """Waits until this process's threads are asleep."""
    end = time.perf_counter() + LONGEST_REST
    while True:
        start, spent = time.perf_counter(), time.process_time()
        time.sleep(REST)
        now = time.perf_counter()
        if time.process_time() - spent < IDLE * (now - start) or now > end:
            return
