"""Philox in Python's own integers, one counter at a time."""

from __future__ import annotations

import math

import numpy as np


def _block(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [b >> 32 ^ c[1] ^ k[0], b % 2**32, a >> 32 ^ c[3] ^ k[1], a % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


def _words(count, seed, step, stream=0):
    found = []
    for i in range(-(-count // 4)):
        found += _block((i, stream, step % 2**32, step >> 32), (seed % 2**32, seed >> 32))
    return found[:count]


def _bits(*args, seed=0):
    # The sample with a step of its own gives it as an array, which stands before the settings.
    step = int(args[0]) if isinstance(args[0], np.ndarray) else 0
    shape, *rest = args[1:] if isinstance(args[0], np.ndarray) else args
    seed = rest[0] if rest else seed
    return np.array(_words(math.prod(shape), seed, step), "uint32").reshape(shape)


def _uniform(shape, minimum=0.0, maximum=1.0, seed=0, dtype="float32"):
    words = np.array([w // 256 / 2**24 for w in _words(math.prod(shape), seed, 0)])
    return (words * (maximum - minimum) + minimum).reshape(shape)


def _normal(shape, mean=0.0, standard_deviation=1.0, seed=0):
    count = math.prod(shape)
    found = []
    words = _words(count + 1, seed, 0)
    for i in range(0, count, 2):
        radius = math.sqrt(-2 * math.log((words[i] // 256 + 1) / 2**24))
        angle = 2 * math.pi * (words[i + 1] // 256 / 2**24)
        found += [radius * math.cos(angle), radius * math.sin(angle)]
    return (np.array(found[:count]) * standard_deviation + mean).reshape(shape)


def _dropout(x, rate, seed=0):
    kept = np.array([w >= rate * 2**32 for w in _words(x.size, seed, 0)], bool).reshape(x.shape)
    return np.where(kept, x / (1 - rate), 0.0)


ORACLES = {
    "random_bits": _bits,
    "random_uniform": _uniform,
    "random_normal": _normal,
    "random_uniform_like": lambda like, *args, **kw: _uniform(like.shape, *args, **kw),
    "random_normal_like": lambda like, *args, **kw: _normal(like.shape, *args, **kw),
    "dropout": _dropout,
}
