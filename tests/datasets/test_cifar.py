"""CIFAR-10 and CIFAR-100, both versions, as folder and archives, whole and damaged."""

from __future__ import annotations

import gzip
import pickle
import re
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from stepgraph.datasets import cifar10, cifar100, load
from stepgraph.datasets.formats import cifar
from stepgraph.errors import DataError


def write(make: SimpleNamespace, path: Path, form: str, members: dict[str, bytes]) -> Path:
    if form == "folder":
        return make.folder(path / "c", members)
    if form == "nested":
        make.folder(path / "c" / "cifar-10-batches-bin", members)
        return path / "c"
    if form == "zip":
        return make.zip(path / "c.zip", members)
    # Names say nothing: a tar.gz called .bin is still read.
    return make.tar(path / "c.bin", members, mode="w" if form == "tar" else "w:gz")


@pytest.mark.parametrize("form", ["folder", "nested", "zip", "tar", "tar.gz"])
@pytest.mark.parametrize("version", ["binary", "python"])
def test_cifar10_is_read(make: SimpleNamespace, tmp_path: Path, form: str, version: str) -> None:
    members, truth = make.cifar10_files() if version == "binary" else make.cifar10_pickles()
    path = write(make, tmp_path, form, members)
    before = sorted(tmp_path.rglob("*"))
    splits = load("cifar10", path, strict=False)
    suffix = ".bin" if version == "binary" else ""
    train = [truth[f"data_batch_{i}{suffix}"] for i in range(1, 6)]
    np.testing.assert_array_equal(splits.train.images, np.concatenate([x for x, _ in train]))
    np.testing.assert_array_equal(splits.train.labels, np.concatenate([y for _, y in train]))
    np.testing.assert_array_equal(splits.test.images, truth[f"test_batch{suffix}"][0])
    assert splits.train.class_names[3] == "cat"
    assert sorted(tmp_path.rglob("*")) == before
    # The path alone says which set it is.
    again = load(path, strict=False)
    np.testing.assert_array_equal(again.test.images, splits.test.images)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_python_version_at_any_protocol(
    make: SimpleNamespace, tmp_path: Path, protocol: int
) -> None:
    members, truth = make.cifar10_pickles(2, protocol)
    splits = load("cifar10", make.folder(tmp_path / "c", members), strict=False)
    np.testing.assert_array_equal(splits.test.images, truth["test_batch"][0])


@pytest.mark.parametrize("version", ["binary", "python"])
def test_cifar100_has_two_labels(make: SimpleNamespace, tmp_path: Path, version: str) -> None:
    members = {}
    for i, name in enumerate(("train", "test")):
        pictures, fine = make.images(4, i), [0, 99, 5, 42]
        coarse = [4, 13, 6, 8]
        if version == "binary":
            members[f"{name}.bin"] = make.cifar_records(pictures, coarse, fine)
        else:
            rows = pictures.transpose(0, 3, 1, 2).reshape(4, -1).copy()
            batch = {"data": rows, "fine_labels": fine, "coarse_labels": coarse}
            members[name] = pickle.dumps(batch, protocol=2)
    path = make.tar(tmp_path / "cifar-100.tar.gz", members)
    splits = load("cifar100", path, strict=False)
    np.testing.assert_array_equal(splits.train.images, make.images(4, 0))
    assert splits.test.labels.tolist() == [0, 99, 5, 42]
    assert splits.train.class_names[42] == "leopard"
    groups = load("cifar100_coarse", path, strict=False)
    assert groups.train.labels.tolist() == [4, 13, 6, 8]
    assert len(groups.train.class_names) == 20


def test_tables_of_names() -> None:
    assert len(set(cifar.CIFAR100_CLASSES)) == 100
    assert list(cifar.CIFAR100_CLASSES) == sorted(cifar.CIFAR100_CLASSES)
    assert list(cifar.CIFAR100_COARSE) == sorted(cifar.CIFAR100_COARSE)


def test_names_in_the_archive_are_compared(make: SimpleNamespace, tmp_path: Path) -> None:
    members, _ = make.cifar10_files()
    names = "\n".join(cifar.CIFAR10_CLASSES)
    good = make.folder(tmp_path / "good", {**members, "batches.meta.txt": f"{names}\n\n".encode()})
    load("cifar10", good, strict=False)
    swapped = names.replace("cat", "kitten").encode()
    bad = make.folder(tmp_path / "bad", {**members, "batches.meta.txt": swapped})
    with pytest.raises(DataError, match="wrongly labelled") as caught:
        load("cifar10", bad, strict=False)
    assert "kitten" in str(caught.value)
    pickles, _ = make.cifar10_pickles()
    meta = pickle.dumps({b"label_names": [n.encode() for n in cifar.CIFAR10_CLASSES[::-1]]}, 2)
    with pytest.raises(DataError, match="wrongly labelled"):
        load("cifar10", make.folder(tmp_path / "p", {**pickles, "batches.meta": meta}))


