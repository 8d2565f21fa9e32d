"""``python -m stepgraph_testbed``: the app; with arguments, the checks in a terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stepgraph.errors import StepgraphError
from stepgraph_testbed import checks

# Checks that stayed within tolerance, checks that did not or could not run, wrong use.
AGREES, DIVERGES = 0, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the checks that arguments name; the exit code says whether all agree."""
    parser = argparse.ArgumentParser(prog="stepgraph_testbed", description=checks.__doc__)
    parser.add_argument("--device", default="mps", help="what to check (mps)")
    parser.add_argument("--only", nargs="+", choices=checks.KINDS, default=list(checks.KINDS))
    parser.add_argument("--names", nargs="+", default=[], help="ops or networks; all without it")
    parser.add_argument("--folder", type=Path, default=Path(), help="where reproductions go")
    found = parser.parse_args(arguments)
    try:
        print("\n".join(checks.machine(found.device)), flush=True)
    except StepgraphError as error:
        print(error, file=sys.stderr)
        return DIVERGES
    failed = total = 0
    for outcome in checks.run(found.device, found.only, found.names, found.folder):
        print(outcome, flush=True)
        total += 1
        failed += not outcome.passed
    print(f"{total - failed} of {total} checks agree")
    return DIVERGES if failed or not total else AGREES


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main())
    from stepgraph_testbed.app import app

    app().main_loop()
