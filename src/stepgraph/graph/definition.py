"""What an op *is*, on every device: one frozen record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stepgraph.errors import DTypeError, ShapeError, StepgraphError
from stepgraph.graph.shapes import Misfit, Shape, Spec, bad_shape, format_shape, same_shape

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph
    from stepgraph.graph.operation import Operation
    from stepgraph.graph.tensor import Tensor

Array: TypeAlias = NDArray[Any]
Attributes: TypeAlias = Mapping[str, Any]
# What a gradient rule gets (for each output) and gives back (for each input).
Grads: TypeAlias = "tuple[Tensor | None, ...]"
Gradients: TypeAlias = "Sequence[Tensor | None]"


@dataclass(frozen=True)
class Sample:
    """One correct use of an op, from which tests are generated.

    The builder method named like the op is called as ``graph.<op>(*inputs, **arguments)``; each
    array becomes a placeholder, a list of arrays a list of placeholders, anything else is passed
    as it is.

    Attributes:
        inputs: positional arguments.
        arguments: keyword arguments.
        differentiable: positions (counted over the arrays, lists flattened) whose gradients are
            checked; None means every float array.
        tolerance: multiplies the tolerances of the dtype, with the reason beside it.
        label: what is special about it.
    """

    inputs: tuple[Any, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    differentiable: tuple[int, ...] | None = None
    tolerance: float = 1.0
    label: str = ""


@dataclass(frozen=True)
class Misuse:
    """A wrong use of an op, and the words (a regular expression) that must answer it."""

    build: Callable[[Graph], object]
    words: str
    error: type[StepgraphError] = ShapeError


@dataclass(frozen=True, eq=False)
class OpDefinition:
    """Everything that is true of an op whatever the device.

    Attributes:
        name: MPSGraph's name in snake_case; also the name of the builder method.
        inputs: what its inputs are called in messages; the last may end in ``*`` (any number).
        infer: ``infer(*specs, **attributes)`` gives the output's `Spec` (or a tuple of them), or
            raises `bad_shape(...)` / `bad_dtype(...)`. Ops with regions also get ``regions=``.
        reference: ``reference(*arrays, **attributes)``: the meaning, plain NumPy, in the dtype of
            its inputs. Returns an array, or a tuple for several outputs.
        gradient: ``gradient(operation, grads)`` builds the gradients of the inputs from those of
            the outputs (None where none arrived), as ordinary operations of ``operation.graph``;
            None where no gradient flows. It may return a gradient of the broadcast shape: the walk
            sums it back.
        not_differentiable: why there is no gradient (``gradient`` is None): either ``"discrete"``
            (gradient zero almost everywhere, none flows) or a reason, which makes differentiating
            an error.
        decompose: ``decompose(graph, *inputs, **attributes)`` builds the same value of simpler
            ops, for devices without a lowering of it.
        elementwise: each output element depends on the elements at the same (broadcast) place.
        pure: same inputs, same result, no effect; may be folded, shared and dropped.
        shape_only: positions of inputs of which only the shape matters.
        mpsgraph: the selector it is named after, without arguments.
        samples: correct uses.
        misuses: wrong uses.
        has_regions: whether it is control flow: its blocks, and what they capture, belong to it.
            Such an op changes state if its blocks do; in a compiled program none does.
        region_names: what its blocks are called in printed graphs.
    """

    name: str
    inputs: tuple[str, ...]
    infer: Callable[..., Spec | tuple[Spec, ...]]
    reference: Callable[..., Any] | None
    gradient: Callable[[Operation, Grads], Gradients] | None = None
    not_differentiable: str = ""
    decompose: Callable[..., Any] | None = None
    elementwise: bool = False
    pure: bool = True
    shape_only: tuple[int, ...] = ()
    mpsgraph: str = ""
    samples: Callable[[np.random.Generator], Iterator[Sample]] | None = None
    misuses: Callable[[], Iterator[Misuse]] | None = None
    has_regions: bool = False
    region_names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"OpDefinition({self.name})"


def bad_dtype(fault: str, *, expected: str | None = None, fix: str | None = None) -> Misfit:
    """A dtype that inference refuses; to be raised."""
    return Misfit(DTypeError, fault, expected, fix)


def require_float(*specs: Spec) -> None:
    """Refuses anything but floating point."""
    for spec in specs:
        if not spec.dtype.is_float:
            raise bad_dtype(
                f"needs floating point, got {spec.dtype}",
                fix='cast it, as in graph.cast(x, "float32")',
            )


def require_same_dtype(*specs: Spec) -> None:
    """Refuses operands of different dtypes: nothing is promoted silently."""
    if len({spec.dtype for spec in specs}) > 1:
        raise bad_dtype(
            f"operands have different dtypes: {' and '.join(str(s.dtype) for s in specs)}",
            expected="one dtype for all",
            fix="cast one of them with graph.cast",
        )


def require_shape(got: Shape, wanted: Shape, what: str, of: str) -> None:
    """Refuses `what` unless it may have the shape of `of`."""
    if not same_shape(got, wanted):
        raise bad_shape(
            f"the shape of {what} is {format_shape(got)}, that of {of} {format_shape(wanted)}",
            expected="equal shapes",
        )


def require_rank(spec: Spec, rank: int, what: str = "input") -> None:
    """Refuses a tensor of another rank."""
    if spec.rank != rank:
        raise bad_shape(f"{what} has rank {spec.rank}", expected=f"rank {rank}")


def arrived(grads: Grads) -> Tensor:
    """The gradient of an op's one output: its rule is only asked when that has arrived."""
    grad = grads[0]
    assert grad is not None
    return grad
