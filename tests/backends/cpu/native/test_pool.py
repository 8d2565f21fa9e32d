"""The pool: every task once, in order, with any number of threads; forks, exits, Python calls."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepgraph.backends.cpu.native import compile as native_compile
from stepgraph.backends.cpu.native import executor_ir
from stepgraph.backends.cpu.native.emit import Module, f32, i64, pointer
from stepgraph.backends.cpu.native.pool import Pool, Program, default_threads
from stepgraph.backends.cpu.native.target import NAMED, named_target
from stepgraph.errors import UnsupportedError


def _module():
    """`follow`: y[task] = 3 * (sum of x) + task; shows whether x was complete when it ran."""
    module = Module("follow")
    fields = {"x": pointer(i64), "n": i64, "y": pointer(i64), "by": f32, "seen": pointer(i64)}
    with module.kernel("follow", fields) as (f, args):
        total = f.variable(f.index(0))
        with f.loop(0, args.n) as i:
            total.set(total.get() + (args.x + i).load())
        place = args.y + args.task
        place.store(place.load() + total.get() * 3 + args.task + f.cast(args.by, i64))
        (args.seen + args.thread).store(f.index(1))
    return module


@pytest.fixture(scope="module")
def kernels():
    module = _module()
    return module.kernels["follow"], native_compile.build(str(module), module.kernels)["follow"]


def _chain(kernels, sizes, seen):
    layout, address = kernels
    buffers = [np.ones(1, np.int64)] + [np.zeros(max(size, 1), np.int64) for size in sizes]
    program = Program()
    for (x, y), size in zip(pairwise(buffers), sizes, strict=True):
        packed = layout.pack(
            x=x.ctypes.data, n=x.size, y=y.ctypes.data, by=2.5, seen=seen.ctypes.data
        )
        program.launch(address, packed, size, "follow")
    return program, buffers


def _expected(sizes):
    values = [np.ones(1, np.int64)]
    for size in sizes:
        new = np.zeros(max(size, 1), np.int64)
        new[:size] = values[-1].sum() * 3 + np.arange(size) + 2
        values.append(new)
    return values


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.sampled_from([1, 2, 3, 8]))
def test_every_task_runs_once_and_after_the_records_before(kernels, sizes, threads):
    pool = Pool(threads)
    seen = np.zeros(threads, np.int64)
    program, buffers = _chain(kernels, sizes, seen)
    with np.errstate(over="ignore"):
        expected = _expected(sizes)
    for _ in range(3):
        for buffer in buffers[1:]:
            buffer[:] = 0
        pool.run(program)
        for got, wanted in zip(buffers, expected, strict=True):
            np.testing.assert_array_equal(got, wanted)
    pool.close()


def test_stress_with_more_threads_than_processors(kernels):
    sizes = [1, 7, 64, 2, 1, 1, 33, 3] * 40
    pool = Pool(6, watch_turns=20, yields=2)  # sleeps nearly always: exercises waking
    program, buffers = _chain(kernels, sizes, np.zeros(6, np.int64))
    with np.errstate(over="ignore"):
        expected = _expected(sizes)
    for turn in range(30):
        for buffer in buffers[1:]:
            buffer[:] = 0
        pool.run(program)
        np.testing.assert_array_equal(buffers[-1], expected[-1], err_msg=str(turn))
    pool.close()


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_of_odd_number_take_tasks_from_the_end(threads):
    """However the tasks are shared, even threads' come before odd ones', each exactly once."""
    module = Module("who")
    fields = {"turns": i64, "who": pointer(i64)}
    with module.kernel("who", fields) as (f, args):
        place = args.who + args.task
        with f.loop(0, args.turns):  # long enough for others to come; stores what it found
            place.store(place.load() + 1 + args.thread)
    address = native_compile.build(str(module), module.kernels)["who"]
    sizes, turns = [64, 1, 2, 23], 2000
    counts = [np.zeros(size, np.int64) for size in sizes]
    program = Program()
    for count in counts:
        packed = module.kernels["who"].pack(turns=turns, who=count.ctypes.data)
        program.launch(address, packed, count.size, "who")
    pool = Pool(threads)
    helped, limit = False, time.monotonic() + 20
    while not helped and time.monotonic() < limit:
        for _ in range(10):
            for count in counts:
                count[:] = 0
            pool.run(program)
            for count in counts:
                who, rest = np.divmod(count, turns)
                assert not rest.any()
                assert ((who >= 1) & (who <= threads)).all()
                if count.size > 1:
                    odd = (who - 1) % 2
                    assert (np.diff(odd) >= 0).all(), who
                    helped |= bool(odd.any())
    pool.close()
    assert helped, "no thread but the caller's took part"


def test_more_records_than_a_ticket_numbers_run_in_parts(kernels, monkeypatch):
    monkeypatch.setattr(executor_ir, "MAXIMUM_RECORDS", 3)
    sizes = [4, 1, 0, 7, 2, 5, 3]
    program, buffers = _chain(kernels, sizes, np.zeros(2, np.int64))
    pool = Pool(2)
    pool.run(program)
    pool.close()
    assert [segment[1] for segment in program.segments] == [3, 3, 1]
    for got, wanted in zip(buffers, _expected(sizes), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_python_calls_run_between_launches(kernels):
    layout, address = kernels
    x, y = np.ones(1, np.int64), np.zeros(4, np.int64)
    log = []
    program = Program()
    packed = layout.pack(
        x=x.ctypes.data, n=1, y=y.ctypes.data, by=0, seen=np.zeros(2, np.int64).ctypes.data
    )
    seen = np.zeros(2, np.int64)
    record = program.launch(address, packed, 4, "first")
    program.call(lambda: log.append(y.copy()))
    program.launch(address, packed, 4, "second")
    program.launch(address, packed, 4, "third")
    for number in range(3):
        program.slots(number)[4] = seen.ctypes.data
    pool = Pool(2)
    pool.run(program)
    np.testing.assert_array_equal(log[0], 3 + np.arange(4))
    np.testing.assert_array_equal(y, 3 * (3 + np.arange(4)))
    assert len(program.segments) == 3

    program.slots(record)[3:4].view(np.float32)[0] = 10.0
    y[:] = 0
    pool.run(program)
    np.testing.assert_array_equal(log[1], 13 + np.arange(4))
    names = [name for name, seconds in pool.profile(program) if seconds > 0]
    assert [names[0], *names[2:]] == ["first", "second", "third"]
    with pytest.raises(ValueError, match="sealed"):
        program.launch(address, packed, 1)
    pool.close()
    pool.run(program)  # starts again
    pool.close()


def test_exception_in_a_python_call_leaves_the_pool_usable(kernels):
    program, buffers = _chain(kernels, [5], np.zeros(2, np.int64))

    def fail():
        raise RuntimeError("from Python")

    program.call(fail)
    pool = Pool(2)
    for turn in range(2):
        with pytest.raises(RuntimeError, match="from Python"):
            pool.run(program)
        np.testing.assert_array_equal(buffers[1], (turn + 1) * _expected([5])[1])
    pool.close()


def test_callers_in_several_python_threads_take_turns(kernels):
    pool = Pool(2)
    work = [_chain(kernels, [9, 5, 3], np.zeros(2, np.int64)) for _ in range(4)]
    threads = [threading.Thread(target=pool.run, args=(program,)) for program, _ in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for _, buffers in work:
        np.testing.assert_array_equal(buffers[-1], _expected([9, 5, 3])[-1])
    pool.close()


def test_idle_workers_sleep(kernels):
    pool = Pool(3)
    program, _ = _chain(kernels, [8], np.zeros(3, np.int64))
    pool.run(program)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.15
    pool.close()


def test_too_many_tasks_are_refused(kernels):
    with pytest.raises(ValueError, match="4194304 tasks"):
        Program().launch(kernels[1], b"", executor_ir.MAXIMUM_TASKS + 1)


def test_number_of_threads_from_the_environment(monkeypatch):
    monkeypatch.setenv("STEPGRAPH_NUM_THREADS", "3")
    assert default_threads() == 3
    monkeypatch.setenv("STEPGRAPH_NUM_THREADS", "many")
    with pytest.raises(UnsupportedError, match="'many'"):
        default_threads()
    monkeypatch.delenv("STEPGRAPH_NUM_THREADS")
    assert default_threads() >= 1
    with pytest.raises(ValueError, match="0 threads"):
        Pool(0)


@pytest.mark.parametrize("ending", ["", "pool.close()", "del pool", "os.kill(os.getpid(), 2)"])
def test_interpreter_ends_promptly(ending):
    code = f"""
        import os
        from stepgraph.backends.cpu.native import compile as c
        from stepgraph.backends.cpu.native.emit import Module
        from stepgraph.backends.cpu.native.pool import Pool, Program
        module = Module("nothing")
        with module.kernel("nothing", {{}}): pass
        library = c.build(str(module), module.kernels)
        program = Program()
        program.launch(library["nothing"], b"", 100)
        pool = Pool(4)
        pool.run(program)
        print("ran", flush=True)
        {ending}
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, timeout=60, check=False
    )
    assert done.stdout == b"ran\n"
    assert done.returncode in ((0,) if "kill" not in ending else (-2, 1, 130))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_child_of_a_fork_starts_its_own_workers(kernels):
    code = """
        import os, sys
        sys.path.insert(0, os.path.dirname(sys.argv[1]))
        import numpy as np, test_pool as t
        from stepgraph.backends.cpu.native import compile as c
        module = t._module()
        kernels = module.kernels["follow"], c.build(str(module), module.kernels)["follow"]
        pool = t.Pool(3)
        seen = np.zeros(3, np.int64)
        program, buffers = t._chain(kernels, [50, 50], seen)
        pool.run(program)
        child = os.fork()
        for b in buffers[1:]: b[:] = 0
        pool.run(program)
        good = (buffers[-1] == t._expected([50, 50])[-1]).all()
        if child:
            good = good and os.waitpid(child, 0)[1] == 0
        sys.exit(0 if good else 3)
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), __file__],
        timeout=60,
        check=False,
    )
    assert done.returncode == 0


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("threads", [True, False])
def test_executor_compiles_for_every_named_target(name, threads):
    target = named_target(name)
    assert native_compile.compile_object(executor_ir.executor_ir(target, threads=threads), target)
