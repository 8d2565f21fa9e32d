"""``python -m stepgraph_demo``."""

from __future__ import annotations

import ctypes.util
import os
import sys

# What Qt's window on X11 loads and its wheels do not bring: library to Debian's package.
NEEDED = {
    "xcb-cursor": "libxcb-cursor0",
    "xcb-icccm": "libxcb-icccm4",
    "xcb-keysyms": "libxcb-keysyms1",
    "EGL": "libegl1",
    "xkbcommon-x11": "libxkbcommon-x11-0",
}


def lacking() -> str:
    """What a window needs and this Linux lacks, in words; "" for nothing.

    Qt itself would end the process with less of an explanation.
    """
    if not sys.platform.startswith("linux") or os.environ.get("QT_QPA_PLATFORM"):
        return ""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return (
            "there is no screen: neither DISPLAY nor WAYLAND_DISPLAY is set\n"
            "  fix: start it on a desktop; without one, `stepgraph train --dashboard` shows a page"
        )
    packages = [p for library, p in NEEDED.items() if not ctypes.util.find_library(library)]
    if packages and os.environ.get("DISPLAY"):
        return (
            "libraries of the system are missing\n"
            f"  fix, on Debian and Ubuntu: sudo apt install {' '.join(packages)}"
        )
    return ""


def run() -> int:
    """Runs the app until its window is closed; returns the exit code."""
    missing = lacking()
    if missing:
        print(f"stepgraph demo: {missing}", file=sys.stderr)
        return 1
    from stepgraph_demo.app import main

    main().main_loop()
    return 0


if __name__ == "__main__":
    sys.exit(run())
