"""Random numbers that are the same on every machine and with every NumPy.

NumPy keeps its bit generators' raw streams stable, its distributions not; and mathematical
functions differ between processors in their last bit. So values are made from raw bits with
correctly rounded operations alone: addition, multiplication, division, square root.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Wichura's AS 241 (PPND16, 1988): numerators and denominators for the centre, tails and far tails.
_CENTRE = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
     1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
     3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4,
     5.2264952788528545610e3),
)  # fmt: skip
_TAIL = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
     3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
     2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4,
     1.05075007164441684324e-9),
)  # fmt: skip
_FAR = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0,
     2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
     2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7,
     2.04426310338993978564e-15),
)  # fmt: skip

# Values computed at a time.
_PART = 1 << 14

# Probability that a standard normal value is below 2.
_BELOW_TWO = 0.97724986805182079


def uniform(seed: int, count: int) -> Floats:
    """Values strictly between 0 and 1, multiples of 2**-54.

    Args:
        seed: 63 bits; another seed gives an unrelated stream (Philox4x64-10).
        count: how many.
    """
    source = np.random.Philox(key=seed)
    found = np.empty(count)
    for part in _parts(found):
        bits = np.asarray(source.random_raw(part.size))
        part[:] = bits >> np.uint64(11)
        part += 0.5
        part *= 2.0**-53
    return found


def _parts(values: Floats) -> Iterator[Floats]:
    """Views that together are the whole, each small enough to stay in a processor's cache."""
    for start in range(0, values.size, _PART):
        yield values[start : start + _PART]


def normal(seed: int, count: int) -> Floats:
    """Standard normal values, by inverting the distribution.

    Example:
        >>> values = normal(1, 10000)
        >>> bool(abs(values.mean()) < 0.03 and abs(values.std() - 1) < 0.03)
        True
    """
    return inverse_normal(uniform(seed, count))


def truncated_normal(seed: int, count: int) -> Floats:
    """Standard normal values among those between -2 and 2."""
    return inverse_normal((1 - _BELOW_TWO) + uniform(seed, count) * (2 * _BELOW_TWO - 1))


def inverse_normal(p: Floats) -> Floats:
    """Where the standard normal distribution reaches the probability `p`, to about 1e-16.

    Args:
        p: probabilities strictly between 0 and 1, any shape.

    Source: M. J. Wichura, "Algorithm AS 241", Applied Statistics 37 (1988).
    """
    flat = np.ascontiguousarray(p, np.float64).reshape(-1)
    found = np.empty_like(flat)
    for given, result in zip(_parts(flat), _parts(found), strict=True):
        _invert(given, result)
    return found.reshape(np.shape(p))


def _invert(p: Floats, result: Floats) -> None:
    """`inverse_normal` into `result`; the tails' formulas only where they are needed."""
    q = p - 0.5
    result[:] = q * _ratio(_CENTRE, 0.180625 - q * q)
    (outer,) = np.nonzero(np.abs(q) > 0.425)
    near_end = p[outer]
    tail = np.sqrt(-_log(np.minimum(near_end, 1.0 - near_end)))
    far = tail > 5.0
    found = _ratio(_TAIL, tail - 1.6)
    found[far] = _ratio(_FAR, tail[far] - 5.0)
    result[outer] = np.where(q[outer] < 0, -1.0, 1.0) * found


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Floats) -> Floats:
    above, below = (_horner(c, x) for c in coefficients)
    above /= below
    return above


def _horner(coefficients: tuple[float, ...], x: Floats) -> Floats:
    total = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total *= x
        total += coefficient
    return total


def _log(x: Floats) -> Floats:
    """The natural logarithm, without the library's, whose last bit differs between machines."""
    fraction, exponent = np.frexp(x)
    small = fraction < 0.70710678118654752
    fraction = np.where(small, fraction * 2.0, fraction)
    exponent = exponent - small
    s = (fraction - 1.0) / (fraction + 1.0)
    series = _horner(tuple(2.0 / (2 * k + 1) for k in range(13)), s * s)
    found: Floats = exponent * 0.69314718055994530942 + s * series
    return found
