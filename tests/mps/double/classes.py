"""What each class answers: one table, put together from the families'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import descriptors, dtypes, executables, foundation, graph, metal, rules, sdk
from .errors import Refused, need
from .objects import Object

Method = Callable[..., Any]


class Table:
    """Methods by class or protocol and selector."""

    def __init__(self, double: Any) -> None:
        self._double = double
        m = double.metal
        self._methods: dict[str, dict[str, Method]] = {
            "NSArray": foundation.ARRAY,
            "NSDictionary": foundation.DICTIONARY,
            "NSNumber": foundation.NUMBER,
            "NSString": foundation.STRING,
            "NSError": foundation.ERROR,
            "NSData": foundation.DATA,
            "NSMutableArray": {"addObject:": self._add_object},
            "MTLDevice": metal.device_methods(m),
            "MTLCommandQueue": metal.queue_methods(m),
            "MTLBuffer": metal.buffer_methods(m),
            "MTLCommandBuffer": metal.command_buffer_methods(m),
            "MPSCommandBuffer": {
                **metal.command_buffer_methods(m),
                "commandBufferFromCommandQueue:": lambda c, q: metal.mps_command_buffer(m, q),
            },
            "MPSGraphDevice": self._graph_device(),
            "MPSGraphShapedType": self._shaped_type(),
            "MPSGraphTensor": self._tensor(),
            "MPSGraphOperation": self._operation(),
            "MPSGraphVariableOp": {
                "shape": lambda o: o.outputs[0].shape,
                "dataType": lambda o: o.outputs[0].dtype,
            },
            "MPSGraphTensorData": self._tensor_data(),
            "MPSGraphExecutable": self._executable(),
            "MPSGraph": self._graph(),
        }

    def find(self, class_name: str, selector: str, receiver: Any) -> Method | None:
        protocols = () if isinstance(receiver, str) else receiver.protocols
        for name in (*sdk.lineage(class_name), *protocols):
            if (found := self._methods.get(name, {}).get(selector)) is not None:
                return found
            if (found := descriptors.method(name, selector)) is not None:
                return found
        if class_name == "MPSGraph" and selector in rules.RULES:
            return lambda o, *arguments: self._build(o, selector, arguments)
        return None

    # Building ---------------------------------------------------------------------------------

    def _build(self, o: Object, selector: str, arguments: tuple[Any, ...]) -> Any:
        name = None
        if selector.endswith("name:"):
            *arguments, name = arguments
        return rules.RULES[selector](graph.Builder(self._double, o, selector, name), *arguments)

    def _add_object(self, o: Object, item: Any) -> None:
        o.items.append(item)
        if isinstance(item, Object):
            self._double.heap.hold(o, item)

    def _graph_device(self) -> dict[str, Method]:
        def make(cls: str, device: Object) -> Object:
            return Object("MPSGraphDevice", metal=self._double.metal)

        return {
            "deviceWithMTLDevice:": make,
            "metalDevice": lambda o: self._double.metal.device,
            "type": lambda o: 0,
        }

    def _shaped_type(self) -> dict[str, Method]:
        def make(cls: str, shape: Any, dtype: int) -> Object:
            return Object("MPSGraphShapedType", shape=shape, dtype=dtype)

        return {
            "initWithShape:dataType:": make,
            "shape": lambda o: tuple(o.shape) if o.shape is not None else None,
            "dataType": lambda o: o.dtype,
        }

    def _tensor(self) -> dict[str, Method]:
        def shape(o: Object) -> Any:
            made = o.operation
            cast = made.inputs and made.inputs[0].operation.selector.startswith("castTensor")
            # Not known to the framework behind a convolution of what was just cast.
            return None if cast and made.selector.startswith("convolution") else o.shape

        return {
            "shape": shape,
            "dataType": lambda o: o.dtype,
            "operation": lambda o: o.operation,
        }

    def _operation(self) -> dict[str, Method]:
        return {
            "inputTensors": lambda o: list(o.inputs),
            "outputTensors": lambda o: list(o.outputs),
            "controlDependencies": lambda o: list(o.control),
            "graph": lambda o: o.graph,
            "name": lambda o: o.name or "",
        }

    def _tensor_data(self) -> dict[str, Method]:
        m = self._double.metal

        def rows(c: str, buffer: Object, shape: Any, dtype: int, row_bytes: int) -> Object:
            packed = (shape[-1] if shape else 1) * dtypes.size(dtype)
            need(row_bytes == packed, f"rowBytes {row_bytes}: only packed rows ({packed}) are safe")
            return m.tensor_data(shape, dtype, buffer)

        return {
            "initWithMTLBuffer:shape:dataType:": lambda c, b, s, d: m.tensor_data(s, d, b),
            "initWithMTLBuffer:shape:dataType:rowBytes:": rows,
            "initWithDevice:data:shape:dataType:": lambda c, v, data, s, d: m.tensor_data(
                s, d, data=data
            ),
            "shape": lambda o: o.shape,
            "dataType": lambda o: o.dtype,
        }

    # Running ----------------------------------------------------------------------------------

    def _graph(self) -> dict[str, Method]:
        def make(receiver: Any) -> Object:
            return Object("MPSGraph", state=graph.GraphState())

        def options(o: Object, value: int) -> None:
            o.state.options = value

        return {
            "init": make,
            "new": make,
            "options": lambda o: o.state.options,
            "setOptions:": options,
            "placeholderTensors": lambda o: list(o.state.placeholders),
            "compileWithDevice:feeds:targetTensors:targetOperations:compilationDescriptor:": (
                self._compile
            ),
            "runWithFeeds:targetTensors:targetOperations:": (
                lambda o, feeds, targets, ops: self._run_graph(o, None, feeds, targets, ops)
            ),
            "runWithMTLCommandQueue:feeds:targetTensors:targetOperations:": self._run_graph,
            "runWithMTLCommandQueue:feeds:targetOperations:resultsDictionary:": (
                lambda o, queue, feeds, ops, results: (
                    self._run_graph(
                        o, queue, feeds, [k for k, _ in results], ops, [v for _, v in results]
                    )
                    and None
                )
            ),
        }

    def _compile(
        self, o: Object, device: Any, feeds: Any, targets: Any, operations: Any, descriptor: Any
    ) -> Object:
        program = executables.compile_graph(self._double, o, device, feeds, targets, operations)
        executable = Object("MPSGraphExecutable", program=program, options=1)
        self._double.heap.hold(executable, *program.feeds, *program.targets)
        return executable

    def _run_graph(
        self,
        o: Object,
        queue: Object | None,
        feeds: list[tuple[Object, Object]],
        targets: list[Object],
        operations: list[Object] | None,
        results: list[Object] | None = None,
    ) -> list[tuple[Object, Object]]:
        double = self._double
        program = executables.compile_graph(double, o, None, feeds, targets, operations)
        data = dict(feeds)
        inputs = [data[t] for t in program.feeds]
        executables.check_run(program, inputs, results)
        results = results or executables.fresh_results(double, program)
        if queue is None:
            double.metal.gate_open("a blocking run")
            executables.execute(program, inputs, results)
        else:
            double.metal.run_now(queue, program, inputs, results)
        return list(zip(program.targets, results, strict=True))

    def _executable(self) -> dict[str, Method]:
        double = self._double

        def prepared(o: Object, inputs: Any, results: Any) -> list[Object]:
            state = o.program.state
            need(state.blocks == 0, "an executable is run inside a block")
            executables.check_run(o.program, inputs, results)
            double.results_reused = results is None
            return results if results is not None else executables.fresh_results(double, o.program)

        def run(o: Object, queue: Object, inputs: Any, results: Any, descriptor: Any) -> Any:
            results = prepared(o, inputs, results)
            double.metal.run_now(queue, o.program, inputs, results)
            return results

        def run_async(o: Object, queue: Object, inputs: Any, results: Any, descriptor: Any) -> Any:
            results = prepared(o, inputs, results)
            double.metal.run_later(queue, o.program, inputs, results, descriptor, keep=[o, queue])
            return results

        def encode(o: Object, buffer: Object, inputs: Any, results: Any, descriptor: Any) -> Any:
            need(buffer.status < 2, "encoding to a command buffer that was committed")
            results = prepared(o, inputs, results)
            buffer.jobs.append((o.program, inputs, results))
            return results

        def fixed(o: Object, value: int) -> None:
            o.options = value

        end = "CommandQueue:inputsArray:resultsArray:executionDescriptor:"
        return {
            "feedTensors": lambda o: list(o.program.feeds),
            "targetTensors": lambda o: list(o.program.targets),
            "options": lambda o: o.options,
            "setOptions:": fixed,
            "runWithMTL" + end: run,
            "runAsyncWithMTL" + end: run_async,
            "encodeToCommandBuffer:inputsArray:resultsArray:executionDescriptor:": encode,
            "init": _no_plain_executable,
        }


def _no_plain_executable(receiver: Any) -> Object:
    raise Refused("an executable comes from a graph's compile")


def table(double: Any) -> Table:
    return Table(double)
