"""What a recorder writes down is what the SDK has."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

import stepgraph as sg
from stepgraph.backends.mps import enums
from stepgraph.backends.mps.device import lowered_program
from stepgraph.backends.mps.message_lines import lines
from stepgraph.backends.mps.recording import (
    RETURNS,
    Message,
    RecordedBlock,
    Recorder,
    Symbol,
    record,
)
from tests.mps.double import sdk


def branches_and_loops(graph):
    """A graph whose messages hold blocks, arrays of results, descriptors and ties."""
    x = graph.placeholder((4, 6, 6, 3), name="x")
    count = graph.variable(0.0, name="count")
    other = graph.variable(np.ones((3, 3, 3, 8), "float32"), name="kernel")
    y = graph.relu(graph.convolution_2d(x, other, padding="TF_SAME"))
    y = graph.max_pooling_2d(y, (2, 2), strides=(2, 2))
    total = graph.reshape(graph.reduction_sum(y), ())
    chosen = graph.if_(total > 0.0, lambda: total * 2.0, lambda: total - 1.0)
    looped = graph.for_loop(3, [chosen], lambda i, value: [value + 1.0])
    (best, _) = graph.top_k(graph.reshape(y, (4, -1)), 2)
    return {x: x.shape}, [looped[0], best, count], [graph.assign(count, chosen)]


def recorded(system="iOS 26.0"):
    graph = sg.Graph("mixed")
    feeds, targets, operations = branches_and_loops(graph)
    program = lowered_program(graph, feeds, targets, operations)
    return record({"run": program}, graph.variables, system=system)


def every(messages):
    for message in messages:
        for argument in message.arguments:
            if isinstance(argument, RecordedBlock):
                yield from every(argument.messages)
        yield message


KINDS = {"instance": "-", "class": "+", "new": "-"}


def known(message: Message):
    if message.kind == "function":
        return sdk.function(message.selector)
    name = message.class_name.partition("<")[0]
    if name == "id":
        return sdk.method("NSObject", (message.class_name[3:-1],), message.selector, "-")
    return sdk.method(name, (), message.selector, KINDS[message.kind])


def test_every_message_is_one_of_the_sdk_and_returns_what_it_says():
    recording = recorded()
    messages = [*recording.setup, *recording.programs["run"].messages]
    for message in every(messages):
        method = known(message)
        assert method is not None, f"{message.class_name} has no {message.selector}"
        assert len(message.arguments) == len(method.takes)
        returned = "void" if message.result is None else message.result.class_name
        wanted = method.returns.removesuffix("?")
        assert wanted in (returned, "id"), message.selector


def test_returns_name_selectors_of_the_sdk():
    facts = sdk.facts()
    selectors = {*facts["functions"]}
    for part in ("classes", "protocols"):
        for holder in facts[part].values():
            selectors |= set(holder["methods"])
    assert set(RETURNS) <= selectors


def test_recording_equals_what_is_sent():
    """The recorder's answers steer nobody: a device is sent the same selectors."""
    from stepgraph.backends.mps.device import use
    from tests.mps.double import Double

    recording = recorded()
    double = Double()
    with use(double):
        graph = sg.Graph("mixed")
        feeds, targets, operations = branches_and_loops(graph)
        graph.compile(feeds, targets, operations, device="mps")
        sent = {s: n for s, n in double.sent.items() if s != "name"}
    found: dict[str, int] = {}
    for message in every([*recording.setup, *recording.programs["run"].messages]):
        found[message.selector] = found.get(message.selector, 0) + 1
    found.pop("name")
    assert found == sent


def test_lines_say_everything(tmp_path):
    recording = recorded()
    rows = [json.loads(line) for line in lines(recording)]
    assert rows[0]["graph"] == "setup"
    seen: set[str] = set()

    def walk(row):
        assert set(row) >= {"receiver", "selector", "args"}
        assert row.get("object", "%0") in seen | {"%0"}
        for argument in row["args"]:
            assert set(argument) == {"type", "value"}
            if argument["type"].startswith("block(NS") or argument["type"].startswith("block(MPS"):
                seen.update(p["value"] for p in argument["value"]["parameters"])
                for inner in argument["value"]["messages"]:
                    walk(inner)
            if argument["type"].startswith("MPSGraph") and isinstance(argument["value"], str):
                assert argument["value"] in seen
        if "returns" in row:
            seen.add(row["returns"]["value"])

    for row in rows:
        walk(row)
    by_selector = {r["selector"]: r for r in rows}
    conv = next(r for r in rows if r["selector"].startswith("descriptorWithStrideInX:"))
    assert {
        "type": "MPSGraphPaddingStyle",
        "value": {"name": "MPSGraphPaddingStyleExplicit", "value": 0},
    } in conv["args"]
    placeholder = by_selector["placeholderWithShape:dataType:name:"]
    assert placeholder["args"][0] == {"type": "NSArray<NSNumber>", "value": [4, 6, 6, 3]}
    assert placeholder["args"][2] == {"type": "NSString", "value": "x"}
    compiled = next(s for s in by_selector if s.startswith("compileWithDevice:"))
    assert (
        by_selector[compiled]["args"][1]["type"]
        == "NSDictionary<MPSGraphTensor,MPSGraphShapedType>"
    )


def test_feeds_targets_and_variables_are_symbols():
    recording = recorded()
    part = recording.programs["run"]
    assert set(part.built.feeds) == {"x"}
    assert set(recording.variables) == {"count", "kernel"}
    assert all(isinstance(handle, Symbol) for handle, _ in part.built.targets)
    assert len(part.built.operations) == 1
    assert part.built.results == [0, 1, 2]


def test_a_recorder_refuses_foreign_objects_and_unknown_answers():
    recorder = Recorder()
    with pytest.raises(TypeError, match="no object of this recording"):
        recorder.send(7, "name")
    with pytest.raises(NotImplementedError, match="is not written down"):
        recorder.send(recorder.new("MPSGraphShapedType"), "hash")


def test_enums_are_the_sdk_s():
    for name in dir(enums):
        kind = getattr(enums, name)
        if isinstance(kind, type) and issubclass(kind, enums.IntEnum) and kind is not enums.IntEnum:
            values = sdk.enum(kind.__name__)["values"]
            for member in kind:
                assert values[enums.constant_name(member)] == int(member)


def test_enums_name_only_what_is_used():
    source = "".join(
        path.read_text("utf-8")
        for path in pathlib.Path(enums.__file__).parent.rglob("*.py")
        if path.name != "enums.py"
    )
    own = pathlib.Path(enums.__file__).read_text("utf-8").partition("DATA_TYPES: ")[2]
    for name in dir(enums):
        kind = getattr(enums, name)
        if isinstance(kind, type) and issubclass(kind, enums.IntEnum) and kind is not enums.IntEnum:
            for member in kind:
                used = f"{name}.{member.name}"
                assert f"{name}[" in source or used in source + own, f"{used} is used by nobody"
