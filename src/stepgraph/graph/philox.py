"""Philox4x32-10: random words as a function of a counter and a key, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgraph.graph.definition import Array

Words = tuple[Array, Array, Array, Array]

# Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
PHILOX_WEYL = (0x9E3779B9, 0xBB67AE85)
PHILOX_ROUNDS = 10
LOW = 0xFFFFFFFF


def philox(counter: tuple[Any, Any, Any, Any], key: tuple[int, int]) -> Words:
    """Philox4x32-10: four random words for each counter.

    Args:
        counter: four words, each an array of uint32 or a number; they broadcast.
        key: two words.

    Returns:
        Four uint32 arrays.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Example:
        >>> [hex(int(word)) for word in philox((0, 0, 0, 0), (0, 0))]
        ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = (np.asarray(word, np.uint32) for word in counter)
    k0, k1 = key
    m0, m1 = (np.uint64(m) for m in PHILOX_MULTIPLIERS)
    for _ in range(PHILOX_ROUNDS):
        p0, p1 = c0.astype(np.uint64) * m0, c2.astype(np.uint64) * m1
        high0, high1 = ((p >> np.uint64(32)).astype(np.uint32) for p in (p0, p1))
        c0, c1, c2, c3 = (
            high1 ^ c1 ^ np.uint32(k0),
            p1.astype(np.uint32),
            high0 ^ c3 ^ np.uint32(k1),
            p0.astype(np.uint32),
        )
        k0, k1 = (k0 + PHILOX_WEYL[0]) & LOW, (k1 + PHILOX_WEYL[1]) & LOW
    return c0, c1, c2, c3


def random_words(count: int, seed: int, stream: int, step: int) -> Array:
    """The first `count` words of a stream at a step, uint32."""
    blocks = np.arange(-(-count // 4), dtype=np.uint32)
    step &= 2**64 - 1
    counter = (blocks, stream, step & LOW, step >> 32)
    words = philox(counter, (seed & LOW, seed >> 32))
    return np.stack(np.broadcast_arrays(*words), axis=-1).reshape(-1)[:count]
