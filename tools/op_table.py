"""Writes docs/ops.md, the table of every op, from the definitions.

python tools/op_table.py          write the page
python tools/op_table.py --check  exit with 1 if it is out of date
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import ModuleType

import stepgraph as sg
from stepgraph.graph.definition import OpDefinition
from stepgraph.graph.ops import FAMILIES, OPS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "ops.md"
# Builders that Python's keywords keep from being named like their op.
BUILDERS = {"if": "if_", "for": "for_loop", "while": "while_loop"}

HEAD = """\
# Operations

Every op, by family: {count} in all. Each is a method of `Graph`, where its arguments are described
(`help(stepgraph.Graph.softmax)`); further methods are [composed of these](#compositions). How to
use them is in [The graph](graph.md), how to add one in [Adding an op](adding-an-op.md).

- *MPSGraph* is the selector that an op is named after; "-" where it is ours.
- *Gradient*: "yes" where the op has a rule; it builds ordinary operations, so it can be
  differentiated again. "discrete" where the gradient is zero almost everywhere and none flows
  back. Otherwise the reason why differentiating is refused.
- *Decomposition*: whether a device that cannot do the op itself can use simpler ones instead.

This page is written by `tools/op_table.py`; change the definitions, not the page.
"""


def summary(builder: object) -> str:
    """The first sentence of a docstring, on one line."""
    text = " ".join((inspect.getdoc(builder) or "").split("\n\n")[0].split())
    return text.partition(" Source: ")[0].replace("|", "\\|")


def builder_name(definition: OpDefinition) -> str:
    """The method of `Graph` that adds the op."""
    return BUILDERS.get(definition.name, definition.name)


def row(definition: OpDefinition) -> str:
    """An op's line of the table."""
    name = builder_name(definition)
    gradient = "yes" if definition.gradient else definition.not_differentiable or "-"
    selector = f"`{definition.mpsgraph}`" if definition.mpsgraph else "-"
    decomposition = "yes" if definition.decompose else "-"
    what = summary(getattr(sg.Graph, name))
    return f"| `{name}` | {what} | {selector} | {gradient} | {decomposition} |"


def public(family: ModuleType) -> list[OpDefinition]:
    """The ops of a family that have a builder; the parameters of blocks have none."""
    return [op for op in family.DEFINITIONS if hasattr(sg.Graph, builder_name(op))]


def section(family: ModuleType) -> str:
    """The heading, the first sentence and the table of a family."""
    title = family.__name__.rpartition(".")[2]
    lines = [f"## {title}", "", summary(family), ""]
    lines += ["| op | what it gives | MPSGraph | gradient | decomposition |"]
    lines += ["|---|---|---|---|---|", *map(row, public(family))]
    return "\n".join(lines) + "\n"


def compositions() -> str:
    """The builders of families that are no ops of their own."""
    taken = set(map(builder_name, OPS.values()))
    lines = ["## Compositions", "", "Methods of `Graph` that call the ones above.", ""]
    lines += ["| method | what it gives |", "|---|---|"]
    for name, builder in inspect.getmembers(sg.Graph, inspect.isfunction):
        module = builder.__module__
        if (
            not name.startswith("_")
            and name not in taken
            and module.startswith("stepgraph.graph.ops")
        ):
            lines.append(f"| `{name}` | {summary(builder)} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    families = sorted(FAMILIES, key=lambda family: family.__name__)
    count = sum(len(public(family)) for family in families)
    return "\n".join([HEAD.format(count=count), *map(section, families), compositions()])


def main() -> int:
    """Writes or checks the page."""
    new = page()
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if "--check" in sys.argv[1:]:
        if old != new:
            print(f"{PAGE.name} is out of date: run python tools/op_table.py")
        return int(old != new)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
