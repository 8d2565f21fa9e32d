"""``python -m stepgraph`` is the command line."""

import sys

from stepgraph.cli import main

if __name__ == "__main__":
    sys.exit(main())
