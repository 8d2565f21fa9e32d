"""Every decomposition against the reference of the op that it spells out."""

from __future__ import annotations

import pytest

from stepgraph.backends.reference import ReferenceRunner, ReferenceState
from stepgraph.compiler.pipeline import compile_program
from tests.ops.harness import arrays_of, assert_close, build, cases, run, to_float64


def decomposable():
    """Cases of ops that have a decomposition."""
    return [case for case in cases() if case.values[0].decompose is not None]


@pytest.mark.parametrize(("definition", "sample"), decomposable())
def test_decomposition_agrees_with_reference(definition, sample):
    arrays = to_float64(arrays_of(sample))
    graph, placeholders, outputs = build(definition, sample, arrays)
    program = compile_program(
        graph,
        {p: a.shape for p, a in zip(placeholders, arrays, strict=True)},
        outputs,
        (),
        supports=lambda other: other is not definition,
    )
    assert definition.name not in {operation.type for operation in program.operations()}
    feeds = {p.name: a for p, a in zip(placeholders, arrays, strict=True)}
    got = ReferenceRunner(program, ReferenceState(graph.variables, None)).run(feeds)
    wanted = run(definition, sample, "reference", arrays)
    for g, w in zip(got, wanted, strict=True):
        assert_close(g, w, 1e-10 * sample.tolerance, definition.name)
