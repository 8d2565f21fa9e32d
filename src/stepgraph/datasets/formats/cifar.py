"""CIFAR-10 and CIFAR-100, binary and Python versions (Krizhevsky, 2009).

Binary: records of 3,073 bytes (label, then 1,024 bytes each of red, green and blue, row by row),
or of 3,074 for CIFAR-100 (coarse label, fine label, pixels). Python: pickled dictionaries with
the same bytes as rows of 3,072. Both come as a folder, a ``.tar.gz`` or a ``.zip``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepgraph.datasets.archives import member_names, read_members
from stepgraph.datasets.arrays import Dataset, Splits
from stepgraph.datasets.formats.pickles import read_pickle
from stepgraph.errors import DataError, describe

SIDE = 32
PIXELS = 3 * SIDE * SIDE
_NAMES_LIMIT = 1 << 16

CIFAR10_CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
CIFAR100_CLASSES = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
    crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
    lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()
)
CIFAR100_COARSE = tuple(
    """aquatic_mammals fish flowers food_containers fruit_and_vegetables
    household_electrical_devices household_furniture insects large_carnivores
    large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores
    medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1
    vehicles_2""".split()
)


@dataclass(frozen=True)
class Layout:
    """One version of one set: its files, their records, where its labels and names are.

    Attributes:
        title: what messages call it.
        train: names of the training files, in order.
        test: name of the test file.
        records: published number of records of each file.
        label_fields: labels of a record, in order; names are the Python version's keys.
        names: file that lists the class names, and the key in it (Python version only).
        python: whether the files are pickles.
    """

    title: str
    train: tuple[str, ...]
    test: str
    records: dict[str, int]
    label_fields: tuple[str, ...]
    names: dict[str, tuple[str, str]]
    python: bool

    def limits(self) -> dict[str, int]:
        """Largest size in bytes that each file may have."""
        sizes = {name: self.size(count) for name, count in self.records.items()}
        return sizes | {file: _NAMES_LIMIT for file, _ in self.names.values()}

    def size(self, records: int) -> int:
        """Bytes of so many records: exact for binary, a generous bound for a pickle."""
        exact = records * (PIXELS + len(self.label_fields))
        # Python 3 may have pickled the pixels as UTF-8 text, up to two bytes each.
        return 2 * exact + (1 << 20) + 100 * records if self.python else exact


def _batches(suffix: str) -> tuple[str, ...]:
    return tuple(f"data_batch_{i}{suffix}" for i in range(1, 6))


def _ten(python: bool) -> Layout:
    suffix = "" if python else ".bin"
    train, test = _batches(suffix), f"test_batch{suffix}"
    names = ("batches.meta", "label_names") if python else ("batches.meta.txt", "")
    return Layout(
        f"CIFAR-10, {'Python' if python else 'binary'} version",
        train,
        test,
        dict.fromkeys((*train, test), 10_000),
        ("labels",),
        {"labels": names},
        python,
    )


def _hundred(python: bool) -> Layout:
    suffix = "" if python else ".bin"
    train, test = f"train{suffix}", f"test{suffix}"
    names = {
        f"{grade}_labels": ("meta", f"{grade}_label_names")
        if python
        else (f"{grade}_label_names.txt", "")
        for grade in ("coarse", "fine")
    }
    return Layout(
        f"CIFAR-100, {'Python' if python else 'binary'} version",
        (train,),
        test,
        {train: 50_000, test: 10_000},
        ("coarse_labels", "fine_labels"),
        names,
        python,
    )


LAYOUTS = {10: (_ten(False), _ten(True)), 100: (_hundred(False), _hundred(True))}
"""Number of classes to the layouts it is published in, the preferred one first."""

CLASS_NAMES = {
    "labels": CIFAR10_CLASSES,
    "fine_labels": CIFAR100_CLASSES,
    "coarse_labels": CIFAR100_COARSE,
}
"""Label field to class names."""


def read_splits(path: Path, field: str, name: str, *, strict: bool) -> Splits:
    """Reads CIFAR-10 or CIFAR-100 from a folder or archive of either version.

    Args:
        path: folder, ``.tar.gz``, ``.tar`` or ``.zip``.
        field: "labels" for CIFAR-10, "fine_labels" or "coarse_labels" for CIFAR-100.
        name: what errors call the set.
        strict: demand every file with its published number of records; otherwise take what is
            there, at least one training file and the test file.

    Raises:
        DataError: files are missing, damaged, truncated, mislabelled or hostile.
    """
    layouts = LAYOUTS[10 if field == "labels" else 100]
    wanted = {file: size for layout in layouts for file, size in layout.limits().items()}
    content = read_members(path, wanted)
    for layout in layouts:
        train = [file for file in layout.train if file in content]
        if train and layout.test in content and (not strict or len(train) == len(layout.train)):
            break
    else:
        raise DataError(_missing(path, name, layouts, content))
    _check_names(path, layout, content)
    read: Callable[..., tuple[NDArray[np.uint8], dict[str, NDArray[np.int64]]]]
    read = _read_pickled if layout.python else _read_binary
    parts = {}
    for split, files in (("train", train), ("test", [layout.test])):
        pieces = []
        for file in files:
            what = f"read {path}, {file}"
            images, labels = read(content.pop(file), layout, what)
            if strict and len(images) != layout.records[file]:
                raise DataError(_short(what, len(images), layout.records[file]))
            for key in layout.label_fields:
                _check_range(labels[key], len(CLASS_NAMES[key]), what)
            pieces.append((images, labels[field]))
        parts[split] = Dataset(
            np.concatenate([images for images, _ in pieces]),
            np.concatenate([labels for _, labels in pieces]),
            CLASS_NAMES[field],
            f"{name} {split}",
        )
    return Splits(parts["train"], parts["test"])


def found_in(folder: Path, classes: int) -> bool:
    """Tells whether `folder` itself holds the test file and a training file of either version."""
    inside = {p.name for p in folder.iterdir() if p.is_file()}
    return any(lay.test in inside and inside & set(lay.train) for lay in LAYOUTS[classes])


def classes_in(archive: Path) -> int:
    """Tells by the names in an archive whether it is CIFAR-10 (10) or CIFAR-100 (100).

    Raises:
        DataError: it is neither, or not readable.
    """
    # "train" and "test" alone are too common as names to say anything.
    telling = {
        file: classes
        for classes, layouts in LAYOUTS.items()
        for lay in layouts
        for file in (*lay.train, *(file for file, _ in lay.names.values()))
        if file != "train"
    }
    for name in member_names(archive):
        if name in telling:
            return telling[name]
    raise DataError(
        describe(
            f"load {archive}",
            "holds neither CIFAR-10 nor CIFAR-100",
            expected="an archive with " + ", ".join(telling),
        )
    )


def to_nhwc(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turns rows of 3,072 bytes (planes of red, green, blue) into ``(N, 32, 32, 3)``.

    Example:
        >>> to_nhwc(np.arange(3072, dtype=np.uint16).astype(np.uint8)[None]).shape
        (1, 32, 32, 3)
    """
    return np.ascontiguousarray(rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))


