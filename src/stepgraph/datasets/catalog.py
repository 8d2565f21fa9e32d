"""The table of known data sets: the one list that `load`, the command line and the docs read."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stepgraph.datasets.arrays import Splits
from stepgraph.datasets.download import RemoteFile
from stepgraph.datasets.formats import cifar, idx

Reader = Callable[..., Splits]
"""Called as ``reader(path, strict=bool)``."""


@dataclass(frozen=True)
class KnownDataset:
    """What is known of one published data set.

    Attributes:
        title: its name in prose.
        about: one line for listings.
        source: who made it.
        reader: reads a folder or archive of it; None if it is part of the package.
        found_in: tells whether a folder holds its files.
        files: what to download; all of them are needed.
        places: names tried in the data folder, in this order; "" is the folder itself.
        system: where operating systems install it, and how it gets there.
        train_counts: images of each class in the training set.
        test_counts: images of each class in the test set.
        opening: labels of the first twenty test images, which tell data sets of one form apart.
    """

    title: str
    about: str
    source: str
    reader: Reader | None = None
    found_in: Callable[[Path], bool] | None = None
    files: tuple[RemoteFile, ...] = ()
    places: tuple[str, ...] = ()
    system: tuple[tuple[Path, str], ...] = ()
    train_counts: tuple[int, ...] = ()
    test_counts: tuple[int, ...] = ()
    opening: tuple[int, ...] = ()


_KRIZ = "https://www.cs.toronto.edu/~kriz/"
_ZALANDO = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_TEN_DIGITS = tuple(str(i) for i in range(10))
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def _file(base: str, name: str, size: int, md5: str, sha256: str) -> RemoteFile:
    return RemoteFile(name, base + name, size, sha256, md5)


def _cifar_places(stem: str, folder: str, python_folder: str) -> tuple[str, ...]:
    binary = (
        folder,
        f"{stem}-binary.tar.gz",
        f"{folder}.zip",
        f"{stem}-binary.zip",
        f"{stem}-binary.tar",
        f"{folder}.tar.gz",
    )
    python = (python_folder, f"{stem}-python.tar.gz", f"{python_folder}.zip", f"{stem}-python.zip")
    return (*binary, *python, "")


_CIFAR100 = KnownDataset(
    "CIFAR-100",
    "60,000 colour photographs, 32x32x3, 100 classes",
    "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    partial(cifar.read_splits, field="fine_labels", name="cifar100"),
    partial(cifar.found_in, classes=100),
    (
        _file(
            _KRIZ,
            "cifar-100-binary.tar.gz",
            168_513_733,
            "03b5dce01913d631647c71ecec9e9cb8",
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        ),
    ),
    _cifar_places("cifar-100", "cifar-100-binary", "cifar-100-python"),
    train_counts=(500,) * 100,
    test_counts=(100,) * 100,
    opening=(49, 33, 72, 51, 71, 92, 15, 14, 23, 0, 71, 75, 81, 69, 40, 43, 92, 97, 70, 53),
)

DATASETS: dict[str, KnownDataset] = {
    "digits": KnownDataset(
        "Digits",
        "1,797 hand-written digits, 8x8x1, 10 classes; part of the package",
        "UCI Optical Recognition of Handwritten Digits (CC BY 4.0), as in scikit-learn",
    ),
    "cifar10": KnownDataset(
        "CIFAR-10",
        "60,000 colour photographs, 32x32x3, 10 classes",
        "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        partial(cifar.read_splits, field="labels", name="cifar10"),
        partial(cifar.found_in, classes=10),
        (
            _file(
                _KRIZ,
                "cifar-10-binary.tar.gz",
                170_052_171,
                "c32a1d4ab5d03f1284b67883e8d87530",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
        _cifar_places("cifar-10", "cifar-10-batches-bin", "cifar-10-batches-py"),
        train_counts=(5000,) * 10,
        test_counts=(1000,) * 10,
        opening=(3, 8, 8, 0, 6, 6, 1, 6, 3, 1, 0, 9, 5, 7, 9, 8, 5, 7, 8, 6),
    ),
    "cifar100": _CIFAR100,
    "cifar100-coarse": KnownDataset(
        "CIFAR-100, coarse labels",
        "the same photographs in 20 groups of 5 classes",
        _CIFAR100.source,
        partial(cifar.read_splits, field="coarse_labels", name="cifar100-coarse"),
        partial(cifar.found_in, classes=100),
        _CIFAR100.files,
        _CIFAR100.places,
        train_counts=(2500,) * 20,
        test_counts=(500,) * 20,
    ),
    "fashion-mnist": KnownDataset(
        "Fashion-MNIST",
        "70,000 grey pictures of clothes, 28x28x1, 10 classes",
        "Xiao, Rasul and Vollgraf, 2017 (Zalando Research, MIT licence)",
        partial(idx.read_splits, class_names=FASHION_CLASSES, name="fashion-mnist"),
        idx.found_in,
        (
            _file(
                _ZALANDO,
                "train-images-idx3-ubyte.gz",
                26_421_880,
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            _file(
                _ZALANDO,
                "train-labels-idx1-ubyte.gz",
                29_515,
                "25c81989df183df01b3e8a0aad5dffbe",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            _file(
                _ZALANDO,
                "t10k-images-idx3-ubyte.gz",
                4_422_102,
                "bef4ecab320f06d8554ea6380940ec79",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            _file(
                _ZALANDO,
                "t10k-labels-idx1-ubyte.gz",
                5_148,
                "bb300cfdad3c16e7a12a480ee83cd310",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ),
        ("fashion-mnist",),
        ((Path("/usr/share/datasets/fashion-mnist"), "apt install dataset-fashion-mnist"),),
        (6000,) * 10,
        (1000,) * 10,
        (9, 2, 1, 1, 6, 1, 4, 6, 5, 7, 4, 5, 7, 3, 4, 1, 2, 4, 8, 0),
    ),
    "mnist": KnownDataset(
        "MNIST",
        "70,000 hand-written digits, 28x28x1, 10 classes",
        "LeCun, Cortes and Burges, 1998",
        partial(idx.read_splits, class_names=_TEN_DIGITS, name="mnist"),
        idx.found_in,
        (
            _file(
                _MNIST,
                "train-images-idx3-ubyte.gz",
                9_912_422,
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            _file(
                _MNIST,
                "train-labels-idx1-ubyte.gz",
                28_881,
                "d53e105ee54ea40749a09fcbcd1e9432",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            _file(
                _MNIST,
                "t10k-images-idx3-ubyte.gz",
                1_648_877,
                "9fb629c4189551a2d022fa330f9573f3",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            _file(
                _MNIST,
                "t10k-labels-idx1-ubyte.gz",
                4_542,
                "ec29112dd5afa0611ce80d1b7f02629c",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
        ("mnist",),
        train_counts=(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        test_counts=(980, 1135, 1032, 1010, 982, 892, 1028, 974, 958, 1009),
        opening=(7, 2, 1, 0, 4, 1, 4, 9, 5, 9, 0, 6, 9, 0, 1, 5, 9, 7, 3, 4),
    ),
}
"""Name to what is known of it; the names are those that `load` takes."""


def data_folder() -> Path:
    """Returns where data sets are looked for and downloaded to.

    ``$STEPGRAPH_DATA``, or ``stepgraph/datasets`` in ``$XDG_CACHE_HOME`` (``~/.cache``).
    """
    if named := os.environ.get("STEPGRAPH_DATA"):
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "stepgraph" / "datasets"


def table() -> str:
    """Returns `DATASETS` as lines of text: name, what it is, where it comes from.

    Example:
        >>> print(table().splitlines()[0])
        digits           1,797 hand-written digits, 8x8x1, 10 classes; part of the package
    """
    lines = []
    for name, known in DATASETS.items():
        lines.append(f"{name:16} {known.about}")
        lines += [f"{'':16} {remote.line()}" for remote in known.files]
    return "\n".join(lines)
