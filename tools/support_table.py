"""Writes docs/support.md: what runs where, how it is said to MPSGraph, and what is not offered.

python tools/support_table.py          write the page
python tools/support_table.py --check  exit with 1 if it is out of date
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import stepgraph as sg
from stepgraph.backends.cpu import lowering as _cpu_lowering  # noqa: F401  (fills the table)
from stepgraph.backends.cpu.device import SPELLED_OUT as CPU_SPELLED_OUT
from stepgraph.backends.cpu.kernels.scalar_ops import SCALARS, emitter
from stepgraph.backends.cpu.registry import LOWERINGS as CPU_LOWERINGS
from stepgraph.backends.cpu.rewrites import SPELLED_OUT as CPU_REWRITTEN
from stepgraph.backends.mps.device import lowered_program
from stepgraph.backends.mps.lowering import BUILT_IN, DECOMPOSED, LOWERINGS
from stepgraph.backends.mps.lowering.table import DEVICE_LIMITS
from stepgraph.backends.mps.recording import Message, RecordedBlock, record
from stepgraph.backends.mps.session import MINIMUM
from stepgraph.graph.definition import OpDefinition, Sample
from stepgraph.graph.ops import FAMILIES

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "support.md"
# Every family of MPSGraph's operations, by header: the selectors that begin alike.
NAMES = ROOT / "tools" / "mpsgraph_families.json"
BUILDERS = {"if": "if_", "for": "for_loop", "while": "while_loop"}
# Messages that every operation may need, and that say nothing about it.
_COMMON = (
    "placeholder",
    "constant",
    "reshape",
    "objectAtIndex",
    "addObject",
    "identity",
    "compile",
)

HEAD = """\
# What runs where

Three devices run every op: `reference` by its NumPy meaning, `cpu` by kernels of our own, `mps` on
Apple's GPUs through MPSGraph. This page says how; it is written by `tools/support_table.py` from
the tables that the devices themselves go by. Change those, not the page.

- *cpu*: "kernel" is compiled for this processor; "fused" is an element-by-element op, compiled
  together with its neighbours; "spelt out" is made of other ops, which fuse; "NumPy" runs the
  reference; "blocks" is control flow.
- *mps*: the MPSGraph operations that an op is said in, as its first sample is lowered for the
  newest system; or why it is spelt out in other ops of stepgraph instead.
- *limits of mps*: what is refused when a graph is compiled, with its reason.
"""


def builder_name(definition: OpDefinition) -> str:
    """The method of `Graph` that adds the op."""
    return BUILDERS.get(definition.name, definition.name)


def stem(selector: str) -> str:
    """The family's part of a selector: ``additionWithPrimaryTensor:...`` is ``addition``."""
    first = selector.partition(":")[0]
    known = [name for names in families().values() for name in names if first.startswith(name)]
    if not known:
        return first
    name = max(known, key=len)
    gradient = re.match(r"(Data|Weights|Gamma|Beta)?Gradient", first[len(name) :])
    return name + (gradient[0] if gradient else "")


def families() -> dict[str, list[str]]:
    """MPSGraph's families by header."""
    found: dict[str, list[str]] = json.loads(NAMES.read_text(encoding="utf-8"))
    return found


def first_sample(definition: OpDefinition) -> Sample | None:
    """A correct use of an op."""
    if definition.samples is None:
        return None
    rng = np.random.default_rng(zlib.crc32(definition.name.encode()))
    return next(iter(definition.samples(rng)))


def built(definition: OpDefinition, sample: Sample) -> tuple[sg.Graph, list[Any], list[Any]]:
    """A graph of one sample: (graph, placeholders, outputs)."""
    graph = sg.Graph(definition.name)
    placeholders: list[Any] = []

    def fed(array: Any) -> Any:
        placeholders.append(graph.placeholder(array.shape, array.dtype))
        return placeholders[-1]

    def operand(item: Any) -> Any:
        if isinstance(item, np.ndarray):
            return fed(item)
        if isinstance(item, list | tuple) and item and isinstance(item[0], np.ndarray):
            return [fed(a) for a in item]
        return item

    made = getattr(graph, builder_name(definition))(
        *map(operand, sample.inputs), **sample.arguments
    )
    return graph, placeholders, [made] if isinstance(made, sg.Tensor) else list(made)


def messages(found: list[Message]) -> Iterator[str]:
    """Selectors sent to the graph, those inside blocks included."""
    for message in found:
        if message.class_name == "MPSGraph" and message.kind == "instance":
            yield message.selector
        for argument in message.arguments:
            if isinstance(argument, RecordedBlock):
                yield from messages(argument.messages)


def said(definition: OpDefinition) -> str:
    """How an op is said to MPSGraph."""
    if definition.name in DECOMPOSED:
        return f"spelt out: {DECOMPOSED[definition.name]}"
    if definition.name in BUILT_IN:
        return BUILT_IN[definition.name]
    sample = first_sample(definition)
    if sample is None:
        return CONTROL[definition.name]
    graph, placeholders, outputs = built(definition, sample)
    program = lowered_program(graph, {p: p.shape for p in placeholders}, outputs, ())
    recording = record({"op": program}, {})
    stems = [stem(s) for s in messages(recording.programs["op"].messages)]
    names = list(dict.fromkeys(s for s in stems if not s.startswith(_COMMON)))
    names = names or [stem(definition.mpsgraph)]
    return ", ".join(f"`{name}`" for name in names)


