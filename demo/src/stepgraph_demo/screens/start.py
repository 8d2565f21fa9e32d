"""The first screen: what is to be trained, on what, by what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import toga

import stepgraph
from stepgraph.datasets import load
from stepgraph.runs.live import View
from stepgraph_demo import choices
from stepgraph_demo.choices import BATCHES, DATASETS, EPOCHS, NETWORKS, TEXT_SIZES
from stepgraph_demo.drawing import Pen, picture
from stepgraph_demo.screens.base import Screen, beside, page
from stepgraph_demo.session import leave, newest_unfinished
from stepgraph_demo.widgets import Look, column, row


class StartScreen(Screen):
    """Choices, and a button to begin; an interrupted run is offered first."""

    title = "stepgraph"

    def build(self, look: Look, wide: bool, height: float) -> toga.Widget:
        """Makes the content."""
        self.look = look
        chosen = self.app.choices
        devices = choices.usable_devices()
        self.about_data = look.words(faint=True, size=12)
        self.about_network = look.words(faint=True, size=12)
        self.about_device = look.words(faint=True, size=12)
        self.warning = look.words("", bold=True, size=12)
        self.dataset = look.choice(list(DATASETS), chosen.dataset, self._changed, "dataset")
        self.network = look.choice(list(NETWORKS), chosen.network, self._changed, "network")
        self.device = look.choice(devices, chosen.device or devices[0], self._changed, "device")
        self.batch = look.choice(
            [str(b) for b in BATCHES], str(chosen.batch), self._changed, "batch"
        )
        self.epochs = look.choice(
            [str(e) for e in EPOCHS], str(chosen.epochs), self._changed, "epochs"
        )
        self.text = look.choice(list(TEXT_SIZES), chosen.text, self._resized_text, "text")
        self.folder = look.button("Folder…", self._choose_folder)
        self.archive = look.button("Archive…", self._choose_archive)
        self.places = row(self.folder, self.archive)
        self.train = look.button("Train", self._train, flex=1)
        self.samples = look.drawn(self._samples, round(150 * look.scale))
        left = column(
            look.field("Pictures", self.dataset),
            self.about_data,
            self.places,
            look.field("Network", self.network),
            self.about_network,
            flex=1,
        )
        right = column(
            look.field("Device", self.device),
            self.about_device,
            row(
                column(look.field("Batch size", self.batch), flex=1),
                column(look.field("Epochs", self.epochs), flex=1),
            ),
            look.field("Text size", self.text),
            flex=1,
        )
        self._changed()
        return page(
            look,
            look.words("Train a network here", size=22, bold=True),
            look.words("Nothing leaves this device.", faint=True),
            *self._offer(look),
            beside(wide, left, right, gap=24 if wide else 12),
            self.warning,
            row(self.train),
            row(self.samples),
        )

    def _samples(self, pen: Pen) -> None:
        """Some of the pictures that come with the app."""
        digits = load("digits").train
        unit = pen.size
        pen.text("Some of the pictures", unit, unit * 1.4, bold=True, share=1.1)
        side = min(pen.height - unit * 4, 96)
        count = int((pen.width - unit) / (side + unit))
        for place in range(count):
            x = unit + place * (side + unit)
            pen.canvas.draw_image(picture(digits.images[place], side), x, unit * 3, side, side)

    def _offer(self, look: Look) -> list[toga.Widget]:
        """A run that was interrupted, to go on with."""
        self.unfinished = newest_unfinished(self.app.runs)
        if self.unfinished is None:
            return []
        found = self.unfinished
        network = choices.network_title(found.config.model)
        self.go_on = look.button("Go on", self._resume)
        card = column(
            look.words("A run was interrupted", bold=True),
            look.words(
                f"{network} on {Path(found.config.dataset).name}: "
                f"step {found.step:,} of {found.total:,} is saved.",
                size=12,
            ),
            row(self.go_on, look.button("Leave it", self._leave)),
            gap=8,
            margin=4,
        )
        return [card, toga.Divider()]

    def refresh(self, view: View | None) -> None:
        """Only the pictures wait to be drawn."""
        self.samples.show("samples")

    def _chosen(self) -> choices.Choices:
        return replace(
            self.app.choices,
            dataset=self.dataset.value,
            network=self.network.value,
            device=self.device.value,
            batch=int(self.batch.value),
            epochs=int(self.epochs.value),
        )

    def _changed(self, widget: toga.Widget | None = None, **_: Any) -> None:
        before = self.app.choices
        chosen = self._chosen()
        if chosen.dataset != before.dataset:
            chosen = replace(chosen, place="")
        self.app.choose(chosen)
        self.warning.text = ""
        _, about = DATASETS[chosen.dataset]
        place = Path(chosen.place).name if chosen.place else ""
        self.about_data.text = self.look.wrap(f"{about}: {place}" if place else about, 12)
        needs_place = chosen.dataset != "Handwritten digits" and self.app.has_dialogs
        self.folder.enabled = needs_place
        self.archive.enabled = needs_place and chosen.dataset != "Own photos"
        if not self.app.has_dialogs and chosen.dataset != "Handwritten digits":
            told = f"{about}; put it into this app's folder with Files"
            self.about_data.text = self.look.wrap(told, 12)
        self.about_network.text = choices.size_of(chosen.network)
        self.about_device.text = self.look.wrap(stepgraph.devices()[chosen.device], 12)

    def _resized_text(self, widget: toga.Widget, **_: Any) -> None:
        self.app.choose(replace(self.app.choices, text=self.text.value))
        self.app.rebuild()

    async def _choose_folder(self, widget: toga.Widget, **_: Any) -> None:
        dialog = toga.SelectFolderDialog("The folder with the pictures")
        self._place(await self.app.main_window.dialog(dialog))

    async def _choose_archive(self, widget: toga.Widget, **_: Any) -> None:
        dialog = toga.OpenFileDialog("The archive", file_types=["gz", "zip", "tar", "npz"])
        self._place(await self.app.main_window.dialog(dialog))

    def _place(self, path: Path | None) -> None:
        if path is not None:
            self.app.choose(replace(self._chosen(), place=str(path)))
            self._changed()

    def _train(self, widget: toga.Widget, **_: Any) -> None:
        chosen = self._chosen()
        if not self.app.has_dialogs and chosen.dataset != "Handwritten digits":
            chosen = replace(chosen, place=str(self.app.own_files))
        lacks = chosen.lacks()
        if lacks:
            self.warning.text = self.look.wrap(lacks, 12)
            return
        self.app.begin(chosen.settings())

    def _resume(self, widget: toga.Widget, **_: Any) -> None:
        assert self.unfinished is not None
        self.app.resume(self.unfinished.path)

    def _leave(self, widget: toga.Widget, **_: Any) -> None:
        assert self.unfinished is not None
        leave(self.unfinished.path)
        self.app.rebuild()
