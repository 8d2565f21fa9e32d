"""ONNX's node tests, shipped as files by the onnx package, against our ops on both devices."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.ops.harness import assert_close

pytest.importorskip("onnx", reason="the node tests come with the onnx package")

from tests.ops import onnx_nodes  # noqa: F401  (fills the table of rules)
from tests.ops.onnx_import import (
    GAPS,
    NOT_MAPPED,
    RULES,
    NotApplicable,
    data_folder,
    import_case,
    node_types,
)

# Relative to the largest element; ONNX computed part of its float64 outputs in float32.
TOLERANCE = {"float16": 2e-3, "float32": 2e-5, "float64": 1e-6}
# How many tests have to run: raise it with what is added, so that gaps cannot grow unseen.
FLOOR = 1150

NAMES = sorted(path.name for path in data_folder().iterdir() if (path / "model.onnx").is_file())
MAPPED = [name for name in NAMES if node_types(name) <= RULES.keys()]


@pytest.mark.parametrize("name", MAPPED)
def test_node(name: str) -> None:
    try:
        case = import_case(name)
    except NotApplicable as reason:
        pytest.skip(str(reason))
    for device in ("reference", "cpu"):
        found = case.graph.run(case.feeds, case.results, device=device)
        for got, wanted in zip(found, case.wanted, strict=True):
            assert got.dtype == wanted.dtype, device
            assert_close(got, wanted, TOLERANCE.get(wanted.dtype.name, 0.0), device)


def test_every_node_type_is_mapped_or_says_why_not() -> None:
    found = frozenset().union(*map(node_types, NAMES))
    assert found == RULES.keys() | NOT_MAPPED.keys()
    assert not RULES.keys() & NOT_MAPPED.keys()


def test_few_tests_are_left_out() -> None:
    reasons: Counter[str] = Counter()
    imported = 0
    for name in MAPPED:
        try:
            import_case(name)
            imported += 1
        except NotApplicable as reason:
            reasons[str(reason).partition(":")[0]] += 1
    summary = "\n".join(f"{count:4} {reason}" for reason, count in reasons.most_common())
    assert imported >= FLOOR, f"{imported} of {len(NAMES)} node tests can run; left out:\n{summary}"
    assert reasons.keys() == GAPS.keys(), "a gap that no test meets any more, or an unnamed one"


def test_a_wrong_op_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(node: Any) -> Any:
        return node.graph.sinh(node[0])

    monkeypatch.setitem(RULES, "Sin", wrong)
    case = import_case("test_sin")
    (got,) = case.graph.run(case.feeds, case.results, device="reference")
    with pytest.raises(AssertionError, match="off by"):
        assert_close(got, case.wanted[0], TOLERANCE["float32"])
