"""Launches that follow each other task by task: what one leaves in the cache the next one uses.

A chain is a launch whose task number t calls ranges of other kernels' tasks, one after the other:

    for (function, arguments, first, count) in table[starts[t] : starts[t + 1]]:
        function(arguments, first ... first + count - 1)

It costs a call per inner task, as a launch of its own would, and saves the wait of all threads
between two launches. What it is for is memory: a map of 32 MB that one launch writes and the next
one reads goes to memory and back; a task's share of it stays in the second-level cache.
"""

from __future__ import annotations

from stepgraph.backends.cpu.native.emit import Module, i64, pointer

# Numbers of one table entry.
ENTRY = 4


def chain_module() -> Module:
    """The module with the kernel ``chain``; both tables hold i64."""
    module = Module("chain")
    with module.kernel("chain", {"starts": pointer(i64), "table": pointer(i64)}) as (f, x):
        first, last = ((x.starts + (x.task + k)).load() for k in (0, 1))
        with f.loop(first, last) as number:
            entry = x.table + number * ENTRY
            function, arguments, start, count = ((entry + k).load() for k in range(ENTRY))
            with f.loop(start, start + count) as task:
                f.call_address(function, arguments, task, x.thread)
    return module
