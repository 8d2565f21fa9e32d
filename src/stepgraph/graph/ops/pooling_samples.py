"""Uses of poolings from which tests are made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from stepgraph.graph.definition import (
    Array,
    Sample,
)
from stepgraph.graph.ops.pooling_numpy import (
    pooling_attributes,
    pooling_window,
)
from stepgraph.graph.windows import (
    NO_PADS,
    from_nhwc,
    known_output,
)

# (label, source NHWC, settings)
CASES: tuple[tuple[str, tuple[int, ...], dict[str, Any]], ...] = (
    ("2x2", (2, 4, 6, 3), {"kernel_size": 2}),
    ("2x2 odd sizes", (1, 5, 7, 3), {"kernel_size": 2}),
    ("overlapping", (2, 7, 6, 2), {"kernel_size": 3, "strides": 2}),
    ("overlapping same", (1, 7, 6, 2), {"kernel_size": 3, "strides": 2, "padding": "TF_SAME"}),
    ("stride 1 same", (1, 4, 5, 17), {"kernel_size": (2, 3), "strides": 1, "padding": "TF_SAME"}),
    ("stride above kernel", (1, 8, 9, 1), {"kernel_size": (2, 1), "strides": 3}),
    (
        "explicit",
        (2, 6, 6, 3),
        {
            "kernel_size": 3,
            "strides": 2,
            "padding": "explicit",
            "explicit_padding": ((1, 1), (0, 2)),
        },
    ),
    ("whole", (2, 3, 4, 2), {"kernel_size": (3, 4)}),
    ("empty batch", (0, 4, 4, 2), {"kernel_size": 2}),
)


def cases(
    rng: np.random.Generator, **extra: Any
) -> Iterator[tuple[str, Array, Array, dict[str, Any]]]:
    """(label, source, incoming, settings), some of them in NCHW."""
    for i, (label, shape, settings) in enumerate(CASES):
        # Distinct values: near a tie finite differences would jump from one maximum to another.
        x = (rng.permutation(np.prod(shape)).reshape(shape) * 0.1 - 2).astype("float32")
        filled = {"strides": None, "padding": "TF_VALID", "explicit_padding": NO_PADS, **settings}
        window = pooling_window(pooling_attributes(**filled, data_layout="NHWC"))
        output = known_output(window, (shape[1], shape[2]))
        incoming = rng.standard_normal((shape[0], *output, shape[3])).astype("float32")
        yield label, x, incoming, {**settings, **extra}
        if i % 3 == 0:
            x, incoming = from_nhwc(x, "NCHW"), from_nhwc(incoming, "NCHW")
            yield f"{label} NCHW", x, incoming, {**settings, **extra, "data_layout": "NCHW"}


def max_samples(rng: np.random.Generator) -> Iterator[Sample]:
    """Of max_pooling_2d."""
    for label, x, _, settings in cases(rng):
        yield Sample((x,), settings, label=label)
    x = np.full((1, 4, 4, 1), -np.inf, "float32")
    x[0, 1, 1, 0], x[0, 3, 3, 0] = np.nan, -3.0
    yield Sample((x,), {"kernel_size": 2}, differentiable=(), label="NaN and -inf")


def max_gradient_samples(rng: np.random.Generator) -> Iterator[Sample]:
    """Of max_pooling_2d_gradient."""
    for label, x, incoming, settings in cases(rng):
        yield Sample((incoming, x), settings, differentiable=(0,), label=label)
    incoming = rng.standard_normal((1, 3, 3, 1)).astype("float32")
    ties = np.zeros((1, 5, 5, 1), "float32")
    settings = {"kernel_size": 3, "strides": 2, "padding": "TF_SAME"}
    yield Sample((incoming, ties), settings, differentiable=(0,), label="ties")
    low = np.full_like(ties, -np.inf)
    yield Sample((incoming, low), settings, differentiable=(0,), label="all -inf")


def maximum_samples(rng: np.random.Generator) -> Iterator[Sample]:
    """Of max_pooling_2d_at_maximum."""
    for label, x, _, settings in cases(rng):
        values = rng.standard_normal(x.shape).astype("float32")
        yield Sample((values, x), settings, differentiable=(0,), label=label)
    values = rng.standard_normal((1, 5, 5, 1)).astype("float32")
    settings = {"kernel_size": 3, "strides": 2, "padding": "TF_SAME"}
    for label, fill in (("ties", 0.0), ("all -inf", -np.inf), ("NaN", np.nan)):
        x = np.full_like(values, fill)
        yield Sample((values, x), settings, differentiable=(0,), label=label)


def avg_samples(rng: np.random.Generator) -> Iterator[Sample]:
    """Of avg_pooling_2d."""
    for label, x, _, settings in cases(rng):
        yield Sample((x,), settings, label=label)
    for label, x, _, settings in cases(rng, include_zero_pad_to_average=True):
        if "same" in label or "explicit" in label:
            yield Sample((x,), settings, label=f"{label} counting padding")


def avg_gradient_samples(rng: np.random.Generator) -> Iterator[Sample]:
    """Of avg_pooling_2d_gradient."""
    for counted in (False, True):
        for label, x, incoming, settings in cases(rng, include_zero_pad_to_average=counted):
            if not counted or "same" in label or "explicit" in label:
                label = f"{label} counting padding" if counted else label
                yield Sample((incoming, x), settings, differentiable=(0,), label=label)
