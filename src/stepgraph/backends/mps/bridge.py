"""The one place that knows rubicon-objc."""

from __future__ import annotations

import importlib.util
import sys

from stepgraph.backends.mps.messages import Bridge
from stepgraph.errors import UnsupportedError, describe

PLATFORMS = ("darwin", "ios")


def unavailable() -> str | None:
    """Why the framework cannot be reached from here; None when it can."""
    if sys.platform not in PLATFORMS:
        return "MPSGraph exists on macOS and iOS only"
    if importlib.util.find_spec("rubicon") is None:
        return "the package rubicon-objc is missing: pip install rubicon-objc"
    return None


def connect() -> Bridge:
    """The bridge to the frameworks of this machine."""
    raise UnsupportedError(describe("mps", "not yet"))
