"""How long `import stepgraph` takes in a fresh process, and how much of it is NumPy's.

    python benchmarks/import_time.py [repeats]

The budget is 0.2 s in all. Each figure is the median over fresh processes, in seconds, with the
file cache warm; the starting of the interpreter itself is not counted.
"""

import statistics
import subprocess
import sys

CODE = (
    "import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
)


def seconds(module: str, repeats: int) -> float:
    """Median import time of `module` over `repeats` fresh processes, after one that warms up."""
    command = [sys.executable, "-c", CODE.format(module=module)]
    times = [
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(repeats + 1)
    ]
    return statistics.median(times[1:])


if __name__ == "__main__":
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    numpy = seconds("numpy", repeats)
    stepgraph = seconds("stepgraph", repeats)
    print(f"import numpy      {numpy:.3f} s")
    print(f"import stepgraph  {stepgraph:.3f} s (budget 0.200 s)")
