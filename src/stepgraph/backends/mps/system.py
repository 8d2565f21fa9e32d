"""Which operating system answers, on one scale for iPhone and Mac."""

from __future__ import annotations

import re
from typing import NamedTuple

from stepgraph.errors import UnsupportedError, describe


class Version(NamedTuple):
    """A version of iOS; macOS N counts as iOS N + 3 up to 15, from 26 on the numbers agree."""

    major: int
    minor: int = 0

    def __str__(self) -> str:
        mac = self.major if self.major >= 26 else self.major - 3
        if mac == self.major:
            return f"iOS/macOS {self.major}.{self.minor}"
        return f"iOS {self.major}.{self.minor} / macOS {mac}.{self.minor}"


def parse_system(text: str) -> Version:
    """The version of what `Bridge.system` says.

    Raises:
        UnsupportedError: it is no Apple system.

    Example:
        >>> parse_system("macOS 15.1"), parse_system("iOS 18.1.2"), parse_system("macOS 26.0")
        (Version(major=18, minor=1), Version(major=18, minor=1), Version(major=26, minor=0))
    """
    found = re.fullmatch(r"(macOS|iOS|iPadOS) (\d+)(?:\.(\d+))?.*", text)
    if not found:
        raise UnsupportedError(
            describe("mps", f"'{text}' is no system that MPSGraph runs on", expected="macOS or iOS")
        )
    name, major, minor = found[1], int(found[2]), int(found[3] or 0)
    return Version(major + 3 if name == "macOS" and major < 26 else major, minor)
