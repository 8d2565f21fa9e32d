"""What phones want: no work while out of sight, and a screen that stays on while there is some."""

from __future__ import annotations

import sys

ON_PHONE = sys.platform in ("ios", "android")
"""Whether an app loses the processor when another one comes to the front.

iOS refuses a GPU's work from the background, and ends apps there without asking.
"""


def keep_awake(awake: bool) -> None:
    """Keeps an iPhone's or iPad's screen on, or lets it go dark; elsewhere nothing."""
    if sys.platform != "ios":
        return
    from rubicon.objc import ObjCClass

    ObjCClass("UIApplication").sharedApplication.idleTimerDisabled = awake
