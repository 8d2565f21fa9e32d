"""The window: a button for each kind of check, a log that Files can take out."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import toga
from toga.style import Pack

from stepgraph.errors import StepgraphError
from stepgraph_testbed import checks


class Testbed(toga.App):
    """Runs checks on a thread of their own and shows them line by line."""

    def startup(self) -> None:
        """Makes the window."""
        self.device = "mps"
        self.busy = False
        # On iOS the Documents folder is what Files shows.
        self.folder = (
            Path.home() / "Documents"
            if toga.platform.current_platform == "iOS"
            else (self.paths.data)
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.buttons = toga.Box(style=Pack(direction="row", gap=8))
        for kind in ("all", *checks.KINDS):
            self.buttons.add(toga.Button(kind, on_press=self._handler(kind)))
        self.progress = toga.Label("")
        self.log = toga.MultilineTextInput(readonly=True, style=Pack(flex=1))
        self.main_window = toga.MainWindow(title=self.formal_name)
        self.main_window.content = toga.Box(
            children=[self.buttons, self.progress, self.log],
            style=Pack(direction="column", gap=8, margin=8),
        )
        self.main_window.show()
        try:
            self._say("\n".join(checks.machine(self.device)))
        except StepgraphError as error:
            self._say(str(error))

    def _handler(self, kind: str) -> Any:
        async def press(widget: Any, **_: Any) -> None:
            await self.check(checks.KINDS if kind == "all" else (kind,))

        return press

    async def check(self, kinds: tuple[str, ...]) -> None:
        """Runs some kinds of checks; the window stays alive."""
        if self.busy:
            return
        self.busy = True
        self.buttons.enabled = False
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def show(line: str, *, kept: bool = True) -> None:
            loop.call_soon_threadsafe(self._say if kept else self._announce, line)

        def work() -> None:
            failed = total = 0
            try:
                for outcome in checks.run(
                    self.device,
                    kinds,
                    folder=self.folder,
                    announce=lambda line: show(line, kept=False),
                ):
                    show(str(outcome))
                    total += 1
                    failed += not outcome.passed
                show(f"{total - failed} of {total} checks agree")
            except Exception as error:
                show(f"ended by {type(error).__name__}: {error}")
            finally:
                loop.call_soon_threadsafe(done.set)

        # Never on the main thread, which iOS wants back within seconds.
        threading.Thread(target=work, name="checks", daemon=True).start()
        await done.wait()
        self.busy = False
        self.buttons.enabled = True

    def _announce(self, line: str) -> None:
        """What runs next; also in a file, should it end the process."""
        self.progress.text = line
        (self.folder / "running.txt").write_text(line + "\n", encoding="utf-8")

    def _say(self, text: str) -> None:
        self.log.value = f"{self.log.value or ''}{text}\n"
        self.log.scroll_to_bottom()
        with (self.folder / "testbed.log").open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def app() -> Testbed:
    """The app, ready for its main loop."""
    return Testbed("stepgraph testbed", "org.stepgraph.testbed")
