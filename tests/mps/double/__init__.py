"""A strict double of MPSGraph, behind the bridge's interface, for tests on any platform.

It refuses whatever the SDK's interface does not have and whatever is known to abort, to be refused
or to give numbers without meaning on a device; and it executes graphs with NumPy, by its own
reading of the framework. It is never shipped.

    with use(Double(version=(18, 0))) as session:
        model.fit(...)

`Refused` says that a device would not have survived, or that nothing states what it would give:
where evidence conflicts, only what is safe under every reading passes. `NotModelled` says that the
SDK has it and nobody has written down here what it does. Beyond the interface:

- ``Double(version)`` leaves out what that system lacks and has its faults; ``Double(faults=...)``
  replays known faults (`faults.FAULTS`) instead of refusing what runs into them.
- ``alive()`` and ``owned()`` count objects by class, ``sent`` the messages by selector.
- ``held()`` keeps the device from executing what is queued; ``device_errors`` are handed to the
  completion handlers of the next runs; what goes wrong on a thread of the device is raised by the
  next message, or by ``raise_failures()``.

A selector is added by a rule in the table of its family in `rules`: it infers shapes and data
types, refuses what must be refused, and gives the function that computes.
"""

from .bridge import Double
from .errors import NotModelled, Refused

__all__ = ["Double", "NotModelled", "Refused"]
