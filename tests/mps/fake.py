"""The smallest bridge that runs a graph: a few selectors, a thread as GPU, faults on demand.

It checks nothing; the strict double does that. It is for tests of how runs overlap and fail.
"""

from __future__ import annotations

import contextlib
import queue
import threading

import numpy as np

from stepgraph.backends.mps.enums import DATA_TYPES
from stepgraph.backends.mps.messages import Block, Data, Dictionary, List, Number

DTYPES = {int(value): np.dtype(name) for name, value in DATA_TYPES.items()}
BINARY = {
    "additionWithPrimaryTensor:secondaryTensor:name:": np.add,
    "subtractionWithPrimaryTensor:secondaryTensor:name:": np.subtract,
    "multiplicationWithPrimaryTensor:secondaryTensor:name:": np.multiply,
    "divisionWithPrimaryTensor:secondaryTensor:name:": np.divide,
}
UNARY = {
    "negativeWithTensor:name:": np.negative,
    "exponentWithTensor:name:": np.exp,
    "identityWithTensor:name:": np.array,
}


class Thing:
    """An object on the other side."""

    def __init__(self, kind, **fields):
        self.kind = kind
        self.__dict__.update(fields)


class FakeBridge:
    """Runs on a thread, one run after the other.

    Attributes:
        gate: cleared, it holds runs back.
        fail_next: text of an error for the next run.
        under_way: most runs that were on the queue at a time.
        sent: how many messages.
    """

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.fail_next = None
        self.sent = 0
        self.waiting = self.under_way = 0
        self.alive = set()
        self._queue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._gpu, daemon=True)
        self._thread.start()

    def system(self):
        return "macOS 15.1"

    def function(self, name):
        return Thing("MTLDevice")

    def text(self, string):
        return string

    def items(self, array):
        return list(array)

    def view(self, buffer, length):
        return memoryview(buffer.bytes)[:length]

    @contextlib.contextmanager
    def pool(self):
        yield

    def keep(self, handle):
        self.alive.add(handle)
        return handle

    def drop(self, handle):
        self.alive.remove(handle)

    def new(self, class_name, initializer="init", *arguments):
        thing = Thing(class_name, arguments=arguments)
        if class_name == "MPSGraph":
            thing.values = {}
        self.alive.add(thing)
        return thing

    def send(self, receiver, selector, *arguments):
        self.sent += 1
        if selector in BINARY or selector in UNARY:
            function = BINARY.get(selector) or UNARY[selector]
            return Thing("tensor", run=function, inputs=arguments[:-1], before=())
        return getattr(self, "_" + selector.replace(":", "_"))(receiver, *arguments)

    def _name(self, metal):
        return "Fake GPU"

    def _deviceWithMTLDevice_(self, cls, metal):
        return Thing("MPSGraphDevice")

    def _newCommandQueue(self, metal):
        return self.keep(Thing("queue"))

    def _newBufferWithLength_options_(self, metal, length, options):
        return self.keep(Thing("MTLBuffer", bytes=bytearray(b"\xbd" * length)))

    def _setCompletionHandler_(self, descriptor, block):
        assert isinstance(block, Block)
        descriptor.handler = block.function

    def _setOptimizationLevel_(self, descriptor, level):
        pass

    def _setWaitForCompilationCompletion_(self, descriptor, wait):
        pass

    def _placeholderWithShape_dataType_name_(self, graph, shape, dtype, name):
        return Thing("tensor", run=None, inputs=(), name=name)

    def _constantWithScalar_shape_dataType_(self, graph, scalar, shape, dtype):
        value = np.full([n.value for n in shape.items], scalar, DTYPES[dtype])
        return Thing("tensor", run=lambda: value, inputs=())

    def _constantWithData_shape_dataType_(self, graph, data, shape, dtype):
        assert isinstance(data, Data)
        value = data.array.copy()
        return Thing("tensor", run=lambda: value, inputs=())

    def _variableWithData_shape_dataType_name_(self, graph, data, shape, dtype, name):
        thing = Thing("variable", name=name)
        graph.values[thing] = data.array.copy()
        return thing

    def _readVariable_name_(self, graph, variable, name):
        return Thing("tensor", run=lambda: graph.values[variable].copy(), inputs=())

    def _assignVariable_withValueOfTensor_name_(self, graph, variable, value, name):
        return Thing("operation", variable=variable, value=value)

    def _operation(self, tensor):
        return tensor

    def _controlDependencyWithOperations_dependentBlock_name_(self, graph, before, block, name):
        return list(block.function().items)

    def _compileWithDevice_feeds_targetTensors_targetOperations_compilationDescriptor_(
        self, graph, device, feeds, targets, operations, descriptor
    ):
        assert isinstance(feeds, Dictionary)
        return Thing(
            "executable",
            graph=graph,
            feeds=[k for k, _ in reversed(feeds.pairs)],
            targets=list(reversed(targets.items)),
            operations=list(operations.items) if operations else [],
        )

    def _feedTensors(self, executable):
        return executable.feeds

    def _targetTensors(self, executable):
        return executable.targets

    def _runAsyncWithMTLCommandQueue_inputsArray_resultsArray_executionDescriptor_(
        self, executable, command_queue, inputs, results, descriptor
    ):
        assert isinstance(inputs, List)
        self.waiting += 1
        self.under_way = max(self.under_way, self.waiting)
        self._queue.put((executable, inputs.items, results.items, descriptor))

    def _localizedDescription(self, error):
        return error

    def _gpu(self):
        while True:
            executable, inputs, results, descriptor = self._queue.get()
            self.gate.wait()
            error, self.fail_next = self.fail_next, None
            if error is None:
                self._execute(executable, inputs, results)
            self.waiting -= 1
            descriptor.handler(None, error)

    def _execute(self, executable, inputs, results):
        values = {t: _array(d) for t, d in zip(executable.feeds, inputs, strict=True)}

        def value(tensor):
            if tensor not in values:
                values[tensor] = tensor.run(*(value(t) for t in tensor.inputs))
            return values[tensor]

        for tensor, data in zip(executable.targets, results, strict=True):
            _array(data)[...] = value(tensor)
        updates = {op.variable: value(op.value) for op in executable.operations}
        executable.graph.values.update({k: np.array(v) for k, v in updates.items()})


def _array(data):
    buffer, shape, dtype = data.arguments
    assert all(isinstance(n, Number) for n in shape.items)
    return np.frombuffer(buffer.bytes, DTYPES[dtype]).reshape([n.value for n in shape.items])
