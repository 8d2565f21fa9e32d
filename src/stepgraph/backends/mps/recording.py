"""A bridge that sends nothing and writes every message down.

It works on every platform: the messages that would build a network on a GPU can be read, held
against an SDK, or printed as source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from stepgraph.backends.mps.builder import Built
from stepgraph.backends.mps.executable import build
from stepgraph.backends.mps.messages import (
    Argument,
    Block,
    Dictionary,
    Handle,
    List,
)
from stepgraph.backends.mps.session import Session
from stepgraph.backends.mps.state import MpsState
from stepgraph.compiler.program import Program
from stepgraph.graph.definition import Array
from stepgraph.graph.tensor import Variable

_TENSORS = "NSArray<MPSGraphTensor>"

# What a selector returns where that is no tensor and not said by its name. None is void.
RETURNS: dict[str, str | None] = {
    "MTLCreateSystemDefaultDevice": "id<MTLDevice>",
    "name": "NSString",
    "newCommandQueue": "id<MTLCommandQueue>",
    "newBufferWithLength:options:": "id<MTLBuffer>",
    "deviceWithMTLDevice:": "MPSGraphDevice",
    "compileWithDevice:feeds:targetTensors:targetOperations:compilationDescriptor:": (
        "MPSGraphExecutable"
    ),
    "feedTensors": _TENSORS,
    "targetTensors": _TENSORS,
    "operation": "MPSGraphOperation",
    "assignVariable:withValueOfTensor:name:": "MPSGraphOperation",
    "controlDependencyWithOperations:dependentBlock:name:": _TENSORS,
    "ifWithPredicateTensor:thenBlock:elseBlock:name:": _TENSORS,
    "forLoopWithNumberOfIterations:initialBodyArguments:body:name:": _TENSORS,
    "forLoopWithLowerBound:upperBound:step:initialBodyArguments:body:name:": _TENSORS,
    "whileWithInitialInputs:before:after:name:": _TENSORS,
    "maxPooling2DReturnIndicesWithSourceTensor:descriptor:name:": _TENSORS,
    "splitTensor:numSplits:axis:name:": _TENSORS,
    "splitTensor:splitSizes:axis:name:": _TENSORS,
    "topKWithSourceTensor:k:name:": _TENSORS,
    "topKWithSourceTensor:axis:k:name:": _TENSORS,
    "runAsyncWithMTLCommandQueue:inputsArray:resultsArray:executionDescriptor:": (
        "NSArray<MPSGraphTensorData>"
    ),
    "addObject:": None,
}


@dataclass(frozen=True)
class Symbol:
    """Stands for an object.

    Attributes:
        number: unique in a recording.
        class_name: in the SDK's spelling, as ``"MPSGraphTensor"`` or ``"id<MTLDevice>"``.
    """

    number: int
    class_name: str

    def __str__(self) -> str:
        return f"%{self.number}"


@dataclass
class Message:
    """One message.

    Attributes:
        kind: ``"instance"``, ``"class"``, ``"new"`` (``alloc`` and an initializer) or
            ``"function"``.
        receiver: the object; None for the others.
        class_name: the receiver's class; the empty string for a function.
        selector: or the function's name.
        arguments: as they were sent, a block as a `RecordedBlock`.
        result: the object returned; None for void.
    """

    kind: str
    receiver: Symbol | None
    class_name: str
    selector: str
    arguments: tuple[Any, ...]
    result: Symbol | None


@dataclass
class RecordedBlock:
    """A block that was run once, as MPSGraph runs those that build.

    Attributes:
        block: as it was sent; its function is not to be called again.
        parameters: what it was given.
        messages: what it sent.
        result: what it returned.
    """

    block: Block
    parameters: tuple[Symbol, ...] = ()
    messages: list[Message] = field(default_factory=list)
    result: Any = None


class Recorder:
    """A `messages.Bridge` that answers with symbols.

    Attributes:
        messages: all so far, in order.
    """

    def __init__(self, system: str = "iOS 26.0") -> None:
        self.messages: list[Message] = []
        self._system = system
        self._count = 0
        self._arrays: dict[Symbol, list[Any]] = {}

    def send(self, receiver: Handle | str, selector: str, *arguments: Argument) -> Any:
        """See `messages.Bridge`."""
        if isinstance(receiver, str):
            return self._add("class", None, receiver, selector, arguments)
        if not isinstance(receiver, Symbol):
            raise TypeError(f"{selector}: {receiver!r} is no object of this recording")
        return self._add("instance", receiver, receiver.class_name, selector, arguments)

    def new(self, class_name: str, initializer: str = "init", *arguments: Argument) -> Handle:
        """See `messages.Bridge`."""
        return self._add("new", None, class_name, initializer, arguments)

    def function(self, name: str, *arguments: Argument) -> Any:
        """See `messages.Bridge`."""
        return self._add("function", None, "", name, arguments)

    def _add(
        self,
        kind: str,
        receiver: Symbol | None,
        class_name: str,
        selector: str,
        arguments: tuple[Argument, ...],
    ) -> Symbol | None:
        place = len(self.messages)
        recorded = tuple(self._argument(a) for a in arguments)
        found = _returned(kind, class_name, selector)
        result = None if found is None else self._symbol(found)
        message = Message(kind, receiver, class_name, selector, recorded, result)
        # What is built in a block is part of its argument.
        del self.messages[place:]
        self.messages.append(message)
        self._note(message)
        return result

    def _argument(self, argument: Argument) -> Any:
        if not isinstance(argument, Block):
            return argument
        recorded = RecordedBlock(argument)
        if argument.returns != "void":
            # Blocks that return something build at once; the others are called when a run is over.
            recorded.parameters = tuple(self._symbol(kind) for kind in argument.takes)
            outer, self.messages = self.messages, recorded.messages
            try:
                recorded.result = argument.function(*recorded.parameters)
            finally:
                self.messages = outer
        return recorded

    def _note(self, message: Message) -> None:
        """Remembers what arrays hold that are asked for later."""
        if message.selector.startswith("compileWithDevice:"):
            _, feeds, targets, *_ = message.arguments
            assert isinstance(feeds, Dictionary)
            assert isinstance(targets, List)
            assert message.result is not None
            self._arrays[message.result] = [[k for k, _ in feeds.pairs], list(targets.items)]
        elif message.selector in ("feedTensors", "targetTensors"):
            assert message.receiver is not None
            assert message.result is not None
            feeds_and_targets = self._arrays[message.receiver]
            which = message.selector == "targetTensors"
            self._arrays[message.result] = feeds_and_targets[which]

    def _symbol(self, class_name: str) -> Symbol:
        self._count += 1
        return Symbol(self._count, class_name)

    def items(self, array: Handle) -> list[Any]:
        """See `messages.Bridge`; known of an executable's feeds and targets alone."""
        assert isinstance(array, Symbol)
        return list(self._arrays[array])

    def text(self, string: Handle) -> str:
        """See `messages.Bridge`."""
        return "recorder"

    def view(self, buffer: Handle, length: int) -> memoryview:
        """See `messages.Bridge`."""
        return memoryview(bytearray(length))

    @contextmanager
    def pool(self) -> Iterator[None]:
        """See `messages.Bridge`."""
        yield

    def keep(self, handle: Handle) -> Handle:
        """See `messages.Bridge`."""
        return handle

    def drop(self, handle: Handle) -> None:
        """See `messages.Bridge`."""

    def system(self) -> str:
        """See `messages.Bridge`."""
        return self._system


