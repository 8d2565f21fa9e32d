"""The app: one window, four screens, one run at a time."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import toga

from stepgraph.runs.live import View
from stepgraph_demo import choices
from stepgraph_demo.drawing import palette
from stepgraph_demo.phone import ON_PHONE, keep_awake
from stepgraph_demo.rubbish import Collector
from stepgraph_demo.screens.base import Screen
from stepgraph_demo.screens.results import ResultsScreen
from stepgraph_demo.screens.start import StartScreen
from stepgraph_demo.screens.training import TrainingScreen
from stepgraph_demo.screens.trial import TrialScreen
from stepgraph_demo.session import Session
from stepgraph_demo.widgets import WIDE, Look

REFRESH_SECONDS = 0.1
STOP_SECONDS = 30.0  # a first step may be compiling
AWAY_SECONDS = 3.0  # iOS gives an app about five

SCREENS: dict[str, type[Screen]] = {
    "start": StartScreen,
    "training": TrainingScreen,
    "results": ResultsScreen,
    "try": TrialScreen,
}


class Demo(toga.App):
    """Train a network on the device in your hand, and see it."""

    session: Session | None
    screen: Screen

    def startup(self) -> None:
        """Makes the window."""
        self.session = None
        self.collector = Collector()
        self.runs = self.paths.data / "runs"
        self.choices = choices.load(self.paths.config / "choices.json")
        self._wide: bool | None = None
        self._waiting = self._awake = False
        self.main_window = toga.MainWindow(
            title=self.formal_name, size=(1000, 760), on_resize=self._resized
        )
        if ON_PHONE:
            self.main_window.on_hide = self.away
            self.main_window.on_show = self.back
        self._add_commands()
        self.show("start")
        self.main_window.show()

    @property
    def has_dialogs(self) -> bool:
        """Whether this platform lets people choose files and folders."""
        return not ON_PHONE

    @property
    def has_camera(self) -> bool:
        """Whether Toga offers a camera here."""
        return ON_PHONE or sys.platform == "darwin"

    @property
    def own_files(self) -> Path:
        """Where people put files for this app, on phones."""
        return Path.home() / "Documents"

    def show(self, name: str) -> None:
        """Shows a screen."""
        self.screen = SCREENS[name](self)
        self.rebuild()

    def rebuild(self) -> None:
        """Builds the present screen again: for another width, another size of words."""
        width, height = self.main_window.size
        self._wide = width >= WIDE
        scale = choices.TEXT_SIZES[self.choices.text]
        look = Look(palette(self.dark_mode), scale, width)
        self.main_window.content = self.screen.build(look, self._wide, height)
        self.screen.refresh(self._view())
        self.collector.everything()

    def choose(self, chosen: choices.Choices) -> None:
        """Keeps what was chosen."""
        if chosen != self.choices:
            self.choices = chosen
            choices.save(self.paths.config / "choices.json", chosen)

    def begin(self, settings: dict[str, Any]) -> None:
        """Begins a new run and shows it."""
        self.session = Session(self.runs, settings).start()
        self.show("training")

    def resume(self, path: Path) -> None:
        """Goes on with a run and shows it."""
        changed = {"device": choices.usable_devices()[0]}
        self.session = Session(self.runs, resume=path, changed=changed).start()
        self.show("training")

    def leave(self) -> None:
        """Ends the run, saved, then shows the first screen; returns at once."""
        if self.session is None:
            self.show("start")
        elif not self.session.stopping:
            self.session.stop()
            self._leaving = asyncio.ensure_future(self._left(self.session))

    async def _left(self, session: Session) -> None:
        end = time.monotonic() + STOP_SECONDS
        while not session.join(0) and time.monotonic() < end:
            await asyncio.sleep(REFRESH_SECONDS / 2)
        self.session = None
        self.show("start")

    def away(self, window: toga.Window, **_: Any) -> None:
        """Saves and waits: the app is out of sight, and may be ended there."""
        if self.session is not None and not self.session.pausing:
            self.session.pause(wait=AWAY_SECONDS)
            self._waiting = True

    def back(self, window: toga.Window, **_: Any) -> None:
        """Goes on, if it was not the user who paused."""
        if self._waiting and self.session is not None:
            self.session.go_on()
        self._waiting = False

    async def on_running(self) -> None:
        """Refreshes the screen for as long as the app runs."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            self.collector.tick()
            view = self._view()
            self.screen.refresh(view)
            self._stay_awake(view is not None and view.phase in ("training", "validating"))

    def on_exit(self) -> bool:
        """Ends the run, saved, before the app ends."""
        if self.session is not None:
            self.session.stop()
            self.session.join(10)
        return True

    def _stay_awake(self, awake: bool) -> None:
        if awake != self._awake:
            self._awake = awake
            keep_awake(awake)

    def _view(self) -> View | None:
        return self.session.view() if self.session is not None else None

    def _resized(self, window: toga.Window, **_: Any) -> None:
        if hasattr(self, "screen") and (window.size.width >= WIDE) != self._wide:
            self.rebuild()

    def _add_commands(self) -> None:
        group = toga.Group("Run")
        self.commands.add(
            toga.Command(self._train, "Train", shortcut=toga.Key.MOD_1 + "t", group=group),
            toga.Command(self._hold, "Pause or resume", shortcut=toga.Key.MOD_1 + "p", group=group),
            toga.Command(
                self._larger, "Larger text", shortcut=toga.Key.MOD_1 + "=", group=toga.Group.VIEW
            ),
            toga.Command(
                self._smaller, "Smaller text", shortcut=toga.Key.MOD_1 + "-", group=toga.Group.VIEW
            ),
        )

    def _train(self, command: toga.Command, **_: Any) -> None:
        if isinstance(self.screen, StartScreen):
            self.screen._train(self.screen.train)

    def _hold(self, command: toga.Command, **_: Any) -> None:
        if isinstance(self.screen, TrainingScreen):
            self.screen._pause()

    def _larger(self, command: toga.Command, **_: Any) -> None:
        self._scale(1)

    def _smaller(self, command: toga.Command, **_: Any) -> None:
        self._scale(-1)

    def _scale(self, by: int) -> None:
        names = list(choices.TEXT_SIZES)
        place = min(max(names.index(self.choices.text) + by, 0), len(names) - 1)
        self.choose(replace(self.choices, text=names[place]))
        self.rebuild()


def main() -> Demo:
    """The app, not yet running."""
    return Demo("stepgraph demo", "org.stepgraph.demo")
