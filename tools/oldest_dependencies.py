"""Prints a constraints file with the oldest version of each dependency that pyproject.toml allows.

python tools/oldest_dependencies.py > oldest.txt
PIP_CONSTRAINT=oldest.txt make dev
"""

import re
import tomllib
from pathlib import Path

FLOOR = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)\s*>=\s*(?P<version>[0-9.]+)")


def oldest(requirements: list[str]) -> list[str]:
    """Turns requirements such as ``numpy>=1.26`` into pins such as ``numpy==1.26.*``."""
    pins = []
    for requirement in requirements:
        match = FLOOR.match(requirement)
        if match is None:
            raise SystemExit(f"{requirement!r} has no lower bound of the form name>=version")
        version = match["version"]
        exact = version if version.count(".") > 1 else f"{version}.*"
        pins.append(f"{match['name']}=={exact}")
    return pins


if __name__ == "__main__":
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    print("\n".join(oldest(project["dependencies"])))
