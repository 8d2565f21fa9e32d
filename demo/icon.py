"""Draws the app's icon in every size and form that the platforms ask for.

    python icon.py

A step down a loss curve, on squares: the graph, the step, the pictures.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

HERE = Path(__file__).parent / "src" / "stepgraph_demo" / "resources"
LINUX = (16, 32, 64, 128, 256, 512)
IOS = (20, 29, 40, 58, 60, 76, 80, 87, 120, 152, 167, 180, 640, 1024, 1280, 1920)
WHOLE = 1024
BLUE, PALE, ORANGE, WHITE = "#0b63ce", "#3c86de", "#ffb27a", "#ffffff"


def drawn(rounded: bool) -> Image.Image:
    """The icon at its largest; iOS rounds corners itself and wants none transparent."""
    image = Image.new("RGBA", (WHOLE, WHOLE), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((0, 0, WHOLE - 1, WHOLE - 1), 220 if rounded else 0, fill=BLUE)
    for column in range(4):
        for row in range(4):
            if column + row in (2, 3, 4):
                x, y = 136 + column * 196, 136 + row * 196
                draw.rounded_rectangle((x, y, x + 164, y + 164), 26, fill=PALE)
    steps = [(150, 236), (346, 236), (346, 470), (578, 470), (578, 700), (874, 700)]
    draw.line(steps, fill=WHITE, width=74, joint="curve")
    for x, y in (steps[0], *steps[1:-1]):
        draw.ellipse((x - 37, y - 37, x + 37, y + 37), fill=WHITE)
    x, y = steps[-1]
    draw.ellipse((x - 86, y - 86, x + 86, y + 86), fill=ORANGE)
    return image


def main() -> None:
    """Writes all files."""
    HERE.mkdir(parents=True, exist_ok=True)
    round_, square = drawn(rounded=True), drawn(rounded=False).convert("RGB")
    for size in {*LINUX, *IOS}:
        source = square if size in IOS else round_
        resample = Image.Resampling.LANCZOS
        source.resize((size, size), resample).save(HERE / f"icon-{size}.png", optimize=True)
    round_.resize((512, 512), Image.Resampling.LANCZOS).save(HERE / "icon.png", optimize=True)
    round_.save(HERE / "icon.icns")
    round_.save(HERE / "icon.ico", sizes=[(s, s) for s in (16, 32, 48, 64, 256)])


if __name__ == "__main__":
    main()
