"""Small pieces that all screens are put together of."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import toga
from toga.style import Pack

from stepgraph_demo.drawing import Palette, Pen

GAP = 12
"""Points between things."""

WIDE = 760
"""From how many points on two columns stand beside each other."""


_LETTER = 0.72
"""A letter's mean width, in font sizes; wide fonts included."""


class Look:
    """How this screen's things look: colours, and how large words are."""

    def __init__(self, colours: Palette, scale: float, width: float) -> None:
        self.colours = colours
        self.scale = scale
        self.width = width

    def wrap(self, text: str, size: float = 13) -> str:
        """Words in lines that fit the window; labels do not break lines by themselves."""
        letter = size * self.scale * _LETTER
        return textwrap.fill(text, max(int((self.width - 4 * GAP) / letter), 10))

    def words(
        self,
        text: str = "",
        size: float = 13,
        bold: bool = False,
        faint: bool = False,
        **style: Any,
    ) -> toga.Label:
        """A label, its words in lines that fit the window."""
        colour = self.colours.faint if faint else self.colours.ink
        return toga.Label(
            self.wrap(text, size),
            style=Pack(
                font_size=round(size * self.scale),
                font_weight="bold" if bold else "normal",
                color=colour,
                **style,
            ),
        )

    def button(
        self, text: str, press: Callable[..., Any], enabled: bool = True, **style: Any
    ) -> toga.Button:
        """A button."""
        return toga.Button(
            text,
            on_press=press,
            enabled=enabled,
            style=Pack(font_size=round(13 * self.scale), **style),
        )

    def choice(
        self,
        items: Sequence[str],
        value: str,
        change: Callable[..., Any] | None = None,
        id: str = "",
    ) -> toga.Selection:
        """A selection."""
        made = toga.Selection(
            id=id or None,
            items=list(items),
            value=value,
            style=Pack(font_size=round(13 * self.scale), flex=1),
        )
        made.on_change = change
        return made

    def field(self, name: str, widget: toga.Widget) -> toga.Box:
        """A named widget: the name above it, so that both fit a narrow screen."""
        return column(self.words(name, 12, faint=True), row(widget), gap=2)

    def drawn(self, draw: Callable[[Pen], None], height: int, **style: Any) -> Drawn:
        """A canvas."""
        return Drawn(draw, self, height, **style)


def column(*children: toga.Widget, gap: int = GAP, **style: Any) -> toga.Box:
    """Things below each other."""
    return toga.Box(children=children, style=Pack(direction="column", gap=gap, **style))


def row(*children: toga.Widget, gap: int = GAP, **style: Any) -> toga.Box:
    """Things beside each other."""
    style.setdefault("align_items", "center")
    return toga.Box(children=children, style=Pack(direction="row", gap=gap, **style))


class Drawn(toga.Canvas):
    """A canvas that knows how it is drawn, and is drawn again when its size changes.

    Attributes:
        times: how often it was drawn.
    """

    def __init__(self, draw: Callable[[Pen], None], look: Look, height: int, **style: Any) -> None:
        self._draw = draw
        self._look = look
        self._extent = (0.0, 0.0)
        self._key: object = None
        self.times = 0
        super().__init__(style=Pack(height=height, flex=1, **style), on_resize=self._resized)

    def show(self, key: object) -> None:
        """Draws again if what is shown, which `key` stands for, has changed."""
        if key != self._key:
            self._key = key
            self._again()

    def _resized(self, widget: toga.Canvas, width: float, height: float, **_: Any) -> None:
        if (width, height) != self._extent:
            self._extent = (width, height)
            self._again()

    def _again(self) -> None:
        width, height = self._extent
        if width < 1 or height < 1:
            return
        pen = Pen(self, width, height, self._look.colours, self._look.scale)
        self._draw(pen)
        pen.done()
        self.times += 1
