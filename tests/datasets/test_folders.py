"""Image folders and .npz files."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from stepgraph.datasets import load, read_image
from stepgraph.datasets.formats import folders
from stepgraph.errors import DataError

Image = pytest.importorskip("PIL.Image")


def picture(path: Path, seed: int, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (*size, 3) if mode == "RGB" else size
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    for i, name in enumerate(["zebra", "ant", "Bee"]):
        for k in range(5):
            picture(tmp_path / name / f"{k}.png", 10 * i + k)
    picture(tmp_path / ".hidden" / "x.png", 0)
    (tmp_path / "ant" / "notes.txt").write_text("no picture")
    (tmp_path / "ant" / "._0.png").write_text("left by a Mac")
    data = folders.read_folder(tmp_path)
    assert data.class_names == ("Bee", "ant", "zebra")
    assert data.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    np.testing.assert_array_equal(data.images[0], np.asarray(Image.open(tmp_path / "Bee/0.png")))
    splits = load(tmp_path)
    assert (len(splits.train), len(splits.test)) == (12, 3)
    np.testing.assert_array_equal(splits.test.images, load(tmp_path).test.images)


def test_train_and_validation_folders(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("val", 2)):
        for name in ("a", "b"):
            for k in range(count):
                picture(tmp_path / part / name / "deep" / f"{k}.jpg", k)
    splits = load(tmp_path, size=(8, 6), channels=1)
    assert splits.train.images.shape == (6, 8, 6, 1)
    assert splits.test.labels.tolist() == [0, 0, 1, 1]


def test_sizes_that_differ_need_size(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "0.png", 0)
    odd = picture(tmp_path / "b" / "1.png", 1, (7, 9))
    with pytest.raises(DataError, match="an image of 7x9, the first one has 12x10") as caught:
        load(tmp_path)
    assert str(odd) in str(caught.value)
    assert "pass size=" in str(caught.value)
    assert folders.read_folder(tmp_path, 16).images.shape == (2, 16, 16, 3)


def test_damaged_files_are_all_named(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "0.png", 0)
    cut = picture(tmp_path / "a" / "1.png", 1)
    cut.write_bytes(cut.read_bytes()[:200])
    (tmp_path / "a" / "2.jpg").write_text("<html>")
    with pytest.raises(DataError) as caught:
        folders.read_folder(tmp_path)
    for name in ("1.png", "2.jpg"):
        assert name in str(caught.value)
    assert "0.png" not in str(caught.value)
    for k in range(20):
        (tmp_path / "a" / f"x{k}.gif").write_bytes(b"")
    with pytest.raises(DataError, match=r"\(12 more\)"):
        folders.read_folder(tmp_path)


def test_postscript_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "a" / "x.png"
    path.parent.mkdir()
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    with pytest.raises(DataError, match="not a readable image"):
        read_image(path)


def test_bomb_is_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = picture(tmp_path / "x.png", 0)
    monkeypatch.setattr(folders, "MAX_PIXELS", 119)
    with pytest.raises(DataError, match=r"refused: 10x12 pixels"):
        read_image(path)
    monkeypatch.setattr(folders, "MAX_PIXELS", 120)
    assert read_image(path).shape == (12, 10, 3)
    picture(tmp_path / "set" / "a" / "x.png", 0)
    monkeypatch.setattr(folders, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match="pass a smaller size"):
        folders.read_folder(tmp_path / "set", 32)


def test_modes(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png", channels=1)[0, :, 0].tolist() == [0, 1, 255]
    Image.fromarray(np.full((2, 2), 9, np.uint8)).convert("P").save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").shape == (2, 2, 3)
    turned = Image.fromarray(np.zeros((2, 5, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (5, 2, 3)
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DataError, match="mode 'F'"):
        read_image(tmp_path / "float.tif")


def test_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class folders"):
        load(tmp_path)
    picture(tmp_path / "a" / "0.png", 0)
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="no images for class b"):
        load(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read_image(tmp_path / "none.png")


def test_npz_both_ways(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (20, 6, 6), dtype=np.uint8)
    y = np.arange(20) % 4
    np.savez_compressed(
        tmp_path / "split.npz", x_train=x[:12], y_train=y[:12], x_test=x[12:], y_test=y[12:]
    )
    splits = load(tmp_path / "split.npz")
    np.testing.assert_array_equal(splits.test.images[..., 0], x[12:])
    np.savez(tmp_path / "whole.npz", x=x, y=np.eye(4)[y], class_names=np.array(list("abcd")))
    whole = load(tmp_path / "whole.npz", size=12)
    assert (len(whole.train), len(whole.test)) == (16, 4)
    assert whole.train.class_names == ("a", "b", "c", "d")
    assert whole.train.image_shape == (12, 12, 1)


def npy(header: str, body: bytes = b"") -> bytes:
    text = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + body


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,)}", b"abc"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"cos\nsystem\n"),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-3,)}", b"abc"),
        npy("__import__('os').system('true')"),
        b"\x93NUMPY\x09\x00",
        b"",
    ],
)
def test_npz_arrays_are_measured_first(tmp_path: Path, content: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", content)
        archive.writestr("y.npy", content)
    with pytest.raises(DataError, match="not a readable array"):
        load(tmp_path / "x.npz")


def test_npz_odd(tmp_path: Path) -> None:
    np.savez(tmp_path / "odd.npz", z=np.zeros(3))
    with pytest.raises(DataError, match="lacks the arrays"):
        load(tmp_path / "odd.npz")
    (tmp_path / "no.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"not an .npz"):
        load(tmp_path / "no.npz")
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros((4, 2, 2)), y=np.zeros(4))
    (tmp_path / "cut.npz").write_bytes(buffer.getvalue()[:-30])
    with pytest.raises(DataError, match="damaged"):
        load(tmp_path / "cut.npz")
