"""MPSGraphRandomOps: the bits are nobody's promise, their distribution is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.mps.double import dtypes, sdk
from tests.mps.double.descriptors import setting
from tests.mps.double.graph import Builder
from tests.mps.double.objects import Object
from tests.mps.double.rules.shapes import constants

_D = "MPSGraphRandomDistribution"
_UNIFORM = sdk.value(_D + "Uniform")
_NORMAL = sdk.value(_D + "Normal")
_STATE = 7


class _Sampler:
    """A descriptor, read: what to draw."""

    def __init__(self, b: Builder, descriptor: Object | None) -> None:
        def get(name: str, otherwise: Any) -> Any:
            return otherwise if descriptor is None else setting(descriptor, name)

        self.distribution = get("distribution", _UNIFORM)
        self.dtype = get("dataType", dtypes.FLOAT32)
        allowed = (*dtypes.FLOATS, dtypes.INT32)
        if self.distribution != _UNIFORM:
            allowed = dtypes.FLOATS
        b.need(self.dtype in allowed, f"no such numbers as {dtypes.NAMES[self.dtype]}")
        self.low, self.high = get("min", 0.0), get("max", 1.0)
        self.low_integer, self.high_integer = get("minInteger", 0), get("maxInteger", 1)
        self.mean, self.deviation = get("mean", 0.0), get("standardDeviation", 1.0)

    def draw(self, generator: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
        kind = dtypes.numpy(self.dtype)
        if self.distribution == _UNIFORM and kind.kind == "i":
            # Both ends are included.
            return generator.integers(
                self.low_integer, self.high_integer, shape, kind, endpoint=True
            )
        if self.distribution == _UNIFORM:
            unit = generator.random(shape, np.float32)
            return (self.low + unit * (self.high - self.low)).astype(kind)
        if self.distribution == _NORMAL:
            return generator.normal(self.mean, self.deviation, shape).astype(kind)
        values = generator.normal(0, 1, shape)
        while (outside := np.abs(values) > 2).any():
            values[outside] = generator.normal(0, 1, int(outside.sum()))
        return (self.mean + self.deviation * values).astype(kind)


def _generator(seed: Any) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def state(b: Builder, *numbers: int) -> Object:
    first = np.zeros(_STATE, np.int32)
    first[: len(numbers)] = [n % 2**31 for n in numbers]
    return b.one([], (_STATE,), dtypes.INT32, lambda: first)


def plain(b: Builder, shape: Sequence[int], descriptor: Object | None = None) -> Object:
    """Different in each run."""
    sampler = _Sampler(b, descriptor)
    return b.one(
        [], shape, sampler.dtype, lambda: sampler.draw(np.random.default_rng(), tuple(shape))
    )


def seeded(b: Builder, shape: Sequence[int], descriptor: Object | None, seed: int) -> Object:
    """The same in each run."""
    sampler = _Sampler(b, descriptor)
    return b.one([], shape, sampler.dtype, lambda: sampler.draw(_generator(seed), tuple(shape)))


def stateful(
    b: Builder, shape: Sequence[int], descriptor: Object | None, state: Object
) -> list[Object]:
    """Values, and the state for the next ones."""
    b.need(state.shape == (_STATE,), f"a state of {state.shape}, not ({_STATE},)")
    b.dtype(state, (dtypes.INT32,), "state")
    sampler = _Sampler(b, descriptor)

    def compute(now: np.ndarray) -> list[np.ndarray]:
        seed = np.random.SeedSequence([int(n) & 0xFFFFFFFF for n in now])
        following = now.copy()
        following[-1] += 1
        return [sampler.draw(_generator(seed), tuple(shape)), following]

    return b.many([state], [(shape, sampler.dtype), ((_STATE,), dtypes.INT32)], compute)


def dropout(b: Builder, *arguments: Any) -> Object:
    raise b.refuse("whether what is left is scaled is not stated: compose it")


def _names() -> dict[str, Any]:
    found: dict[str, Any] = {}
    forms = {"WithShape:": lambda r: r, "WithShapeTensor:": lambda r: constants(r, 0)}
    for form, wrap in forms.items():
        found[f"randomTensor{form}descriptor:name:"] = wrap(plain)
        found[f"randomTensor{form}descriptor:seed:name:"] = wrap(seeded)
        found[f"randomTensor{form}descriptor:stateTensor:name:"] = wrap(stateful)
        found[f"randomUniformTensor{form}name:"] = wrap(plain)
        found[f"randomUniformTensor{form}seed:name:"] = wrap(
            lambda b, shape, seed: seeded(b, shape, None, seed)
        )
        found[f"randomUniformTensor{form}stateTensor:name:"] = wrap(
            lambda b, shape, now: stateful(b, shape, None, now)
        )
    return found


RULES: dict[str, Any] = {
    **_names(),
    "randomPhiloxStateTensorWithSeed:name:": state,
    "randomPhiloxStateTensorWithCounterLow:counterHigh:key:name:": state,
    "dropoutTensor:rate:name:": dropout,
    "dropoutTensor:rateTensor:name:": dropout,
}
