"""The fourth screen: a picture of one's own, and what the network takes it for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import toga
from numpy.typing import NDArray
from PIL import Image

from stepgraph.datasets import read_image
from stepgraph.errors import StepgraphError
from stepgraph.runs.live import View
from stepgraph_demo import words
from stepgraph_demo.drawing import Pen, bars, picture
from stepgraph_demo.screens.base import Screen, beside, page
from stepgraph_demo.widgets import Look, column, row

CLASSES = 5
_TYPES = ["png", "jpg", "jpeg", "bmp", "gif", "webp"]


class TrialScreen(Screen):
    """Choose a picture, take one, or draw lots among the test set's."""

    title = "Try it"

    def build(self, look: Look, wide: bool, height: float) -> toga.Widget:
        """Makes the content."""
        self.look = look
        self.pixels: NDArray[np.uint8] | None = None
        self.chances: list[tuple[str, float]] = []
        self.told = ""
        self._count = 0
        tall = max(int(height) - 210, 360) if wide else round(300 * look.scale)
        self.shown = look.drawn(self._picture, tall)
        self.classes = look.drawn(self._classes, tall if wide else round(240 * look.scale))
        self.said = look.words("", size=12)
        back = "results" if self.app.session and self.app.session.scores else "training"
        return page(
            look,
            look.words("What is this?", size=20, bold=True),
            row(
                look.button(
                    "Choose a picture…", self._choose, enabled=self.app.has_dialogs, flex=1
                ),
                look.button("Take a photo", self._take, enabled=self.app.has_camera, flex=1),
                gap=8,
            ),
            row(
                look.button("One of the test set", self._draw_lots, flex=1),
                look.button("Back", lambda w: self.app.show(back), flex=1),
                gap=8,
            ),
            self.said,
            beside(wide, column(row(self.shown), flex=1), column(row(self.classes), flex=1)),
        )

    def refresh(self, view: View | None) -> None:
        """Draws what is there."""
        self.shown.show(self._count)
        self.classes.show(self._count)

    def look_at(self, path: Path) -> None:
        """Predicts a picture file."""
        height, width, channels = self._shape()
        try:
            pixels = read_image(path, (height, width), channels)
        except StepgraphError as error:
            self.said.text = self.look.wrap(words.first_line(str(error)), 12)
            return
        self._predict(pixels, path.name)

    def _predict(self, pixels: NDArray[np.uint8], told: str) -> None:
        session = self.app.session
        assert session is not None
        self.pixels, self.told = pixels, told
        try:
            self.chances = session.predict(pixels)[:CLASSES]
        except StepgraphError as error:
            self.said.text = self.look.wrap(words.first_line(str(error)), 12)
            return
        name, chance = self.chances[0]
        self.said.text = f"{told}: {name}, {chance:.0%} sure"
        self._count += 1
        self.refresh(None)

    def _shape(self) -> tuple[int, int, int]:
        session = self.app.session
        assert session is not None
        assert session.config is not None
        height, width, channels = session.config.image_shape
        return height, width, channels

    async def _choose(self, widget: toga.Widget, **_: Any) -> None:
        dialog = toga.OpenFileDialog("A picture", file_types=_TYPES)
        path = await self.app.main_window.dialog(dialog)
        if path is not None:
            self.look_at(Path(path))

    async def _take(self, widget: toga.Widget, **_: Any) -> None:
        camera = self.app.camera
        if not await camera.request_permission():
            self.said.text = self.look.wrap(
                "The camera may not be used; the system's settings can allow it.", 12
            )
            return
        photo = await camera.take_photo()
        if photo is None:
            return
        height, width, channels = self._shape()
        image = photo.as_format(Image.Image).convert("RGB" if channels == 3 else "L")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side)).resize((width, height))
        self._predict(np.asarray(image).reshape(height, width, channels), "your photo")

    def _draw_lots(self, widget: toga.Widget | None = None, **_: Any) -> None:
        session = self.app.session
        assert session is not None
        assert session.splits is not None
        test = session.splits.test
        place = int(np.random.default_rng().integers(len(test)))
        self._predict(test.images[place], f"it is {test.class_names[test.labels[place]]}")

    def _picture(self, pen: Pen) -> None:
        unit = pen.size
        pen.text("The picture", unit, unit * 1.4, bold=True, share=1.1)
        if self.pixels is None:
            words_ = "choose one above"
            pen.text(words_, pen.width / 2, pen.height / 2, pen.colours.faint, align="center")
            return
        side = min(pen.width - 2 * unit, pen.height - 4 * unit)
        left = (pen.width - side) / 2
        pen.canvas.draw_image(picture(self.pixels, side), left, unit * 3, side, side)

    def _classes(self, pen: Pen) -> None:
        bars(pen, "The network says", self.chances, "its guesses appear here")
