"""Drives the real app in a process of its own; told by the test what to do.

    python driving.py SCENE FOLDER

The scene is a coroutine here; what it finds out is printed as JSON, an object a line.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import toga
from PIL import Image

from stepgraph.datasets import load
from stepgraph_demo import choices
from stepgraph_demo.app import Demo
from stepgraph_demo.drawing import DARK
from stepgraph_demo.widgets import Drawn

PHONE, DESKTOP = (390, 844), (1000, 760)
PATIENCE = 120  # seconds that anything may take

Scene = Callable[["Driven", Path], Awaitable[None]]


class Driven(Demo):
    """The app, with a scene that plays while it runs."""

    scene: Scene
    folder: Path
    ticks = 0

    async def on_running(self) -> None:
        self.tasks = [asyncio.create_task(task) for task in (super().on_running(), self._tick())]
        try:
            await self.scene(self, self.folder)
            tell(end="well")
        except BaseException:
            tell(end=traceback.format_exc())
        self.request_exit()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.01)
            self.ticks += 1

    def __getitem__(self, text: str) -> toga.Button | None:
        """The button with these words on the present screen."""
        found = [w for w in everything(self.main_window.content) if isinstance(w, toga.Button)]
        return next((button for button in found if button.text == text), None)

    async def press(self, text: str) -> None:
        """Presses a button as soon as it can be pressed."""
        await until(lambda: self[text] is not None and self[text].enabled, f"'{text}'")
        self[text]._impl.clicked()

    def words(self) -> list[str]:
        """All labels of the present screen."""
        found = everything(self.main_window.content)
        return [w.text for w in found if isinstance(w, toga.Label) and w.text]

    def resize(self, size: tuple[int, int]) -> None:
        self.main_window.size = size
        self.rebuild()

    def picture(self, name: str) -> np.ndarray:
        """What is on the screen, kept as a file."""
        image = self.main_window.as_image(Image.Image).convert("RGB")
        image.save(self.folder / f"{name}.png")
        return np.asarray(image)


def everything(widget: toga.Widget) -> list[toga.Widget]:
    found = [widget]
    for child in getattr(widget, "children", None) or ():
        found += everything(child)
    if getattr(widget, "content", None) is not None:
        found += everything(widget.content)
    return found


def tell(**values: Any) -> None:
    print(json.dumps(values), flush=True)


async def until(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"waited in vain for: {what}")
        await asyncio.sleep(0.02)


def choose(app: Driven, **values: str) -> None:
    for name, value in values.items():
        getattr(app.screen, name).value = value


def phase(app: Driven) -> str:
    assert app.session is not None
    return app.session.view().phase


def steps(app: Driven) -> int:
    stepped = app.session.view().stepped if app.session else None
    return stepped.step if stepped else 0


# What a run is, in the tests of resuming: two epochs of a small network.
SMALL = {"network": "Small CNN", "epochs": "2", "batch": "32"}


async def interrupted(app: Driven, folder: Path) -> None:
    """Trains, watches, pauses, goes on, and waits to be killed."""
    choose(app, **SMALL)
    await app.press("Train")
    await until(lambda: phase(app) == "training" and steps(app) >= 3, "some steps")
    before = [app.screen.loss.times, app.screen.pictures.times]
    first = app.picture("first")
    seen = steps(app)
    await until(lambda: steps(app) >= seen + 5, "more steps")
    await until(lambda: app.screen.loss.times > before[0], "the chart to be drawn again")
    second = app.picture("second")
    tell(changed=int((first != second).any(axis=2).sum()), drawn=app.screen.loss.times - before[0])
    await app.press("Pause")
    await until(lambda: phase(app) == "paused", "the pause")
    training = app.session.training
    held = steps(app)
    tell(saved=training.saved_step, at=held)
    await asyncio.sleep(0.3)
    assert steps(app) == held, "it trained on in a pause"
    assert app["Resume"].enabled
    await app.press("Resume")
    await until(lambda: steps(app) >= held + 2, "steps after the pause")
    app.away(app.main_window)
    tell(away=phase(app), away_saved=training.saved_step == training.step)
    app.back(app.main_window)
    await until(lambda: steps(app) > training.saved_step, "a step that is not saved")
    tell(kill=True, step=steps(app), saved=training.saved_step)
    await asyncio.sleep(PATIENCE)


async def resumed(app: Driven, folder: Path) -> None:
    """Takes up the offer to go on, and trains to the end."""
    app.picture("offer")
    tell(words=app.words())
    await app.press("Go on")
    await until(lambda: phase(app) in ("done", "failed"), "the end")
    view = app.session.view()
    tell(phase=view.phase, curve=[[p.step, p.loss] for p in view.curve], looks=len(view.looks))


async def uninterrupted(app: Driven, folder: Path) -> None:
    """Trains to the end in one go; then looks at everything, at both sizes."""
    assert not any("interrupted" in w for w in app.words())
    app.resize(PHONE)
    await asyncio.sleep(0.1)
    app.picture("start-phone")
    app.resize(DESKTOP)
    await asyncio.sleep(0.1)
    app.picture("start-desktop")
    choose(app, **SMALL)
    await app.press("Train")
    await until(lambda: app.session.view().pictures, "pictures")
    shown = app.session.view().pictures
    tell(pictures=[[p.truth, p.taken_for] for p in shown])
    before = app.ticks
    await until(lambda: phase(app) == "done", "the end")
    tell(ticks=app.ticks - before)
    await until(lambda: app["Results"].enabled, "the button to the results")
    await app.press("Results")
    scores = app.session.scores
    tell(accuracy=scores.accuracy, confusion=scores.confusion().tolist(), words=app.words())
    app.screen.save_to(folder / "exported")
    await app.press("Try it")
    path = folder / "three.png"
    test = load("digits").test
    place = int(np.flatnonzero(scores.predicted == scores.labels)[0])
    Image.fromarray(test.images[place, :, :, 0]).resize((200, 200)).save(path)
    app.screen.look_at(path)
    tell(is_=int(test.labels[place]), chances=app.screen.chances, words=app.words())
    app.screen.look_at(folder / "no such file.png")
    tell(missing=app.words())
    app.screen.look_at(path)
    for name, size in (("phone", PHONE), ("desktop", DESKTOP)):
        for screen in ("training", "results", "try"):
            app.main_window.size = size
            app.show(screen)
            if screen == "try":
                app.screen.look_at(path)
            await until(lambda: _all_drawn(app), "everything to be drawn")
            app.picture(f"{screen}-{name}")
            tell(screen=screen, size=name, outside=outside(app))


def _all_drawn(app: Driven) -> bool:
    app.screen.refresh(app._view())
    drawn = [w for w in everything(app.main_window.content) if isinstance(w, Drawn)]
    return all(w.times for w in drawn)


def outside(app: Driven) -> list[str]:
    """Things that need more than the window's width."""
    width = app.main_window.size.width
    found = []
    for widget in everything(app.main_window.content):
        layout = widget.layout
        right = layout.absolute_content_left + layout.content_width
        if right > width + 1:
            found.append(f"{type(widget).__name__} {getattr(widget, 'text', '')!r} to {right}")
    return found


