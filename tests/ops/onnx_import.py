"""Builds graphs of ONNX's node tests: one rule per node type, held in the tables of `onnx_nodes`.

Each input of a model becomes a placeholder that is fed what the test ships. Where a builder wants a
number at graph-building time (a shape, axes, repeats) and ONNX gives a tensor, the tensor is
evaluated on the reference device with the test's inputs: see `Node.static`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import stepgraph as sg
from stepgraph.graph.dtypes import DTYPES

Rule = Callable[["Node"], "sg.Tensor | Sequence[sg.Tensor | None]"]
RULES: dict[str, Rule] = {}


class NotApplicable(Exception):
    """A node test that asks for something stepgraph does not have; the reason is one of `GAPS`."""


# Why single tests of mapped node types do not run. A rule that refuses names its reason here, so
# that a mistake in a rule cannot pass for a gap.
GAPS: dict[str, str] = {
    "dtype": "an element type that stepgraph does not have",
    "integer arithmetic": "an op that stepgraph has for floating point only",
    "no values": "sequences, optionals and maps are no tensors",
    "rank": "windows slide over one or two axes only",
    "pool dilation": "pooling windows have no dilations",
    "pool indices": "max pooling gives no indices",
    "ceil mode": "an average over windows that hang out beyond the padding",
    "random": "random numbers of a generator that ONNX leaves open",
    "resize mode": "resizing is nearest or bilinear, over two axes, with three conventions",
    "pad mode": "padding does not wrap around",
    "dynamic": "a shape that depends on values inside a loop",
}


def gap(reason: str) -> NotApplicable:
    """To be raised by a rule."""
    if reason not in GAPS:
        raise KeyError(reason)
    return NotApplicable(f"{reason}: {GAPS[reason]}")


def rule(*types: str) -> Callable[[Rule], Rule]:
    """Registers the rule of node types."""

    def register(function: Rule) -> Rule:
        for name in types:
            if name in RULES:
                raise RuntimeError(f"node type {name} is mapped twice")
            RULES[name] = function
        return function

    return register


@dataclass
class Node:
    """One node being imported.

    Attributes:
        importer: what it belongs to.
        type: node type.
        inputs: its operands; None for one that is left out.
        attributes: by name; graphs as ONNX has them.
        outputs: how many of its results have a name.
    """

    importer: Importer
    type: str
    inputs: list[sg.Tensor | None]
    attributes: dict[str, Any]
    outputs: list[str]

    @property
    def graph(self) -> sg.Graph:
        return self.importer.graph

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, position: int) -> sg.Tensor:
        tensor = self.inputs[position]
        assert tensor is not None, f"{self.type} lacks input {position}"
        return tensor

    def get(self, position: int) -> sg.Tensor | None:
        """An optional operand."""
        return self.inputs[position] if position < len(self.inputs) else None

    def tensors(self) -> list[sg.Tensor]:
        """All operands, none of which may be missing."""
        return [self[i] for i in range(len(self.inputs))]

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def static(self, position: int) -> np.ndarray | None:
        """The value of an operand now; None where it is left out."""
        tensor = self.get(position)
        return None if tensor is None else self.importer.value(tensor)

    def numbers(self, position: int, attribute: str = "") -> list[int] | None:
        """Integers that newer versions take as an operand, older ones as an attribute."""
        if attribute in self.attributes:
            found = self.attributes[attribute]
            return list(found) if isinstance(found, Sequence) else [found]
        value = self.static(position)
        return None if value is None else [int(v) for v in value.reshape(-1)]


@dataclass
class Importer:
    """A model being turned into a graph.

    Attributes:
        graph: what is built.
        feeds: placeholders with what the test ships for them.
        opset: version of the default operator set.
        names: the tensors known so far, by their names in the model.
        depth: of nested control flow; values are not known inside.
    """

    graph: sg.Graph
    opset: int = 0
    feeds: dict[sg.Tensor, np.ndarray] = field(default_factory=dict)
    names: dict[str, sg.Tensor] = field(default_factory=dict)
    known: dict[sg.Tensor, np.ndarray] = field(default_factory=dict)
    depth: int = 0

    def constant(self, array: np.ndarray) -> sg.Tensor:
        """A constant whose value stays known."""
        require_dtype(array.dtype)
        tensor = self.graph.constant(array)
        self.known[tensor] = np.asarray(array)
        return tensor

    def value(self, tensor: sg.Tensor) -> np.ndarray:
        """What a tensor is with the test's inputs."""
        if tensor not in self.known:
            if self.depth:
                raise gap("dynamic")
            self.known[tensor] = self.graph.run(self.feeds, [tensor], device="reference")[0]
        return self.known[tensor]

    def nodes(self, graph: Any) -> list[sg.Tensor]:
        """Imports an ONNX graph's nodes; its results."""
        import onnx

        for tensor in graph.initializer:
            self.names[tensor.name] = self.constant(onnx.numpy_helper.to_array(tensor))
        for node in graph.node:
            if node.domain not in DOMAINS or node.op_type not in RULES:
                raise NotApplicable(f"no rule for {node.op_type}: {NOT_MAPPED.get(node.op_type)}")
            made = RULES[node.op_type](self._node(node))
            results = [made] if isinstance(made, sg.Tensor) else list(made)
            for name, result in zip(node.output, results, strict=False):
                if name:
                    assert result is not None, f"{node.op_type} did not make {name}"
                    self.names[name] = result
        return [self.names[output.name] for output in graph.output]

    def _node(self, node: Any) -> Node:
        import onnx

        attributes: dict[str, Any] = {}
        for item in node.attribute:
            value = onnx.helper.get_attribute_value(item)
            attributes[item.name] = value.decode() if isinstance(value, bytes) else value
        inputs = [self.names[name] if name else None for name in node.input]
        return Node(self, node.op_type, inputs, attributes, list(node.output))

    def inside(
        self, graph: Any, parameters: Sequence[sg.Tensor] = (), nested: bool = True
    ) -> list[sg.Tensor]:
        """Imports the body of control flow; `nested` when called from within a builder's block."""
        outer, self.names = self.names, dict(self.names)
        self.depth += nested
        try:
            named = zip(graph.input, parameters, strict=True)
            self.names.update({value.name: tensor for value, tensor in named})
            return self.nodes(graph)
        finally:
            self.names = outer
            self.depth -= nested


