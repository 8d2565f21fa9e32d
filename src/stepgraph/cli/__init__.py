"""The command line: ``stepgraph train | evaluate | predict | summary | devices | plot``.

Exit codes:

====  =====================================================================================
0     done
1     failed: the message on standard error says what, and what to do
2     wrong use of the command line
130   stopped by Ctrl-C; `train` saved first and printed the command that goes on
129   stopped by SIGHUP (the terminal went away); saved first
143   stopped by SIGTERM; saved first
====  =====================================================================================

``STEPGRAPH_TRACEBACK=1`` shows where in the source an error was raised.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    Args:
        arguments: those after the program's name; the process's own by default.
    """
    from stepgraph.cli.app import run

    return run(arguments)
