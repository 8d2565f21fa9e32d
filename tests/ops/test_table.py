"""The generated page of ops says what the definitions say."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.tools import load_tool


@pytest.fixture
def tool() -> ModuleType:
    return load_tool("op_table")


def test_page_is_up_to_date(tool: ModuleType) -> None:
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page(), "run python tools/op_table.py"


def test_check_notices_a_change(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["op_table.py", "--check"])
    assert tool.main() == 0
    monkeypatch.setattr(tool, "PAGE", tmp_path / "ops.md")
    tool.PAGE.write_text(tool.page().replace("discrete", "yes", 1), encoding="utf-8")
    assert tool.main() == 1