# The default operator set has two names, and the training one is a preview.
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training")


def require_dtype(dtype: np.dtype[Any]) -> None:
    """Refuses element types that are not in stepgraph's table."""
    if dtype.name not in DTYPES:
        raise gap("dtype")


class Case(NamedTuple):
    """An imported node test."""

    graph: sg.Graph
    feeds: dict[sg.Tensor, np.ndarray]
    results: list[sg.Tensor]
    wanted: list[np.ndarray]


def data_folder() -> Path:
    """Where the onnx package keeps its node tests."""
    import onnx

    return Path(onnx.__file__).parent / "backend" / "test" / "data" / "node"


@functools.cache
def node_types(name: str) -> frozenset[str]:
    """The types of a test's nodes, those in the bodies of control flow too."""
    import onnx

    found: set[str] = set()

    def visit(graph: Any) -> None:
        for node in graph.node:
            found.add(node.op_type)
            for item in node.attribute:
                if item.type == onnx.AttributeProto.GRAPH:
                    visit(item.g)

    visit(onnx.load(data_folder() / name / "model.onnx").graph)
    return frozenset(found)


def import_case(name: str) -> Case:
    """Builds a node test.

    Raises:
        NotApplicable: it asks for something stepgraph does not have.
    """
    import onnx

    folder = data_folder() / name
    model = onnx.load(folder / "model.onnx")
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    importer = Importer(sg.Graph(name), opset)
    given = {value.name for value in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in given]
    for i, value in enumerate(inputs):
        array = _load(folder / "test_data_set_0" / f"input_{i}.pb", value)
        tensor = importer.graph.placeholder(array.shape, array.dtype.name, name=value.name or "x")
        importer.feeds[tensor] = array
        importer.known[tensor] = array
        importer.names[value.name] = tensor
    wanted = [
        _load(folder / "test_data_set_0" / f"output_{i}.pb", value)
        for i, value in enumerate(model.graph.output)
    ]
    return Case(importer.graph, importer.feeds, importer.nodes(model.graph), wanted)


def _load(path: Path, value: Any) -> np.ndarray:
    import onnx

    if value.type.WhichOneof("value") != "tensor_type":
        raise gap("no values")
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    if tensor.data_type == onnx.TensorProto.STRING:
        raise gap("dtype")
    array: np.ndarray = onnx.numpy_helper.to_array(tensor)
    require_dtype(array.dtype)
    return array


# Node types without a rule. A type of a newer onnx that stands in neither table fails a test.
NOT_MAPPED: Mapping[str, str] = {
    name: reason
    for reason, names in {
        "no op of stepgraph, and no composition that would test one": (
            "Adagrad AffineGrid ArrayFeatureExtractor Attention BitCast BlackmanWindow "
            "CausalConvWithState CenterCropPad Col2Im CumProd DFT DeformConv Det Einsum "
            "FlexAttention GRU GridSample HammingWindow HannWindow LRN LSTM LabelEncoder "
            "LinearAttention MaxUnpool MelWeightMatrix Momentum NonMaxSuppression RNN "
            "ReverseSequence RoiAlign RotaryEmbedding STFT Scan TensorScatter TreeEnsemble"
        ),
        "quantised numbers": (
            "ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv "
            "QLinearMatMul QuantizeLinear"
        ),
        "a shape that depends on values": "Compress NonZero Unique",
        "random numbers of a generator that ONNX leaves open": "Bernoulli RandomUniformLike",
        "text and pictures": (
            "ImageDecoder RegexFullMatch StringConcat StringNormalizer StringSplit TfIdfVectorizer"
        ),
        "sequences and optionals are no tensors": (
            "Optional OptionalGetElement OptionalHasElement SequenceAt SequenceConstruct "
            "SequenceEmpty SequenceInsert SequenceLength SequenceMap SplitToSequence"
        ),
    }.items()
    for name in names.split()
}
