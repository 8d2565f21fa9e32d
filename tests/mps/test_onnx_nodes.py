"""ONNX's node tests, whose answers are nobody's here, lowered and run on the strict double."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx", reason="the node tests come with the onnx package")

from stepgraph.backends.mps.device import use
from stepgraph.backends.mps.enums import DATA_TYPES
from stepgraph.errors import UnsupportedError
from tests.mps.double import Double
from tests.ops.harness import assert_close
from tests.ops.onnx_import import Case, NotApplicable, import_case
from tests.ops.test_onnx import MAPPED, TOLERANCE

# Half precision is not IEEE's on the GPU.
HALF = 5


def is_said(case: Case) -> bool:
    """Whether the GPU has the element types of everything in a graph."""
    return all(t.dtype.name in DATA_TYPES for op in case.graph.block.operations for t in op.outputs)


@pytest.mark.parametrize("name", MAPPED)
def test_node_on_mps(name):
    try:
        case = import_case(name)
    except NotApplicable as reason:
        pytest.skip(str(reason))
    with use(Double()):
        if not is_said(case):
            with pytest.raises(UnsupportedError, match=r"mps|Apple GPUs"):
                case.graph.run(case.feeds, case.results, device="mps")
            return
        found = case.graph.run(case.feeds, case.results, device="mps")
    for got, wanted in zip(found, case.wanted, strict=True):
        assert got.dtype == wanted.dtype
        room = HALF if wanted.dtype.name == "float16" else 1
        assert_close(got, wanted, room * TOLERANCE.get(wanted.dtype.name, 0.0))