# Ops whose samples are not values but programs.
CONTROL = {
    "if": "both branches and `select`, or `if`",
    "for": "`forLoop`",
    "while": "`while`",
}


def on_cpu(definition: OpDefinition) -> str:
    """How the CPU runs an op."""
    if definition.name in BUILT_IN:
        return "memory"
    if definition.has_regions:
        return "blocks"
    if definition.name in (*CPU_SPELLED_OUT, *CPU_REWRITTEN):
        return "spelt out"
    if definition.name in CPU_LOWERINGS:
        return "kernel"
    if definition.elementwise and any(emitter(definition.name, (d,)) for d in SCALARS):
        return "fused"
    return "spelt out" if definition.shape_only and definition.decompose else "NumPy"


def limits(definition: OpDefinition) -> str:
    """What an op cannot do on the GPU, and remarks."""
    lowering = LOWERINGS.get(definition.name)
    if lowering is None:
        return ""
    parts = [f"{limit.what}: {limit.reason}" for limit in lowering.limits]
    return "; ".join(parts)


def note(definition: OpDefinition) -> str:
    """What is special about an op on the GPU."""
    lowering = LOWERINGS.get(definition.name)
    return lowering.note if lowering else ""


def row(definition: OpDefinition) -> str:
    """An op's line."""
    how = said(definition)
    if remark := note(definition):
        how = f"{how} ({remark})"
    cells = (f"`{builder_name(definition)}`", on_cpu(definition), how, limits(definition))
    return "| " + " | ".join(cell.replace("|", "\\|") or "-" for cell in cells) + " |"


def section(family: ModuleType) -> str:
    """A family's table."""
    title = family.__name__.rpartition(".")[2]
    lines = [f"## {title}", "", "| op | cpu | mps | limits of mps |", "|---|---|---|---|"]
    return "\n".join([*lines, *map(row, public(family))]) + "\n"


def public(family: ModuleType) -> list[OpDefinition]:
    """The ops of a family that have a builder."""
    return [op for op in family.DEFINITIONS if hasattr(sg.Graph, builder_name(op))]


def offered() -> set[str]:
    """Families of MPSGraph that an op, or a method of `Graph`, names as its source."""
    selectors = [op.mpsgraph for family in FAMILIES for op in family.DEFINITIONS if op.mpsgraph]
    for _, method in inspect.getmembers(sg.Graph):
        selectors += re.findall(r"``([A-Za-z0-9]+:[^`]*)``", inspect.getdoc(method) or "")
    every = [name for names in families().values() for name in names]
    found = set()
    for selector in selectors:
        fitting = [name for name in every if selector.startswith(name)]
        if fitting:
            found.add(max(fitting, key=len))
    return found


def share() -> str:
    """How much of MPSGraph there is."""
    have, every = offered(), families()
    count = sum(map(len, every.values()))
    lines = ["## MPSGraph's operations", ""]
    lines += [
        f"stepgraph offers {len(have)} of MPSGraph's {count} families of operations "
        f"({100 * len(have) / count:.0f}%); a family is all",
        "selectors that begin alike, its gradients included.",
        "",
        "| header | offered | not offered |",
        "|---|---|---|",
    ]
    for header, names in every.items():
        missing = ", ".join(f"`{n}`" for n in names if n not in have) or "-"
        there = sum(n in have for n in names)
        lines.append(f"| {header} | {there} of {len(names)} | {missing} |")
    return "\n".join(lines) + "\n"


def device_limits() -> str:
    """What no op can do on the GPU."""
    lines = ["## Limits of every op on mps", "", f"Systems: {MINIMUM} or newer.", ""]
    lines += ["| limit | reason | source |", "|---|---|---|"]
    lines += [f"| {limit.what} | {limit.reason} | {limit.source} |" for limit in DEVICE_LIMITS]
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    ordered = sorted(FAMILIES, key=lambda family: family.__name__)
    counts = count_line()
    return "\n".join([HEAD, counts, device_limits(), *map(section, ordered), share()])


def count_line() -> str:
    """One sentence of numbers."""
    every = [op for family in FAMILIES for op in public(family)]
    lowered = sum(op.name in LOWERINGS for op in every)
    spelt = sum(op.name in DECOMPOSED for op in every)
    return (
        f"Of {len(every)} ops {lowered} have a lowering for MPSGraph, {spelt} are spelt out in "
        f"those, and {len(every) - lowered - spelt} are memory.\n"
    )


def main() -> int:
    """Writes or checks the page."""
    new = page()
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if "--check" in sys.argv[1:]:
        if old != new:
            print(f"{PAGE.name} is out of date: run python tools/support_table.py")
        return int(old != new)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