def test_label_out_of_range_names_the_record(make: SimpleNamespace, tmp_path: Path) -> None:
    members, _ = make.cifar10_files()
    spoilt = bytearray(members["data_batch_2.bin"])
    spoilt[3073 * 2] = 10
    path = make.folder(tmp_path / "c", {**members, "data_batch_2.bin": bytes(spoilt)})
    with pytest.raises(DataError, match=r"data_batch_2.bin: record 2 has label 10"):
        load("cifar10", path, strict=False)


@pytest.mark.parametrize("cut", [1, 3072, 3073 * 3])
def test_partial_records_are_refused(make: SimpleNamespace, tmp_path: Path, cut: int) -> None:
    members, _ = make.cifar10_files()
    members["test_batch.bin"] = members["test_batch.bin"][:-cut]
    with pytest.raises(DataError, match=r"test_batch.bin: truncated"):
        load("cifar10", make.zip(tmp_path / "c.zip", members), strict=False)


def test_strict_demands_the_published_counts(make: SimpleNamespace, tmp_path: Path) -> None:
    members, _ = make.cifar10_files()
    path = make.folder(tmp_path / "c", members)
    with pytest.raises(DataError, match="truncated: 3 records") as caught:
        load("cifar10", path)
    assert "10,000" in str(caught.value)
    assert "strict=False" in str(caught.value)
    del members["data_batch_4.bin"]
    with pytest.raises(DataError, match="not a complete CIFAR-10"):
        load("cifar10", make.folder(tmp_path / "four", members))


def published(make: SimpleNamespace, opening: list[int]) -> dict[str, bytes]:
    """Files of the published size: black pictures, equally many of each class."""
    members = {}
    for name in [f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]:
        records = np.zeros((10_000, 3073), np.uint8)
        records[:, 0] = np.arange(10_000) % 10
        if name == "test_batch.bin":
            rest = np.repeat(np.arange(10), 1000 - np.bincount(opening, minlength=10))
            records[:, 0] = np.concatenate([opening, rest])
        members[name] = records.tobytes()
    return members


def test_whole_size_set_and_its_labels(make: SimpleNamespace, tmp_path: Path) -> None:
    opening = [3, 8, 8, 0, 6, 6, 1, 6, 3, 1, 0, 9, 5, 7, 9, 8, 5, 7, 8, 6]
    members = published(make, opening)
    good = make.zip(tmp_path / "good.zip", members)
    (x, y), (x_test, y_test) = cifar10.load_data(good)
    assert (x.shape, y.shape, y.dtype) == ((50_000, 32, 32, 3), (50_000, 1), np.uint8)
    assert (x_test.shape, y_test[:20, 0].tolist()) == ((10_000, 32, 32, 3), opening)
    shuffled = make.zip(tmp_path / "order.zip", published(make, opening[::-1]))
    with pytest.raises(DataError, match="does not hold CIFAR-10"):
        load("cifar10", shuffled)
    one = bytearray(members["data_batch_1.bin"])
    one[0] = 9
    wrong = make.zip(tmp_path / "wrong.zip", {**members, "data_batch_1.bin": bytes(one)})
    with pytest.raises(DataError, match="2 classes have wrong counts"):
        load("cifar10", wrong)
    assert len(load("cifar10", wrong, strict=False).train) == 50_000


def test_more_records_than_published_are_refused(make: SimpleNamespace, tmp_path: Path) -> None:
    members, _ = make.cifar10_files()
    members["data_batch_1.bin"] = bytes(3073 * 10_001)
    for path in (
        make.zip(tmp_path / "c.zip", members), make.tar(tmp_path / "c.tgz", members),
        make.folder(tmp_path / "c", members),
    ):  # fmt: skip
        with pytest.raises(DataError, match=r"data_batch_1.bin has 30,733,073 bytes"):
            load("cifar10", path, strict=False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": [1, 2]}, "3 images, but 2 labels"),
        ({"labels": [1, 2, 2**70]}, "64 bits"),
        ({"labels": [1, 2, "x"]}, "whole numbers"),
        ({"labels": "abc"}, "whole numbers"),
        ({"data": [1]}, "'data' is not what CIFAR stores"),
        ({"data": np.zeros((3, 3071), np.uint8)}, "'data' is not what CIFAR stores"),
        ({"data": np.zeros((3, 3072), np.int64)}, "'data' is not what CIFAR stores"),
        ({"labels": [1, 2, 77]}, "record 2 has label 77"),
    ],
)
def test_odd_batches(make: SimpleNamespace, tmp_path: Path, change: dict, words: str) -> None:
    members, _ = make.cifar10_pickles()
    batch = {"data": np.zeros((3, 3072), np.uint8), "labels": [1, 2, 3]} | change
    members["data_batch_3"] = pickle.dumps(batch, protocol=2)
    with pytest.raises(DataError, match=words):
        load("cifar10", make.folder(tmp_path / "c", members), strict=False)
    members["data_batch_3"] = pickle.dumps({"labels": []}, protocol=2)
    with pytest.raises(DataError, match="lacks 'data'"):
        load("cifar10", make.folder(tmp_path / "d", members), strict=False)


