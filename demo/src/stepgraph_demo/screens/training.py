"""The second screen: training, as it happens."""

from __future__ import annotations

from typing import Any

import toga

from stepgraph.runs.live import View, smooth
from stepgraph_demo import choices, words
from stepgraph_demo.drawing import Line, Pen, chart, gallery
from stepgraph_demo.screens.base import Screen, beside, page
from stepgraph_demo.widgets import Look, column, row

PHASES = {
    "idle": "Getting ready",
    "preparing": "Getting ready",
    "training": "Training",
    "validating": "Looking at the test set",
    "paused": "Paused; everything is saved",
    "done": "Done",
    "stopped": "Stopped; everything is saved",
    "failed": "That did not work",
}


class TrainingScreen(Screen):
    """Pictures of the batch, curves, speed, and what stops and goes on."""

    title = "Training"

    def build(self, look: Look, wide: bool, height: float) -> toga.Widget:
        """Makes the content."""
        self.view: View = View()
        self.look = look
        self.phase = look.words("Getting ready", size=20, bold=True)
        self.about = look.words(faint=True, size=12)
        self.bar = toga.ProgressBar(max=1.0, value=0.0, style=toga.style.Pack(flex=1))
        self.progress = look.words(size=12)
        self.speed = look.words(size=12)
        self.memory = look.words(size=12)
        self.remarks = look.words(faint=True, size=12)
        tall = max(int(height) - 250, 420) if wide else 0
        self.pictures = look.drawn(self._pictures, tall if wide else round(300 * look.scale))
        self.loss = look.drawn(self._loss, tall // 2 - 6 if wide else round(220 * look.scale))
        self.accuracy = look.drawn(
            self._accuracy, tall - tall // 2 - 6 if wide else round(220 * look.scale)
        )
        self.hold = look.button("Pause", self._pause, flex=1)
        self.reset = look.button("Reset", self._reset, flex=1)
        self.results = look.button("Results", self._results, enabled=False, flex=1)
        self.tries = look.button("Try it", self._try, enabled=False, flex=1)
        buttons = beside(
            wide,
            row(self.hold, self.reset, gap=8, flex=1),
            row(self.results, self.tries, gap=8, flex=1),
            gap=8,
        )
        charts = [row(self.loss), row(self.accuracy)]
        pictures = row(self.pictures)
        if wide:
            drawn = beside(True, column(pictures, flex=1), column(*charts, flex=1))
        else:
            drawn = column(pictures, *charts)
        return page(
            look,
            self.phase,
            self.about,
            row(self.bar),
            self.progress,
            beside(wide, self.speed, self.memory, gap=20 if wide else 4),
            buttons,
            drawn,
            self.remarks,
        )

    def refresh(self, view: View | None) -> None:
        """Shows the present moment."""
        if view is None:
            return
        self.view = view
        session = self.app.session
        pausing = session is not None and session.pausing
        over = view.phase in ("done", "stopped", "failed")
        going = view.phase in ("training", "validating", "paused")
        _say(self.phase, self._phase(view))
        _say(self.about, self.look.wrap(self._about(view), 12))
        _say(self.progress, self.look.wrap(self._progress(view), 12))
        _say(self.speed, self._speed(view))
        _say(self.memory, self.look.wrap(self._memory(view), 12))
        remarks = " ".join(words.first_line(note) for note in view.notes)
        _say(self.remarks, self.look.wrap(remarks, 12))
        share = view.stepped.step / view.stepped.total if view.stepped else 0.0
        if self.bar.value != share:
            self.bar.value = share
        if self.hold.text != ("Resume" if pausing else "Pause"):
            self.hold.text = "Resume" if pausing else "Pause"
        _enable(self.hold, going and not over)
        _enable(self.results, view.phase == "done")
        _enable(self.tries, going or view.phase in ("done", "stopped"))
        newest = view.curve[-1] if view.curve else None
        self.loss.show((newest, len(view.looks)))
        self.accuracy.show((newest, len(view.looks)))
        self.pictures.show((id(view.pictures), view.phase if not view.pictures else ""))

    def _phase(self, view: View) -> str:
        session = self.app.session
        if view.phase in ("preparing", "training", "validating") and session is not None:
            if session.stopping:
                return "Stopping"
            if session.pausing and view.phase == "training":
                return "Pausing"
        return PHASES[view.phase]

    def _about(self, view: View) -> str:
        if view.phase == "failed":
            return words.first_line(view.message)
        started = view.started
        if started is None:
            return view.message
        device = started.device.partition(":")[0]
        return f"{choices.network_title(started.model)} on {started.dataset}; device {device}"

    def _progress(self, view: View) -> str:
        step = view.stepped
        if view.phase == "failed":
            return words.advice(view.message) or "Reset brings you back to the start."
        if view.phase == "validating":
            return f"{view.validated:.0%} of the test set"
        if step is None:
            return view.message
        text = f"Step {step.step:,} of {step.total:,}, epoch {step.epoch} of {step.epochs}"
        if view.phase == "done" and view.ended is not None:
            return f"{text}; it took {words.duration(view.ended.seconds)}"
        if step.seconds_left is not None and view.phase == "training":
            text += f"; {words.duration(step.seconds_left)} left"
        return text

    @staticmethod
    def _speed(view: View) -> str:
        step = view.stepped
        if step is None or step.images_per_second is None:
            return ""
        return f"{step.images_per_second:,.0f} images a second"

    @staticmethod
    def _memory(view: View) -> str:
        if not view.memory:
            return ""
        text = f"{words.megabytes(view.memory)} of memory in use"
        return (
            f"{text}, {words.megabytes(view.planned)} planned for a step" if view.planned else text
        )

    def _pictures(self, pen: Pen) -> None:
        shown = self.view.pictures
        right = f"{sum(s.right for s in shown)} of {len(shown)} right" if shown else ""
        gallery(pen, "This batch", shown, "pictures come with the first steps", right)

    def _loss(self, pen: Pen) -> None:
        curve, c = self.view.curve, pen.colours
        steps = [p.step for p in curve]
        raw = [p.loss for p in curve]
        soft = smooth(raw)
        looks = self.view.looks
        high = max([*soft, *(x.loss for x in looks)], default=1.0) * 1.25
        chart(
            pen,
            "Loss",
            [
                Line(steps, raw, c.pale, "each step", 1),
                Line(steps, soft, c.first, "smoothed"),
                Line([x.step for x in looks], [x.loss for x in looks], c.second, "test", dots=True),
            ],
            value=f"{soft[-1]:.3f}" if soft else "",
            top=high or 1.0,
            empty="the curve begins with the first step",
        )

    def _accuracy(self, pen: Pen) -> None:
        curve, c = self.view.curve, pen.colours
        steps = [p.step for p in curve]
        raw = [p.accuracy for p in curve]
        soft = smooth(raw)
        looks = self.view.looks
        percent = [100 * x.accuracy for x in looks]
        chart(
            pen,
            "Accuracy, %",
            [
                Line(steps, [100 * v for v in raw], c.pale, "each step", 1),
                Line(steps, [100 * v for v in soft], c.first, "smoothed"),
                Line([x.step for x in looks], percent, c.second, "test", dots=True),
            ],
            value=f"{100 * soft[-1]:.1f} %" if soft else "",
            top=100.0,
            empty="the curve begins with the first step",
        )

    def _pause(self, widget: toga.Widget | None = None, **_: Any) -> None:
        session = self.app.session
        if session is None:
            return
        if session.pausing:
            session.go_on()
        else:
            session.pause()
        self.refresh(session.view())

    async def _reset(self, widget: toga.Widget | None = None, **_: Any) -> None:
        view = self.view
        if view.phase in ("training", "validating", "paused") and view.stepped is not None:
            sure = toga.ConfirmDialog(
                "Stop this run?",
                "It is saved first; at the next start you can go on with it.",
            )
            if not await self.app.main_window.dialog(sure):
                return
        self.app.leave()

    def _results(self, widget: toga.Widget | None = None, **_: Any) -> None:
        self.app.show("results")

    def _try(self, widget: toga.Widget | None = None, **_: Any) -> None:
        self.app.show("try")


def _say(label: toga.Label, text: str) -> None:
    if label.text != text:
        label.text = text


def _enable(widget: toga.Widget, enabled: bool) -> None:
    if widget.enabled != enabled:
        widget.enabled = enabled
