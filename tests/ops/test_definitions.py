"""What every op must have: a builder with a docstring, samples, misuses, a reference."""

from __future__ import annotations

import re

import pytest

import stepgraph as sg
from stepgraph.graph.ops import OPS, family_of
from tests.ops.harness import rng_of

# Sources of values and state; they have no meaning apart from a run.
SOURCES = {"placeholder", "parameter", "variable", "read", "assign"}
# Ops whose builder cannot be named like them.
BUILDERS = {"if": "if_", "for": "for_loop", "while": "while_loop"}
every_op = pytest.mark.parametrize("definition", OPS.values(), ids=OPS)


@every_op
def test_has_builder_with_docstring(definition):
    if definition.name == "parameter":
        return
    builder = getattr(sg.Graph, BUILDERS.get(definition.name, definition.name))
    assert builder.__doc__
    assert len(builder.__doc__.splitlines()[0]) > 10
    if definition.mpsgraph:
        assert "Source:" in builder.__doc__
    # A gradient op is an example of nothing that a user would build.
    if not definition.name.endswith("_gradient"):
        assert "Example:" in builder.__doc__


@every_op
def test_has_samples_and_meaning(definition):
    if definition.name in SOURCES or definition.has_regions:
        return
    assert definition.samples is not None, "register samples"
    assert list(definition.samples(rng_of(definition.name)))
    assert definition.reference is not None, "write the NumPy reference"


@every_op
def test_is_differentiable_or_says_why(definition):
    if definition.name in SOURCES | {"constant"}:
        return
    assert (definition.gradient is None) == bool(definition.not_differentiable)


@every_op
def test_misuses_are_answered_in_words(definition):
    misuses = list(definition.misuses()) if definition.misuses else []
    if definition.name not in SOURCES | {"constant", "fill_like"}:
        assert misuses, "register misuses"
    for misuse in misuses:
        with pytest.raises(misuse.error, match=re.compile(misuse.words)) as caught:
            misuse.build(sg.Graph())
        assert "created at" in str(caught.value) or definition.name in SOURCES | {"constant"}


@every_op
def test_belongs_to_one_family(definition):
    assert family_of(definition)
