"""Every argument of every message that the ops' samples send is changed: each change must show.

Numbers, flags and enums become others, operands change places, optional tensors become nil. What
survives would be an argument that the double does not read or a sample that does not look; the few
that may survive stand below with the reason.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from stepgraph.backends.mps.device import use
from stepgraph.backends.mps.messages import List, Number
from stepgraph.errors import StepgraphError, UnsupportedError
from tests.mps.double import Double, Refused, sdk
from tests.mps.test_mutations import Mutant
from tests.ops.harness import VALUE_TOLERANCE, assert_close, cases, run

# Each change is tried on so many messages, until one shows.
TRIALS = 12
TENSOR = "MPSGraphTensor"

_COMMUTE = (
    "addition multiplication equal notEqual logicalAND logicalOR logicalXOR logicalXNOR "
    "logicalNAND logicalNOR bitwiseAND bitwiseOR bitwiseXOR minimum maximum "
    "minimumWithNaNPropagation maximumWithNaNPropagation"
)
# (selector, argument, change): why it makes no difference.
NO_DIFFERENCE: dict[tuple[str, Any, str], str] = {
    **{
        (f"{name}WithPrimaryTensor:secondaryTensor:name:", (0, 1), "exchanged"): "commutes"
        for name in _COMMUTE.split()
    },
    (
        "compileWithDevice:feeds:targetTensors:targetOperations:compilationDescriptor:",
        2,
        "reversed",
    ): "results are matched to targets by identity",
    ("setOptimizationLevel:", 0, "another constant"): "a matter of where it runs",
    ("setWaitForCompilationCompletion:", 0, "turned over"): "a matter of time alone",
}


def _other(value: Any, kind: str) -> Iterator[tuple[str, Any]]:
    """Other values for an argument of a C type or an array of numbers."""
    if type(value) is bool:
        yield "turned over", not value
    elif type(value) is float:
        yield "another number", value * 1.5 + 0.25
    elif isinstance(value, int) and (enum := sdk.enum(kind)) is not None:
        values = sorted(set(enum["values"].values()))
        yield "another constant", values[(values.index(int(value)) + 1) % len(values)]
    elif type(value) is int:
        yield "one more", value + 1
    elif isinstance(value, List) and value.items and isinstance(value.items[0], Number):
        first, last = value.items[0].value, value.items[-1].value
        yield "one more at first", List((Number(first + 1), *value.items[1:]))
        yield "one more at last", List((*value.items[:-1], Number(last + 1)))
    elif isinstance(value, List) and len(value.items) > 1:
        yield "reversed", List(value.items[::-1])


def changes(selector: str, arguments: list[Any]) -> Iterator[tuple[Any, str, list[Any]]]:
    """Which argument, what happens to it, and the arguments then."""
    method = next(
        (
            found
            for name in sdk.facts()["classes"]
            if name.startswith("MPSGraph")
            for kind in "-+"
            if (found := sdk.method(name, (), selector, kind)) is not None
        ),
        None,
    )
    kinds = method.takes if method is not None else ()
    for i, (value, kind) in enumerate(zip(arguments, kinds, strict=False)):
        for what, other in _other(value, kind):
            yield i, what, [*arguments[:i], other, *arguments[i + 1 :]]
        if kind == TENSOR + "?" and value is not None:
            yield i, "nil", [*arguments[:i], None, *arguments[i + 1 :]]
        for j in range(i + 1, len(kinds)):
            both = {kinds[i].rstrip("?"), kinds[j].rstrip("?")} == {TENSOR}
            if both and value is not None and arguments[j] is not None:
                swapped = list(arguments)
                swapped[i], swapped[j] = swapped[j], swapped[i]
                yield (i, j), "exchanged", swapped


def shows(definition: Any, sample: Any, wanted: Any, change: Callable[..., Any]) -> bool:
    """Whether a sample's run is refused or differs when its messages pass through a change."""
    try:
        with use(Mutant(Double((18, 1)), change)):
            for got, want in zip(run(definition, sample, "mps"), wanted, strict=True):
                want = np.asarray(want)
                if want.dtype.kind == "f":
                    tolerance = VALUE_TOLERANCE["float32"] * sample.tolerance
                    assert_close(got, want, tolerance, definition.name)
                else:
                    np.testing.assert_array_equal(got, want)
    except UnsupportedError:
        raise
    except (AssertionError, Refused, StepgraphError, ValueError):
        return True
    return False


@pytest.mark.slow
def test_every_argument_matters():
    tried: collections.Counter[Any] = collections.Counter()
    shown: set[Any] = set()
    for case in cases():
        definition, sample = case.values
        messages: list[tuple[str, list[Any]]] = []

        def record(selector: str, arguments: list[Any], messages: Any = messages) -> None:
            messages.append((selector, arguments))

        wanted = run(definition, sample, "reference:float64")
        try:
            assert not shows(definition, sample, wanted, record), case.id
        except UnsupportedError:
            continue
        for place, (selector, arguments) in enumerate(messages):
            for which, what, _ in changes(selector, arguments):
                key = (selector, which, what)
                if key in shown or key in NO_DIFFERENCE or tried[key] >= TRIALS:
                    continue
                tried[key] += 1
                if shows(definition, sample, wanted, _at(place, which, what)):
                    shown.add(key)
    assert [key for key in tried if key not in shown] == []
    # Enough was tried for this to mean something.
    assert len(shown) > 200


def _at(place: int, which: Any, what: str) -> Callable[[str, list[Any]], Any]:
    """The same change, made to the same message of another run."""
    count = 0

    def change(selector: str, arguments: list[Any]) -> Any:
        nonlocal count
        count += 1
        if count - 1 != place:
            return None
        for i, kind, changed in changes(selector, arguments):
            if (i, kind) == (which, what):
                return [selector, *changed]
        raise AssertionError("the messages of two runs differ")

    return change
