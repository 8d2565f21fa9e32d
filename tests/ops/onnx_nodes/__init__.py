"""The rules that map ONNX node types to builders; importing this package fills the table."""

from tests.ops.onnx_nodes import (
    control_flow,
    elementwise,
    indexing,
    normalization,
    reduction,
    shapes,
    windows,
)

__all__ = [
    "control_flow",
    "elementwise",
    "indexing",
    "normalization",
    "reduction",
    "shapes",
    "windows",
]
