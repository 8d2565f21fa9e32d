"""A strict double of MPSGraph, behind the bridge's interface, for tests on any platform.

It refuses whatever the SDK's interface does not have and whatever is known to abort, to be refused
or to give numbers without meaning on a device; and it executes graphs with NumPy, by its own
reading of the framework. It is never shipped.
"""

from .bridge import Double
from .errors import NotModelled, Refused

__all__ = ["Double", "NotModelled", "Refused"]
