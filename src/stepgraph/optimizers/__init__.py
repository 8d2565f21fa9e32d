"""Optimizers (``keras.optimizers``): how weights follow from gradients.

Example:
    >>> from stepgraph import optimizers
    >>> optimizers.get("adam").learning_rate
    0.001
"""

from __future__ import annotations

from typing import Any

from stepgraph.configs import resolve
from stepgraph.optimizers.adam import Adam as Adam
from stepgraph.optimizers.adam import AdamW as AdamW
from stepgraph.optimizers.base import Optimizer as Optimizer
from stepgraph.optimizers.rmsprop import RMSprop as RMSprop
from stepgraph.optimizers.sgd import SGD as SGD

# These build on the classes above.
from stepgraph.optimizers import legacy as legacy  # isort: skip
from stepgraph.optimizers import schedules as schedules  # isort: skip

CLASSES: tuple[type[Optimizer], ...] = (SGD, Adam, AdamW, RMSprop)

# Every name that `compile(optimizer=...)` takes.
TABLE: dict[str, type[Optimizer]] = {
    **{cls.__name__: cls for cls in CLASSES},
    **{cls.__name__.lower(): cls for cls in CLASSES},
    "legacy>SGD": legacy.SGD,
    "legacy>Adam": legacy.Adam,
    "legacy>RMSprop": legacy.RMSprop,
}


def get(identifier: Any) -> Any:
    """An optimizer from its name, config, class or itself."""
    return resolve("optimizer", identifier, TABLE)


def serialize(optimizer: Optimizer) -> dict[str, Any]:
    """Its class and config."""
    name = next((n for n, cls in TABLE.items() if cls is type(optimizer)), None)
    return {
        "class_name": name or type(optimizer).__name__,
        "config": optimizer.get_config(),
    }


deserialize = get
