"""NSArray, NSDictionary, NSNumber, NSString, NSError, NSData: what the double answers for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from stepgraph.backends.mps.messages import Number

from .errors import need
from .objects import Object


def _at(o: Object, index: int) -> Any:
    need(index < len(o.items), f"index {index} is beyond an NSArray of {len(o.items)}")
    return o.items[index]


def _find(o: Object, key: Any) -> Any:
    return next((v for k, v in o.pairs if k is key or (isinstance(k, str) and k == key)), None)


ARRAY: dict[str, Callable[..., Any]] = {
    "count": lambda o: len(o.items),
    "objectAtIndex:": _at,
    "objectAtIndexedSubscript:": _at,
    "firstObject": lambda o: o.items[0] if o.items else None,
    "lastObject": lambda o: o.items[-1] if o.items else None,
    "containsObject:": lambda o, x: any(i is x for i in o.items),
}
DICTIONARY: dict[str, Callable[..., Any]] = {
    "count": lambda o: len(o.pairs),
    "objectForKey:": _find,
    "objectForKeyedSubscript:": _find,
    "allKeys": lambda o: [k for k, _ in o.pairs],
    "allValues": lambda o: [v for _, v in o.pairs],
}
NUMBER: dict[str, Callable[..., Any]] = {
    "intValue": lambda o: int(o.value),
    "longLongValue": lambda o: int(o.value),
    "integerValue": lambda o: int(o.value),
    "unsignedIntegerValue": lambda o: int(o.value),
    "doubleValue": lambda o: float(o.value),
    "floatValue": lambda o: float(np.float32(o.value)),
    "boolValue": lambda o: bool(o.value),
}
STRING: dict[str, Callable[..., Any]] = {
    "length": lambda o: len(o.text),
    "UTF8String": lambda o: o.text,
}
ERROR: dict[str, Callable[..., Any]] = {
    "domain": lambda o: "MTLCommandBufferErrorDomain",
    "code": lambda o: 1,
    "localizedDescription": lambda o: o.text,
    "localizedFailureReason": lambda o: None,
}
DATA: dict[str, Callable[..., Any]] = {"length": lambda o: o.bytes.size}


def wrap(value: Any) -> Object:
    """A Python value as the object that an SDK method would return."""
    if isinstance(value, Object):
        return value
    if isinstance(value, str):
        return Object("NSString", text=value)
    if isinstance(value, Number):
        return Object("NSNumber", value=value.value)
    if isinstance(value, list) and all(isinstance(v, tuple) for v in value) and value:
        return Object("NSDictionary", pairs=value)
    if isinstance(value, tuple) and all(type(v) is int for v in value):
        return Object("NSArray", items=[Number(v) for v in value])
    if isinstance(value, list):
        return Object("NSArray", items=value)
    raise AssertionError(f"the double returned {value!r}")
