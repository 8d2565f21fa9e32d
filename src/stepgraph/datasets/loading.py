"""`load`: finds a data set, fetches it if told to, reads it and checks it against the table."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from stepgraph.datasets.archives import kind_of
from stepgraph.datasets.arrays import Splits
from stepgraph.datasets.catalog import DATASETS, KnownDataset, data_folder
from stepgraph.datasets.download import Progress, fetch
from stepgraph.datasets.formats import cifar, digits, folders, idx, npz
from stepgraph.errors import DataError, describe, nearest


def load(
    name_or_path: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    strict: bool = True,
    progress: Progress | None = None,
) -> Splits:
    """Loads a known data set by name, or whatever lies at a path.

    Args:
        name_or_path: a name in `DATASETS`; or a path: a folder or archive of CIFAR-10 or -100, an
            ``.npz`` (`stepgraph.datasets.formats.npz`), or a folder of class folders.
        data: for a known set, its folder or archive, or the folder to look and download into;
            by default the system's places, then `data_folder`.
        download: fetch it if it is nowhere to be found. Nothing is fetched otherwise.
        size: height and width to resize to, one number for both; None keeps them.
        channels: 1 or 3; None keeps them.
        strict: for known sets, demand the published number of records, images per class and
            opening labels. False reads a part, or a set put together otherwise.
        progress: called while downloading; see `stepgraph.datasets.download.Progress`.

    Returns:
        Training and test set.

    Raises:
        DataError: unknown name, nothing found (the message says what to fetch and where to put
            it), or the files are damaged, truncated, mislabelled or hostile.

    Example:
        >>> load("digits", size=32, channels=3).train
        Dataset('digits train': 1438 images 32x32x3 uint8, 10 classes)
    """
    text = os.fspath(name_or_path)
    name = _canonical(text)
    if name in DATASETS:
        splits = _load_known(name, data, download, strict, progress)
        return splits.resized(size, channels)
    path = Path(text).expanduser()
    if not path.exists():
        raise DataError(
            describe(
                f"load {text!r}", "neither a known data set nor a path", fix=nearest(name, DATASETS)
            )
        )
    if data is not None:
        raise DataError(describe(f"load {text!r}", "data= goes with a known name only"))
    return _load_path(path, size, channels, strict)


def _canonical(name: str) -> str:
    plain = name.lower().replace("_", "-")
    known = {key.replace("-", ""): key for key in DATASETS}
    return known.get(plain.replace("-", ""), plain) if os.sep not in name else name


def _load_known(
    name: str,
    data: str | os.PathLike[str] | None,
    download: bool,
    strict: bool,
    progress: Progress | None,
) -> Splits:
    known = DATASETS[name]
    if known.reader is None:
        if data is not None:
            raise DataError(
                describe(
                    f"load {name}",
                    f"{known.title} are part of the package; data= has no meaning for them",
                    got={"data": data},
                    fix=f"leave data= out, or load({os.fspath(data)!r}) to read what lies there",
                )
            )
        return digits.read_splits()
    given = None if data is None else Path(data).expanduser()
    if given is not None and not given.exists() and not download:
        raise DataError(
            describe(f"load {name}", f"{given} does not exist", fix=_advice(name, given))
        )
    place = _find(known, given)
    if place is None and download:
        folder = given or data_folder()
        place = folder / known.places[0] if len(known.files) > 1 else folder
        for remote in known.files:
            fetched = fetch(remote, place, progress)
        place = fetched if len(known.files) == 1 else place
    if place is None:
        raise DataError(
            describe(
                f"load {name}",
                f"{known.title} is not there",
                got={"looked in": str(given or data_folder())},
                fix=_advice(name, given),
            )
        )
    splits = known.reader(place, strict=strict)
    if strict:
        _check_published(name, splits, place)
    return splits


def _find(known: KnownDataset, given: Path | None) -> Path | None:
    """Returns the folder or archive that holds the set, or None."""
    if given is not None and given.is_file():
        return given
    folder = given or data_folder()
    candidates = [folder / place for place in known.places]
    if given is None:
        candidates = [path for path, _ in known.system] + candidates
    else:
        candidates.append(folder)
    return next((path for path in candidates if _holds(known, path)), None)


def _holds(known: KnownDataset, path: Path) -> bool:
    if path.is_dir():
        return known.found_in is not None and known.found_in(path)
    return path.is_file()


def _advice(name: str, given: Path | None) -> str:
    known = DATASETS[name]
    folder = given or data_folder()
    if len(known.files) > 1:
        folder = folder / known.places[0]
    ways = ["load(..., download=True) fetches it"]
    ways += [f"or {how}" for _, how in known.system]
    ways.append(f"or put into {folder} (made by hand), or name with data=, what you fetch from:")
    return "\n    ".join([*ways, *(remote.line() for remote in known.files)])


def _check_published(name: str, splits: Splits, place: Path) -> None:
    """Compares class counts and the opening with what was published: wrong labels show here."""
    known = DATASETS[name]
    opening = tuple(splits.test.labels[: len(known.opening)].tolist())
    if known.opening and opening != known.opening:
        other = next((k.title for k in DATASETS.values() if k.opening == opening), None)
        raise DataError(
            describe(
                f"load {name}",
                f"{place} does not hold {known.title}",
                got={"first labels": f"{opening}" + (f": this is {other}" if other else "")},
                expected=f"{known.opening}",
                fix="name the right files, or pass strict=False to take them as they are",
            )
        )
    for dataset, counts in ((splits.train, known.train_counts), (splits.test, known.test_counts)):
        found = np.bincount(dataset.labels, minlength=len(counts))
        if wrong := [i for i, count in enumerate(counts) if found[i] != count]:
            first = wrong[0]
            raise DataError(
                describe(
                    f"load {name}",
                    f"{dataset.name}: labels are damaged ({len(wrong)} classes have wrong counts)",
                    got={f"class {first}": f"{found[first]:,} images"},
                    expected=f"{counts[first]:,}",
                    fix=f"fetch {place} again, or pass strict=False to take it as it is",
                )
            )


def _load_path(
    path: Path, size: int | tuple[int, int] | None, channels: int | None, strict: bool
) -> Splits:
    if path.is_dir():
        if idx.found_in(path):
            raise DataError(
                describe(
                    f"load {path}",
                    "IDX files do not say which data set they are",
                    fix=f"load('mnist', data={str(path)!r}), or 'fashion-mnist'",
                )
            )
        inside = [name for name in ("cifar10", "cifar100") if _find(DATASETS[name], path)]
        if len(inside) > 1:
            raise DataError(
                describe(
                    f"load {path}",
                    f"holds {' and '.join(inside)}",
                    fix=f"say which: load('cifar10', data={str(path)!r})",
                )
            )
        if inside:
            return _load_known(inside[0], path, False, strict, None).resized(size, channels)
        return folders.read_splits(path, size, 3 if channels is None else channels)
    if path.suffix == ".npz":
        return npz.read_splits(path).resized(size, channels)
    if kind_of(path) == "file":
        raise DataError(
            describe(
                f"load {path}",
                "not a data set",
                expected="an archive of CIFAR-10 or -100, an .npz, a folder of class folders",
            )
        )
    name = f"cifar{cifar.classes_in(path)}"
    return _load_known(name, path, False, strict, None).resized(size, channels)