def _returned(kind: str, class_name: str, selector: str) -> str | None:
    if selector in RETURNS:
        return RETURNS[selector]
    if kind == "new":
        return class_name
    if selector == "objectAtIndex:":
        return class_name.partition("<")[2].removesuffix(">")
    if kind == "class" and selector.startswith("descriptorWith"):
        return class_name
    if selector.startswith("set"):
        return None
    if class_name == "MPSGraph":
        return "MPSGraphTensor"
    raise NotImplementedError(f"what {class_name} {selector} returns is not written down")


@dataclass
class RecordedProgram:
    """The messages that build and compile one program.

    Attributes:
        program: what was built.
        built: which symbols are its feeds, targets and assigns.
        messages: in order; those that make its variables among them, if it is the first to use
            them.
    """

    program: Program
    built: Built
    messages: list[Message]

    def every_message(self) -> Iterator[Message]:
        """All messages, those inside blocks before the one that takes the block."""
        return every_message(self.messages)


def every_message(messages: Sequence[Message]) -> Iterator[Message]:
    """Messages and, before each, those inside its blocks."""
    for message in messages:
        for argument in message.arguments:
            if isinstance(argument, RecordedBlock):
                yield from every_message(argument.messages)
        yield message


@dataclass
class Recording:
    """Programs that share variables, in one MPSGraph.

    Attributes:
        setup: messages before the first program: device, queue, graph.
        graph: the MPSGraph.
        device: the ``MPSGraphDevice``.
        variables: name to the MPSGraph's variable.
        programs: by the names given.
    """

    setup: list[Message]
    graph: Symbol
    device: Symbol
    variables: dict[str, Symbol]
    programs: dict[str, RecordedProgram]


def record(
    programs: Mapping[str, Program],
    variables: Mapping[str, Variable],
    values: Mapping[str, Array] | None = None,
    system: str = "iOS 26.0",
) -> Recording:
    """Records how programs of one graph are built and compiled.

    Args:
        programs: name to program, as `device.lowered_program` gives them.
        variables: of the graph.
        values: of variables, by name; those left out have their initial one.
        system: of the device that would run them; lowerings differ between versions.
    """
    recorder = Recorder(system)
    session = Session(recorder)
    state = MpsState(session, variables)
    for name, value in (values or {}).items():
        state.write(name, value)
    setup = list(recorder.messages)
    recorded = {}
    for name, program in programs.items():
        start = len(recorder.messages)
        _, built = build(program, state)
        recorded[name] = RecordedProgram(program, built, recorder.messages[start:])
    session.close()
    return Recording(
        setup,
        _as_symbol(state.graph),
        _as_symbol(session.device),
        {name: _as_symbol(handle) for name, handle in state.handles.items()},
        recorded,
    )


def _as_symbol(handle: Handle) -> Symbol:
    assert isinstance(handle, Symbol)
    return handle
