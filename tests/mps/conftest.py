"""A session on a strict double, for tests that send messages themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mps.messages import Session, session


@pytest.fixture
def s() -> Iterator[Session]:
    with session() as opened:
        yield opened
