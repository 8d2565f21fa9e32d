"""Writes src/stepgraph/datasets/data/digits.npz from scikit-learn's copy of the digits.

Run it where scikit-learn is installed:  python tools/make_digits.py
The file holds what scikit-learn returns, as bytes: pixels 0..16 and labels 0..9, in its order.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

TARGET = Path(__file__).parents[1] / "src" / "stepgraph" / "datasets" / "data" / "digits.npz"


def main() -> None:
    """Writes the file and says how large it became."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = digits.images.astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    if not np.array_equal(pixels, digits.images) or pixels.max() > 16:
        raise SystemExit("the pixels are not whole numbers in 0..16")
    TARGET.parent.mkdir(exist_ok=True)
    np.savez_compressed(TARGET, pixels=pixels, labels=labels)
    print(f"{TARGET.name}: {len(pixels)} images, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
