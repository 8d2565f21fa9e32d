"""Which ops still leave the kernels: every sample of every op, against one table with reasons."""

from __future__ import annotations

import pytest
from tests.ops.harness import arrays_of, build, cases

from stepgraph.backends.cpu.plan import PythonStep
from stepgraph.graph.definition import OpDefinition, Sample

NOTHING = "sums over no element: nothing to compute fast"
TYPES = "fused loops know float32, int32, int64 and bool"
HALF = "float16 is stored, not computed with"
DOUBLE = "float64 is computed by NumPy"
CHECK = "the indices are checked in Python, the elements moved by a kernel"
ALONG = "an index for each element: as slow in any loop"
SORT = "sorting is NumPy's"
ALL = "*"

# Op to the labels of samples with Python steps (or all), and why that is so.
PYTHON: dict[str, tuple[tuple[str, ...] | str, str]] = {
    "convolution_2d_weights_gradient": (("empty batch",), NOTHING),
    "depthwise_convolution_2d_weights_gradient": (("empty batch",), NOTHING),
    "matrix_multiplication": (("empty sum",), NOTHING),
    **{
        f"reduction_{name}": (("nothing to reduce",), NOTHING)
        for name in ("sum", "product", "maximum", "minimum", "and", "or")
    },
    **{
        f"bitwise_{name}": (("uint8",), TYPES)
        for name in ("not", "and", "or", "xor", "left_shift", "right_shift")
    },
    "cast": (("to float16",), HALF),
    "random_uniform": (("float64",), DOUBLE),
    "gather": (ALL, CHECK),
    "gather_gradient": (ALL, CHECK),
    "gather_nd": (ALL, CHECK),
    "gather_nd_gradient": (ALL, CHECK),
    "scatter": (ALL, CHECK),
    "scatter_nd": (ALL, CHECK),
    "gather_along_axis": (ALL, ALONG),
    "gather_along_axis_gradient": (ALL, ALONG),
    "scatter_along_axis": (ALL, ALONG),
    "top_k": (ALL, SORT),
    "sort": (ALL, SORT),
    "arg_sort": (ALL, SORT),
}


@pytest.mark.parametrize(("definition", "sample"), cases())
def test_steps_outside_kernels_are_known(definition: OpDefinition, sample: Sample) -> None:
    graph, feeds, outputs = build(definition, sample, arrays_of(sample))
    executable = graph.compile(feeds=feeds, targets=outputs, device="cpu")
    steps = [s.name for s in executable._chosen(None).steps if isinstance(s, PythonStep)]
    labels, reason = PYTHON.get(definition.name, ((), ""))
    known = labels == ALL or sample.label in labels
    assert known or not steps, f"{steps}: add a kernel, or a line to the table that says why not"
    if labels != ALL and known:
        assert steps, f"there are kernels now: take the line about {reason!r} out of the table"


def test_the_table_names_ops_that_exist() -> None:
    names = {case.values[0].name for case in cases()}
    assert set(PYTHON) <= names
