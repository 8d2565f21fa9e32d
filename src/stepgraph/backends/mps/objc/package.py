"""A Swift package of a recorded network: sources from templates, graphs from messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stepgraph.backends.mps.objc.source import Source, variable_lines
from stepgraph.backends.mps.recording import Recording
from stepgraph.errors import UnsupportedError, describe
from stepgraph.version import __version__

_TEMPLATES = Path(__file__).parent / "runtime"

# The recording's names of the two programs, and what the functions that build them are called.
TRAINING, PREDICTION = "training", "prediction"

# Where a template goes; __NAME__ is the package's name.
FILES: dict[str, str] = {
    "Package.swift": "Package.swift",
    "README.md": "README.md",
    "Wrapper.swift": "Sources/__NAME__/__NAME__.swift",
    "Graph.h": "Sources/__NAME__Graph/include/__NAME__Graph.h",
    "Graph.m": "Sources/__NAME__Graph/__NAME__Graph.m",
    "Runtime.h": "Sources/__NAME__Graph/__NAME__Runtime.h",
    "Runtime.m": "Sources/__NAME__Graph/__NAME__Runtime.m",
    "Build.h": "Sources/__NAME__Graph/__NAME__Build.h",
    "Build.m": "Sources/__NAME__Graph/__NAME__Build.m",
}
WEIGHTS = "Sources/__NAME__/weights.safetensors"

# Element types that Swift's arrays can hold.
_SWIFT = {
    "float32": "Float",
    "float16": "Float16",
    "int8": "Int8",
    "int16": "Int16",
    "int32": "Int32",
    "int64": "Int64",
    "uint8": "UInt8",
    "uint16": "UInt16",
    "uint32": "UInt32",
    "uint64": "UInt64",
    "bool": "Bool",
}


@dataclass(frozen=True)
class Value:
    """What one sample of a feed or a result is.

    Attributes:
        name: of the placeholder; empty for a result.
        shape: without the batch.
        dtype: element type's name.
        batch: samples at a time.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    batch: int

    @property
    def length(self) -> int:
        """Bytes."""
        size = {"bool": 1}.get(self.dtype) or int(re.sub(r"\D", "", self.dtype)) // 8
        for extent in self.shape:
            size *= extent
        return size

    def about(self) -> str:
        """In words."""
        shape = " x ".join(map(str, self.shape)) or "one"
        return f"{shape} ({self.dtype})"


@dataclass(frozen=True)
class Contents:
    """What a package is made of.

    Attributes:
        name: of the package, its Swift class and its module: an identifier with a capital.
        title: what the network is called.
        recording: programs ``"training"`` and ``"prediction"``.
        input: of both.
        label: of training.
        output: of prediction.
        planned_bytes: memory of a training step.
    """

    name: str
    title: str
    recording: Recording
    input: Value
    label: Value
    output: Value
    planned_bytes: int


def write_package(folder: Path, contents: Contents) -> Path:
    """Writes a package without its weights.

    Args:
        folder: where to; made if it is missing.
        contents: what.

    Returns:
        Where the weights belong.

    Raises:
        UnsupportedError: the network's loss or prediction is known without running anything.
    """
    words = _words(contents)
    for template, target in FILES.items():
        text = (_TEMPLATES / template).read_text(encoding="utf-8")
        path = folder / _filled(target, words)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_filled(text, words), encoding="utf-8")
    weights = folder / _filled(WEIGHTS, words)
    weights.parent.mkdir(parents=True, exist_ok=True)
    return weights


def _words(contents: Contents) -> dict[str, str]:
    recording = contents.recording
    source = Source(contents.name, recording.graph, recording.device, recording.variables)
    programs = [
        source.program(title.capitalize(), recording.programs[title])
        for title in (TRAINING, PREDICTION)
    ]
    messages = [m for program in recording.programs.values() for m in program.messages]
    return {
        "__NAME__": contents.name,
        "__TITLE__": contents.title,
        "__VERSION__": __version__,
        "__VARIABLES__": "\n".join(variable_lines(messages)),
        "__PROGRAMS__": "\n".join(programs),
        "__TRAINING_BATCH__": str(contents.label.batch),
        "__PREDICTION_BATCH__": str(contents.output.batch),
        "__INPUT__": contents.input.name,
        "__LABEL__": contents.label.name,
        "__LOSS__": str(_result(recording, TRAINING)),
        "__PREDICTION__": str(_result(recording, PREDICTION)),
        "__INPUT_LENGTH__": str(contents.input.length),
        "__LABEL_LENGTH__": str(contents.label.length),
        "__OUTPUT_LENGTH__": str(contents.output.length),
        "__INPUT_ABOUT__": contents.input.about(),
        "__LABEL_ABOUT__": contents.label.about(),
        "__OUTPUT_ABOUT__": contents.output.about(),
        "__INPUT_SWIFT__": _SWIFT[contents.input.dtype],
        "__LABEL_SWIFT__": _SWIFT[contents.label.dtype],
        "__OUTPUT_SWIFT__": _SWIFT[contents.output.dtype],
        "__PLANNED__": f"{contents.planned_bytes / 1e6:.0f} MB",
    }


def _result(recording: Recording, program: str) -> int:
    """Which target of a program its first result is."""
    result = recording.programs[program].built.results[0]
    if not isinstance(result, int):
        raise UnsupportedError(
            describe(
                "export",
                f"the result of {program} is a constant or an input",
                expected="something that depends on weights",
            )
        )
    return result


def _filled(text: str, words: Mapping[str, str]) -> str:
    """Every word at once, so that none is looked for in what another one became."""
    return re.sub("|".join(sorted(words, key=len, reverse=True)), lambda m: words[m[0]], text)


def swift_name(title: str) -> str:
    """A name for a package.

    Example:
        >>> swift_name("resnet50"), swift_name("my-net 2"), swift_name("3d")
        ('Resnet50', 'MyNet2', 'Network3d')
    """
    words = re.findall(r"[A-Za-z0-9]+", title)
    name = "".join(word[0].upper() + word[1:] for word in words)
    return name if name[:1].isalpha() else f"Network{name}"
