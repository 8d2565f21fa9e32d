"""Writers of small files in the published formats, given to tests as the fixture `make`."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def images(count: int, seed: int = 0) -> np.ndarray:
    """Random CIFAR pictures, NHWC."""
    return rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def cifar_records(pictures: np.ndarray, *labels: Any) -> bytes:
    """Binary records: labels, then planes of red, green and blue."""
    out = bytearray()
    for i, picture in enumerate(pictures):
        out += bytes(int(label[i]) for label in labels)
        for channel in range(3):
            out += picture[:, :, channel].tobytes()
    return bytes(out)


def cifar10_files(count: int = 3) -> tuple[dict[str, bytes], dict[str, tuple[Any, Any]]]:
    """Members of a small CIFAR-10 (binary) and what each holds."""
    members, truth = {}, {}
    for i, name in enumerate([f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]):
        pictures, labels = images(count, i), (np.arange(count) + i) % 10
        members[name] = cifar_records(pictures, labels)
        truth[name] = (pictures, labels)
    return members, truth


def cifar10_pickles(count: int = 3, protocol: int = 2) -> tuple[dict[str, bytes], dict[str, Any]]:
    members, truth = {}, {}
    for i, name in enumerate([f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]):
        pictures, labels = images(count, i), [(k + i) % 10 for k in range(count)]
        rows = pictures.transpose(0, 3, 1, 2).reshape(count, -1).copy()
        batch = {b"batch_label": b"x", b"labels": labels, b"data": rows, b"filenames": [b"a"]}
        members[name] = pickle.dumps(batch, protocol=protocol)
        truth[name] = (pictures, labels)
    return members, truth


def folder(path: Path, members: dict[str, bytes]) -> Path:
    path.mkdir(parents=True)
    for name, data in members.items():
        (path / name).write_bytes(data)
    return path


def tar(path: Path, members: dict[str, bytes], prefix: str = "cifar/", mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def zipped(path: Path, members: dict[str, bytes], prefix: str = "cifar/") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(prefix + name, data)
    return path


def idx(array: np.ndarray) -> bytes:
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes()


def mnist(path: Path, count: int = 5, compress: bool = True) -> dict[str, np.ndarray]:
    """Writes the four files and returns what they hold, keyed by file stem."""
    path.mkdir(parents=True, exist_ok=True)
    held = {}
    for prefix in ("train", "t10k"):
        held[f"{prefix}-images-idx3-ubyte"] = rng(1).integers(0, 256, (count, 28, 28), np.uint8)
        held[f"{prefix}-labels-idx1-ubyte"] = np.arange(count, dtype=np.uint8) % 10
    for stem, array in held.items():
        data = idx(array)
        name = path / (f"{stem}.gz" if compress else stem)
        name.write_bytes(gzip.compress(data) if compress else data)
    return held


@pytest.fixture
def make() -> SimpleNamespace:
    return SimpleNamespace(
        images=images, cifar_records=cifar_records, cifar10_files=cifar10_files,
        cifar10_pickles=cifar10_pickles, folder=folder, tar=tar, zip=zipped, idx=idx, mnist=mnist,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _own_data_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any) -> None:
    """Keeps the tests away from what the user has downloaded."""
    monkeypatch.setenv("STEPGRAPH_DATA", str(tmp_path_factory.mktemp("data")))
