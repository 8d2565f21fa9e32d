"""Recorded messages as Objective-C statements.

Tensors of a program go by number in one array, so that a network's thousands of messages can be
split over functions that a compiler digests; what blocks build, and everything that is no tensor,
has local variables.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np

from stepgraph.backends.mps.builder import extents
from stepgraph.backends.mps.enums import constant_name, data_type
from stepgraph.backends.mps.messages import Data, Dictionary, List, Number
from stepgraph.backends.mps.recording import Message, RecordedBlock, RecordedProgram, Symbol
from stepgraph.graph.definition import Array
from stepgraph.graph.dtypes import DType, as_dtype
from stepgraph.graph.tensor import Tensor

_VARIABLE = "variableWithData:shape:dataType:name:"
_ASSIGN = "assignVariable:withValueOfTensor:name:"
# Asked of an executable when it runs; the runtime does so itself.
_AT_RUN = ("feedTensors", "targetTensors")
# Messages in a function, about.
_PART = 300


class Source:
    """Prints the programs of a recording.

    Args:
        prefix: of all names that a linker sees.
        graph: the MPSGraph of the recording.
        device: its ``MPSGraphDevice``.
        variables: name to the MPSGraph's variable.
    """

    def __init__(
        self, prefix: str, graph: Symbol, device: Symbol, variables: Mapping[str, Symbol]
    ) -> None:
        self.prefix = prefix
        self._names = {graph: "graph", device: "device"}
        for name, symbol in variables.items():
            self._names[symbol] = f"variable(variables, {string(name)})"
        self._data: list[str] = []
        self._used: set[Symbol] = set()
        self._tensors = 0
        self._constants = 0
        self._assigns: list[Symbol | None] = []

    def program(self, title: str, recorded: RecordedProgram) -> str:
        """The function ``<prefix>Build<title>`` and what it calls."""
        messages = [m for m in recorded.messages if m.selector not in (_VARIABLE, *_AT_RUN)]
        executable = next(m.result for m in messages if m.selector.startswith("compileWith"))
        assert executable is not None
        self._used = {executable, *symbols(messages)}
        self._used.update(_as_symbols(recorded.built.feeds.values()))
        self._used.update(_as_symbols(h for h, _ in recorded.built.targets))
        self._data, self._tensors, self._assigns = [], 0, []
        place = next(i for i, m in enumerate(messages) if m.class_name == "MPSGraphShapedType")
        building, compiling = messages[:place], messages[place:]
        calls, functions = [], []
        for number, part in enumerate(_parts(building)):
            name = f"{title.lower()}{number + 1}"
            body = [line for m in part for line in self.statement(m, "    ")]
            functions.append(
                f"static void {name}(MPSGraph *graph, {self.prefix}Variables *variables, "
                f"Tensors t,\n{' ' * (14 + len(name))}Operations *operations) {{\n"
                + "\n".join(body)
                + "\n}\n"
            )
            calls.append(f"    {name}(graph, variables, t, operations);")
        last = [line for m in compiling for line in self.statement(m, "    ")]
        count = max(self._tensors, 1)
        whole = [
            f"{self.prefix}Program *{self.prefix}Build{title}(MPSGraph *graph, "
            "MPSGraphDevice *device,",
            f"{' ' * (len(self.prefix) * 2 + len(title) + 15)}"
            f"{self.prefix}Variables *variables) {{",
            "    MPSGraphTensor *__strong *t =",
            f"        (MPSGraphTensor *__strong *)calloc({count}, sizeof(MPSGraphTensor *));",
            "    Operations *operations = [NSMutableArray array];",
            *calls,
            *last,
            f"    {self.prefix}Program *program = [[{self.prefix}Program alloc]",
            f"        initWithExecutable:{self._name(executable)}",
            "                     feeds:@[",
            *self._feeds(recorded),
            "                     ]",
            "                   targets:@[",
            *self._targets(recorded),
            "                     ]];",
            f"    for (NSUInteger i = 0; i < {count}; i++) {{",
            "        t[i] = nil;",
            "    }",
            "    free(t);",
            "    return program;",
            "}",
            "",
        ]
        return "\n".join([*self._data, "", *functions, *whole])

    def _feeds(self, recorded: RecordedProgram) -> Iterator[str]:
        for name, handle in recorded.built.feeds.items():
            yield self._port(name, handle, recorded.program.feeds[name])

    def _targets(self, recorded: RecordedProgram) -> Iterator[str]:
        for number, (handle, tensor) in enumerate(recorded.built.targets):
            yield self._port(f"target {number}", handle, tensor)

    def _port(self, name: str, handle: Any, tensor: Tensor) -> str:
        shape = extents(tensor)
        length = math.prod(shape) * tensor.dtype.size
        return (
            f"        [[{self.prefix}Port alloc] initWithName:{string(name)} "
            f"tensor:{self._name(handle)} shape:{shape_text(shape)} "
            f"dataType:{dtype_text(tensor.dtype)} length:{length}],"
        )

    # -- statements

    def statement(self, message: Message, indent: str, inside: bool = False) -> list[str]:
        """A message as a statement; of one inside a block the result is a local variable."""
        text = self.expression(message, indent)
        result = message.result
        if message.selector == _ASSIGN:
            self._assigns.append(result)
            return [f"{indent}[operations addObject:{text}];"]
        if result is None or result not in self._used:
            return [f"{indent}{text};"]
        if result.class_name == "MPSGraphTensor" and not inside:
            self._names[result] = f"t[{self._tensors}]"
            self._tensors += 1
            return [f"{indent}{self._names[result]} = {text};"]
        self._names[result] = f"v{result.number}"
        return [f"{indent}{type_text(result.class_name)}{self._names[result]} = {text};"]

    def expression(self, message: Message, indent: str) -> str:
        """A message itself."""
        arguments = [self.argument(a, indent) for a in message.arguments]
        if message.kind == "function":
            return f"{message.selector}({', '.join(arguments)})"
        receiver = message.class_name
        if message.kind == "new":
            receiver = f"[{message.class_name} alloc]"
        elif message.receiver is not None:
            receiver = self._name(message.receiver)
        parts = message.selector.split(":")
        if not arguments:
            return f"[{receiver} {parts[0]}]"
        words = (f"{part}:{text}" for part, text in zip(parts, arguments, strict=False))
        return f"[{receiver} {' '.join(words)}]"

    def argument(self, value: Any, indent: str) -> str:
        """An argument."""
        if isinstance(value, Symbol):
            return self._name(value)
        if isinstance(value, RecordedBlock):
            return self._block(value, indent)
        if isinstance(value, List):
            if self._assigns and list(value.items) == self._assigns:
                return "operations"
            return f"@[{', '.join(self.argument(v, indent) for v in value.items)}]"
        if isinstance(value, Dictionary):
            pairs = (f"{self.argument(k, '')}: {self.argument(v, '')}" for k, v in value.pairs)
            return f"@{{{', '.join(pairs)}}}"
        if isinstance(value, Data):
            return self._constant(value.array)
        if isinstance(value, Number):
            return f"@{scalar(value.value)}" if value.value >= 0 else f"@({scalar(value.value)})"
        if value is None:
            return "nil"
        return string(value) if isinstance(value, str) else scalar(value)

    def _name(self, symbol: Any) -> str:
        assert isinstance(symbol, Symbol), symbol
        return self._names[symbol]

    def _block(self, recorded: RecordedBlock, indent: str) -> str:
        """A block that builds; its own assigns go where all go."""
        inner = indent + "    "
        takes = []
        for symbol in recorded.parameters:
            self._names[symbol] = f"v{symbol.number}"
            takes.append(f"{type_text(symbol.class_name)}{self._names[symbol]}")
        lines = [text for m in recorded.messages for text in self.statement(m, inner, True)]
        result = self.argument(recorded.result, inner)
        returns = type_text(recorded.block.returns).rstrip()
        head = f"^{returns}({', '.join(takes)}) {{"
        return "\n".join([head, *lines, f"{inner}return {result};", f"{indent}}}"])

    def _constant(self, array: Array) -> str:
        """An ``NSData`` of an array that the source holds."""
        data = np.ascontiguousarray(array).tobytes()
        wide = len(data) % 4 == 0
        numbers = np.frombuffer(data, "<u4" if wide else "u1")
        digits = 8 if wide else 2
        words = [f"0x{int(n):0{digits}x}" for n in numbers]
        per_line = 8 if wide else 16
        rows = [", ".join(words[i : i + per_line]) for i in range(0, len(words), per_line)]
        kind = "uint32_t" if wide else "uint8_t"
        # Several programs stand in one file.
        self._constants += 1
        name = f"constant{self._constants}"
        self._data.append(f"static const {kind} {name}[] = {{\n    " + ",\n    ".join(rows) + "};")
        return f"[NSData dataWithBytes:{name} length:{len(data)}]"


def variable_lines(messages: Sequence[Message]) -> list[str]:
    """Statements that make a recording's variables."""
    found = []
    for message in messages:
        if message.selector == _VARIABLE:
            data, shape, kind, name = message.arguments
            text = ", ".join(scalar(n.value) for n in shape.items)
            found.append(
                f"    complete = complete && addVariable(variables, graph, file, {string(name)}, "
                f"@[{', '.join('@' + t for t in text.split(', '))}], "
                f"{scalar(kind)}, {data.array.nbytes});"
            )
    return found


