"""Short words for the messages that tests send to the double themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from stepgraph.backends.mps.messages import Block, Data, Dictionary, List, Number, numbers
from tests.mps.double import Double, sdk

TYPES = {
    "float32": "Float32",
    "float16": "Float16",
    "int32": "Int32",
    "int64": "Int64",
    "int8": "Int8",
    "uint8": "UInt8",
    "uint32": "UInt32",
    "bool": "Bool",
}
COMPILE = "compileWithDevice:feeds:targetTensors:targetOperations:compilationDescriptor:"
RUN = "runWithMTLCommandQueue:inputsArray:resultsArray:executionDescriptor:"
RUN_ASYNC = "runAsyncWithMTLCommandQueue:inputsArray:resultsArray:executionDescriptor:"


_random = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    """Normally distributed float32."""
    return _random.standard_normal(shape).astype(np.float32)


def data_type(array_or_name: Any) -> int:
    name = array_or_name if isinstance(array_or_name, str) else np.asarray(array_or_name).dtype.name
    return sdk.value("MPSDataType" + TYPES[name])


class Session:
    """A graph on a double, inside one pool."""

    def __init__(self, double: Double) -> None:
        self.double = double
        self.device = double.function("MTLCreateSystemDefaultDevice")
        self.queue = double.send(self.device, "newCommandQueue")
        self.graph_device = double.keep(
            double.send("MPSGraphDevice", "deviceWithMTLDevice:", self.device)
        )
        self.graph = double.new("MPSGraph")

    def send(self, selector: str, *arguments: Any) -> Any:
        """A message to the graph."""
        return self.double.send(self.graph, selector, *arguments)

    def placeholder(self, shape: Sequence[int], kind: str = "float32", name: str = "x") -> Any:
        return self.send(
            "placeholderWithShape:dataType:name:", numbers(shape), data_type(kind), name
        )

    def constant(self, array: Any) -> Any:
        array = np.ascontiguousarray(array)
        return self.send(
            "constantWithData:shape:dataType:",
            Data(array),
            numbers(array.shape),
            data_type(array),
        )

    def variable(self, array: Any, name: str = "v") -> Any:
        array = np.ascontiguousarray(array)
        return self.send(
            "variableWithData:shape:dataType:name:",
            Data(array),
            numbers(array.shape),
            data_type(array),
            name,
        )

    def shape(self, tensor: Any) -> tuple[int, ...]:
        return tuple(self.double.items(self.double.send(tensor, "shape")))

    def data(self, array: Any) -> tuple[Any, Any]:
        """Tensor data over a shared buffer that holds an array; and the buffer."""
        array = np.ascontiguousarray(array)
        buffer = self.double.send(self.device, "newBufferWithLength:options:", array.nbytes, 0)
        self.double.view(buffer, array.nbytes)[:] = array.tobytes()
        data = self.double.new(
            "MPSGraphTensorData",
            "initWithMTLBuffer:shape:dataType:",
            buffer,
            numbers(array.shape),
            data_type(array),
        )
        return data, buffer

    def compile(self, feeds: dict[Any, Any], targets: Sequence[Any], operations: Any = None) -> Any:
        """An executable for feeds (tensor: array), targets and target operations."""
        double = self.double
        pairs = []
        for tensor, array in feeds.items():
            array = np.asarray(array)
            kind = double.new(
                "MPSGraphShapedType",
                "initWithShape:dataType:",
                numbers(array.shape),
                data_type(array),
            )
            pairs.append((tensor, kind))
        descriptor = double.new("MPSGraphCompilationDescriptor")
        executable = self.send(
            COMPILE,
            self.graph_device,
            Dictionary(tuple(pairs)),
            List(tuple(targets)),
            List(tuple(operations)) if operations is not None else None,
            descriptor,
        )
        for _, kind in pairs:
            double.drop(kind)
        double.drop(descriptor)
        return executable

    def results(self, executable: Any) -> list[tuple[Any, Any, np.ndarray]]:
        """Tensor data, buffer and a NumPy view for each target."""
        double = self.double
        found = []
        for target in double.items(double.send(executable, "targetTensors")):
            kinds = {data_type(k): np.dtype(k) for k in TYPES}
            kind = kinds[double.send(target, "dataType")]
            data, buffer = self.data(np.zeros(self.shape(target), kind))
            view = double.view(buffer, data.memory.size)
            found.append((data, buffer, np.frombuffer(view, kind).reshape(self.shape(target))))
        return found

    def run(
        self, feeds: dict[Any, Any], targets: Sequence[Any], operations: Any = None
    ) -> list[np.ndarray]:
        """Compiles, runs once, gives the targets' values."""
        double = self.double
        executable = self.compile(feeds, targets, operations)
        order = double.items(double.send(executable, "feedTensors"))
        inputs = [self.data(feeds[t]) for t in order]
        results = self.results(executable)
        double.send(
            executable,
            RUN,
            self.queue,
            List(tuple(d for d, _ in inputs)),
            List(tuple(d for d, _, _ in results)),
            None,
        )
        values = [v.copy() for _, _, v in results]
        for data, buffer, *_ in (*inputs, *results):
            double.drop(data)
            double.drop(buffer)
        return values

    def of(self, selector: str, *arguments: Any) -> Any:
        """The value (or values) of one operation whose array arguments are fed."""
        feeds: dict[Any, Any] = {}

        def fed(a: Any) -> Any:
            if isinstance(a, np.ndarray):
                tensor = self.placeholder(a.shape, a.dtype.name, f"in{len(feeds)}")
                feeds[tensor] = a
                return tensor
            if isinstance(a, list):
                return List(tuple(fed(x) for x in a))
            return a

        if selector.endswith("name:"):
            arguments = (*arguments, "op")
        result = self.send(selector, *(fed(a) for a in arguments))
        single = getattr(result, "class_name", "") == "MPSGraphTensor"
        targets = [result] if single else self.double.items(result)
        values = self.run(feeds, [self.fetched(t) for t in targets])
        shapes = [self.shape(t) for t in targets]
        values = [v.reshape(s) for v, s in zip(values, shapes, strict=True)]
        return values[0] if single else values

    def fetched(self, tensor: Any) -> Any:
        """A tensor that can be a target: scalars as [1]."""
        if self.shape(tensor):
            return tensor
        return self.send("reshapeTensor:withShape:name:", tensor, numbers([1]), None)


@contextmanager
def session(**settings: Any) -> Iterator[Session]:
    """A session on a new double; nothing may leak but what the test keeps."""
    double = Double(**settings)
    with double.pool():
        yield Session(double)


__all__ = ["COMPILE", "RUN", "RUN_ASYNC", "Block", "Data", "Dictionary", "List", "Number"]
__all__ += ["Session", "data_type", "normal", "numbers", "session"]
