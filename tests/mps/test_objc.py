"""Exported Objective-C: what clang for the real target says, and that it says what is sent."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import stepgraph as sg
from stepgraph.applications import APPLICATIONS
from stepgraph.backends.mps.device import lowered_program, use
from stepgraph.backends.mps.objc.package import Contents, Value, swift_name, write_package
from stepgraph.backends.mps.quirks import QUIRKS
from stepgraph.backends.mps.recording import record
from stepgraph.backends.mps.serialize import frozen
from stepgraph.backends.mps.system import Version
from stepgraph.checkpoints import safetensors
from stepgraph.errors import GraphError, UnsupportedError
from stepgraph.models import load_model
from stepgraph.runs.packaging import write_graph_package, write_swift_package
from tests.mps.double import Double
from tests.tools import load_tool

CLANG = shutil.which("clang")
FLAGS = (
    *("-target", "arm64-apple-ios15", "-ffreestanding", "-nostdlibinc", "-fobjc-arc", "-fblocks"),
    *("-Wall", "-Werror", "-fsyntax-only"),
)


@pytest.fixture(scope="session")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("headers")
    load_tool("apple_headers").write(folder)
    return folder


def complaints(headers: Path, file: Path) -> str:
    """What clang has against a file; nothing if all is well."""
    if CLANG is None:
        pytest.skip("clang, which checks the source, is not installed")
    includes = [f"-I{headers}", f"-I{file.parent}", f"-I{file.parent / 'include'}"]
    done = subprocess.run(
        [CLANG, *FLAGS, *includes, str(file)], capture_output=True, text=True, timeout=120
    )
    assert bool(done.stderr) == bool(done.returncode)
    return done.stderr


def network(name: str, optimizer: str = "sgd") -> sg.Model:
    sg.utils.clear_session()
    sg.utils.set_random_seed(1)
    shape = (28, 28, 1) if name == "lenet5" else (32, 32, 3)
    model = APPLICATIONS[name].builder(input_shape=shape, classes=10)
    model.compile(optimizer, "sparse_categorical_crossentropy", device="reference")
    return model


def source(folder: Path, ending: str) -> Path:
    (found,) = folder.glob(f"Sources/*Graph/*{ending}")
    return found


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("mlp", "adam"),
        ("lenet5", "sgd"),
        ("resnet18", "sgd"),
        ("mobilenet_v2", "sgd"),
        ("vit", "sgd"),
    ],
)
def test_packages_of_networks(name: str, optimizer: str, headers: Path, tmp_path: Path) -> None:
    model = network(name, optimizer)
    folder = write_swift_package(model, tmp_path / "package", name, batch_size=8)
    title = swift_name(name)
    expected = {
        "Package.swift",
        "README.md",
        f"Sources/{title}/{title}.swift",
        f"Sources/{title}/weights.safetensors",
        f"Sources/{title}Graph/include/{title}Graph.h",
        *(f"Sources/{title}Graph/{title}{end}" for end in ("Graph.m", "Build.h", "Build.m")),
        *(f"Sources/{title}Graph/{title}{end}" for end in ("Runtime.h", "Runtime.m")),
    }
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.relative_to(folder).as_posix() for path in files} == expected
    for path in files:
        if path.suffix != ".safetensors":
            assert not re.search(r"__[A-Z_]+__", path.read_text("utf-8")), path
    again = load_model(source_weights(folder), device="reference")
    for mine, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)
    for path in sorted(folder.rglob("*.m")):
        assert not complaints(headers, path)


def source_weights(folder: Path) -> Path:
    (found,) = folder.rglob("weights.safetensors")
    return found


def test_the_source_says_what_is_sent(tmp_path: Path) -> None:
    model = network("lenet5", "adam")
    folder = write_swift_package(model, tmp_path, "net", batch_size=8, prediction_batch_size=2)
    text = source(folder, "Build.m").read_text("utf-8")
    text = text[text.index("Tensors t,") :]
    runtime = model.runtime
    train, predict = runtime.step("train", (False,)), runtime.step("predict")
    programs = {
        "training": lowered_program(
            runtime.graph,
            {t: (8, *t.shape[1:]) for t in train.feeds},
            train.executable.targets[:1],
            train.executable.operations,
        ),
        "prediction": lowered_program(
            runtime.graph,
            {t: (2, *t.shape[1:]) for t in predict.feeds},
            predict.executable.targets,
            (),
        ),
    }
    recording = record(programs, runtime.graph.variables)
    sent = Counter(
        m.selector.partition(":")[0]
        for program in recording.programs.values()
        for m in program.messages
        if m.class_name == "MPSGraph" and not m.selector.startswith("variableWithData")
    )
    said = Counter(re.findall(r"\[graph (\w+)", text))
    assert said == sent
    # Every variable that is assigned was read: both programs share one graph's variables.
    assigned = set(re.findall(r'assignVariable:variable\(variables, @"([^"]+)"\)', text))
    assert assigned == set(programs["training"].updates)
    # Values go in by identity, whatever the order in which the executable takes them.
    run = source(folder, "Runtime.m").read_text("utf-8")
    assert "ports[j].tensor == tensors[i]" in run
    assert 'initWithName:@"input" tensor:t[0] shape:@[@8, @28, @28, @1]' in text


def test_variables_fit_the_weights_file(tmp_path: Path) -> None:
    folder = write_swift_package(network("cnn", "adam"), tmp_path, "net", batch_size=4)
    text = source(folder, "Build.m").read_text("utf-8")
    lines = re.findall(r'addVariable\(variables, graph, file, @"([^"]+)".*, (\d+)\);', text)
    arrays = safetensors.read(source_weights(folder))
    assert {name: int(length) for name, length in lines} == {
        name: array.nbytes for name, array in arrays.items() if name in dict(lines)
    }
    assert "optimizer/momentum/conv1/kernel" in dict(lines)
    assert set(arrays) - set(dict(lines)) <= {"random_step"}


def test_control_flow_becomes_blocks(headers: Path, tmp_path: Path) -> None:
    graph = sg.Graph("loops")
    x = graph.placeholder((4, 3), name="x")
    label = graph.placeholder((4,), "int32", name="label")
    w = graph.variable(np.ones((3,), "float32"), name="w")
    count = graph.reduction_sum(label, keep_dims=False)

    def trip(index: sg.Tensor, value: sg.Tensor) -> sg.Tensor:
        return graph.if_(
            graph.reduction_sum(value, keep_dims=False) > 2.0,
            lambda: graph.for_loop(3, value, lambda i, v: v * w),
            lambda: value + np.arange(3, dtype="float32"),
        )

    looped = graph.for_loop(count, x, trip, maximum_iterations=5)
    done = graph.while_loop(
        looped,
        lambda v: graph.reduction_sum(v, keep_dims=False) < 100.0,
        lambda v: v + 1.0,
        maximum_iterations=7,
    )
    loss = graph.reduction_sum(done * graph.constant([np.inf, -1.0, 1e-9]), keep_dims=False)
    assign = graph.assign(w, w * 0.5)
    untied = graph.variable(np.zeros((3,), "float32"), name="untied")
    other = graph.assign(untied, graph.reduction_sum(x, axes=[0], keep_dims=False))
    shapes = {x: (4, 3), label: (4,)}
    programs = {
        "training": lowered_program(graph, shapes, [loss + untied[0]], [assign, other]),
        "prediction": lowered_program(graph, {x: (4, 3)}, [x * w], []),
    }
    contents = Contents(
        "Loops",
        "loops",
        record(programs, graph.variables),
        Value("x", (3,), "float32", 4),
        Value("label", (), "int32", 4),
        Value("", (3,), "float32", 4),
        0,
    )
    write_package(tmp_path, contents)
    build = source(tmp_path, "Build.m")
    text = build.read_text("utf-8")
    assert "^NSArray<MPSGraphTensor *> *(MPSGraphTensor *v" in text
    assert "controlDependencyWithOperations:@[" in text
    assert "static const uint32_t constant1[] = {" in text
    assert text.count("[operations addObject:[graph assignVariable") == 2
    assert not complaints(headers, build)


# A part of the source, and what it is spoiled into.
SPOILED = {
    "a number for a tensor": ("secondaryTensor:t[", "secondaryTensor:@[@1] ?: t["),
    "a selector that there is not": ("reshapeTensor:", "reshapeTensors:"),
    "a word missing": (" dilationRateInX:1", ""),
    "a string for a number": ("dataType:MPSDataTypeFloat32", 'dataType:@"float32"'),
    "an enum that there is not": ("MPSGraphOptimizationLevel0", "MPSGraphOptimizationLevel9"),
    "nil where it must not be": ("reshapeTensor:t[", "reshapeTensor:nil ? nil : nil; t["),
    "another class": ("[MPSGraphConvolution2DOpDescriptor ", "[MPSGraphPooling2DOpDescriptor "),
    "an unused value": ("t[0] = [graph placeholder", "MPSGraphTensor *x = [graph placeholder"),
}


@pytest.mark.parametrize("label", SPOILED)
def test_the_check_finds_faults(label: str, headers: Path, tmp_path: Path) -> None:
    folder = write_swift_package(network("cnn"), tmp_path, "net", batch_size=4)
    build = source(folder, "Build.m")
    text = build.read_text("utf-8")
    good, bad = SPOILED[label]
    assert good in text
    build.write_text(text.replace(good, bad, 1), "utf-8")
    assert "error:" in complaints(headers, build)


def test_what_is_exported_suits_every_system_that_it_names(tmp_path: Path) -> None:
    """It is built for the newest: a fault that ended in between would go unheeded."""
    folder = write_swift_package(network("cnn"), tmp_path, "net", batch_size=4)
    manifest = (folder / "Package.swift").read_text("utf-8")
    found = re.search(r'\.iOS\("(\d+)\.(\d+)"\), \.macOS\("(\d+)\.(\d+)"\)', manifest)
    assert found is not None
    first = Version(int(found[1]), int(found[2]))
    assert first == Version(int(found[3]) + 3, int(found[4]))
    assert not [quirk.name for quirk in QUIRKS.values() if quirk.fixed and quirk.fixed > first]
    assert f"iOS {found[1]}.{found[2]} or macOS {found[3]}.{found[4]}" in (
        folder / "README.md"
    ).read_text("utf-8")


def test_models_that_do_not_fit(tmp_path: Path) -> None:
    a, b = sg.Input((4,)), sg.Input((4,))
    model = sg.Model([a, b], sg.layers.Dense(2)(sg.layers.Add()([a, b])))
    with pytest.raises(GraphError, match="not compiled"):
        write_swift_package(model, tmp_path)
    model.compile("sgd", "mse", device="reference")
    with pytest.raises(UnsupportedError, match="2 inputs and 1 outputs"):
        write_swift_package(model, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform in ("darwin", "ios"), reason="the framework may be here")
def test_graph_packages_need_the_framework(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="run it on a Mac"):
        write_graph_package(network("lenet5"), tmp_path / "net.mpsgraphpackage")


class Writing(Double):
    """Writes what the framework would."""

    def send(self, receiver, selector, *arguments):
        if selector == "fileURLWithPath:isDirectory:":
            self.path, directory = arguments
            assert directory is True
            return "url"
        if selector == "serializeToMPSGraphPackageAtURL:descriptor:":
            assert arguments[0] == "url"
            Path(self.path).mkdir()
            return None
        assert not selector.startswith("variableWithData"), "weights must be constants"
        return super().send(receiver, selector, *arguments)


def test_a_graph_package_holds_the_weights_as_constants(tmp_path: Path) -> None:
    model = sg.Sequential([sg.Input((4,)), sg.layers.Dense(2)])
    model.compile("sgd", "mse", device="reference")
    with use(Writing((18, 1))):
        path = write_graph_package(model, tmp_path / "net.mpsgraphpackage", 3)
    assert path.is_dir()


def test_a_program_that_trains_cannot_be_frozen() -> None:
    graph = sg.Graph()
    v = graph.variable([1.0], name="v")
    program = lowered_program(graph, {}, [v * 2.0], [graph.assign(v, v + 1.0)])
    with pytest.raises(GraphError, match="updates variables"):
        frozen(program, {"v": np.ones(1, "float32")})
