"""Launches that follow each other task by task: what one leaves in the cache the next one uses.

A chain is a launch whose task number t calls ranges of other kernels' tasks, one after the other:

    for (function, arguments, first, count) in table[starts[t] : starts[t + 1]]:
        function(arguments, first ... first + count - 1)

It costs a call per inner task, as a launch of its own would, and saves the wait of all threads
between two launches. What it is for is memory: a map of 32 MB that one launch writes and the next
one reads goes to memory and back; a task's share of it stays in the second-level cache.

What only the chain reads need not be written to memory at all: ``tiled_chain`` calls kernels with
arguments that are a copy of their launch's, in which addresses of such values are moved so that the
tile of this task lies where this thread keeps its tiles (`tiles`).
"""

from __future__ import annotations

from stepgraph.backends.cpu.native.emit import Module, i64, pointer

# Numbers of one table entry: function, arguments, first task, count; and, where addresses are
# moved, how many arguments there are, the first of the table of moves, and how many of those.
ENTRY, TILED_ENTRY = 4, 7
# Most arguments of a kernel whose addresses are moved.
MOST_SLOTS = 128


def chain_module() -> Module:
    """The module with the kernels ``chain`` and ``tiled_chain``; all tables hold i64."""
    module = Module("chain")
    with module.kernel("chain", {"starts": pointer(i64), "table": pointer(i64)}) as (f, x):
        first, last = ((x.starts + (x.task + k)).load() for k in (0, 1))
        with f.loop(first, last) as number:
            entry = x.table + number * ENTRY
            function, arguments, start, count = ((entry + k).load() for k in range(ENTRY))
            with f.loop(start, start + count) as task:
                f.call_address(function, arguments, task, x.thread)
    fields = dict.fromkeys(("starts", "table", "moves"), pointer(i64)) | {"stride": i64}
    with module.kernel("tiled_chain", fields) as (f, x):
        copy = f.stack(i64, MOST_SLOTS)
        first, last = ((x.starts + (x.task + k)).load() for k in (0, 1))
        with f.loop(first, last) as number:
            entry = x.table + number * TILED_ENTRY
            function, given, start, count, slots, move, moves = (
                (entry + k).load() for k in range(TILED_ENTRY)
            )
            source = f.at_address(given, i64)
            with f.loop(0, slots) as k:
                (copy + k).store((source + k).load())
            with f.loop(move, move + moves) as k:
                slot, address = ((x.moves + (k * 2 + j)).load() for j in range(2))
                (copy + slot).store(address + x.thread * x.stride)
            arguments = f.select(slots > 0, f.address_of(copy), given)
            with f.loop(start, start + count) as task:
                f.call_address(function, arguments, task, x.thread)
    return module
