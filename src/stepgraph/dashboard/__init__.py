"""A page that shows a run while it trains, for people without a screen at the machine.

`Dashboard` serves what a `stepgraph.runs.live.Live` sees: one page without anything from elsewhere,
and the view as JSON, which the page asks for twice a second.
"""

from stepgraph.dashboard.server import Dashboard, parse_address

__all__ = ["Dashboard", "parse_address"]
