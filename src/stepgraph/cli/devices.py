"""``stepgraph devices``."""

from __future__ import annotations

import click

from stepgraph.cli import output
from stepgraph.cli.options import json_option


@click.command("devices")
@json_option
def command(as_json: bool) -> None:
    """List the devices that can train here, and why others cannot."""
    from stepgraph import devices
    from stepgraph.runs.device import choose

    found = devices()
    chosen, _ = choose(None)
    if as_json:
        for name, about in found.items():
            usable = _available(about)
            output.emit("device", name=name, about=about, usable=usable, default=name == chosen)
        return
    rows = [
        (name, "default" if name == chosen else "yes" if _available(about) else "no", about)
        for name, about in found.items()
    ]
    output.table(("device", "usable", "about"), rows)


def _available(about: str) -> bool:
    return not about.startswith("not available")