async def sizes(app: Driven, folder: Path) -> None:
    """Every size of words on the narrowest screen; dark, too."""
    for text in choices.TEXT_SIZES:
        app.main_window.size = PHONE
        choose(app, text=text)
        await asyncio.sleep(0.1)
        tell(text=text, outside=outside(app), scale=app.screen.train.style.font_size)
    type(app).dark_mode = True
    app.rebuild()
    await asyncio.sleep(0.1)
    pixels = app.picture("start-dark")
    paper = tuple(int(DARK.paper[i : i + 2], 16) for i in (1, 3, 5))
    tell(dark=float((pixels == paper).all(axis=2).mean()))


async def mistakes(app: Driven, folder: Path) -> None:
    """What goes wrong is said, and the way back is open."""
    choose(app, dataset="Own photos")
    await app.press("Train")
    tell(lacks=app.words())
    empty = folder / "no photos"
    empty.mkdir()
    app.screen._place(empty)
    await app.press("Train")
    await until(lambda: phase(app) == "failed", "the failure")
    await until(lambda: "That did not work" in app.words(), "the words for it")
    app.picture("failed")
    tell(failed=app.words(), results=app["Results"].enabled, hold=app["Pause"].enabled)
    await app.press("Reset")
    await until(lambda: "Train a network here" in app.words(), "the first screen")
    app.runs.parent.mkdir(parents=True, exist_ok=True)
    app.runs.write_text("a file where the folder should be")
    choose(app, dataset="Handwritten digits", **SMALL)
    await app.press("Train")
    await until(lambda: phase(app) == "failed", "the second failure")
    tell(unwritable=app.session.view().message)


async def stopped(app: Driven, folder: Path) -> None:
    """A full disk while training: said, and what was saved stays. Then: closed in mid-run."""
    from stepgraph.checkpoints import RunDirectory
    from stepgraph.errors import CheckpointError

    choose(app, **{**SMALL, "epochs": "30"})
    await app.press("Train")
    await until(lambda: steps(app) >= 2, "some steps")
    await app.press("Pause")
    await until(lambda: phase(app) == "paused", "the pause")
    kept = app.session.training.saved_step
    save = RunDirectory.save

    def full(*_: Any) -> None:
        raise CheckpointError("save: no space left on device\n  fix: make room")

    RunDirectory.save = full  # type: ignore[assignment]
    await app.press("Resume")
    await until(lambda: steps(app) > kept, "a step")
    await app.press("Pause")
    await until(lambda: phase(app) == "failed", "the failure")
    await until(lambda: any("no space" in w for w in app.words()), "the words for it")
    tell(full=app.words())
    RunDirectory.save = save
    await app.press("Reset")
    await until(lambda: any("interrupted" in w for w in app.words()), "the offer")
    tell(kept=kept, offer=app.words())
    await app.press("Leave it")
    assert not any("interrupted" in w for w in app.words())
    await app.press("Train")
    await until(lambda: steps(app) >= 2, "some steps")


SCENES: dict[str, Scene] = {
    f.__name__: f for f in (interrupted, resumed, uninterrupted, sizes, mistakes, stopped)
}


def main() -> None:
    app = Driven("stepgraph demo", "org.stepgraph.demo")
    app.scene, app.folder = SCENES[sys.argv[1]], Path(sys.argv[2])
    app.folder.mkdir(parents=True, exist_ok=True)
    app.main_loop()


if __name__ == "__main__":
    main()
