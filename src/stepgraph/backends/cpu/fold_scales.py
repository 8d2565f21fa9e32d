"""Scales behind a product become part of its weights.

    (conv(x, w) - mean) * scale + beta  ->  conv(x, w * scale) + (beta - mean * scale)

That holds for every normalisation by moving statistics, however it is spelled: whatever adds,
subtracts, multiplies and divides by one number a channel. It is done only where the weights and
those numbers do not change within the program, so that the weights' product with the scale is
prepared (`prepared`), not computed in every run; a training step, which moves weights or
statistics, stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from stepgraph.backends.cpu.prepared import fixed_operations
from stepgraph.compiler.program import Program, Rewriter
from stepgraph.graph.dtypes import float32
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import known_shape
from stepgraph.graph.tensor import Tensor

PRODUCTS = ("convolution_2d", "depthwise_convolution_2d", "matrix_multiplication")
AFFINE = ("addition", "subtraction", "multiplication", "division")


@dataclass
class _Run:
    """A product and what stands behind it, up to where something else begins.

    Attributes:
        product: the operation.
        steps: what follows: permutations, and operations with the operand that is no data.
        axis: where the channels are at the end.
    """

    product: Operation
    axis: int
    steps: list[tuple[Operation, Tensor | None, int]] = field(default_factory=list)

    @property
    def scales(self) -> bool:
        """Whether weights have to change."""
        return any(op.type in ("multiplication", "division") for op, _, _ in self.steps)


def fold_scales(program: Program) -> Program:
    """Folds what can be folded."""
    fixed = fixed_operations(program)
    readers: dict[Tensor, list[Operation]] = {}
    operations = program.operations()
    for op in operations:
        for tensor in dict.fromkeys(op.inputs):
            readers.setdefault(tensor, []).append(op)
        # What a region captures is not among its inputs.
        if op.regions:
            return program
    results = set(program.results())
    runs: dict[Tensor, _Run] = {}
    for op in operations:
        if _is_product(op, fixed):
            run = _follow(op, readers, results, fixed)
            if run.scales:
                runs[run.steps[-1][0].output] = run
    if not runs:
        return program

    def visit(rewriter: Rewriter, op: Operation) -> list[Tensor] | None:
        run = runs.get(op.output) if len(op.outputs) == 1 else None
        return None if run is None else [_folded(rewriter, run)]

    return Rewriter(program).run(visit)


def _is_product(op: Operation, fixed: set[Operation]) -> bool:
    if op.type not in PRODUCTS or op.output.dtype != float32:
        return False
    data, weights = op.inputs
    settings = op.attributes
    if op.type == "matrix_multiplication":
        plain = weights.rank == 2 and not settings["transpose_primary"]
    else:
        plain = settings["data_layout"] == "NHWC" and settings["weights_layout"] == "HWIO"
    return plain and weights.operation in fixed and data.operation not in fixed


def _follow(
    product: Operation,
    readers: dict[Tensor, list[Operation]],
    results: set[Tensor],
    fixed: set[Operation],
) -> _Run:
    tensor, axis = product.output, product.output.rank - 1
    run = _Run(product, axis)
    taken = 0  # steps up to the last that is no permutation
    while tensor not in results and len(readers.get(tensor, ())) == 1:
        (op,) = readers[tensor]
        operand: Tensor | None = None
        if op.type == "permute":
            axis = op.attributes["permutation"].index(axis)
        else:
            operand = _operand(op, tensor, axis, fixed)
            if operand is None:
                break
        run.steps.append((op, operand, axis))
        tensor = op.output
        if operand is not None:
            taken = len(run.steps)
    del run.steps[taken:]
    if run.steps:
        run.axis = run.steps[-1][2]
    return run


def _operand(op: Operation, data: Tensor, axis: int, fixed: set[Operation]) -> Tensor | None:
    """The other operand, where it is one number a channel and the operation is affine in `data`."""
    if op.type not in AFFINE or len(op.inputs) != 2:
        return None
    first, second = op.inputs
    operand = second if first is data else first
    divides = op.type == "division" and operand is first
    if first is second or divides or operand.operation not in fixed:
        return None
    shape = known_shape(data.shape)
    if operand.rank > len(shape) or known_shape(op.output.shape) != shape:
        return None
    aligned = (1,) * (len(shape) - operand.rank) + known_shape(operand.shape)
    plain = all(size == 1 or at == axis for at, size in enumerate(aligned))
    return operand if plain else None


def _folded(rewriter: Rewriter, run: _Run) -> Tensor:
    """The run anew: product with scaled weights, permutations, one addition."""
    graph: Graph = rewriter.graph
    scale: Tensor | None = None
    shift: Tensor | None = None
    for op, operand, _ in run.steps:
        if operand is None:
            continue
        vector = _as_vector(graph, rewriter.mapping[operand])
        first = op.inputs[0] is operand
        if op.type == "addition":
            shift = vector if shift is None else graph.addition(shift, vector)
        elif op.type == "subtraction" and not first:
            shift = graph.negative(vector) if shift is None else graph.subtraction(shift, vector)
        elif op.type == "subtraction":
            shift = vector if shift is None else graph.subtraction(vector, shift)
            scale = graph.constant(-1.0, (1,)) if scale is None else graph.negative(scale)
        else:
            combine = graph.multiplication if op.type == "multiplication" else graph.division
            one = graph.constant(1.0, (1,)) if scale is None and op.type == "division" else scale
            scale = vector if one is None else combine(one, vector)
            shift = None if shift is None else combine(shift, vector)
    assert scale is not None
    product = run.product
    data, weights = rewriter.inputs(product)
    made = graph._one(
        product.definition,
        (data, _scaled(graph, product, weights, scale)),
        product.attributes,
        name=product.name,
    )
    for op, operand, _ in run.steps:
        if operand is None:
            made = graph._one(op.definition, (made,), op.attributes)
    if shift is None:
        return made
    behind = (1,) * (made.rank - 1 - run.axis)
    channels = known_shape(shift.shape)
    return graph.addition(made, graph.reshape(shift, (*channels, *behind)) if behind else shift)


def _as_vector(graph: Graph, tensor: Tensor) -> Tensor:
    count = 1
    for size in known_shape(tensor.shape):
        count *= size
    return tensor if known_shape(tensor.shape) == (count,) else graph.reshape(tensor, (count,))


def _scaled(graph: Graph, product: Operation, weights: Tensor, scale: Tensor) -> Tensor:
    """Weights times a number for each output channel."""
    count = known_shape(scale.shape)[0]
    *_, last = shape = known_shape(weights.shape)
    if product.type == "depthwise_convolution_2d":
        groups = (shape[2], last) if count > 1 else (1,)
        scale = graph.reshape(scale, groups)
    elif product.type == "matrix_multiplication" and product.attributes["transpose_secondary"]:
        scale = graph.reshape(scale, (count, 1))
    return graph.multiplication(weights, scale)
