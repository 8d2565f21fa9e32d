"""Products of matrices, each sum spelled out by einsum."""

from __future__ import annotations

import numpy as np


def _product(a, b, transpose_primary=False, transpose_secondary=False):
    left = "...ki" if transpose_primary else "...ik"
    right = "...jk" if transpose_secondary else "...kj"
    return np.einsum(f"{left},{right}->...ij", a, b)


ORACLES = {"matrix_multiplication": _product}
