"""Recorded messages as JSON lines, to be held against an SDK."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any

import numpy as np

from stepgraph.backends.mps.enums import constant_name
from stepgraph.backends.mps.messages import Data, Dictionary, List, Number
from stepgraph.backends.mps.recording import Message, RecordedBlock, Recording, Symbol

# Data up to this many bytes are written out.
_SHOWN_BYTES = 64


def lines(recording: Recording) -> Iterator[str]:
    """Every message of a recording, one JSON object each, in order.

    Each has ``graph`` (the program's name, ``"setup"`` before the first), ``kind``, ``receiver``
    (a class), ``selector``, ``args`` (a list of ``{"type", "value"}``) and, where an object is
    received or returned, ``object`` and ``returns``. Objects are written as ``%1``, ``%2``, ...
    """
    parts = {"setup": recording.setup}
    parts |= {name: part.messages for name, part in recording.programs.items()}
    for name, messages in parts.items():
        for message in messages:
            yield json.dumps({"graph": name, **_message(message)})


def _message(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kind": message.kind,
        "receiver": message.class_name,
        "selector": message.selector,
        "args": [_argument(a) for a in message.arguments],
    }
    if message.receiver is not None:
        found["object"] = str(message.receiver)
    if message.result is not None:
        found["returns"] = _argument(message.result)
    return found


def _argument(argument: Any) -> dict[str, Any]:
    return {"type": _type(argument), "value": _value(argument)}


def _type(argument: Any) -> str:
    if isinstance(argument, Symbol):
        return argument.class_name
    if isinstance(argument, List):
        return f"NSArray{_elements(argument.items)}"
    if isinstance(argument, Dictionary):
        keys = _elements([k for k, _ in argument.pairs])[1:-1]
        values = _elements([v for _, v in argument.pairs])[1:-1]
        return f"NSDictionary<{keys},{values}>" if argument.pairs else "NSDictionary"
    if isinstance(argument, RecordedBlock):
        return f"block({argument.block.returns}; {', '.join(argument.block.takes)})"
    if isinstance(argument, IntEnum):
        return type(argument).__name__
    for kind, name in _TYPES:
        if isinstance(argument, kind):
            return name
    raise TypeError(f"{argument!r} is no argument of a message")


_TYPES: tuple[tuple[type, str], ...] = (
    (type(None), "nil"),
    (str, "NSString"),
    (bool, "BOOL"),
    (int, "integer"),
    (float, "double"),
    (Number, "NSNumber"),
    (Data, "NSData"),
)


def _elements(items: Sequence[Any]) -> str:
    kinds = sorted({_type(item) for item in items})
    return f"<{kinds[0] if len(kinds) == 1 else 'id'}>" if kinds else ""


def _value(argument: Any) -> Any:
    if isinstance(argument, Symbol):
        return str(argument)
    if isinstance(argument, List):
        return [_value(item) for item in argument.items]
    if isinstance(argument, Dictionary):
        return [[_value(key), _value(value)] for key, value in argument.pairs]
    if isinstance(argument, RecordedBlock):
        return {
            "parameters": [_argument(p) for p in argument.parameters],
            "messages": [_message(m) for m in argument.messages],
            "result": None if argument.result is None else _argument(argument.result),
        }
    if isinstance(argument, IntEnum):
        return {"name": constant_name(argument), "value": int(argument)}
    if isinstance(argument, Number):
        return argument.value
    if isinstance(argument, Data):
        return _data(np.ascontiguousarray(argument.array))
    return argument


def _data(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    raw = array.tobytes()
    shown = {"hex": raw.hex()} if len(raw) <= _SHOWN_BYTES else {}
    return {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest(), **shown}
