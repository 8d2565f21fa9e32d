"""Modules found again by what they are made of, without writing their IR.

Writing a module's IR takes milliseconds, for a network's modules together nearly half a second, and
where the object has been compiled before it serves only to look that up. So the cache holds a
*note* beside each object, under a key of all that decides the IR: the module's own key (family and
spec), the target, and the text of this engine's sources. A note says which object it is and how its
kernels' arguments lie. Where anything is missing or odd, the IR is written and compiled as ever.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepgraph.backends.cpu.native import cache
from stepgraph.backends.cpu.native.announce import announce
from stepgraph.backends.cpu.native.compile import Library, Progress, compiled, load, object_key
from stepgraph.backends.cpu.native.emit import Arguments, Module
from stepgraph.backends.cpu.native.target import Target, host_target
from stepgraph.backends.cpu.native.value import f32, f64, i64

Layouts = dict[str, Arguments]

# How `Arguments.pack` tells fields apart; an address is packed like an integer.
_KINDS = {"f32": f32, "f64": f64, "i64": i64}


def fetch(
    key: Any,
    make: Callable[[], Module],
    *,
    target: Target | None = None,
    progress: Progress = announce,
) -> tuple[Layouts, Library]:
    """A module's kernels, loaded: recalled, or else made, compiled and noted.

    Args:
        key: decides, with the target and this engine's sources, what `make` makes: numbers,
            strings, tuples and dataclasses of them.
        make: writes the module.
        target: the processor; this machine by default.
        progress: as for `compile.build`.

    Returns:
        Argument layouts of the kernels by name, and the library with their addresses.
    """
    target = target or host_target()
    name = note_name(key, target)
    found = _recall(name) if name is not None else None
    if found is None:
        module = make()
        text = str(module)
        found = dict(module.kernels), compiled(text, target, progress=progress)
        if name is not None:
            cache.store(name, _note(module.kernels, object_key(text, target)))
    layouts, image = found
    return layouts, load(image, layouts)


def note_name(key: Any, target: Target) -> str | None:
    """The cache's name for a module's note; None if the key or the sources cannot be spelled."""
    sources = _sources()
    try:
        return cache.key("note", sources, spelled(target), spelled(key)) if sources else None
    except TypeError:
        return None


def spelled(value: Any) -> str:
    """A text that two values share only if they are equal.

    Raises:
        TypeError: it is neither plain nor made of plain values.

    Example:
        >>> spelled(("nest", 2.0, (True, None)))
        "('nest',2.0,(True,None,),)"
    """
    if value is None or isinstance(value, str | int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return "(" + "".join(f"{spelled(v)}," for v in value) + ")"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = (f"{f.name}={spelled(getattr(value, f.name))}," for f in dataclasses.fields(value))
        return f"{type(value).__qualname__}({''.join(parts)})"
    raise TypeError(f"cannot spell a {type(value).__name__}")


@functools.cache
def _sources() -> str:
    """A digest of the engine's sources, which decide what a key makes; empty if there are none."""
    digest = hashlib.sha256()
    try:
        for path in sorted(Path(__file__).parents[1].rglob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    except OSError:
        return ""
    return digest.hexdigest()


def _note(kernels: Layouts, key: str) -> bytes:
    names = {id(type_): name for name, type_ in _KINDS.items()}
    fields = {
        kernel: {field: names.get(id(type_), "i64") for field, type_ in layout.fields.items()}
        for kernel, layout in kernels.items()
    }
    return json.dumps({"object": key, "kernels": fields}).encode()


def _recall(name: str) -> tuple[Layouts, bytes] | None:
    note = cache.load(name)
    if note is None:
        return None
    try:
        found = json.loads(note)
        image = cache.load(found["object"])
        layouts = {
            kernel: Arguments({field: _KINDS[kind] for field, kind in fields.items()})
            for kernel, fields in found["kernels"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return (layouts, image) if image is not None else None
