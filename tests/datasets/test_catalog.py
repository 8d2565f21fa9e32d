"""The table of known sets, where they are looked for, and the page that lists them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from stepgraph.datasets import DATASETS, catalog, data_folder, load, mnist, table
from stepgraph.errors import DataError

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"


@pytest.mark.parametrize("name", DATASETS)
def test_entries_are_complete(name: str) -> None:
    known = DATASETS[name]
    assert known.title
    assert known.about
    assert known.source
    assert name in table()
    for remote in known.files:
        assert remote.url.endswith(remote.name)
        assert (len(remote.sha256), len(remote.md5)) == (64, 32)
        int(remote.sha256 + remote.md5, 16)
        assert remote.sha256 in table()
    for counts in (known.train_counts, known.test_counts):
        assert sum(counts) in (0, 10_000, 50_000, 60_000)
    if known.opening:
        assert len(known.opening) == 20
        assert max(known.opening) < len(known.test_counts)


@pytest.mark.parametrize("name", [name for name in DATASETS if DATASETS[name].files])
def test_nothing_there_says_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        catalog.DATASETS, name, replace(DATASETS[name], system=((tmp_path / "no", "apt x"),))
    )
    for data in (None, tmp_path, tmp_path / "none"):
        with pytest.raises(DataError) as caught:
            load(name, data)
        message = str(caught.value)
        assert "download=True" in message
        assert "or apt x" in message
        assert str(data or data_folder()) in message
        for remote in DATASETS[name].files:
            assert remote.line() in message
    assert list(tmp_path.iterdir()) == []
    assert list(data_folder().iterdir()) == []


def test_unknown_names_list_the_near_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean cifar10"):
        load("cifr10")
    with pytest.raises(DataError, match="Digits are part of the package"):
        load("digits", data=tmp_path)
    with pytest.raises(DataError, match="goes with a known name"):
        load(tmp_path, data=tmp_path)


def test_names_as_keras_spells_them(make: SimpleNamespace, tmp_path: Path) -> None:
    make.mnist(tmp_path, 12)
    for name in ("fashion_mnist", "Fashion-MNIST", "fashionmnist"):
        assert load(name, tmp_path, strict=False).train.class_names[0] == "T-shirt/top"


def test_data_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STEPGRAPH_DATA", str(tmp_path / "mine"))
    assert data_folder() == tmp_path / "mine"
    monkeypatch.delenv("STEPGRAPH_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "stepgraph" / "datasets"


@pytest.mark.parametrize(
    "place", ["cifar-10-batches-bin", "cifar-10-binary.tar.gz", "cifar-10-batches-bin.zip",
              "cifar-10-batches-py", "cifar-10-python.tar.gz", "."],
)  # fmt: skip
def test_found_in_the_data_folder(make: SimpleNamespace, place: str) -> None:
    members, _ = make.cifar10_pickles() if "py" in place else make.cifar10_files()
    path = data_folder() / place
    if place.endswith(".zip"):
        make.zip(path, members)
    elif place.endswith(".gz"):
        make.tar(path, members)
    elif place == ".":
        for name, content in members.items():
            (data_folder() / name).write_bytes(content)
    else:
        make.folder(path, members)
    assert len(load("cifar10", strict=False).train) == 15


def test_two_sets_in_one_folder(make: SimpleNamespace, tmp_path: Path) -> None:
    make.folder(tmp_path / "cifar-10-batches-bin", make.cifar10_files()[0])
    pictures = make.images(2)
    hundred = {n: make.cifar_records(pictures, [0, 1], [2, 3]) for n in ("train.bin", "test.bin")}
    make.folder(tmp_path / "cifar-100-binary", hundred)
    with pytest.raises(DataError, match="holds cifar10 and cifar100"):
        load(tmp_path, strict=False)
    assert load("cifar100", tmp_path, strict=False).test.labels.tolist() == [2, 3]


def test_keras_like_shapes(
    make: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.mnist(tmp_path, 12)
    monkeypatch.setattr(
        "stepgraph.datasets._keras.load",
        lambda name, data, download: load(name, data, download=download, strict=False),
    )
    (x, y), (x_test, _) = mnist.load_data(tmp_path)
    assert (x.shape, y.shape, x.dtype, y.dtype) == ((12, 28, 28), (12,), "uint8", "uint8")
    assert x_test.shape == (12, 28, 28)


def test_the_page_lists_what_the_table_holds() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, known in DATASETS.items():
        assert f"`{name}`" in text
        for remote in known.files:
            assert remote.url in text
            assert remote.sha256 in text


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys, stepgraph.datasets as d\n"
        "heavy = {'PIL', 'sklearn', 'urllib.request', 'ssl', 'matplotlib', 'torch'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
