"""Values given by a user: what they become, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import stepgraph as sg
from stepgraph.errors import DTypeError, ShapeError


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (1.5, "float32"),
        ([1, 2], "int32"),
        (True, "bool"),
        (np.float64(1.5), "float64"),
        (np.arange(3), "int64"),
        (np.zeros(2, "float16"), "float16"),
    ],
)
def test_dtype_of_a_value(value, dtype):
    graph = sg.Graph()
    assert graph.constant(value).dtype.name == dtype
    assert graph.variable(value).dtype.name == dtype
    assert graph.as_tensor(value).dtype.name == dtype


@pytest.mark.parametrize("builder", ["constant", "variable"])
@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (300, "uint8"),
        (-1, "uint32"),
        (0.5, "int32"),
        ([1.0, np.nan], "int64"),
        (2, "bool"),
        ([2**40], None),
    ],
)
def test_a_value_that_would_become_another_is_refused(builder, value, dtype):
    with pytest.raises(DTypeError, match=r"does not fit .* exactly") as caught:
        getattr(sg.Graph(), builder)(value, dtype=dtype)
    assert "created at: test_constants.py" in str(caught.value)


@pytest.mark.parametrize("builder", ["constant", "variable", "as_tensor"])
@pytest.mark.parametrize("value", [object(), None, "three"])
def test_what_is_no_number_is_refused(builder, value):
    with pytest.raises(DTypeError):
        getattr(sg.Graph(), builder)(value)


def test_constants_keep_a_copy():
    given = np.ones(2, "float32")
    graph = sg.Graph()
    kept = graph.constant(given)
    given[0] = 7.0
    np.testing.assert_array_equal(graph.run(targets=[kept], device="reference")[0], [1.0, 1.0])


@pytest.mark.parametrize(
    "build",
    [
        lambda g: g.constant(0.0, shape=(None, 2)),
        lambda g: g.variable(0.0, shape=(None, 2)),
        lambda g: g.scatter_nd(g.constant([1.0]), g.constant([[0]]), (None,)),
        lambda g: g.random_uniform((None,)),
    ],
)
def test_sizes_of_what_is_made_must_be_known(build):
    with pytest.raises(ShapeError, match="has an unknown size"):
        build(sg.Graph())
