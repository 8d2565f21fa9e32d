"""Learning rates that depend on the step (``keras.optimizers.schedules``).

A schedule is a formula: inside a training step it is part of the graph, computed from the number of
steps made; called with a number it gives the same value to Python.

Example:
    >>> from stepgraph.schedules import CosineDecay
    >>> schedule = CosineDecay(0.1, decay_steps=100)
    >>> [round(schedule(step), 4) for step in (0, 50, 100)]
    [0.1, 0.05, 0.0]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from stepgraph.configs import Configurable, resolve
from stepgraph.errors import describe
from stepgraph.graph.tensor import Tensor


class LearningRateSchedule(Configurable):
    """A learning rate as a function of the step, counted from 0.

    A schedule of your own writes `formula` with the operations of `m`, which has them both for
    tensors and for Python's floats.
    """

    def __call__(self, step: Any) -> Any:
        """The rate at a step: a float for a number, a scalar tensor for a scalar float tensor."""
        return self.formula(_Symbolic(step) if isinstance(step, Tensor) else _Numbers(), step)

    def formula(self, m: Any, step: Any) -> Any:
        """The rate; `m` offers minimum, maximum, floor, cos, power, where(if, a, b), less."""
        raise NotImplementedError


class _Numbers:
    """The formulas' vocabulary for Python's numbers."""

    minimum = staticmethod(min)
    maximum = staticmethod(max)
    floor = staticmethod(math.floor)
    cos = staticmethod(math.cos)
    power = staticmethod(math.pow)

    @staticmethod
    def less(a: float, b: float) -> bool:
        """Whether `a` is below `b`."""
        return a < b

    @staticmethod
    def where(condition: bool, a: float, b: float) -> float:
        """One of two values."""
        return a if condition else b


class _Symbolic:
    """The formulas' vocabulary for tensors of a graph."""

    def __init__(self, step: Tensor) -> None:
        graph = step.graph
        self.minimum = graph.minimum
        self.maximum = graph.maximum
        self.floor = graph.floor
        self.cos = graph.cos
        self.power = graph.power
        self.less = graph.less_than
        self._graph, self._dtype = graph, step.dtype

    def where(self, condition: Tensor, a: Any, b: Any) -> Tensor:
        """One of two values."""
        graph, dtype = self._graph, self._dtype
        return graph.select(condition, graph.as_tensor(a, dtype), graph.as_tensor(b, dtype))


