"""Python's collector of cycles, kept on the UI's thread.

Widgets hang together in cycles, so that it is the collector that frees them; and it runs on
whichever thread happens to allocate. Toolkits want their objects freed on the UI's thread: Qt
crashes otherwise, Objective-C's wrappers release theirs late. So it is switched off, and done here.
"""

from __future__ import annotations

import gc


class Collector:
    """Collects when Python would have, but only when it is called.

    Args:
        thresholds: of new objects, and of collections of each generation before the next.
    """

    def __init__(self, thresholds: tuple[int, int, int] | None = None) -> None:
        self.thresholds = thresholds or gc.get_threshold()
        gc.disable()

    def tick(self) -> int | None:
        """Collects one generation if it is time to; tells which."""
        counts = gc.get_count()
        for generation in (2, 1, 0):
            if counts[generation] > self.thresholds[generation] > 0:
                gc.collect(generation)
                return generation
        return None

    @staticmethod
    def everything() -> None:
        """Collects all, as after a screen was left."""
        gc.collect()
