"""What every screen is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import toga

from stepgraph.runs.live import View
from stepgraph_demo.widgets import GAP, Look, column, row

if TYPE_CHECKING:
    from stepgraph_demo.app import Demo


class Screen:
    """Content of the window.

    Args:
        app: whose.
    """

    title = ""

    def __init__(self, app: Demo) -> None:
        self.app = app

    def build(self, look: Look, wide: bool, height: float) -> toga.Widget:
        """Makes the content.

        Args:
            look: colours and sizes.
            wide: whether two columns fit beside each other.
            height: of the window, in points.
        """
        raise NotImplementedError

    def refresh(self, view: View | None) -> None:
        """Shows the present moment; called often."""


def page(look: Look, *children: toga.Widget) -> toga.ScrollContainer:
    """Things below each other, to be scrolled where the window is too low for them."""
    inner = column(*children, margin=GAP + 4, flex=1)
    inner.style.background_color = look.colours.paper
    made = toga.ScrollContainer(content=inner, horizontal=False)
    made.style.flex = 1
    made.style.background_color = look.colours.paper
    return made


def beside(wide: bool, *children: toga.Widget, **style: Any) -> toga.Box:
    """Things beside each other where that fits, else below each other."""
    if not wide:
        return column(*children, **style)
    return row(*children, align_items="start", **style)
