"""The SDK's interface facts (tests/mps/sdk/interfaces.json), looked up."""

from __future__ import annotations

import functools
import json
import pathlib
from dataclasses import dataclass

FILE = pathlib.Path(__file__).parent.parent / "sdk" / "interfaces.json"


@dataclass(frozen=True)
class Method:
    """One method or function: types in the SDK's spelling, "?" behind what may be nil."""

    kind: str
    family: str
    returns: str
    takes: tuple[str, ...]

    @property
    def owned(self) -> bool:
        """Whether its result belongs to the caller."""
        return self.family in ("new", "copy", "mutableCopy", "init")


@functools.cache
def facts() -> dict:
    return json.loads(FILE.read_text("utf-8"))


@functools.cache
def _parsed(text: str) -> Method:
    head, returns, *takes = text.split("|")
    kind, _, family = head.partition(" ")
    return Method(kind, family, returns, tuple(takes))


def is_class(name: str) -> bool:
    return name in facts()["classes"]


@functools.cache
def lineage(name: str) -> tuple[str, ...]:
    """A class and those above it, as far as they are listed."""
    found = []
    while name in facts()["classes"]:
        found.append(name)
        name = facts()["classes"][name]["super"]
    return (*found, name) if name else tuple(found)


@functools.cache
def protocols_of(name: str) -> frozenset[str]:
    """The protocols a class (or a protocol) conforms to, with those they inherit from."""
    waiting = [p for c in lineage(name) for p in facts()["classes"].get(c, {}).get("protocols", ())]
    if name in facts()["protocols"]:
        waiting = [name]
    found: set[str] = set()
    while waiting:
        protocol = waiting.pop()
        if protocol not in found:
            found.add(protocol)
            waiting += facts()["protocols"].get(protocol, {}).get("inherits", ())
    return frozenset(found)


@functools.cache
def method(class_name: str, protocols: tuple[str, ...], selector: str, kind: str) -> Method | None:
    """What a class, or an object of it that has further protocols, answers to a selector."""
    classes = [facts()["classes"].get(c, {}) for c in lineage(class_name)]
    if any(kind + selector in c.get("unavailable", ()) for c in classes[:1]):
        return None
    every = set(protocols_of(class_name)).union(*(protocols_of(p) for p in protocols))
    for holder in (*classes, *(facts()["protocols"].get(p, {}) for p in sorted(every))):
        text = holder.get("methods", {}).get(selector)
        if text is not None and _parsed(text).kind == kind:
            return _parsed(text)
    return None


def function(name: str) -> Method | None:
    text = facts()["functions"].get(name)
    return _parsed(text) if text is not None else None


def enum(name: str) -> dict | None:
    return facts()["enums"].get(name)


def value(name: str) -> int:
    """The value of an enum's constant, by its name."""
    for e in facts()["enums"].values():
        if name in e["values"]:
            return e["values"][name]
    raise KeyError(name)