def _read_binary(
    data: bytes, layout: Layout, what: str
) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.int64]]]:
    head = len(layout.label_fields)
    count, rest = divmod(len(data), head + PIXELS)
    if rest or not count:
        raise DataError(
            describe(
                what,
                f"truncated: {len(data):,} bytes are {count:,} records and {rest:,} bytes",
                expected=f"whole records of {head + PIXELS:,} bytes",
                fix="fetch the file again",
            )
        )
    records = np.frombuffer(data, np.uint8).reshape(count, head + PIXELS)
    labels = {key: records[:, i].astype(np.int64) for i, key in enumerate(layout.label_fields)}
    return to_nhwc(records[:, head:]), labels


def _read_pickled(
    data: bytes, layout: Layout, what: str
) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.int64]]]:
    batch = _dictionary(data, ("data", *layout.label_fields), what)
    rows = batch["data"]
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.shape[1:] != (PIXELS,):
        got = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
        raise DataError(
            describe(
                what,
                "'data' is not what CIFAR stores",
                got={"data": got},
                expected=f"uint8, shape (N, {PIXELS})",
            )
        )
    labels = {}
    for key in layout.label_fields:
        values = batch[key]
        if not isinstance(values, list) or not all(type(v) is int for v in values):
            raise DataError(describe(what, f"{key!r} is not a list of whole numbers"))
        if len(values) != len(rows):
            raise DataError(describe(what, f"{len(rows):,} images, but {len(values):,} {key}"))
        try:
            labels[key] = np.array(values, np.int64)
        except OverflowError:
            raise DataError(describe(what, f"{key!r} holds a number beyond 64 bits")) from None
    return to_nhwc(rows), labels


def _dictionary(data: bytes, keys: tuple[str, ...], what: str) -> dict[str, Any]:
    value = read_pickle(data, what)
    missing = [key for key in keys if not isinstance(value, dict) or key not in value]
    if missing:
        raise DataError(describe(what, f"the pickle lacks {', '.join(map(repr, missing))}"))
    return dict(value)


def _check_names(path: Path, layout: Layout, content: dict[str, bytes]) -> None:
    """Compares the archive's own list of classes, where it has one, with ours."""
    for field, (file, key) in layout.names.items():
        if file not in content:
            continue
        what = f"read {path}, {file}"
        if layout.python:
            listed = _dictionary(content[file], (key,), what)[key]
            names = [n.decode("latin-1") if isinstance(n, bytes) else n for n in listed]
        else:
            names = content[file].decode("latin-1").split()
        if tuple(names) != CLASS_NAMES[field]:
            odd = next((n for n in names if n not in CLASS_NAMES[field]), "another order or number")
            raise DataError(
                describe(
                    what,
                    f"wrongly labelled: the class names are not {layout.title}'s",
                    got={"first difference": odd},
                    expected=", ".join(CLASS_NAMES[field][:4]) + ", ...",
                )
            )


def _check_range(labels: NDArray[np.int64], classes: int, what: str) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise DataError(
            describe(
                what,
                f"record {wrong[0]} has label {labels[wrong[0]]} "
                f"({len(wrong)} labels out of range)",
                expected=f"labels 0..{classes - 1}",
                fix="fetch the file again",
            )
        )


def _short(what: str, count: int, expected: int) -> str:
    return describe(
        what,
        f"truncated: {count:,} records",
        expected=f"{expected:,}",
        fix="fetch the file again, or pass strict=False to read a part",
    )


def _missing(path: Path, name: str, layouts: tuple[Layout, ...], content: dict[str, bytes]) -> str:
    found = sorted(content)
    return describe(
        f"load {name}",
        f"{path} is not a complete {layouts[0].title.split(',')[0]}",
        got={"found": ", ".join(found) or "none of its files"},
        expected=" or ".join(", ".join((*lay.train, lay.test)) for lay in layouts),
        fix="give the folder or archive as published",
    )
