"""Image folders: one sub-folder per class, its name the class's name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stepgraph.datasets.arrays import Dataset, Splits
from stepgraph.errors import DataError, describe

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
# Only decoders: Pillow would hand PostScript to an interpreter.
_PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_TRAIN_NAMES = ("train", "training")
_TEST_NAMES = ("test", "val", "valid", "validation")
MAX_PIXELS = 1 << 26  # per image: 8192 x 8192
MAX_BYTES = 8 << 30  # for the whole set in memory
_LISTED = 10  # damaged files named in one message


def read_splits(
    path: Path,
    size: int | tuple[int, int] | None = None,
    channels: int = 3,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Splits:
    """Reads ``path/train/CLASS/*`` and ``path/test/CLASS/*``, or splits ``path/CLASS/*``.

    Args:
        path: the folder. A "val" or "validation" folder counts as test set.
        size: as in `read_folder`.
        channels: as in `read_folder`.
        test_fraction: share of each class for the test set where the folder has no split itself.
        seed: another seed draws another split.

    Raises:
        DataError: no classes, unreadable images, images of several sizes without `size`.
    """
    inner = {folder.name.lower(): folder for folder in _subfolders(path)}
    train = next((inner[name] for name in _TRAIN_NAMES if name in inner), None)
    test = next((inner[name] for name in _TEST_NAMES if name in inner), None)
    if train is None or test is None:
        return read_folder(path, size, channels).split(test_fraction, seed)
    return Splits(read_folder(train, size, channels), read_folder(test, size, channels))


def read_folder(
    path: Path, size: int | tuple[int, int] | None = None, channels: int = 3
) -> Dataset:
    """Reads one folder of class folders; classes and files are taken in the order of their names.

    Args:
        path: folder with one sub-folder per class. Hidden files and files that are no images by
            their suffix are passed over.
        size: height and width to bring all images to (bilinear, aspect not kept), or one number
            for both; None if all images have one size already.
        channels: 3 (RGB) or 1 (grey).

    Returns:
        uint8 images, upright as their EXIF data says.

    Raises:
        DataError: the folder has no classes, a class no images; files are damaged (each named,
            up to ten); sizes differ and `size` is None; more than 8 GiB in memory.
    """
    if channels not in (1, 3):
        raise DataError(describe(f"read {path}", f"{channels} channels", expected="1 or 3"))
    classes = _subfolders(path)
    files = [list(_images(folder)) for folder in classes]
    empty = [folder.name for folder, inside in zip(classes, files, strict=True) if not inside]
    if not classes or empty:
        raise DataError(
            describe(
                f"read {path}",
                f"no images for class {', '.join(empty)}" if empty else "no class folders",
                expected="one sub-folder per class, images (.png, .jpg, ...) inside",
            )
        )
    paths = [file for inside in files for file in inside]
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(inside) for inside in files])
    target = (size, size) if isinstance(size, int) else size
    height, width = target or _only_size(paths)
    total = len(paths) * height * width * channels
    if total > MAX_BYTES:
        raise DataError(
            describe(
                f"read {path}",
                f"{len(paths):,} images of {height}x{width}x{channels} need "
                f"{total / 2**30:.1f} GiB",
                expected=f"at most {MAX_BYTES / 2**30:.0f} GiB",
                fix="pass a smaller size",
            )
        )
    images = np.empty((len(paths), height, width, channels), np.uint8)
    _fill(images, paths, resize=target is not None)
    return Dataset(images, labels, tuple(folder.name for folder in classes), path.name)


def read_image(
    path: Path, size: tuple[int, int] | None = None, channels: int = 3
) -> NDArray[np.uint8]:
    """Reads one image file as ``(H, W, C)`` uint8, upright, resized to `size` if given.

    Raises:
        DataError: no such file, not an image, damaged, or of more than 67 million pixels.
    """
    from PIL import Image, ImageOps

    if not path.is_file():
        raise DataError(describe(f"read {path}", "no such file"))
    with _Decoding(path), Image.open(path, formats=_PILLOW_FORMATS) as opened:
        _check_pixels(path, opened.size)
        opened.load()
        picture: Image.Image = ImageOps.exif_transpose(opened)
        if picture.mode.startswith("I;16"):
            # Pillow would clip 16-bit grey at 255 instead of scaling it.
            picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
        elif picture.mode in ("I", "F"):
            raise DataError(
                describe(
                    f"read {path}",
                    f"pixels of Pillow's mode {picture.mode!r}",
                    expected="8 or 16 bits per channel",
                    fix="convert the file",
                )
            )
        picture = picture.convert("RGB" if channels == 3 else "L")
        if size is not None and picture.size != (size[1], size[0]):
            picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        pixels = np.asarray(picture, dtype=np.uint8)
        return pixels if channels == 3 else pixels[..., np.newaxis]


class _Decoding:
    """Turns whatever a decoder raises on a damaged file into a DataError that names it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more.
        if isinstance(error, Exception) and not isinstance(error, (DataError, MemoryError)):
            raise DataError(
                describe(
                    f"read {self.path}",
                    f"not a readable image: {error}",
                    fix="remove or replace the file",
                )
            ) from error


def _fill(images: NDArray[np.uint8], paths: list[Path], *, resize: bool) -> None:
    _, height, width, channels = images.shape

    def one(place: int) -> DataError | None:
        try:
            pixels = read_image(paths[place], (height, width) if resize else None, channels)
            if pixels.shape != images.shape[1:]:
                raise DataError(
                    describe(
                        f"read {paths[place]}",
                        f"an image of {pixels.shape[0]}x"
                        f"{pixels.shape[1]}, the first one has {height}x{width}",
                        fix="pass size= to bring all to one size",
                    )
                )
        except DataError as error:
            return error
        images[place] = pixels
        return None

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        errors = [error for error in pool.map(one, range(len(paths))) if error is not None]
    if errors:
        more = f"\n({len(errors) - _LISTED:,} more)" if len(errors) > _LISTED else ""
        raise DataError("\n".join(str(error) for error in errors[:_LISTED]) + more) from errors[0]


def _only_size(paths: list[Path]) -> tuple[int, int]:
    height, width, _ = read_image(paths[0]).shape
    return height, width


def _check_pixels(path: Path, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(
            describe(
                f"read {path}",
                f"refused: {size[0]:,}x{size[1]:,} pixels in a file of "
                f"{path.stat().st_size:,} bytes",
                expected=f"at most {MAX_PIXELS:,} pixels",
            )
        )


def _subfolders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise DataError(describe(f"read {path}", "no such folder"))
    return sorted(
        (p for p in path.iterdir() if p.is_dir() and not p.name.startswith((".", "__"))),
        key=lambda p: p.name,
    )


def _images(folder: Path) -> Iterator[Path]:
    for place, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith((".", "__")))
        for name in sorted(names):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(place) / name
