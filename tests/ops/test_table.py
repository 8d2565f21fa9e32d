"""The generated page of ops says what the definitions say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("op_table", ROOT / "tools" / "op_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
