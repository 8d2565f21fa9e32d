"""One operation that diverges, in one file: an ``.npz`` of its arrays that is also a program.

``python FILE`` runs the operation on the device again and prints by how much it is off; NumPy reads
the arrays of the same file. The program inside (``unzip -p FILE __main__.py``) spells the operation
out, with all its attributes, so that who has to mend the device sees what was asked; for Apple's
GPUs ``messages.jsonl`` beside it has the messages that MPSGraph is sent.
"""

from __future__ import annotations

import io
import math
import os
import runpy
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stepgraph.graph.definition import Array
from stepgraph.graph.dtypes import DType
from stepgraph.graph.operation import Block, Operation
from stepgraph.graph.tensor import Tensor
from stepgraph.verification.conditions import expect
from stepgraph.verification.operations import value_of
from stepgraph.verification.report import OperationCheck, describe_check
from stepgraph.verification.single import single_graph
from stepgraph.version import __version__

_PROGRAM = '''\
"""{title}

    python {file} [DEVICE]        runs it again (with stepgraph {version} or newer)

As it was found:

{found}
"""

import sys

import numpy as np

import stepgraph as sg
from stepgraph.graph.dtypes import DTYPES
from stepgraph.verification import add_operation

device = sys.argv[1] if len(sys.argv) > 1 else {device!r}
data = np.load(sys.argv[0])
graph = sg.Graph("reproduction")
feeds = {{}}

{body}

wrong = 0
for i, got in enumerate(graph.run(feeds, outputs, device=device)):
    expected, tolerance = data[f"expected_{{i}}"], data[f"tolerance_{{i}}"]
    with np.errstate(all="ignore"):
        apart = np.abs(got.astype(float) - expected.astype(float))
    same = (got == expected.astype(got.dtype)) | ((got != got) & (expected != expected))
    outside = ~(same | (apart <= tolerance))
    wrong += int(outside.sum())
    print(f"output {{i}} on {{device}}: {{outside.sum()}} of {{got.size}} elements are outside")
    for place in list(zip(*np.nonzero(outside)))[:10]:
        allowed = np.broadcast_to(tolerance, got.shape)[place]
        print(f"  at {{list(map(int, place))}}: {{got[place]}}, float64 gives {{expected[place]}}")
        print(f"    tolerance {{allowed:.3g}}; when it was found: {{data[f'got_{{i}}'][place]}}")
print("DIVERGES" if wrong else "agrees")
sys.exit(1 if wrong else 0)
'''


