"""The benchmarks' PyTorch twins, for the tests that compare with them."""

from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def twins(torch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`benchmarks/twins.py`; the test is skipped where PyTorch is not installed."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return __import__("twins")


@pytest.fixture
def parity(torch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`benchmarks/parity.py`; likewise."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return __import__("parity")
