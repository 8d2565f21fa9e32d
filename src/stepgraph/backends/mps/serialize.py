"""A program as a file of MPSGraph's own, which the framework alone can write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stepgraph.backends.mps.device import DEVICE
from stepgraph.backends.mps.executable import build
from stepgraph.backends.mps.state import MpsState
from stepgraph.compiler.program import Program, Rewriter
from stepgraph.errors import DeviceError, GraphError, describe
from stepgraph.graph.definition import Array
from stepgraph.graph.operation import Operation
from stepgraph.graph.tensor import Tensor


def frozen(program: Program, values: Mapping[str, Array]) -> Program:
    """A program with constants in place of variables.

    Args:
        program: must not update any.
        values: of its variables.

    Raises:
        GraphError: it updates variables.
    """
    if program.updates:
        raise GraphError(
            describe(
                f"program '{program.graph.name}'",
                "updates variables, so they cannot become constants",
                got={"updated": ", ".join(program.updates)},
                fix="export the prediction, or the training step as a Swift package (--objc)",
            )
        )

    def visit(rewriter: Rewriter, operation: Operation) -> Sequence[Tensor] | None:
        if operation.type != "variable":
            return None
        return [rewriter.graph.constant(values[operation.name])]

    made = Rewriter(program).run(visit)
    made.variables.clear()
    return made


def serialize(program: Program, values: Mapping[str, Array], path: Path) -> Path:
    """Writes a program, its variables as constants, as an ``.mpsgraphpackage``.

    Args:
        program: what to write.
        values: of its variables.
        path: of the package; one that is there is replaced.

    Raises:
        DeviceError: the framework wrote nothing.

    Source: MPSGraphExecutable ``serializeToMPSGraphPackageAtURL:descriptor:`` (iOS 17, macOS 14).
    """
    session = DEVICE.session()
    bridge = session.bridge
    state = MpsState(session, {})
    compiled, _ = build(frozen(program, values), state)
    if compiled is None:
        raise GraphError(describe("export", "there is nothing to compute in the program"))
    try:
        with session.lock, bridge.pool():
            place = str(path.absolute())
            url = bridge.send("NSURL", "fileURLWithPath:isDirectory:", place, True)
            selector = "serializeToMPSGraphPackageAtURL:descriptor:"
            bridge.send(compiled._executable, selector, url, None)
    finally:
        compiled.close()
        state.close()
    if not path.exists():
        raise DeviceError(
            describe("mps", f"the framework wrote no package at {path}", fix="another folder")
        )
    return path
