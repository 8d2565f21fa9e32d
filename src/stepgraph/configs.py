"""Objects as plain dictionaries and back: what a saved model says about its parts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from stepgraph.errors import GraphError, UnsupportedError, describe, nearest
from stepgraph.graph.dtypes import DType
from stepgraph.utils import CUSTOM_OBJECTS


class Configurable:
    """An object made of what its constructor was given, which it keeps under the same names."""

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values."""
        names = constructor_arguments(type(self))
        return {name: plain(getattr(self, name)) for name in names}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """The object that `get_config` described."""
        return cls(**config)


def constructor_arguments(cls: type) -> list[str]:
    """Names that the constructors of a class and its bases take, own ones first."""
    names: dict[str, None] = {}
    for base in cls.__mro__:
        init = base.__dict__.get("__init__")
        if init is None:
            continue
        parameters = inspect.signature(init).parameters.values()
        for parameter in list(parameters)[1:]:
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                names.setdefault(parameter.name)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return list(names)


def plain(value: Any) -> Any:
    """A value as JSON can hold it; objects with a config become ``{class_name, config}``."""
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, DType):
        return value.name
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "get_config"):
        return {"class_name": type(value).__name__, "config": value.get_config()}
    name = getattr(value, "__name__", None)
    if name and name != "<lambda>":
        return name
    raise UnsupportedError(
        describe(
            "get_config",
            f"{value!r} cannot be written down",
            expected="numbers, strings, or an object with get_config()",
            fix="give a named function or a class",
        )
    )


def resolve(what: str, identifier: Any, table: Mapping[str, Any], **given: Any) -> Any:
    """An object from its name, its config, its class, or itself.

    Args:
        what: the kind of thing, for messages.
        identifier: name, ``{class_name, config}``, class or object.
        table: name to class or function.
        **given: arguments for a class named by a string.

    Raises:
        GraphError: a config names a class that nobody knows.
        ValueError: the name is unknown.
    """
    if isinstance(identifier, Mapping):
        cls = lookup(what, str(identifier["class_name"]), table)
        return cls.from_config(identifier.get("config", {}))
    if isinstance(identifier, str):
        found = lookup(what, identifier, table)
        return found(**given) if inspect.isclass(found) else found
    return identifier(**given) if inspect.isclass(identifier) else identifier


def lookup(what: str, name: str, table: Mapping[str, Any]) -> Any:
    """The entry of that name, the user's registered ones included."""
    found = CUSTOM_OBJECTS.get(name, table.get(name))
    if found is None:
        raise GraphError(
            describe(
                what,
                f"no {what} '{name}'",
                fix=nearest(name, [*table, *CUSTOM_OBJECTS])
                + "; register your own with utils.register_keras_serializable",
            )
        )
    return found
