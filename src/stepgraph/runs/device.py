"""Which device a command uses."""

from __future__ import annotations

from stepgraph.backends.base import get_device
from stepgraph.errors import UnsupportedError

# Tried in this order when none is named. A Mac has both of the first; a phone, where nothing may be
# compiled to machine code as it runs, the GPU alone.
PREFERRED = ("cpu", "mps", "reference")


def choose(name: str | None) -> tuple[str, str | None]:
    """Finds the device to use.

    Args:
        name: what the user named; None to take the first of `PREFERRED` that works.

    Returns:
        Its name, and a remark if it is not the one to be expected.

    Raises:
        UnsupportedError: the named one cannot be used; it is never replaced by another.
    """
    if name is not None:
        get_device(name)
        return name, None
    reason = ""
    for candidate in PREFERRED:
        try:
            get_device(candidate)
        except UnsupportedError as error:
            reason = reason or str(error).splitlines()[0]
            continue
        if candidate != "reference":
            return candidate, None
        return candidate, (
            f"{reason}\n  going on with device '{candidate}', which computes op by op and is very "
            "slow; it is meant for checking"
        )
    raise UnsupportedError(reason)
