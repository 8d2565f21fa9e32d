"""The third screen: how good the network has become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import toga

from stepgraph.errors import CheckpointError
from stepgraph.runs.live import Shown, View
from stepgraph_demo import words
from stepgraph_demo.drawing import Pen, confusion, gallery
from stepgraph_demo.screens.base import Screen, beside, page
from stepgraph_demo.widgets import Look, column, row

MISTAKES = 8


class ResultsScreen(Screen):
    """Test accuracy, confusion matrix, the worst mistakes."""

    title = "Results"

    def build(self, look: Look, wide: bool, height: float) -> toga.Widget:
        """Makes the content."""
        self.look = look
        session = self.app.session
        assert session is not None
        scores = session.scores
        assert scores is not None
        self.mistakes = [Shown(*mistake) for mistake in session.mistakes(MISTAKES)]
        right = int((scores.predicted == scores.labels).sum())
        side = max(int(height) - 230, 420) if wide else round(370 * look.scale)
        self.matrix = look.drawn(self._matrix, side)
        self.gallery = look.drawn(self._mistakes, side if wide else round(330 * look.scale))
        self.said = look.words(faint=True, size=12)
        self.export = look.button(
            "Export the run…", self._export, enabled=self.app.has_dialogs, flex=1
        )
        if not self.app.has_dialogs:
            self.said.text = "The run's folder is among this app's files, in Files."
        return page(
            look,
            look.words(f"{scores.accuracy:.1%} right", size=20, bold=True),
            look.words(
                f"{right:,} of the {len(scores.labels):,} test pictures, which it was not "
                f"trained on; loss {scores.loss:.3f}",
                faint=True,
            ),
            beside(
                wide,
                row(
                    look.button("Try it", lambda w: self.app.show("try"), flex=1),
                    self.export,
                    gap=8,
                    flex=1,
                ),
                row(
                    look.button("Curves", lambda w: self.app.show("training"), flex=1),
                    look.button("New run", lambda w: self.app.leave(), flex=1),
                    gap=8,
                    flex=1,
                ),
                gap=8,
            ),
            self.said,
            beside(
                wide,
                column(row(self.matrix), flex=1),
                column(row(self.gallery), flex=1),
            ),
        )

    def refresh(self, view: View | None) -> None:
        """Draws what did not change since it was built."""
        self.matrix.show("matrix")
        self.gallery.show("mistakes")

    def _matrix(self, pen: Pen) -> None:
        session = self.app.session
        if session is None or session.scores is None or session.config is None:
            return
        confusion(pen, "Confusion", session.scores.confusion(), session.config.class_names)

    def _mistakes(self, pen: Pen) -> None:
        gallery(pen, "The worst mistakes", self.mistakes, "there are none")

    async def _export(self, widget: toga.Widget, **_: Any) -> None:
        found = await self.app.main_window.dialog(
            toga.SelectFolderDialog("Where the run's folder is copied to")
        )
        if found is not None:
            self.save_to(Path(found))

    def save_to(self, folder: Path) -> None:
        """Copies the run directory into a folder, and says where it went."""
        assert self.app.session is not None
        try:
            path = self.app.session.export(folder)
        except CheckpointError as error:
            self.said.text = self.look.wrap(words.first_line(str(error)), 12)
        else:
            self.said.text = self.look.wrap(f"Copied to {path}", 12)
