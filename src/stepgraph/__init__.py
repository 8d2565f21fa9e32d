"""Train neural networks on the device at hand: the whole training step as one compiled graph."""

import importlib as _importlib
from typing import Any as _Any

from stepgraph.backends.base import devices as devices
from stepgraph.backends.executable import Executable as Executable
from stepgraph.backends.executable import ExecutionDescriptor as ExecutionDescriptor
from stepgraph.backends.executable import compile_graph as _compile_graph
from stepgraph.backends.executable import state_of as _state_of
from stepgraph.graph import Graph as Graph
from stepgraph.graph import Operation as Operation
from stepgraph.graph import Tensor as Tensor
from stepgraph.graph import Variable as Variable
from stepgraph.graph import graph as _graph
from stepgraph.version import __version__ as __version__

# A graph knows no device; here, where both are known, they are introduced.
_graph._compile_hook = _compile_graph
_graph._state_hook = _state_of

# Parts that are imported when first used: `stepgraph.layers`, `stepgraph.Model`, ...
_PARTS = (
    "activations",
    "applications",
    "callbacks",
    "datasets",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "regularizers",
    "schedules",
    "utils",
    "verification",
)
_SHORTCUTS = {
    "Input": "layers",
    "Model": "models",
    "Sequential": "models",
    "verify": "verification",
}


def __getattr__(name: str) -> _Any:
    if name in _PARTS:
        return _importlib.import_module(f"{__name__}.{name}")
    if name in _SHORTCUTS:
        return getattr(_importlib.import_module(f"{__name__}.{_SHORTCUTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PARTS, *_SHORTCUTS})
