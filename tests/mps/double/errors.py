"""How the double says no."""

from __future__ import annotations


class Refused(Exception):
    """Something that the framework, or the SDK's compiler, would not have survived.

    On a device it aborts the process, is rejected by the compiler, or gives numbers that mean
    nothing; here it is an exception, in every case.
    """


class NotModelled(Refused):
    """The SDK has it, but the double knows no trustworthy meaning for it."""


def need(condition: object, message: str) -> None:
    if not condition:
        raise Refused(message)