def symbols(messages: Sequence[Message]) -> Iterator[Symbol]:
    """Every object that messages name, blocks included."""
    for message in messages:
        if message.receiver is not None:
            yield message.receiver
        for argument in message.arguments:
            yield from _within(argument)


def _within(value: Any) -> Iterator[Symbol]:
    if isinstance(value, Symbol):
        yield value
    elif isinstance(value, List):
        for item in value.items:
            yield from _within(item)
    elif isinstance(value, Dictionary):
        for pair in value.pairs:
            for item in pair:
                yield from _within(item)
    elif isinstance(value, RecordedBlock):
        yield from symbols(value.messages)
        yield from _within(value.result)


def _as_symbols(handles: Any) -> Iterator[Symbol]:
    for handle in handles:
        assert isinstance(handle, Symbol)
        yield handle


def _parts(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Messages in groups, cut only where no local variable is still needed."""
    last: dict[Symbol, int] = {}
    for place, message in enumerate(messages):
        for symbol in symbols([message]):
            last[symbol] = place
    start, until = 0, -1
    for place, message in enumerate(messages):
        result = message.result
        if result is not None and result.class_name != "MPSGraphTensor":
            until = max(until, last.get(result, place))
        if place - start + 1 >= _PART and until <= place:
            yield list(messages[start : place + 1])
            start = place + 1
    if start < len(messages):
        yield list(messages[start:])


def scalar(value: Any) -> str:
    """A C value.

    Example:
        >>> scalar(True), scalar(-2), scalar(0.1), scalar(float("inf"))
        ('YES', '-2', '0.1', '__builtin_inf()')
    """
    if isinstance(value, IntEnum):
        return constant_name(value)
    if isinstance(value, bool):
        return "YES" if value else "NO"
    if isinstance(value, int):
        return f"{value}ULL" if value > 0x7FFFFFFFFFFFFFFF else str(value)
    number = float(value)
    if math.isnan(number):
        return '__builtin_nan("")'
    if math.isinf(number):
        return "__builtin_inf()" if number > 0 else "-__builtin_inf()"
    return repr(number)


def string(text: str) -> str:
    """A string literal.

    Example:
        >>> string("relu")
        '@"relu"'
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'@"{escaped}"'


def shape_text(shape: Sequence[int]) -> str:
    """A shape as an ``NSArray``.

    Example:
        >>> shape_text((2, 3))
        '@[@2, @3]'
    """
    return f"@[{', '.join(f'@{size}' for size in shape)}]"


def dtype_text(dtype: DType | str) -> str:
    """The SDK's constant of a dtype.

    Example:
        >>> dtype_text("float32")
        'MPSDataTypeFloat32'
    """
    return constant_name(data_type(as_dtype(dtype)))


def type_text(class_name: str) -> str:
    """A variable's type, ready for its name.

    Example:
        >>> type_text("NSArray<MPSGraphTensor>")
        'NSArray<MPSGraphTensor *> *'
    """
    name, bracket, inner = class_name.partition("<")
    if name == "id":
        return f"{class_name} "
    return f"{name}<{inner[:-1]} *> *" if bracket else f"{class_name} *"
