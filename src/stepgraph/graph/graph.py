"""The graph: every op family's builders, differentiation, compiling and printing in one class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stepgraph.errors import GraphError, UnsupportedError, describe
from stepgraph.graph import autodiff, printing
from stepgraph.graph.definition import Array
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.activation import ActivationOps
from stepgraph.graph.ops.arithmetic import ArithmeticOps
from stepgraph.graph.ops.attention import AttentionOps
from stepgraph.graph.ops.broadcasting import BroadcastingOps
from stepgraph.graph.ops.control_flow import ControlFlowOps
from stepgraph.graph.ops.convolution import ConvolutionOps
from stepgraph.graph.ops.convolution_transpose import ConvolutionTransposeOps
from stepgraph.graph.ops.depthwise_convolution import DepthwiseConvolutionOps
from stepgraph.graph.ops.dropout import DropoutOps
from stepgraph.graph.ops.gather import GatherOps
from stepgraph.graph.ops.gather_along_axis import GatherAlongAxisOps
from stepgraph.graph.ops.gather_nd import GatherNdOps
from stepgraph.graph.ops.joining import JoiningOps
from stepgraph.graph.ops.like import LikeOps
from stepgraph.graph.ops.loss import LossOps
from stepgraph.graph.ops.matrix_multiplication import MatrixMultiplicationOps
from stepgraph.graph.ops.memory import MemoryOps
from stepgraph.graph.ops.normalization import NormalizationOps
from stepgraph.graph.ops.one_hot import OneHotOps
from stepgraph.graph.ops.optimizer import OptimizerOps
from stepgraph.graph.ops.padding import PaddingOps
from stepgraph.graph.ops.pooling import PoolingOps
from stepgraph.graph.ops.random import RandomOps
from stepgraph.graph.ops.reduction import ReductionOps
from stepgraph.graph.ops.resize import ResizeOps
from stepgraph.graph.ops.scatter_nd import ScatterNdOps
from stepgraph.graph.ops.slice_update import SliceUpdateOps
from stepgraph.graph.ops.slicing import SlicingOps
from stepgraph.graph.ops.tensor_shape import TensorShapeOps
from stepgraph.graph.ops.top_k import TopKOps
from stepgraph.graph.tensor import Tensor, Variable

if TYPE_CHECKING:
    from stepgraph.backends.executable import Executable

# Set by the backends when the package is imported: a graph knows no device itself.
_compile_hook: Callable[..., Any] | None = None
_state_hook: Callable[..., Any] | None = None


class Graph(
    ActivationOps,
    ArithmeticOps,
    AttentionOps,
    BroadcastingOps,
    ControlFlowOps,
    ConvolutionOps,
    ConvolutionTransposeOps,
    DepthwiseConvolutionOps,
    DropoutOps,
    GatherAlongAxisOps,
    GatherNdOps,
    GatherOps,
    JoiningOps,
    LikeOps,
    LossOps,
    MatrixMultiplicationOps,
    MemoryOps,
    NormalizationOps,
    OneHotOps,
    OptimizerOps,
    PaddingOps,
    PoolingOps,
    RandomOps,
    ReductionOps,
    ResizeOps,
    ScatterNdOps,
    SliceUpdateOps,
    SlicingOps,
    TensorShapeOps,
    TopKOps,
):
    """Builder and owner of operations.

    It never executes by itself: `compile` makes an `Executable` for a device, `run` compiles and
    runs at once.

    Args:
        name: label in printed graphs and errors.

    Source: ``MPSGraph``.

    Example:
        >>> import numpy as np
        >>> import stepgraph as sg
        >>> graph = sg.Graph()
        >>> x = graph.placeholder((None, 2), name="x")
        >>> w = graph.variable(np.ones((2, 1), "float32"), name="w")
        >>> loss = graph.reduction_sum(x @ w, keep_dims=False)
        >>> grads = graph.gradients(of=loss, with_=[w])
        >>> graph.run({x: np.array([[1.0, 2.0]], "float32")}, [loss, grads[w]])
        [array(3., dtype=float32), array([[1.],
               [2.]], dtype=float32)]
    """

    def gradients(
        self,
        of: Tensor,
        with_: Sequence[Tensor],
        *,
        incoming: Tensor | None = None,
        unconnected: str = "error",
    ) -> dict[Tensor, Tensor]:
        """Adds reverse-mode gradients as ordinary operations.

        They work through control flow, and can be differentiated again.

        Args:
            of: float tensor to differentiate, usually a scalar loss; of a larger one the sum.
            with_: float tensors or variables to differentiate with respect to.
            incoming: gradient of `of` itself, of its shape; ones without it.
            unconnected: ``"error"`` refuses a tensor that `of` does not depend on, ``"zero"`` gives
                zeros.

        Returns:
            Each of `with_` with its gradient, of its own shape, in the order given.

        Raises:
            GraphError: a tensor is of another graph or unconnected, or an operation on the way
                cannot be differentiated.
            DTypeError: a tensor is not floating point.

        Source: MPSGraph ``gradientForPrimaryTensor:withTensors:name:``; the rules are our own.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([1.0, -2.0])
            >>> grads = graph.gradients(of=graph.relu(x), with_=[x])
            >>> graph.run(targets=[grads[x]])[0]
            array([1., 0.], dtype=float32)
        """
        return autodiff.gradients(self, of, list(with_), incoming, unconnected)

    def compile(
        self,
        feeds: Sequence[Tensor] | Mapping[Tensor, Any] = (),
        targets: Sequence[Tensor] = (),
        operations: Sequence[Operation] = (),
        device: str = "cpu",
        **options: Any,
    ) -> Executable:
        """Compiles the part of the graph that the targets and operations need.

        Later additions to the graph do not change an executable.

        Args:
            feeds: the placeholders that runs will be fed; as a mapping, with the shape of each
                (sizes still unknown are learnt from the first values fed; each set of shapes is
                compiled once).
            targets: tensors whose values a run returns, in this order.
            operations: operations that must also happen, such as assigns.
            device: where to run; see ``stepgraph.devices()``.
            **options: for the device; ``threads=`` and ``disable=`` (names of compiler passes) on
                the CPU.

        Returns:
            An `Executable`.

        Raises:
            FeedError: a placeholder that is needed is missing, or one that is not in the graph is
                named.
            GraphError: nothing is asked for, or two unordered assigns change one variable.
            UnsupportedError: the device is unknown, absent or cannot do an operation.

        Source: MPSGraph
        ``compileWithDevice:feeds:targetTensors:targetOperations:compilationDescriptor:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.placeholder((None, 2))
            >>> double = graph.compile([x], [x + x])
            >>> double.run({x: [[1.0, 2.0]]})[0]
            array([[2., 4.]], dtype=float32)
        """
        if _compile_hook is None:
            fix = "import stepgraph, not its parts"
            raise UnsupportedError(describe("compile", "no device is registered", fix=fix))
        executable: Executable = _compile_hook(self, feeds, targets, operations, device, **options)
        return executable

    def run(
        self,
        feeds: Mapping[Tensor, Any] | None = None,
        targets: Sequence[Tensor] = (),
        operations: Sequence[Operation] = (),
        device: str = "cpu",
    ) -> list[Array]:
        """Compiles and runs once; for the impatient. Use `compile` for anything repeated.

        Args:
            feeds: a value for each placeholder needed.
            targets: tensors whose values are returned, in this order.
            operations: operations that must also happen.
            device: where to run.

        Returns:
            One array per target.

        Raises:
            FeedError: a feed is missing, or its value does not fit the placeholder.
            GraphError: nothing is asked for.
            UnsupportedError: the device is unknown, absent or cannot do an operation.

        Source: MPSGraph ``runWithFeeds:targetTensors:targetOperations:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.constant([1.0, 2.0]) * 3.0])[0]
            array([3., 6.], dtype=float32)
        """
        feeds = dict(feeds or {})
        return self.compile(list(feeds), targets, operations, device).run(feeds)

    def get_value(self, variable: Variable | str, device: str = "cpu") -> Array:
        """A copy of a variable's present value on a device.

        Args:
            variable: of this graph, or its name.
            device: where; each device has a value of its own.

        Raises:
            GraphError: there is no such variable.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> v = graph.variable([1.0, 2.0])
            >>> graph.get_value(v)
            array([1., 2.], dtype=float32)
        """
        name = variable if isinstance(variable, str) else variable.name
        value: Array = self._state(device).read(self.get_variable(name).name)
        return value

    def set_value(self, variable: Variable | str, value: Any, device: str = "cpu") -> None:
        """Gives a variable a value on a device, between runs.

        Args:
            variable: of this graph, or its name.
            value: array of the variable's shape; converted to its dtype.
            device: where; each device has a value of its own.

        Raises:
            ShapeError: the value has another shape.
            GraphError: there is no such variable.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> v = graph.variable([1.0, 2.0], name="v")
            >>> graph.set_value("v", [3.0, 4.0])
            >>> graph.get_value(v)
            array([3., 4.], dtype=float32)
        """
        name = variable if isinstance(variable, str) else variable.name
        self._state(device).write(self.get_variable(name).name, value)

    def _state(self, device: str) -> Any:
        if _state_hook is None:
            raise GraphError(describe("variable", "no device is registered"))
        return _state_hook(self, device)

    def __str__(self) -> str:
        return printing.to_text(self)

    def to_dot(self) -> str:
        """The graph in Graphviz's language.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph("tiny")
            >>> _ = graph.relu(graph.placeholder((2,), name="x"))
            >>> print(graph.to_dot().splitlines()[0])
            digraph "tiny" {
        """
        return printing.to_dot(self)
