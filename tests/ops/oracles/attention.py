"""Attention, one head and one query after the other."""

from __future__ import annotations

import numpy as np


def _attention(query, key, value, heads, scale=None):
    size, value_size = query.shape[2] // heads, value.shape[2] // heads
    scale = size**-0.5 if scale is None else scale
    y = np.zeros((*query.shape[:2], value.shape[2]))
    for picture, step, head in np.ndindex(*query.shape[:2], heads):
        part = slice(head * size, (head + 1) * size)
        scores = scale * key[picture, :, part] @ query[picture, step, part]
        powers = np.exp(scores - scores.max())
        values = value[picture, :, head * value_size : (head + 1) * value_size]
        y[picture, step, head * value_size : (head + 1) * value_size] = (
            powers @ values / powers.sum()
        )
    return y


def _gradient(incoming, query, key, value, heads, scale=None):
    import pytest

    torch = pytest.importorskip("torch")
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (query, key, value)]
    q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in leaves)
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scale)
    y.transpose(1, 2).flatten(2).backward(torch.tensor(incoming, dtype=torch.float64))
    return tuple(x.grad.numpy() for x in leaves)


ORACLES = {"multi_head_attention": _attention, "multi_head_attention_gradient": _gradient}
