"""``stepgraph devices``."""

from __future__ import annotations

import click

from stepgraph.cli import output
from stepgraph.cli.options import json_option


@click.command("devices")
@click.option(
    "--quirks",
    is_flag=True,
    help="List the known faults of Apple's framework instead, and how each is gone around.",
)
@json_option
def command(quirks: bool, as_json: bool) -> None:
    """List the devices that can train here, and why others cannot."""
    if quirks:
        _print_quirks(as_json)
        return
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


def _print_quirks(as_json: bool) -> None:
    from stepgraph.backends.mps.device import DEVICE
    from stepgraph.backends.mps.quirks import QUIRKS

    here = None if DEVICE.unavailable() else DEVICE.session().version
    for quirk in QUIRKS.values():
        applies = None if here is None else quirk.applies(here)
        if as_json:
            output.emit(
                "quirk",
                name=quirk.name,
                ops=list(quirk.ops),
                what=quirk.what,
                around=quirk.around,
                how=quirk.how,
                systems=quirk.systems,
                source=quirk.source,
                here=applies,
            )
            continue
        where = "" if applies is None else ", here too" if applies else ", not here"
        print(f"{quirk.name} ({quirk.how}; systems: {quirk.systems}{where})")
        if quirk.ops:
            print(f"  ops:    {', '.join(quirk.ops)}")
        print(f"  fault:  {quirk.what}")
        print(f"  around: {quirk.around}")
        print(f"  source: {quirk.source}")
