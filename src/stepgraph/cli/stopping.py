"""Signals that ask training to stop: it ends its step, saves, and says how to go on."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

# Signals and what people call them; not every platform has all of them.
SIGNALS: dict[str, str] = {
    "SIGINT": "Ctrl-C",
    "SIGTERM": "a request to terminate",
    "SIGHUP": "the end of the terminal session",
}


SAME_SECONDS = 0.5
"""Signals closer together are one: a terminal and a program around ours may both send it."""


class StopRequest:
    """Notes the first signal; the second one interrupts at once.

    Use as a context manager, which gives the handlers back afterwards. Outside the main thread,
    where Python allows no handlers, it does nothing.

    Args:
        tell: called on another thread (a handler must not print: it may have interrupted a print),
            with the name of the cause.
        clock: in seconds.
    """

    def __init__(
        self, tell: Callable[[str], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.number: int | None = None
        self._tell = tell
        self._clock = clock
        self._at = 0.0
        self._before: dict[int, Any] = {}
        self._teller: threading.Thread | None = None

    @property
    def requested(self) -> bool:
        """Whether training should stop."""
        return self.number is not None

    @property
    def exit_code(self) -> int:
        """What a shell reports of a process that the signal ended."""
        return 128 + (self.number or 0)

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for name in SIGNALS:
                number = getattr(signal, name, None)
                # One that is ignored (nohup) stays ignored.
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._teller is not None:
            self._teller.join(5)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            if self._clock() - self._at >= SAME_SECONDS:
                raise KeyboardInterrupt
            return
        self.number = number
        self._at = self._clock()
        cause = SIGNALS[signal.Signals(number).name]
        self._teller = threading.Thread(target=self._tell, args=(cause,), daemon=True)
        self._teller.start()
