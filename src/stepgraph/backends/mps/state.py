"""Variables, whose values the framework keeps with the MPSGraph object.

So all programs of one graph are built into one MPSGraph: their executables then see the same
values, and a value is written by an executable that assigns a fed one, read by one that returns it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from concurrent.futures import Future

import numpy as np

from stepgraph.backends.mps.compiled import Compiled, Port
from stepgraph.backends.mps.enums import data_type
from stepgraph.backends.mps.messages import Data, Handle, numbers
from stepgraph.backends.mps.session import Session
from stepgraph.errors import ShapeError, describe
from stepgraph.graph.definition import Array
from stepgraph.graph.shapes import format_shape
from stepgraph.graph.tensor import Variable


class MpsState:
    """One graph's variables on the GPU.

    Values written are sent with the next run, all at once; values read are kept until a run changes
    them.

    Attributes:
        session: the device.
        graph: the MPSGraph that holds everything built for the graph.
        handles: name to the MPSGraph's variable, of those made so far.
    """

    def __init__(self, session: Session, variables: Mapping[str, Variable]) -> None:
        self.session = session
        self.graph: Handle = session.bridge.new("MPSGraph")
        self._variables = variables
        self.handles: dict[str, Handle] = {}
        self._known: dict[str, Array] = {}
        self._written: set[str] = set()
        self._writers: dict[frozenset[str], Compiled] = {}
        self._readers: dict[frozenset[str], Compiled] = {}
        self._read_one = False
        self._end = weakref.finalize(self, _discard, session, self.graph, self.handles)
        self._end.atexit = False

    def variable(self, name: str) -> Handle:
        """The MPSGraph's variable, made when first asked for, with the value it has by then."""
        if name not in self.handles:
            variable = self._variables[name]
            bridge = self.session.bridge
            value = self._known.get(name, variable.initial)
            shape = _extents(variable)
            handle = bridge.send(
                self.graph,
                "variableWithData:shape:dataType:name:",
                Data(np.ascontiguousarray(value).reshape(shape)),
                numbers(shape),
                data_type(variable.dtype),
                name,
            )
            self.handles[name] = bridge.keep(handle)
            self._known.setdefault(name, value)
            self._written.discard(name)
        return self.handles[name]

    def read(self, name: str) -> Array:
        """A copy of a variable's value; waits for the runs under way."""
        with self.session.lock:
            if name not in self._known and name in self.handles:
                self._fetch(name)
            return self._known.get(name, self._variables[name].initial).copy()

    def write(self, name: str, value: Array) -> None:
        """Gives a variable a value."""
        variable = self._variables[name]
        array = np.asarray(value)
        if array.shape != variable.shape:
            raise ShapeError(
                describe(
                    "set_value",
                    f"variable '{name}' has shape {format_shape(variable.shape)}, "
                    f"the value {format_shape(array.shape)}",
                )
            )
        with self.session.lock:
            self._known[name] = np.array(array, variable.dtype.numpy, order="C")
            self._written.add(name)

    def flush(self) -> Future[list[Array]] | None:
        """Puts written values on the queue, before the run that follows.

        Returns:
            The run that writes them, which that run is to be judged by too; None if there is none.
        """
        with self.session.lock:
            names = frozenset(n for n in self._written if n in self.handles)
            if not names:
                return None
            if names not in self._writers:
                self._writers[names] = self._writer(sorted(names))
            self._written -= names
            return self._writers[names].start(self._known)

    def changed(self, names: Iterable[str]) -> None:
        """Takes note that a run now put on the queue gives variables other values."""
        with self.session.lock:
            for name in names:
                if name in self.handles:
                    self._known.pop(name, None)
            self._read_one = False

    def close(self) -> None:
        """Frees the values; every executable of the graph must be closed already."""
        for compiled in (*self._writers.values(), *self._readers.values()):
            compiled.close()
        self._end()
        with self.session.lock:
            self.session.sweep()

    def _fetch(self, name: str) -> None:
        """One value by itself, then all the others: one is watched, or a checkpoint is written."""
        missing = [n for n in self.handles if n not in self._known]
        names = missing if self._read_one else [name]
        self._read_one = True
        key = frozenset(names)
        if key not in self._readers:
            self._readers[key] = self._reader(sorted(names))
        values = self._readers[key].run({})
        for known, value in zip(sorted(names), values, strict=True):
            self._known[known] = value.reshape(self._variables[known].initial.shape)

    def _reader(self, names: list[str]) -> Compiled:
        bridge, graph = self.session.bridge, self.graph
        with bridge.pool():
            targets = [
                (bridge.send(graph, "readVariable:name:", self.handles[n], n), self._port(n))
                for n in names
            ]
            return Compiled(self.session, graph, [], targets, [], keep=False)

    def _writer(self, names: list[str]) -> Compiled:
        bridge, graph = self.session.bridge, self.graph
        with bridge.pool():
            feeds, operations = [], []
            for name in names:
                port = self._port(name)
                value = bridge.send(
                    graph,
                    "placeholderWithShape:dataType:name:",
                    numbers(port.shape),
                    data_type(port.dtype),
                    name,
                )
                feeds.append((value, port))
                operations.append(
                    bridge.send(
                        graph,
                        "assignVariable:withValueOfTensor:name:",
                        self.handles[name],
                        value,
                        name,
                    )
                )
            # Some target must be asked for: the smallest value fed.
            value, port = min(feeds, key=lambda feed: int(np.prod(feed[1].shape)))
            same = bridge.send(graph, "identityWithTensor:name:", value, port.name)
            return Compiled(self.session, graph, feeds, [(same, port)], operations, keep=False)

    def _port(self, name: str) -> Port:
        variable = self._variables[name]
        return Port(name, _extents(variable), variable.dtype)


def _discard(session: Session, graph: Handle, variables: dict[str, Handle]) -> None:
    session.discard(variables.values(), [graph])


def _extents(variable: Variable) -> tuple[int, ...]:
    shape: tuple[int, ...] = variable.initial.shape
    return shape or (1,)