@pytest.mark.parametrize("kind", ["tgz", "tar", "zip"])
def test_archives_cut_anywhere_are_refused(
    make: SimpleNamespace, tmp_path: Path, kind: str
) -> None:
    members, _ = make.cifar10_files(2)
    whole = (
        make.zip(tmp_path / "w", members) if kind == "zip"
        else make.tar(tmp_path / "w", members, mode="w" if kind == "tar" else "w:gz")
    ).read_bytes()  # fmt: skip
    path = tmp_path / "cut"
    # A tar's own end (two empty blocks and padding) says nothing of the data before it.
    last = len(whole) - (20_000 if kind == "tar" else 1)
    for length in [0, 1, 2, 100, 600, *np.linspace(1000, last, 20, dtype=int).tolist()]:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=re.escape(str(path))):
            load("cifar10", path, strict=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut", "w"]


@pytest.mark.parametrize("kind", ["tgz", "zip"])
def test_flipped_bytes_do_not_pass(make: SimpleNamespace, tmp_path: Path, kind: str) -> None:
    members, truth = make.cifar10_files(1)
    source = (make.zip if kind == "zip" else make.tar)(tmp_path / "w", members)
    whole = source.read_bytes()
    path = tmp_path / "bad"
    refused = 0
    for place in np.linspace(40, len(whole) - 9, 60, dtype=int).tolist():
        spoilt = bytearray(whole)
        spoilt[place] ^= 0x55
        path.write_bytes(bytes(spoilt))
        try:
            splits = load("cifar10", path, strict=False)
        except DataError:
            refused += 1
            continue
        # What a flip may hit without harm: dates and attributes in a zip's directory.
        np.testing.assert_array_equal(splits.test.images, truth["test_batch.bin"][0])
        assert len(splits.train) == 5
    assert refused > 40


def test_not_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_text("<html>Please log in</html>")
    with pytest.raises(DataError, match="neither a folder nor an archive"):
        load("cifar10", path)
    path.write_bytes(gzip.compress(b"hello" * 1000))
    with pytest.raises(DataError, match=r"damaged or truncated|not a complete"):
        load("cifar10", path)
    with pytest.raises(DataError, match=r"holds neither|damaged"):
        load(path)


def test_keras_like_cifar100_knows_its_modes() -> None:
    with pytest.raises(DataError, match="no label_mode 'fin'"):
        cifar100.load_data("fin")


def test_real_pictures_survive_the_format(make: SimpleNamespace, tmp_path: Path) -> None:
    """The first twenty test pictures of the real CIFAR-10, written as records and read back."""
    spec = find_spec("foolbox")
    image_module = pytest.importorskip("PIL.Image")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("foolbox 3.3.4, which carries twenty real pictures, is not installed")
    places = sorted((Path(spec.submodule_search_locations[0]) / "data").glob("cifar10_*_*.png"))
    assert len(places) == 20
    labels = [int(place.stem.rsplit("_", 1)[1]) for place in places]
    pictures = np.stack([np.asarray(image_module.open(p).convert("RGB")) for p in places])
    # What the table of known sets says of the opening is what the real labels are.
    from stepgraph.datasets import DATASETS

    assert DATASETS["cifar10"].opening == tuple(labels)
    members, _ = make.cifar10_files()
    members["test_batch.bin"] = make.cifar_records(pictures, labels)
    splits = load("cifar10", make.zip(tmp_path / "real.zip", members), strict=False)
    np.testing.assert_array_equal(splits.test.images, pictures)
    named = [splits.test.class_names[i] for i in splits.test.labels[:3]]
    assert named == ["cat", "ship", "ship"]
    # The frog (7) is on brown ground: planes mixed up would show.
    assert splits.test.images[7, ..., 0].mean() > splits.test.images[7, ..., 2].mean()
