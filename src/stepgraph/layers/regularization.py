"""Layers that disturb training and do nothing otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepgraph.errors import describe
from stepgraph.layers.base import Layer
from stepgraph.layers.layer_graph import LayerGraph
from stepgraph.utils import next_seed


class Dropout(Layer):
    """Sets a random part of the values to zero in training, and scales up the rest.

    The mask is a function of the seed and the step, the same on every device.

    Args:
        rate: probability of zero, from 0 to below 1.
        noise_shape: shape of the mask; sizes of 1 share it along an axis, None is the input's.
        seed: of the masks; drawn from the stream of `utils.set_random_seed` without it.
        **kwargs: of every `Layer`.

    Source: Keras ``Dropout``; Srivastava et al. 2014.
    """

    def __init__(
        self,
        rate: float,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(describe(self._what, f"rate={rate!r}", expected="0 up to below 1"))
        self.rate = float(rate)
        self.noise_shape = noise_shape
        # Drawn here, not at building, so that a saved model goes on with the same masks.
        self.seed = next_seed() % 2**31 if seed is None else int(seed)

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The input, disturbed in training."""
        if not training or self.rate == 0.0:
            return inputs
        if self.noise_shape is None:
            return graph.dropout(inputs, self.rate, seed=self.seed)
        shared = [i for i, size in enumerate(self.noise_shape) if size == 1]
        # A mask of ones, dropped, is the mask itself.
        ones = graph.ones_like(graph.reduction_sum(inputs, shared, keep_dims=True))
        return inputs * graph.dropout(ones, self.rate, seed=self.seed)


class SpatialDropout2D(Dropout):
    """Drops whole channels of pictures. Source: Keras ``SpatialDropout2D``; Tompson et al. 2015."""

    input_rank = 4

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        kwargs.pop("noise_shape", None)
        super().__init__(rate, (None, 1, 1, None), seed, **kwargs)


class GaussianNoise(Layer):
    """Adds normal noise in training.

    Args:
        stddev: standard deviation.
        seed: of the noise; drawn from the stream of `utils.set_random_seed` without it.
        **kwargs: of every `Layer`.

    Source: Keras ``GaussianNoise``.
    """

    def __init__(self, stddev: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stddev = float(stddev)
        self.seed = next_seed() % 2**31 if seed is None else int(seed)

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The input, disturbed in training."""
        if not training:
            return inputs
        noise = graph.random_normal_like(inputs, 0.0, self.stddev, seed=self.seed)
        return inputs + noise
