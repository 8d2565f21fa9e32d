"""The bridge over rubicon-objc, down to ctypes; behind that stands the strict double."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import stepgraph as sg
from stepgraph.backends.mps import bridge as module
from stepgraph.backends.mps.device import use
from stepgraph.backends.mps.enums import MPSDataType
from stepgraph.backends.mps.messages import Block, Data, Dictionary, List, Number, numbers
from stepgraph.errors import DeviceError, UnsupportedError
from tests.mps import rubicon_fake
from tests.mps.double import Double

PLACEHOLDER = "placeholderWithShape:dataType:name:"
IF = "ifWithPredicateTensor:thenBlock:elseBlock:name:"


@pytest.fixture
def world(monkeypatch):
    world = rubicon_fake.World(Double((18, 1)))
    for name, fake in rubicon_fake.modules(world).items():
        monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setattr(module, "PLATFORMS", {sys.platform: "macOS"})
    yield world
    world.double.raise_failures()


@pytest.fixture
def bridge(world):
    made = module.connect()
    with made.pool():
        yield made


def network(graph):
    """Convolution, loss, a branch that is a block, moving values, an optimizer."""
    x = graph.placeholder((4, 6, 6, 3), name="x")
    flags = graph.placeholder((4,), dtype="bool", name="flags")
    rng = np.random.default_rng(1)
    kernel = graph.variable(rng.standard_normal((3, 3, 3, 5)).astype("float32"), name="kernel")
    count = graph.variable(0, dtype="int32", name="count")
    y = graph.relu(graph.convolution_2d(x, kernel, padding="TF_SAME"))
    loss = graph.reshape(graph.mean(graph.square(y), (0, 1, 2, 3)), ())
    looped = graph.for_loop(3, [loss], lambda i, value: [value * 0.5 + 1.0])
    grads = graph.gradients(of=loss, with_=[kernel])
    new = graph.stochastic_gradient_descent(0.1, kernel, grads[kernel])
    operations = [graph.assign(kernel, new), graph.assign(count, count + 1)]
    best = graph.top_k(graph.reshape(y, (4, -1)), 2)
    kept = graph.select(flags, graph.constant([1.0] * 4), graph.constant([0.5] * 4))
    return {x: x.shape, flags: (4,)}, [loss, looped[0], *best, kept, flags], operations


def steps(device_bridge):
    rng = np.random.default_rng(2)
    data = rng.standard_normal((4, 6, 6, 3)).astype("float32")
    flags = np.array([True, False, True, True])
    with use(device_bridge) as session:
        graph = sg.Graph()
        feeds, targets, operations = network(graph)
        run = graph.compile(feeds, targets, operations, device="mps")
        x, given = feeds
        found = [run.run({x: data, given: flags}) for _ in range(2)]
        graph.set_value("count", 40, device="mps")
        found += [f.result() for f in [run.run_async({x: data, given: flags}) for _ in range(4)]]
        assert int(graph.get_value("count", device="mps")) == 44
        kernel = graph.get_value("kernel", device="mps")
        for runner in run._runners.values():
            runner.close()
        graph.states["mps"][0].close()
        return found, kernel, session.summary()


def test_training_through_rubicon_is_training(world):
    plain, kernel, _ = steps(Double((18, 1)))
    found, same, summary = steps(module.connect())
    np.testing.assert_array_equal(same, kernel)
    for here, there in zip(found, plain, strict=True):
        for a, b in zip(here, there, strict=True):
            np.testing.assert_array_equal(a, b)
    assert summary.endswith("macOS 15.1")
    assert not world.double.owned()
    assert not world.double.alive()


def test_arguments_are_converted(bridge, world):
    graph = bridge.new("MPSGraph")
    array = np.arange(6, dtype="float32").reshape(2, 3)
    constant = bridge.send(
        graph, "constantWithData:shape:dataType:", Data(array), numbers((2, 3)), MPSDataType.Float32
    )
    assert bridge.items(bridge.send(constant, "shape")) == [2, 3]
    assert bridge.send(constant, "dataType") == MPSDataType.Float32
    named = bridge.send(graph, PLACEHOLDER, numbers((2,)), 0x10000020, "größe")
    assert bridge.text(bridge.send(bridge.send(named, "operation"), "name")) == "größe"
    with pytest.raises(TypeError, match="where c_uint is due"):
        bridge.send(graph, PLACEHOLDER, None, 1.0, "x")
    with pytest.raises(TypeError, match="an object is due"):
        bridge.send(graph, PLACEHOLDER, None, 0x10000020, 7)
    with pytest.raises(TypeError, match="takes 3 arguments, not 2"):
        bridge.send(graph, PLACEHOLDER, None, 0x10000020)
    with pytest.raises(TypeError, match="where c_double is due"):
        bridge.send(graph, "constantWithScalar:dataType:", 1, 0x10000020)
    with pytest.raises(TypeError, match="is no object of this bridge"):
        bridge.send(3, "shape")
    with pytest.raises(TypeError, match="nil among the elements"):
        bridge.send(graph, "concatTensors:dimension:name:", List((constant, None)), 0, "x")
    bridge.drop(graph)


@pytest.mark.parametrize("value", [0, -5, 2**53 + 1, 2**64 - 1, 0.25, -1e300, True, False])
def test_numbers_come_back_as_they_were(bridge, value):
    made = bridge._value(bridge._array([bridge._number(value)]))
    (found,) = bridge.items(made)
    assert found == value
    assert isinstance(found, float) == isinstance(value, float)


def test_strings_and_objects_in_arrays(bridge):
    graph = bridge.new("MPSGraph")
    made = bridge._value(bridge._object(List(("a", graph, Number(3), List(()))), "test"))
    text, same, number, empty = bridge.items(made)
    assert (text, same, number) == ("a", graph, 3)
    assert bridge.items(empty) == []
    assert bridge._value(bridge._object(Dictionary((("k", graph),)), "test")) != same
    bridge.drop(graph)


def test_a_selector_of_a_newer_system_is_an_exception(bridge):
    graph = bridge.new("MPSGraph")
    with pytest.raises(UnsupportedError, match=r"MPSGraph has no 'ofTomorrow:' on macOS 15\.1"):
        bridge.send(graph, "ofTomorrow:", 1)
    with pytest.raises(UnsupportedError, match="no class MPSGraphOfTomorrow"):
        bridge.new("MPSGraphOfTomorrow")
    with pytest.raises(NotImplementedError, match="MTLCopyAllDevices"):
        bridge.function("MTLCopyAllDevices")
    bridge.drop(graph)


def test_an_initializer_may_give_nil(bridge, world):
    world.refused_init.add("MPSGraph")
    with pytest.raises(DeviceError, match=r"\[\[MPSGraph alloc\] init\] gave nil"):
        bridge.new("MPSGraph")


def test_what_a_block_raises_arrives(bridge):
    graph = bridge.new("MPSGraph")
    one = bridge.send(graph, "constantWithScalar:shape:dataType:", 1.0, numbers((1,)), 0x10000020)
    truth = bridge.send(graph, "isFiniteWithTensor:name:", one, None)

    def broken():
        raise KeyError("in the block")

    block = Block("NSArray<MPSGraphTensor>", (), broken)
    with pytest.raises((KeyError, Exception)) as caught:
        bridge.send(
            graph, "ifWithPredicateTensor:thenBlock:elseBlock:name:", truth, block, block, None
        )
    assert "in the block" in str(caught.value) or "nil" in str(caught.value)
    assert any(isinstance(e, KeyError) for e in [caught.value, *bridge._raised])
    bridge._raised.clear()
    bridge.drop(graph)


def test_blocks_of_other_results_are_not_made(bridge):
    graph = bridge.new("MPSGraph")
    one = bridge.send(graph, "constantWithScalar:shape:dataType:", 1.0, numbers((1,)), 0x10000020)
    block = Block("BOOL", (), lambda: True)
    with pytest.raises(NotImplementedError, match="a block that returns BOOL"):
        bridge.send(graph, IF, one, block, None, None)
    bridge.drop(graph)


def test_a_framework_that_cannot_be_loaded(world):
    world.missing.add("MetalPerformanceShadersGraph")
    with pytest.raises(UnsupportedError, match="MetalPerformanceShadersGraph cannot be loaded"):
        module.connect()


def test_why_there_is_no_bridge(monkeypatch):
    monkeypatch.setattr(module, "PLATFORMS", {"plan9": "Plan 9"})
    assert module.unavailable() == "MPSGraph exists on macOS and iOS only"
    monkeypatch.setattr(module, "PLATFORMS", {sys.platform: "macOS"})
    with monkeypatch.context() as phone:
        phone.setattr(sys, "platform", "ios")
        phone.setattr(module, "PLATFORMS", {"ios": "iOS"})
        answer = SimpleNamespace(is_simulator=True)
        phone.setattr(module.platform, "ios_ver", lambda: answer, raising=False)
        assert "simulator" in module.unavailable()
        answer.is_simulator = False
        assert "simulator" not in (module.unavailable() or "")
    monkeypatch.setitem(sys.modules, "rubicon", None)
    assert "rubicon-objc is missing" in module.unavailable()
    with pytest.raises(UnsupportedError, match="pip install 'rubicon-objc"):
        module.connect()
