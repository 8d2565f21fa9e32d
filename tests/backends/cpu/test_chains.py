"""Chains: the same bits with and without them, and what may not join one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stepgraph as sg
from stepgraph.applications import APPLICATIONS
from stepgraph.backends.cpu.chains import block_cuts, chained, panel_cuts, share_cuts
from stepgraph.backends.cpu.kernels.library import addresses
from stepgraph.backends.cpu.layouts import PANELS
from stepgraph.backends.cpu.native.chain import ENTRY, chain_module
from stepgraph.backends.cpu.native.emit import Module, i64, pointer
from stepgraph.backends.cpu.native.pool import Pool, Program
from stepgraph.backends.cpu.plan import Buffer, ChainStep, Grid, KernelSource, KernelStep, Step
from stepgraph.graph.dtypes import float32
from stepgraph.optimizers import SGD


def test_a_chain_calls_ranges_of_tasks_in_order():
    def note_module():
        module = Module("note")
        fields = {"log": pointer(i64), "place": pointer(i64), "mark": i64}
        with module.kernel("note", fields) as (_, x):
            at = x.place.load()
            (x.log + at).store(x.mark * 100 + x.task)
            x.place.store(at + 1)
        return module

    sources = [KernelSource(("test note",), note_module), KernelSource(("chain",), chain_module)]
    (note, note_at), (chain, chain_at) = (
        addresses(sources)[s][name] for s, name in zip(sources, ("note", "chain"), strict=True)
    )
    log, place = np.zeros(16, np.int64), np.zeros(1, np.int64)
    slots = [
        np.frombuffer(
            note.pack(log=log.ctypes.data, place=place.ctypes.data, mark=mark), np.int64
        ).copy()
        for mark in (1, 2)
    ]
    table = np.array(
        [
            (note_at, slots[0].ctypes.data, 0, 2),
            (note_at, slots[1].ctypes.data, 5, 1),
            (note_at, slots[1].ctypes.data, 8, 3),
        ],
        np.int64,
    )
    assert table.shape[1] == ENTRY
    starts = np.array([0, 2, 2, 3], np.int64)
    program = Program()
    packed = chain.pack(starts=starts.ctypes.data, table=table.ctypes.data)
    program.launch(chain_at, packed, 3)
    Pool(1).run(program)
    assert log[: place[0]].tolist() == [100, 101, 205, 208, 209, 210]


# -- which launches join --------------------------------------------------------------------------


def _buffer(name, positions=64, channels=32, kind="arena"):
    return Buffer((positions, channels), float32, PANELS, name, kind)


def _step(name, reads, writes, rows, width=1, aliases=()):
    """A launch over 2 panels that tiles all its buffers alike."""
    panels = panel_cuts(2, width)
    grid = Grid(panels, dict.fromkeys([*reads, *writes], tuple(rows)))
    tasks = (len(panels) - 1) * (len(rows) - 1)
    return KernelStep(name, reads, writes, tuple(aliases), tasks=tasks, grid=grid)


def _check(steps, found):
    """Every task of every launch runs once, after all tasks whose tiles it reads."""
    for step in found:
        if not isinstance(step, ChainStep):
            continue
        done = [set() for _ in step.members]
        for ranges in step.ranges:
            tiles = {}
            for member, first, count in ranges:
                launch = step.members[member]
                for task in range(first, first + count):
                    assert task not in done[member]
                    done[member].add(task)
                    lines = len(next(iter(launch.grid.rows.values()))) - 1
                    part, row = divmod(task, lines)
                    panels = range(*launch.grid.panels[part : part + 2])
                    for buffer, cuts in launch.grid.rows.items():
                        area = {(p, r) for p in panels for r in range(*cuts[row : row + 2])}
                        inner = any(buffer in m.writes for m in step.members[:member])
                        if buffer in launch.reads and inner:
                            assert area <= tiles.get(buffer, set())
                        if buffer in launch.writes:
                            tiles.setdefault(buffer, set()).update(area)
        assert [len(d) for d in done] == [m.tasks for m in step.members]
    names = [m for s in found for m in (s.members if isinstance(s, ChainStep) else [s])]
    assert {id(s) for s in names} == {id(s) for s in steps}
    assert len(names) == len(steps)


@settings(max_examples=60)
@given(st.data())
def test_tiles_are_made_before_they_are_read(data):
    sizes = st.sampled_from([4, 8, 16, 32, 64, 5])
    widths = st.sampled_from([1, 1, 2])
    buffers = [_buffer(f"b{k}") for k in range(4)]
    steps = []
    for k in range(3):
        block = data.draw(sizes)
        reads = [data.draw(st.sampled_from(buffers[: k + 1]))]
        rows = block_cuts(64, block)
        steps.append(_step(f"s{k}", reads, [buffers[k + 1]], rows, data.draw(widths)))
    _check(steps, chained(steps, [buffers[3]]))


def test_a_chain_keeps_the_cuts_that_all_have():
    a, b, c = (_buffer(n) for n in "abc")
    first = _step("first", [a], [b], block_cuts(64, 8))
    second = _step("second", [b], [c], share_cuts(4, 4, 16), width=2)
    (chain,) = chained([first, second], [c])
    assert isinstance(chain, ChainStep)
    assert chain.tasks == 4
    assert chain.ranges[1] == [(0, 2, 2), (0, 10, 2), (1, 1, 1)]


def test_too_few_tiles_or_none_in_common_leave_launches_alone():
    a, b, c = (_buffer(n) for n in "abc")
    first = _step("first", [a], [b], block_cuts(64, 8))
    for rows in (block_cuts(64, 60), share_cuts(7, 7, 9)):
        steps = [first, _step("second", [b], [c], rows)]
        assert chained(steps, [c]) == steps


def test_more_threads_want_more_tiles():
    a, b, c = (_buffer(n) for n in "abc")
    steps = [
        _step("first", [a], [b], block_cuts(64, 2)),
        _step("second", [b], [c], block_cuts(64, 3)),
    ]
    (chain,) = chained(steps, [c], threads=2)
    assert chain.tasks == 22
    assert chained(steps, [c], threads=8) == steps


def test_a_launch_does_not_overtake_what_it_depends_on():
    a, b, c, d = (_buffer(n) for n in "abcd")
    rows = block_cuts(64, 8)
    first = _step("first", [a], [b], rows)
    between = Step("between", [a], [d])
    bound = _step("bound", [b, d], [c], rows)
    overwriting = _step("overwriting", [b], [a], rows)
    free = _step("free", [b], [c], rows)
    for last in (bound, overwriting):
        assert chained([first, between, last], [c]) == [first, between, last]
    chain, other = chained([first, between, free], [c])
    assert isinstance(chain, ChainStep)
    assert other is between


@pytest.mark.parametrize("reader", [None, "overtaken", "later", "kept"])
def test_a_member_writes_in_place_only_over_what_nobody_else_reads(reader):
    a, b, c, d = (_buffer(n) for n in "abcd")
    rows = block_cuts(64, 8)
    first = _step("first", [a], [b], rows)
    second = _step("second", [b], [c], rows, aliases=[b])
    other = Step("other", [b], [d])
    steps = {
        None: [first, second],
        "overtaken": [first, other, second],
        "later": [first, second, other],
        "kept": [first, second],
    }[reader]
    chained(steps, [c, b] if reader == "kept" else [c])
    assert (c.root is b) == (reader is None)


# -- whole networks -------------------------------------------------------------------------------


def _train(images, size, threads=2, disable=()):
    """Two blocks as in MobileNetV2, some steps: losses, variables, the program."""
    graph = sg.Graph()
    rng = np.random.default_rng(5)
    source = graph.placeholder((images, size, size, 3), name="images")
    trained = []

    def weight(*shape, scale=1.0):
        trained.append(graph.variable((rng.standard_normal(shape) * scale).astype("float32")))
        return trained[-1]

    def normalised(x):
        channels = x.shape[-1]
        moving = [graph.variable(v, shape=(channels,)) for v in (0.0, 1.0)]
        return graph.batch_normalization(x, weight(channels), weight(channels), *moving, True)

    def relu6(x):
        return graph.minimum(graph.relu(x), 6.0)

    def wide(x, filters):
        return normalised(graph.convolution_2d(x, weight(1, 1, x.shape[3], filters, scale=0.2)))

    x = relu6(wide(source, 24))
    for stride in (1, 2):
        y = relu6(wide(x, 72))
        settings = {"padding": "TF_SAME", "strides": (stride, stride)}
        y = graph.depthwise_convolution_2d(y, weight(3, 3, 72, 1), **settings)
        y = wide(relu6(normalised(y)), 24)
        x = x + y if stride == 1 else y
    loss = graph.mean(graph.square(x), keep_dims=False)
    updates = [
        graph.assign(v, graph.stochastic_gradient_descent(0.01, v, g))
        for v, g in graph.gradients(of=loss, with_=trained).items()
    ]
    step = graph.compile([source], [loss], updates, threads=threads, disable=disable)
    losses = []
    for _ in range(3):
        x = rng.standard_normal(source.shape).astype("float32")
        losses.append(float(step.run({source: x})[0]))
    return losses, [graph.get_value(v) for v in graph.variables], step.describe()


@pytest.mark.parametrize(("images", "size"), [(1, 32), (8, 16), (32, 8), (64, 4), (3, 13)])
def test_networks_get_the_same_bits_with_and_without_chains(images, size):
    losses, variables, program = _train(images, size)
    for threads, disable in (
        *((2, ["chain"]), (1, []), (3, []), (2, ["share_memory"])),
        *((2, ["tiles"]), (3, ["tiles", "share_memory"])),
    ):
        others = _train(images, size, threads, disable)
        assert others[0] == losses
        for value, other in zip(variables, others[1], strict=True):
            np.testing.assert_array_equal(other, value)
    if size in (8, 16, 32):
        for kinds in ("convolution_2d > ", " > depthwise_convolution_2d > "):
            assert kinds in program
    assert " > " not in _train(images, size, 1, ["chain"])[2]


def test_a_bias_behind_a_product_of_few_positions_is_part_of_its_launch() -> None:
    rng = np.random.default_rng(4)
    x0, w0, b0 = (rng.normal(size=s).astype("float32") for s in ((128, 96), (96, 128), (128,)))
    graph = sg.Graph()
    x = graph.placeholder(x0.shape, name="x")
    y = x @ graph.variable(w0, name="w") + graph.variable(b0, name="b")
    found = []
    for disable in ([], ["chain"]):
        made = graph.compile([x], [y], disable=disable)
        found.append(made.run({x: x0})[0])
        assert ("matrix_multiplication > addition" in made.describe()) == (not disable)
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0], x0.astype(np.float64) @ w0 + b0, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["cnn", "lenet5"])
def test_poolings_are_chained_without_changing_a_bit(name):
    model = APPLICATIONS[name].builder()
    model.compile(SGD(0.01), "sparse_categorical_crossentropy", threads=2)
    rng = np.random.default_rng(4)
    x = rng.random((24, *model.input_shape[1:]), "float32")
    y = rng.integers(0, 10, 24)
    step = model.runtime.step("train", (False,))
    graph, feeds = model.runtime.graph, step.feeds
    before = {n: graph.get_value(n) for n in graph.variables}
    found = []
    for disabled in ([], ["chain"]):
        for n, value in before.items():
            graph.set_value(n, value)
        targets, operations = step.executable.targets[:1], step.executable.operations
        executable = graph.compile(feeds, targets, operations, disable=disabled, threads=2)
        loss = executable.run(dict(zip(feeds, (x, y), strict=True)))[0]
        found.append([loss, *(graph.get_value(n) for n in before)])
        chained = [line for line in executable.describe().splitlines() if " > " in line]
        assert any("convolution_2d > " in line and "pooling" in line for line in chained) != bool(
            disabled
        )
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))
