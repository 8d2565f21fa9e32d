"""MNIST and Fashion-MNIST files."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from stepgraph.datasets import DATASETS, fashion_mnist, load
from stepgraph.errors import DataError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_four_files_are_read(
    make: SimpleNamespace, tmp_path: Path, name: str, compress: bool
) -> None:
    held = make.mnist(tmp_path / "m", 12, compress)
    splits = load(name, tmp_path / "m", strict=False)
    np.testing.assert_array_equal(splits.train.images[..., 0], held["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(splits.test.labels, held["t10k-labels-idx1-ubyte"])
    assert splits.train.image_shape == (28, 28, 1)
    assert load(name, tmp_path / "m", strict=False, size=32, channels=3).test.image_shape == (
        32, 32, 3,
    )  # fmt: skip


def test_dotted_names(make: SimpleNamespace, tmp_path: Path) -> None:
    make.mnist(tmp_path / "m", 12, False)
    for path in (tmp_path / "m").iterdir():
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(load("mnist", tmp_path / "m", strict=False).train) == 12


def test_a_path_alone_does_not_say_which(make: SimpleNamespace, tmp_path: Path) -> None:
    make.mnist(tmp_path / "m")
    with pytest.raises(DataError, match=r"load\('mnist', data="):
        load(tmp_path / "m")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: d[:-1], "truncated: 3,919 bytes after the header"),
        (lambda d: d + b"x", "longer than its header says"),
        (lambda d: d[:9], "the header alone has 16"),
        (lambda d: b"\0\0\x0d\3" + d[4:], "not the IDX file"),
        (lambda d: b"\0\0\x08\1" + d[4:], "images and labels may be mixed up"),
        (lambda d: d[:4] + b"\xff" * 12 + d[16:], "truncated"),
        (lambda d: d[:4] + b"\0\0\0\4" + d[8 : 16 + 4 * 784], "not complete"),
        (lambda d: d[:4] + b"\0\0\0\5\0\0\0\x38\0\0\0\x0e" + d[16:], "images of 56x14"),
        (lambda d: b"", "truncated"),
    ],
)
@pytest.mark.parametrize("compress", [True, False])
def test_damage_is_named(
    make: SimpleNamespace, tmp_path: Path, spoil: object, words: str, compress: bool
) -> None:
    make.mnist(tmp_path / "m", 5, compress)
    path = tmp_path / "m" / ("train-images-idx3-ubyte" + ".gz" * compress)
    data = gzip.decompress(path.read_bytes()) if compress else path.read_bytes()
    spoilt = spoil(data)  # type: ignore[operator]
    path.write_bytes(gzip.compress(spoilt) if compress else spoilt)
    with pytest.raises(DataError, match=words):
        load("mnist", tmp_path / "m", strict=False)


def test_truncated_gzip_and_bomb(make: SimpleNamespace, tmp_path: Path) -> None:
    make.mnist(tmp_path / "m")
    path = tmp_path / "m" / "t10k-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(DataError, match="damaged or truncated") as caught:
        load("mnist", tmp_path / "m", strict=False)
    assert f"{len(whole) - 9:,} bytes" in str(caught.value)
    path.write_bytes(gzip.compress(bytes(50_000_000)))
    with pytest.raises(DataError, match="more than 7,840,016 bytes"):
        load("mnist", tmp_path / "m", strict=False)


def test_missing_files_and_labels_out_of_range(make: SimpleNamespace, tmp_path: Path) -> None:
    make.mnist(tmp_path / "m")
    labels = tmp_path / "m" / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(make.idx(np.array([0, 1, 2, 3, 10]))))
    with pytest.raises(DataError, match="record 4 has label 10"):
        load("mnist", tmp_path / "m", strict=False)
    labels.unlink()
    with pytest.raises(DataError, match="lacks t10k-labels-idx1-ubyte"):
        load("mnist", tmp_path / "m")
    with pytest.raises(DataError, match="lacks"):
        load("mnist", labels.with_name("t10k-images-idx3-ubyte.gz"))


def test_strict_counts(make: SimpleNamespace, tmp_path: Path) -> None:
    make.mnist(tmp_path / "m")
    with pytest.raises(DataError, match="the train set is not complete"):
        load("mnist", tmp_path / "m")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_debians_package_is_found() -> None:
    splits = load("fashion-mnist")
    assert repr(splits.train) == (
        "Dataset('fashion-mnist train': 60000 images 28x28x1 uint8, 10 classes)"
    )
    assert splits.train.class_names[splits.train.labels[0]] == "Ankle boot"
    assert 70 < splits.train.images.mean() < 76
    (x, y), (x_test, y_test) = fashion_mnist.load_data()
    assert (x.shape, y.shape, x_test.shape, y_test.dtype) == (
        (60_000, 28, 28), (60_000,), (10_000, 28, 28), np.uint8,
    )  # fmt: skip
    with pytest.raises(DataError, match="this is Fashion-MNIST"):
        load("mnist", DEBIAN)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_known_openings_are_those_of_real_pictures() -> None:
    """foolbox names its twenty pictures by their labels; its clothes are the package's first."""
    image_module = pytest.importorskip("PIL.Image")
    spec = find_spec("foolbox")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("foolbox 3.3.4 is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    for stem, name in (("mnist", "mnist"), ("fashionMNIST", "fashion-mnist"),
                       ("cifar100", "cifar100")):  # fmt: skip
        labels = [int(p.stem.rsplit("_", 1)[1]) for p in sorted(folder.glob(f"{stem}_*_*.png"))]
        assert DATASETS[name].opening == tuple(labels)
    test = load("fashion-mnist").test
    first = np.asarray(image_module.open(folder / "fashionMNIST_00_9.png").convert("L"))
    np.testing.assert_array_equal(test.images[0, ..., 0], first)