def write_reproduction(
    path: str | os.PathLike[str],
    check: OperationCheck,
    operation: Operation,
    values: Mapping[Tensor, Array],
    device: str,
) -> Path:
    """Writes the file.

    Args:
        path: its name; ``.npz`` is added where it has no ending.
        check: what was found.
        operation: that diverged.
        values: of its inputs and outputs on the device.
        device: where.

    Returns:
        The file's path.
    """
    path = Path(path)
    path = path if path.suffix else path.with_suffix(".npz")
    source = _Source()
    inputs = list(dict.fromkeys(operation.inputs))
    for number, tensor in enumerate(inputs):
        source.input(number, tensor, value_of(tensor, values))
    source.operation(operation, "outputs", "")
    given = [value_of(t, values) for t in operation.inputs]
    expected, tolerances = expect(operation, given)
    arrays = dict(source.arrays)
    for number, tensor in enumerate(operation.outputs):
        arrays[f"got_{number}"] = values[tensor]
        arrays[f"expected_{number}"] = expected[number]
        arrays[f"tolerance_{number}"] = tolerances[number]
    text = _PROGRAM.format(
        title=f"{operation.type} on device '{device}' is not what float64 makes of its inputs.",
        file=path.name,
        version=__version__,
        found="\n".join(f"    {line}" for line in describe_check(check)),
        device=device,
        body="\n".join(source.lines),
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__main__.py", text)
        if device.partition(":")[0] == "mps":
            archive.writestr("messages.jsonl", _messages(operation))
        for name, array in arrays.items():
            stream = io.BytesIO()
            np.save(stream, array, allow_pickle=False)
            archive.writestr(f"{name}.npy", stream.getvalue())
    return path


def reproduce(path: str | os.PathLike[str], device: str | None = None) -> bool:
    """Runs a reproduction in this process, as ``python FILE`` would in one of its own.

    Args:
        path: of the file.
        device: another device than the one that diverged.

    Returns:
        Whether the device agrees now.
    """
    arguments = [os.fspath(path), *([device] if device else [])]
    before, sys.argv = sys.argv, arguments
    try:
        runpy.run_path(os.fspath(path), run_name="__main__")
    except SystemExit as stop:
        return not stop.code
    finally:
        sys.argv = before
    return True


def _messages(operation: Operation) -> str:
    """What MPSGraph is told for the operation, a message a line, for whoever knows no Python."""
    from stepgraph.backends.mps.device import lowered_program
    from stepgraph.backends.mps.message_lines import lines
    from stepgraph.backends.mps.recording import record

    single = single_graph(operation)
    shapes = {t: t.shape for t in single.feeds.values()}
    program = lowered_program(single.graph, shapes, single.outputs, ())
    return "".join(f"{line}\n" for line in lines(record({"operation": program}, {})))


class _Source:
    """Python that builds an operation, and the arrays it needs."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.arrays: dict[str, Array] = {}
        self._names: dict[Tensor, str] = {}
        self._regions = 0

    def input(self, number: int, tensor: Tensor, value: Array) -> None:
        """A placeholder with its value, or a constant."""
        name, key = f"x{number}", f"input_{number}"
        self._names[tensor] = name
        self.arrays[key] = value
        if tensor.operation.type == "constant":
            self.lines.append(f'{name} = graph.constant(data["{key}"])  # {tensor.spec}')
            return
        self.lines.append(
            f"{name} = graph.placeholder({tensor.shape}, {tensor.dtype.name!r}, name={key!r})"
        )
        self.lines.append(f'feeds[{name}] = data["{key}"]')

    def operation(self, operation: Operation, target: str, indent: str) -> None:
        """``target = add_operation(...)``, after the functions that build its regions."""
        regions = [self._region(block, indent) for block in operation.regions]
        count = operation.attributes.get("explicit", len(operation.inputs))
        inputs = ", ".join(self._names[t] for t in operation.inputs[:count])
        lines = [f"{target} = add_operation(", "    graph,", f"    {operation.type!r},"]
        lines.append(f"    [{inputs}],")
        lines.append("    {")
        for key, value in operation.attributes.items():
            if key != "explicit" or not regions:
                lines.append(f"        {key!r}: {_literal(value)},")
        lines.append("    },")
        if regions:
            lines.append(f"    [{', '.join(regions)}],")
        lines.append(")")
        self.lines += [indent + line for line in lines]

    def _region(self, block: Block, indent: str) -> str:
        """A function that builds a block; returns the expression of a region."""
        name = f"region_{self._regions}"
        self._regions += 1
        inner = indent + "    "
        self.lines.append(f"{indent}def {name}(arguments):")
        for position, parameter in enumerate(block.parameters):
            self._names[parameter] = f"{name}_argument_{position}"
            self.lines.append(f"{inner}{self._names[parameter]} = arguments[{position}]")
        for number, operation in enumerate(block.operations):
            if operation.type == "parameter":
                continue
            target = f"{name}_{number}"
            if operation.type == "constant":
                key = f"constant_{name}_{number}"
                self.arrays[key] = operation.attributes["value"]
                self.lines.append(f'{inner}{target} = [graph.constant(data["{key}"])]')
            else:
                self.operation(operation, target, inner)
            for position, tensor in enumerate(operation.outputs):
                self._names[tensor] = f"{target}[{position}]"
        results = ", ".join(self._names[t] for t in block.results)
        self.lines += [f"{inner}return [{results}]", ""]
        specs = [(p.shape, p.dtype.name) for p in block.parameters]
        return f"({specs!r}, {name})"


def _literal(value: Any) -> str:
    """An attribute as Python."""
    if isinstance(value, DType):
        return f'DTYPES["{value.name}"]'
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, tuple):
        return f"({''.join(_literal(item) + ', ' for item in value).rstrip()})"
    return repr(value)
