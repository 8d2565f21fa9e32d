"""What tests of whole graphs share."""

from __future__ import annotations

import pytest

import stepgraph as sg


@pytest.fixture(params=["reference", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    """Every device of which the semantics of graphs are tested."""
    reason = sg.devices()[request.param]
    if reason.startswith("not available"):
        pytest.skip(f"{request.param}: {reason}")
    return request.param
