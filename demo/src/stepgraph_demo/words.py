"""Numbers and times as people read them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A time in its two largest units.

    Example:
        >>> duration(0.4), duration(75), duration(7300)
        ('1 s', '1 min 15 s', '2 h 2 min')
    """
    whole = max(round(seconds), 1)
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def megabytes(count: int) -> str:
    """Bytes in megabytes.

    Example:
        >>> megabytes(482_500_000)
        '482 MB'
    """
    return f"{count / 1e6:,.0f} MB"


def first_line(message: str) -> str:
    """The first line of an error's message, which says what is wrong."""
    return message.partition("\n")[0]


def advice(message: str) -> str:
    r"""What a stepgraph error expected, and the way out that it names; "" if it names none.

    Example:
        >>> advice("read x: broken\n  got: 3\n  expected: 4\n  fix: read y")
        'Expected: 4. What to do: read y.'
    """
    found = []
    for label, said in (("expected:", "Expected"), ("fix:", "What to do")):
        for line in message.splitlines():
            if line.strip().startswith(label):
                found.append(f"{said}: {line.strip().removeprefix(label).strip().rstrip('.')}.")
    return " ".join(found)