class ExponentialDecay(LearningRateSchedule):
    """``initial * rate ** (step / decay_steps)``; the quotient floored if `staircase`."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        _positive("ExponentialDecay", decay_steps=decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.decay_rate = decay_rate
        self.staircase = staircase
        self.name = name

    def formula(self, m: Any, step: Any) -> Any:
        """The rate."""
        p = step / float(self.decay_steps)
        p = m.floor(p) if self.staircase else p
        return self.initial_learning_rate * m.power(float(self.decay_rate), p)


class InverseTimeDecay(LearningRateSchedule):
    """``initial / (1 + rate * step / decay_steps)``; the quotient floored if `staircase`."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ) -> None:
        _positive("InverseTimeDecay", decay_steps=decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.decay_rate = decay_rate
        self.staircase = staircase
        self.name = name

    def formula(self, m: Any, step: Any) -> Any:
        """The rate."""
        p = step / float(self.decay_steps)
        p = m.floor(p) if self.staircase else p
        return self.initial_learning_rate / (1.0 + self.decay_rate * p)


class PiecewiseConstantDecay(LearningRateSchedule):
    """``values[i]`` up to and including step ``boundaries[i]``, the last value after them all."""

    def __init__(
        self,
        boundaries: Sequence[float],
        values: Sequence[float],
        name: str = "PiecewiseConstant",
    ) -> None:
        if len(boundaries) != len(values) - 1 or sorted(boundaries) != list(boundaries):
            raise ValueError(
                describe(
                    "PiecewiseConstantDecay",
                    f"{len(boundaries)} boundaries and {len(values)} values",
                    expected="rising boundaries, and one value more than boundaries",
                )
            )
        self.boundaries = [float(b) for b in boundaries]
        self.values = [float(v) for v in values]
        self.name = name

    def formula(self, m: Any, step: Any) -> Any:
        """The rate."""
        rate: Any = self.values[-1]
        pairs = zip(self.boundaries, self.values[:-1], strict=True)
        for boundary, value in reversed(list(pairs)):
            rate = m.where(m.less(boundary, step), rate, value)
        return rate


class PolynomialDecay(LearningRateSchedule):
    """From the initial to the end rate in `decay_steps`, as a power of what is left."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        _positive("PolynomialDecay", decay_steps=decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.end_learning_rate = end_learning_rate
        self.power = power
        self.cycle = cycle
        self.name = name

    def formula(self, m: Any, step: Any) -> Any:
        """The rate."""
        length: Any = float(self.decay_steps)
        if self.cycle:
            # The ceiling, at least 1: a step on a border still belongs to the cycle before.
            length = length * m.maximum(-m.floor(-step / float(self.decay_steps)), 1.0)
        else:
            step = m.minimum(step, length)
        rest = m.power(1.0 - step / length, float(self.power))
        return (self.initial_learning_rate - self.end_learning_rate) * rest + self.end_learning_rate


class CosineDecay(LearningRateSchedule):
    """Half a cosine from the initial (or warmed-up) rate down to ``alpha`` times it.

    Args:
        initial_learning_rate: rate at step 0.
        decay_steps: steps of the descent, after the warm-up.
        alpha: what remains, as a fraction.
        warmup_target: rate reached linearly in `warmup_steps`; None for no warm-up.
        warmup_steps: steps of the warm-up.
        name: label.

    Source: Loshchilov and Hutter 2016; Keras ``CosineDecay``.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        _positive("CosineDecay", decay_steps=decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.alpha = alpha
        self.name = name
        self.warmup_target = warmup_target
        self.warmup_steps = warmup_steps

    def formula(self, m: Any, step: Any) -> Any:
        """The rate."""
        start, top = self.initial_learning_rate, self.warmup_target
        if top is None:
            return self._descent(m, step, start)
        warm = float(self.warmup_steps)
        rising = start + (top - start) * (step / max(warm, 1.0))
        falling = self._descent(m, m.maximum(step - warm, 0.0), top)
        return m.where(m.less(step, warm), rising, falling)

    def _descent(self, m: Any, step: Any, top: float) -> Any:
        part = m.minimum(step, float(self.decay_steps)) / float(self.decay_steps)
        return top * ((1.0 - self.alpha) * (0.5 * (1.0 + m.cos(math.pi * part))) + self.alpha)


class CosineDecayRestarts(LearningRateSchedule):
    """Cosine descents, each `t_mul` times as long as the one before and starting `m_mul` as high.

    Source: Loshchilov and Hutter 2016 (SGDR); Keras ``CosineDecayRestarts``.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: int,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        _positive("CosineDecayRestarts", first_decay_steps=first_decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.first_decay_steps = first_decay_steps
        self.t_mul = t_mul
        self.m_mul = m_mul
        self.alpha = alpha
        self.name = name

    def formula(self, m: Any, step: Any) -> Any:
        """The rate."""
        # The descents' borders are known numbers: comparing with them needs no logarithm, which
        # would fall on the wrong side of a border by its rounding.
        length, start, height = float(self.first_decay_steps), 0.0, 1.0
        pieces: list[tuple[float, float, float]] = []
        while start < 2.0**24 and len(pieces) < 64:
            pieces.append((start, length, height))
            start, length, height = start + length, length * self.t_mul, height * self.m_mul
            if self.t_mul == 1.0 and self.m_mul == 1.0:
                break
        if len(pieces) == 1:
            part = step / length
            return self._descent(m, part - m.floor(part), 1.0)
        rate = self._descent(m, step / pieces[0][1], 1.0)
        for start, length, height in pieces[1:]:
            part = m.minimum((step - start) / length, 1.0)
            rate = m.where(m.less(step, start), rate, self._descent(m, part, height))
        return rate

    def _descent(self, m: Any, part: Any, height: float) -> Any:
        cosine = 0.5 * height * (1.0 + m.cos(math.pi * part))
        return self.initial_learning_rate * ((1.0 - self.alpha) * cosine + self.alpha)


def _positive(what: str, **values: float) -> None:
    for name, value in values.items():
        if value <= 0:
            raise ValueError(describe(what, f"{name}={value!r}", expected="a positive number"))


TABLE: dict[str, type[LearningRateSchedule]] = {
    cls.__name__: cls
    for cls in (
        ExponentialDecay,
        InverseTimeDecay,
        PiecewiseConstantDecay,
        PolynomialDecay,
        CosineDecay,
        CosineDecayRestarts,
    )
}


def get(identifier: Any) -> Any:
    """A schedule from its config or itself; numbers stay numbers."""
    if isinstance(identifier, int | float):
        return float(identifier)
    return resolve("schedule", identifier, TABLE)


def serialize(schedule: LearningRateSchedule) -> dict[str, Any]:
    """Its class and config."""
    return {"class_name": type(schedule).__name__, "config": schedule.get_config()}


deserialize = get
