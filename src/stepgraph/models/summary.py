"""A model as a table of text."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stepgraph.errors import GraphError, describe
from stepgraph.layers import InputLayer, Layer

if TYPE_CHECKING:
    from stepgraph.models.model import Model


def summary(
    model: Model,
    line_length: int | None,
    print_fn: Callable[[str], Any] | None,
    expand_nested: bool = False,
    show_trainable: bool = False,
) -> None:
    """What `Model.summary` does."""
    if not model.is_ready():
        raise GraphError(
            describe(
                f"model '{model.name}'",
                "is not built, so its shapes are unknown",
                fix="begin with layers.Input(shape=...), or call model.build((None, ...))",
            )
        )
    write = print_fn or (lambda line: sys.stdout.write(line + "\n"))
    straight = _is_straight(model)
    width = line_length or (65 if straight else 98)
    parts = (0.45, 0.85, 1.0) if straight else (0.33, 0.55, 0.67, 1.0)
    ends = [int(width * part) for part in parts]
    head = ["Layer (type)", "Output Shape", "Param #"] + ([] if straight else ["Connected to"])
    write(f'Model: "{model.name}"')
    write("_" * width)
    write(_row(head, ends))
    write("=" * width)
    for layer, level in _listed(model, expand_nested):
        cells = [
            f"{'  ' * level}{layer.name} ({type(layer).__name__})",
            _shape(layer),
            f"{layer.count_params()}",
        ]
        if not straight:
            cells.append(_sources(model, layer))
        if show_trainable:
            cells[0] += " T" if layer.trainable else " -"
        for line in _wrapped(cells, ends):
            write(line)
    write("=" * width)
    trained = sum(weight.size for weight in model.trainable_weights)
    other = sum(weight.size for weight in model.non_trainable_weights)
    for what, count in (
        ("Total", trained + other),
        ("Trainable", trained),
        ("Non-trainable", other),
    ):
        write(f"{what} params: {count:,}")
    write("_" * width)


def _listed(model: Any, expand: bool, level: int = 0) -> list[tuple[Layer, int]]:
    found: list[tuple[Layer, int]] = []
    for layer in model.layers:
        found.append((layer, level))
        if expand and hasattr(layer, "network"):
            found += _listed(layer, expand, level + 1)
    return found


def _is_straight(model: Model) -> bool:
    """Whether every layer has one input and is used once, so that the order says it all."""
    nodes = model.network.nodes
    used: set[int] = set()
    for node in nodes:
        if len(node.inputs) > 1 or any(id(t) in used for t in node.inputs):
            return False
        used.update(id(t) for t in node.inputs)
    return len({node.layer for node in nodes}) == len(nodes)


def _shape(layer: Layer) -> str:
    if not layer.nodes:
        return "?"
    shapes = [tensor.shape for tensor in layer.nodes[0].outputs]
    text = str(shapes[0]) if len(shapes) == 1 else str(shapes)
    return f"[{text}]" if isinstance(layer, InputLayer) else text


def _sources(model: Model, layer: Layer) -> str:
    names = [
        tensor.name for node in model.network.nodes if node.layer is layer for tensor in node.inputs
    ]
    return ", ".join(names)


def _row(cells: list[str], ends: list[int]) -> str:
    line = ""
    for cell, end in zip(cells, ends, strict=True):
        line = (line + cell)[: end - 1].ljust(end)
    return line.rstrip()


def _wrapped(cells: list[str], ends: list[int]) -> list[str]:
    """Rows in which long cells go on below instead of being cut."""
    widths = [end - start - 1 for start, end in zip([0, *ends], ends, strict=False)]
    pieces = [
        [cell[i : i + width] for i in range(0, len(cell), width)] or [""]
        for cell, width in zip(cells, widths, strict=True)
    ]
    height = max(map(len, pieces))
    rows = [[piece[i] if i < len(piece) else "" for piece in pieces] for i in range(height)]
    return [_row(row, ends) for row in rows]
