"""How much memory a process holds."""

from __future__ import annotations

import sys
from pathlib import Path


def memory_in_use() -> int:
    """Bytes of memory the process holds now, where the system tells; else the most it has held.

    Example:
        >>> memory_in_use() > 1_000_000
        True
    """
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return memory_peak()
    import resource

    return pages * resource.getpagesize()


def memory_peak() -> int:
    """Bytes of memory the process has held at most; 0 where the system does not tell (Windows)."""
    if sys.platform == "win32":
        return 0
    import resource

    # Apple's systems count in bytes, the others in kilobytes.
    unit = 1 if sys.platform in ("darwin", "ios") else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
