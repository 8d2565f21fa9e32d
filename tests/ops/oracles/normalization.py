"""Statistics and normalisation by PyTorch; gradients by PyTorch's own differentiation."""

from __future__ import annotations

import numpy as np

try:
    import torch
except ImportError:
    torch = None


def _axes(x, axes):
    return tuple(range(x.ndim)) if axes is None else (axes,) if isinstance(axes, int) else axes


def _mean(x, axes=None, keep_dims=True):
    axes = _axes(x, axes)
    return torch.from_numpy(x).mean(axes, keepdim=keep_dims).numpy() if axes else x


def _variance(x, mean=None, axes=None, keep_dims=True):
    axes = _axes(x, axes)
    if not x.size:
        return np.full(np.sum(x, axes, keepdims=keep_dims).shape, np.nan)
    if not axes:
        return np.zeros_like(x)
    if mean is not None:
        return _mean((x - mean) ** 2, axes, keep_dims)
    return torch.from_numpy(x).var(axes, correction=0, keepdim=keep_dims).numpy()


def _normalized(x, mean, variance, gamma=None, beta=None, epsilon=1e-3):
    y = (x - mean) / torch.sqrt(variance + epsilon)
    y = y if gamma is None else gamma * y
    return y if beta is None else y + beta


def _normalize(*arrays, epsilon=1e-3):
    return _normalized(*map(torch.from_numpy, arrays), epsilon=epsilon).numpy()


def _gamma(incoming, x, mean, variance, axes=None, epsilon=1e-3):
    x, mean, variance = map(torch.from_numpy, (x, mean, variance))
    kept = [1 if i in _axes(x, axes) else d for i, d in enumerate(x.shape)]
    gamma = torch.ones(kept, dtype=torch.float64, requires_grad=True)
    y = _normalized(x, mean, variance, gamma, epsilon=epsilon)
    return torch.autograd.grad(y, gamma, torch.from_numpy(incoming))[0].numpy()


def _beta(incoming, x, axes=None):
    return torch.from_numpy(incoming).sum(_axes(x, axes), keepdim=True).numpy()


def _source(incoming, x, mean, variance, gamma, to_gamma, to_beta, axes=None, epsilon=1e-3):
    # PyTorch has no op that is given the sums: the paper's formula, term by term. That it
    # is the total derivative of a batch normalisation is shown in test_normalization.py.
    count = np.prod([x.shape[a] for a in _axes(x, axes)])
    deviation = np.sqrt(variance + epsilon)
    scale = gamma / (max(count, 1) * deviation)
    return scale * (count * incoming - to_beta - (x - mean) / deviation * to_gamma)


ORACLES = (
    {}
    if torch is None
    else {
        "mean": _mean,
        "variance": _variance,
        "normalize": _normalize,
        "normalization_gamma_gradient": _gamma,
        "normalization_beta_gradient": _beta,
        "normalization_gradient": _source,
    }
)
