"""Graphs: tensors, operations, differentiation, printing. Knows no device."""

from stepgraph.graph.graph import Graph as Graph
from stepgraph.graph.operation import Operation as Operation
from stepgraph.graph.tensor import Tensor as Tensor
from stepgraph.graph.tensor import Variable as Variable
