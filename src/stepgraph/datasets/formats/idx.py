"""IDX files, as MNIST and Fashion-MNIST are published (LeCun's format), gzipped or not.

A file opens with two zero bytes, a byte for the element type (8: unsigned byte), a byte for the
number of dimensions, then each dimension as a big-endian 32-bit number, then the elements.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stepgraph.datasets.archives import read_plain_or_gzip, readable
from stepgraph.datasets.arrays import Dataset, Splits
from stepgraph.errors import DataError, describe

STEMS = {
    "train images": "train-images-idx3-ubyte",
    "train labels": "train-labels-idx1-ubyte",
    "test images": "t10k-images-idx3-ubyte",
    "test labels": "t10k-labels-idx1-ubyte",
}
"""Published file names without ".gz"; the dot form ("train-images.idx3-ubyte") is read too."""

RECORDS = {"train": 60_000, "test": 10_000}
SIDE = 28
_UNSIGNED_BYTE = 8


def read_idx(path: Path, dimensions: int, limit: int) -> NDArray[np.uint8]:
    """Reads one IDX file of unsigned bytes.

    Args:
        path: the file, gzipped or not.
        dimensions: how many the file must have (3 for images, 1 for labels).
        limit: most elements it may have; nothing is decompressed beyond them.

    Returns:
        uint8 array of the shape the file gives.

    Raises:
        DataError: not IDX, other dimensions or type, too few or too many bytes.
    """
    header = 4 + 4 * dimensions
    data = read_plain_or_gzip(path, header + limit)
    if len(data) < header:
        raise DataError(
            describe(
                f"read {path}",
                f"truncated: {len(data)} bytes, the header alone has {header}",
                fix="fetch the file again",
            )
        )
    zeros, kind, rank = struct.unpack(">HBB", data[:4])
    if (zeros, kind, rank) != (0, _UNSIGNED_BYTE, dimensions):
        raise DataError(
            describe(
                f"read {path}",
                "not the IDX file that its name says",
                got={"first bytes": data[:4].hex(" ")},
                expected=f"00 00 08 {dimensions:02x} (unsigned bytes, {dimensions} dimensions)",
                fix="fetch the file again; images and labels may be mixed up",
            )
        )
    shape = struct.unpack(f">{dimensions}I", data[4:header])
    count = math.prod(shape)
    if count != len(data) - header:
        fault = "truncated" if len(data) - header < count else "longer than its header says"
        raise DataError(
            describe(
                f"read {path}",
                f"{fault}: {len(data) - header:,} bytes after the header",
                expected=f"{count:,} for shape {shape}",
                fix="fetch the file again",
            )
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def find_files(folder: Path) -> dict[str, Path]:
    """Returns which of the four files lie in `folder`, keyed as in `STEMS`."""
    found: dict[str, Path] = {}
    for part, stem in STEMS.items():
        for name in (stem, stem.replace("-idx", ".idx")):
            for path in (folder / name, folder / f"{name}.gz"):
                if path.is_file():
                    found.setdefault(part, path)
    return found


def found_in(folder: Path) -> bool:
    """Tells whether any of the four files lies in `folder`."""
    return bool(find_files(folder))


def read_splits(path: Path, class_names: Sequence[str], name: str, *, strict: bool) -> Splits:
    """Reads the four files of a folder as training and test set.

    Args:
        path: folder that holds them.
        class_names: ten names.
        name: what errors call the set.
        strict: demand the published 60,000 and 10,000 records; otherwise up to as many.

    Raises:
        DataError: a file is missing, damaged, truncated, or disagrees with its partner.
    """
    with readable(path):
        found = find_files(path) if path.is_dir() else {}
    if missing := [f"{STEMS[part]}[.gz]" for part in STEMS if part not in found]:
        raise DataError(
            describe(
                f"load {name}",
                f"{path} lacks {', '.join(missing)}",
                expected="a folder with the four IDX files",
            )
        )
    parts = {}
    for split, records in RECORDS.items():
        image_path, label_path = found[f"{split} images"], found[f"{split} labels"]
        images = read_idx(image_path, 3, records * SIDE * SIDE)
        labels = read_idx(label_path, 1, records)
        if images.shape[1:] != (SIDE, SIDE):
            raise DataError(
                describe(
                    f"read {image_path}",
                    f"images of {images.shape[1]}x{images.shape[2]}",
                    expected=f"{SIDE}x{SIDE}",
                )
            )
        if len(images) != len(labels) or (strict and len(images) != records):
            raise DataError(
                describe(
                    f"load {name}",
                    f"the {split} set is not complete",
                    got={
                        image_path.name: f"{len(images):,} images",
                        label_path.name: f"{len(labels):,} labels",
                    },
                    expected=f"{records:,} of each" if strict else "as many of each",
                    fix="fetch the files again, or pass strict=False to read a part",
                )
            )
        parts[split] = Dataset(
            images[..., np.newaxis], labels.astype(np.int64), tuple(class_names), f"{name} {split}"
        )
    return Splits(parts["train"], parts["test"])
