"""One line for people who wait while kernels are compiled.

Only on a terminal, on its standard error, only when the wait is long enough to be wondered about,
and once in a process: a program's own output, a log file or a pipe never sees it.
"""

from __future__ import annotations

import sys
import threading
import time

# Seconds of compiling in one go that nobody wonders about.
PATIENCE = 1.0

_lock = threading.Lock()
_waited = 0.0
_last = 0.0
_said = False


def announce(seconds: float) -> None:
    """Says that kernels are being compiled, if that takes a while.

    Args:
        seconds: what the compilation about to begin will take, about.
    """
    global _waited, _last, _said
    with _lock:
        now = time.monotonic()
        if now - _last > 1.0:  # something else was done in between
            _waited = 0.0
        _waited += seconds
        _last = now + seconds
        if _said or _waited < PATIENCE or sys.stderr is None or not sys.stderr.isatty():
            return
        _said = True
    line = "stepgraph: compiling kernels for this processor; they are kept for the next time"
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
