"""Every op has a lowering, a decomposition or a place in the builder: exactly one of them."""

from __future__ import annotations

import pytest

from stepgraph.backends.mps.lowering import BUILT_IN, DECOMPOSED, FAMILIES, LOWERINGS, decomposed
from stepgraph.graph.ops import OPS, family_of

_DECOMPOSED_FAMILIES = {"like", "loss", "random", "dropout", "one_hot", "resize", "attention"}


@pytest.mark.parametrize("name", OPS)
def test_every_op_has_one_way_to_the_gpu(name):
    ways = [table for table in (LOWERINGS, DECOMPOSED, BUILT_IN) if name in table]
    assert len(ways) == 1, f"'{name}' stands in {len(ways)} tables of the lowering"


@pytest.mark.parametrize("name", DECOMPOSED)
def test_what_is_left_to_a_decomposition_has_one(name):
    assert OPS[name].decompose is not None
    assert DECOMPOSED[name], "the reason is missing"


def test_no_table_names_an_op_that_does_not_exist():
    assert {*LOWERINGS, *DECOMPOSED, *BUILT_IN} <= set(OPS)


def test_ops_stand_in_the_file_of_their_family():
    files = {
        name: family.__name__.rpartition(".")[2]
        for family in FAMILIES
        for name in (*family.LOWERINGS, *family.DECOMPOSED)
    }
    moved = {name: file for name, file in files.items() if file != _file_of(name)}
    assert not moved
    assert {_file_of(name) for name in decomposed.DECOMPOSED} == _DECOMPOSED_FAMILIES


def _file_of(name: str) -> str:
    family = family_of(OPS[name])
    # Gathers share one file of a few lines each.
    return "gather" if family in ("gather_nd", "gather_along_axis") else _joined(family)


def _joined(family: str) -> str:
    return "convolution" if family == "convolution_transpose" else family


@pytest.mark.parametrize("name", LOWERINGS)
def test_limits_say_why(name):
    for limit in LOWERINGS[name].limits:
        assert limit.what
        assert limit.reason
