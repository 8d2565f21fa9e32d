"""Seeded draws that are pure functions of their place: seed, epoch, purpose, sample.

NumPy promises no stable stream for its generators across releases, and a stream has to be replayed
to reach its middle. A batch must be reachable at any step and equal on every machine, so each draw
is a hash of its coordinates: the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014) over a 64-bit counter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK = 0xFFFFFFFFFFFFFFFF

# What a draw is for; a new purpose takes a new number, so that the old draws stay as they are.
SHUFFLE, CROP_Y, CROP_X, FLIP, SPLIT = range(5)


def _mix(value: int) -> int:
    value = ((value ^ (value >> 30)) * _MIX_1) & _MASK
    value = ((value ^ (value >> 27)) * _MIX_2) & _MASK
    return value ^ (value >> 31)


def keys(seed: int, epoch: int, purpose: int, index: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Returns one 64-bit draw per sample index.

    Args:
        seed: any integer; reduced modulo 2**64.
        epoch: number of the epoch, from 0.
        purpose: one of this module's constants; draws of different purposes are unrelated.
        index: sample numbers in the data set, any shape.

    Returns:
        uint64 array of the shape of `index`.

    Example:
        >>> a = keys(7, 0, SHUFFLE, np.array([3, 5]))
        >>> b = keys(7, 0, SHUFFLE, np.array([5]))
        >>> bool(a[1] == b[0])
        True
    """
    return _hash(np.uint64(_base(seed, epoch, purpose)), index)


def _base(seed: int, epoch: int, purpose: int) -> int:
    return _mix(_mix(_mix(seed & _MASK) + purpose * _GOLDEN & _MASK) + epoch * _GOLDEN & _MASK)


def _hash(base: Any, index: NDArray[np.int64]) -> NDArray[np.uint64]:
    # Array arithmetic on uint64 wraps, which is what the hash wants.
    z = (index.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN) + base
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX_1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX_2)
    hashed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return hashed


def integers(
    seed: int, epoch: int, purpose: int, index: NDArray[np.int64], bound: int
) -> NDArray[np.int64]:
    """Returns one integer in ``[0, bound)`` per sample index; `bound` is at most 2**31.

    Example:
        >>> integers(7, 0, FLIP, np.arange(4), 2).tolist() == integers(
        ...     7, 0, FLIP, np.arange(4), 2).tolist()
        True
    """
    high = keys(seed, epoch, purpose, index) >> np.uint64(32)
    return ((high * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)


def several(
    seed: int,
    epoch: int,
    purposes: Sequence[int],
    index: NDArray[np.int64],
    bounds: Sequence[int],
) -> NDArray[np.int64]:
    """Returns what `integers` does for each of several purposes, one row for each, in one go.

    Example:
        >>> rows = several(7, 0, (CROP_X, FLIP), np.arange(4), (9, 2))
        >>> bool((rows[1] == integers(7, 0, FLIP, np.arange(4), 2)).all())
        True
    """
    bases = np.array([[_base(seed, epoch, purpose)] for purpose in purposes], np.uint64)
    high = _hash(bases, index) >> np.uint64(32)
    limits = np.array(bounds, np.uint64)[:, None]
    return ((high * limits) >> np.uint64(32)).astype(np.int64)


def permutation(count: int, seed: int, epoch: int, purpose: int = SHUFFLE) -> NDArray[np.int64]:
    """Returns a permutation of ``range(count)`` that depends on nothing but its arguments.

    Example:
        >>> sorted(permutation(5, seed=1, epoch=0).tolist())
        [0, 1, 2, 3, 4]
    """
    drawn = keys(seed, epoch, purpose, np.arange(count, dtype=np.int64))
    return np.argsort(drawn, kind="stable").astype(np.int64, copy=False)
