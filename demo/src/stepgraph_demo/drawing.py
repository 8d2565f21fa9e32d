"""What the app draws itself: charts, pictures with their classes, a confusion matrix.

Everything is drawn on a `toga.Canvas`, in its own points, in colours that can be told apart without
seeing colours, and with words and marks where colour would be the only difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import toga
from numpy.typing import NDArray
from PIL import Image
from toga.constants import Baseline
from toga.fonts import SANS_SERIF, Font

from stepgraph.runs.live import Shown


@dataclass(frozen=True)
class Palette:
    """Colours of a light or a dark screen.

    Attributes:
        paper: behind everything.
        card: behind a chart.
        ink: words and numbers.
        faint: axes' names, secondary words.
        line: grid and borders.
        first: the main curve. Blue: told from `second` by everybody.
        second: the other curve. Orange.
        pale: what is behind the main curve (not smoothed).
    """

    paper: str
    card: str
    ink: str
    faint: str
    line: str
    first: str
    second: str
    pale: str


LIGHT = Palette(
    "#f5f6f8", "#ffffff", "#1b1f24", "#5b6470", "#dfe3e8", "#0b63ce", "#c2570c", "#b9d4f4"
)
DARK = Palette(
    "#15181c", "#1f2329", "#f0f2f5", "#a3acb8", "#363c45", "#6cb0ff", "#ff9f5a", "#2f4a6b"
)


def palette(dark: bool | None) -> Palette:
    """The colours for a dark screen, or a light one."""
    return DARK if dark else LIGHT


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        xs: where.
        ys: how much.
        colour: of the line.
        name: in the legend; "" for none.
        width: of the line.
        dots: whether each point is marked.
    """

    xs: Sequence[float]
    ys: Sequence[float]
    colour: str
    name: str = ""
    width: float = 2
    dots: bool = False


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, at most `most` of them.

    Example:
        >>> ticks(0, 0.9)
        [0.0, 0.2, 0.4, 0.6000000000000001, 0.8]
        >>> ticks(0, 880)
        [0.0, 200.0, 400.0, 600.0, 800.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / max(most - 1, 1)
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(
        (m * scale for m in (1, 2, 2.5, 5, 10) if (high - low) / (m * scale) <= most), 10 * scale
    )
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A tick's words: as few digits as tell it.

    Example:
        >>> number(0.6000000000000001), number(2500), number(0), number(0.025)
        ('0.6', '2,500', '0', '0.025')
    """
    return f"{value:,.0f}" if abs(value) >= 10 or value == 0 else f"{value:.3g}"


class Pen:
    """A canvas, cleared, with the few strokes that everything here is made of.

    Args:
        canvas: to draw on.
        width: of it, in points.
        height: likewise.
        colours: of the screen.
        scale: of all words; 1 is 11 points.
    """

    def __init__(
        self, canvas: toga.Canvas, width: float, height: float, colours: Palette, scale: float = 1.0
    ) -> None:
        self.canvas, self.width, self.height, self.colours = canvas, width, height, colours
        self.size = 11 * scale
        canvas.root_state.drawing_actions.clear()
        self.box(0, 0, width, height, fill=colours.card, radius=10)

    def font(self, share: float = 1.0, bold: bool = False) -> Font:
        """A font of so many times the usual size."""
        size = max(round(self.size * share), 7)
        return Font(SANS_SERIF, size, weight="bold" if bold else "normal")

    def measure(self, text: str, share: float = 1.0, bold: bool = False) -> float:
        """Width of words."""
        return float(self.canvas.measure_text(text, self.font(share, bold))[0])

    def text(
        self,
        words: str,
        x: float,
        y: float,
        colour: str | None = None,
        align: str = "left",
        share: float = 1.0,
        bold: bool = False,
        room: float | None = None,
    ) -> None:
        """Words whose middle is at `y`; cut with an ellipsis where they need more than `room`."""
        if room is not None:
            whole = words
            while words and self.measure(words, share, bold) > room:
                whole = whole[:-1]
                words = whole.rstrip() + "…" if whole else ""
        if align != "left":
            wide = self.measure(words, share, bold)
            x -= wide if align == "right" else wide / 2
        with self.canvas.state(fill_style=colour or self.colours.ink):
            self.canvas.fill_text(
                words, x, y, font=self.font(share, bold), baseline=Baseline.MIDDLE
            )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str | None = None,
        edge: str | None = None,
        line_width: float = 1,
        radius: float = 0,
        dash: list[float] | None = None,
    ) -> None:
        """A rectangle."""
        if fill:
            with self.canvas.fill(fill_style=fill):
                self._corners(x, y, width, height, radius)
        if edge:
            with self.canvas.stroke(stroke_style=edge, line_width=line_width, line_dash=dash):
                self._corners(x, y, width, height, radius)

    def _corners(self, x: float, y: float, width: float, height: float, radius: float) -> None:
        if radius:
            self.canvas.round_rect(x, y, width, height, radius)
        else:
            self.canvas.rect(x, y, width, height)

    def path(
        self,
        points: Sequence[tuple[float, float]],
        colour: str,
        width: float = 2,
        dash: list[float] | None = None,
    ) -> None:
        """A line through points."""
        with self.canvas.stroke(stroke_style=colour, line_width=width, line_dash=dash):
            self.canvas.move_to(*points[0])
            for point in points[1:]:
                self.canvas.line_to(*point)

    def dot(self, x: float, y: float, radius: float, colour: str) -> None:
        """A filled circle."""
        with self.canvas.fill(fill_style=colour):
            self.canvas.arc(x, y, radius)

    def done(self) -> None:
        """Shows what was drawn."""
        self.canvas.redraw()


def chart(
    pen: Pen,
    title: str,
    lines: Sequence[Line],
    *,
    value: str = "",
    top: float | None = None,
    empty: str = "nothing yet",
) -> None:
    """Curves over steps, with axes.

    Args:
        pen: to draw with.
        title: above it.
        lines: the first is drawn first.
        value: the newest number, in words, at the right of the title.
        top: end of the vertical axis; the largest value without it. It begins at 0.
        empty: what is said while there is nothing to draw.
    """
    c, unit = pen.colours, pen.size
    pen.text(title, unit, unit * 1.4, bold=True, share=1.1)
    if value:
        pen.text(value, pen.width - unit, unit * 1.4, align="right", bold=True, share=1.1)
    left, right = unit * 3.8, pen.width - unit * 1.2
    above, below = unit * 4.2, pen.height - unit * 2.4
    _legend(pen, [line for line in lines if line.name], unit * 2.9)
    points = [(x, y) for line in lines for x, y in zip(line.xs, line.ys, strict=True)]
    if not points:
        pen.text(empty, (left + right) / 2, (above + below) / 2, c.faint, align="center")
        return
    last = max(max(x for x, _ in points), 1)
    high = top if top is not None else (max(y for _, y in points) * 1.05 or 1.0)

    def place(x: float, y: float) -> tuple[float, float]:
        share = min(max(y / high, 0.0), 1.0)
        return left + (right - left) * x / last, below - (below - above) * share

    for tick in ticks(0, high, max(2, int((below - above) / (unit * 2)))):
        _, y = place(0, tick)
        pen.path([(left, y), (right, y)], c.line, 1)
        pen.text(number(tick), left - unit * 0.6, y, c.faint, align="right", share=0.9)
    for tick in ticks(0, last, max(2, int((right - left) / (unit * 5)))):
        x, _ = place(tick, 0)
        pen.path([(x, below), (x, below + unit * 0.35)], c.faint, 1)
        pen.text(number(tick), x, below + unit * 1.1, c.faint, align="center", share=0.9)
    pen.path([(left, below), (right, below)], c.faint, 1)
    for line in lines:
        placed = [place(x, y) for x, y in zip(line.xs, line.ys, strict=True)]
        if len(placed) > 1:
            pen.path(placed, line.colour, line.width)
        if placed and (line.dots or len(placed) == 1):
            for x, y in placed:
                pen.dot(x, y, unit * 0.3, line.colour)


def _legend(pen: Pen, lines: Sequence[Line], y: float) -> None:
    x, unit = pen.size, pen.size
    for line in lines:
        pen.path([(x, y), (x + unit * 1.4, y)], line.colour, line.width)
        if line.dots:
            pen.dot(x + unit * 0.7, y, unit * 0.3, line.colour)
        pen.text(line.name, x + unit * 1.8, y, pen.colours.faint, share=0.9)
        x += unit * 3.2 + pen.measure(line.name, 0.9)


def picture(pixels: NDArray[np.uint8], side: float) -> toga.Image:
    """A picture in whole pixels: small ones are enlarged without being blurred."""
    array: NDArray[Any] = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    image = Image.fromarray(np.ascontiguousarray(array)).convert("RGB")
    factor = max(1, math.ceil(2 * side / max(image.size)))
    return toga.Image(
        image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    )


def gallery(pen: Pen, title: str, shown: Sequence[Shown], empty: str, value: str = "") -> None:
    """Pictures with the class they were taken for; a mistake is crossed, dashed and spelled out.

    Args:
        pen: to draw with.
        title: above them.
        shown: pictures, as large as they fit.
        empty: what is said while there are none.
        value: words at the right of the title.
    """
    c, unit = pen.colours, pen.size
    pen.text(title, unit, unit * 1.4, bold=True, share=1.1)
    pen.text(value, pen.width - unit, unit * 1.4, align="right", bold=True, share=1.1)
    if not shown:
        pen.text(empty, pen.width / 2, pen.height / 2, c.faint, align="center")
        return
    top, gap, below = unit * 3.4, unit * 1.2, unit * 3.2

    def side(columns: int) -> float:
        rows = math.ceil(len(shown) / columns)
        wide = (pen.width - gap * (columns + 1)) / columns
        return min(wide, (pen.height - top - gap * rows) / rows - below)

    columns = max(range(1, len(shown) + 1), key=side)
    size, rows = side(columns), math.ceil(len(shown) / columns)
    wide = (pen.width - gap * (columns + 1)) / columns
    # What is left of the height goes between the rows.
    spare = (pen.height - top - rows * (size + below)) / rows
    for place, item in enumerate(shown):
        x = gap + (wide + gap) * (place % columns)
        y = top + (size + below + spare) * (place // columns) + min(spare, gap) / 2
        _tile(pen, item, x, y, wide, size)


def _tile(pen: Pen, item: Shown, x: float, y: float, wide: float, side: float) -> None:
    c, unit = pen.colours, pen.size
    left = x + (wide - side) / 2
    colour = c.first if item.right else c.second
    pen.canvas.draw_image(picture(item.pixels, side), left, y, side, side)
    pen.box(
        left - 1,
        y - 1,
        side + 2,
        side + 2,
        edge=colour,
        line_width=3,
        dash=None if item.right else [5, 4],
    )
    mark = "✓" if item.right else "✗"
    radius = unit * 0.85
    pen.dot(left + side, y, radius, colour)
    pen.text(mark, left + side, y, c.card, align="center", bold=True)
    first = item.taken_for if item.right else f"{item.taken_for}?"
    second = f"{item.probability:.0%}" if item.right else f"is {item.truth}"
    middle = x + wide / 2
    pen.text(
        first,
        middle,
        y + side + unit * 1.0,
        colour,
        align="center",
        bold=True,
        room=wide,
        share=0.95,
    )
    pen.text(second, middle, y + side + unit * 2.2, c.faint, align="center", room=wide, share=0.9)


def confusion(pen: Pen, title: str, counts: NDArray[np.int64], names: Sequence[str]) -> None:
    """How often a class (row) was taken for another (column): darker is a greater share of a row.

    Args:
        pen: to draw with.
        title: above it.
        counts: ``(classes, classes)``.
        names: of the classes.
    """
    c, unit, count = pen.colours, pen.size, len(names)
    pen.text(title, unit, unit * 1.4, bold=True, share=1.1)
    pen.text(
        "rows: what it is; columns: what it was taken for", unit, unit * 2.9, c.faint, share=0.9
    )
    room = min(max(pen.measure(n, 0.9) for n in names) + unit, pen.width * 0.28)
    top = unit * 5.6
    cell = min((pen.width - room - unit) / count, (pen.height - top - unit) / count)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    strong = _rgb(c.first)
    weak = _rgb(c.card)
    for row in range(count):
        y = top + row * cell
        pen.text(
            names[row], room - unit * 0.4, y + cell / 2, align="right", share=0.9, room=room - unit
        )
        pen.text(
            names[row],
            room + (row + 0.5) * cell,
            top - unit * 0.9,
            align="center",
            share=0.9,
            room=cell,
        )
        for column in range(count):
            share = float(shares[row, column])
            mixed = [
                round(w + (s - w) * math.sqrt(share)) for s, w in zip(strong, weak, strict=True)
            ]
            x = room + column * cell
            pen.box(x, y, cell, cell, fill="#{:02x}{:02x}{:02x}".format(*mixed), edge=c.line)
            if counts[row, column] and cell > unit * 1.6:
                ink = c.card if share > 0.4 else c.ink
                words = str(counts[row, column])
                pen.text(words, x + cell / 2, y + cell / 2, ink, align="center", share=0.9)


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue


def bars(pen: Pen, title: str, chances: Sequence[tuple[str, float]], empty: str) -> None:
    """Classes with their probabilities, as bars with numbers.

    Args:
        pen: to draw with.
        title: above them.
        chances: class and probability, likeliest first.
        empty: what is said while there are none.
    """
    c, unit = pen.colours, pen.size
    pen.text(title, unit, unit * 1.4, bold=True, share=1.1)
    if not chances:
        pen.text(empty, pen.width / 2, pen.height / 2, c.faint, align="center")
        return
    room = min(max(pen.measure(name) for name, _ in chances) + unit, pen.width * 0.4)
    tall = min((pen.height - unit * 3) / len(chances), unit * 2.6)
    full = pen.width - room - unit * 6
    for place, (name, chance) in enumerate(chances):
        y = unit * 3 + (place + 0.5) * tall
        pen.text(name, unit, y, room=room, bold=place == 0)
        pen.box(
            room + unit, y - unit * 0.6, max(full * chance, 1), unit * 1.2, fill=c.first, radius=3
        )
        pen.text(f"{chance:.1%}", room + unit * 1.6 + full * chance, y, c.faint)
