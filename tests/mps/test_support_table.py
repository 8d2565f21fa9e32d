"""The generated page of what runs where says what the devices' tables say."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from stepgraph.backends.mps.lowering import LOWERINGS
from tests.mps.double import sdk
from tests.tools import load_tool


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    pytest.importorskip("llvmlite", reason="the page tells what the CPU's kernels cover")
    return load_tool("support_table")


def test_page_is_up_to_date(tool: ModuleType) -> None:
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page(), "run python tools/support_table.py"


def test_check_notices_a_change(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["support_table.py", "--check"])
    assert tool.main() == 0
    monkeypatch.setattr(tool, "PAGE", tmp_path / "support.md")
    tool.PAGE.write_text(tool.page().replace("kernel", "NumPy", 1), encoding="utf-8")
    assert tool.main() == 1


def test_every_limit_stands_on_the_page(tool: ModuleType) -> None:
    page = tool.page()
    for lowering in LOWERINGS.values():
        for limit in lowering.limits:
            assert limit.reason in page


def test_families_are_those_of_the_sdk(tool: ModuleType) -> None:
    selectors = sdk.facts()["classes"]["MPSGraph"]["methods"]
    names = [name for group in tool.families().values() for name in group]
    assert len(names) == len(set(names)) == 187
    for name in names:
        assert any(selector.startswith(name) for selector in selectors), name


def test_what_is_offered_is_counted(tool: ModuleType) -> None:
    offered = tool.offered()
    assert {"addition", "normalization", "scatterND", "forLoop", "topK"} <= offered
    assert not {"LSTM", "fastFourierTransform", "inverse"} & offered
