"""Archives that mean harm: refused as a whole, nothing written, nothing blown up in memory."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepgraph.datasets import load
from stepgraph.datasets.archives import kind_of, read_members, read_plain_or_gzip
from stepgraph.errors import DataError

BAD_NAMES = [
    "/etc/passwd", "../outside.bin", "a/../../b", "C:\\x", "c:/x", "\\\\host\\x", "..\\up",
    "a\\..\\b", "bell\x07",
]  # fmt: skip


def read_both(make: SimpleNamespace, folder: Path, path: Path, words: str) -> None:
    """The archive is refused, and the folder holds what it held."""
    before = sorted(p for p in folder.rglob("*"))
    with pytest.raises(DataError, match=words):
        load("cifar10", path, strict=False)
    assert sorted(p for p in folder.rglob("*")) == before


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_that_lead_outside(
    make: SimpleNamespace, tmp_path: Path, name: str, kind: str
) -> None:
    members, _ = make.cifar10_files(1)
    path = tmp_path / "c"
    # The bad member comes last: all that was wanted has been read by then.
    write = make.zip if kind == "zip" else make.tar
    write(path, {**members, name: b"evil"}, prefix="")
    read_both(make, tmp_path, path, "refused: member")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar(make: SimpleNamespace, tmp_path: Path, kind: bytes) -> None:
    members, _ = make.cifar10_files(1)
    path = tmp_path / "c.tar"
    with tarfile.open(path, "w") as archive:
        odd = tarfile.TarInfo("cifar/data_batch_1.bin")
        odd.type, odd.linkname = kind, "/etc/passwd"
        archive.addfile(odd)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    read_both(make, tmp_path, path, "is a link, a device or sparse")


def test_link_in_a_zip(make: SimpleNamespace, tmp_path: Path) -> None:
    members, _ = make.cifar10_files(1)
    path = make.zip(tmp_path / "c.zip", members)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("cifar/readme.html")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    read_both(make, tmp_path, path, "is a link or a device")


def test_member_there_twice(make: SimpleNamespace, tmp_path: Path) -> None:
    members, _ = make.cifar10_files(1)
    twice = {**members, "other/test_batch.bin": members["test_batch.bin"]}
    read_both(make, tmp_path, make.zip(tmp_path / "c.zip", twice), "is there twice")
    read_both(make, tmp_path, make.tar(tmp_path / "c.tgz", twice), "is there twice")


def test_member_twice_in_folders(make: SimpleNamespace, tmp_path: Path) -> None:
    members, _ = make.cifar10_files(1)
    make.folder(tmp_path / "c" / "one", members)
    make.folder(tmp_path / "c" / "two", members)
    with pytest.raises(DataError, match=r"more than once"):
        read_members(tmp_path / "c", {"test_batch.bin": 10_000})


def test_zip_that_lies_about_its_size(make: SimpleNamespace, tmp_path: Path) -> None:
    path = make.zip(tmp_path / "c.zip", {"data_batch_1.bin": bytes(3_000_000)})
    raw = bytearray(path.read_bytes())
    central = raw.rindex(b"PK\x01\x02")
    raw[central + 24 : central + 28] = struct.pack("<I", 3073)
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError, match="damaged or truncated"):
        load("cifar10", path, strict=False)


def test_encrypted_and_odd_compression(make: SimpleNamespace, tmp_path: Path) -> None:
    members, _ = make.cifar10_files(1)
    path = make.zip(tmp_path / "c.zip", members)
    raw = bytearray(path.read_bytes())
    central = raw.index(b"PK\x01\x02")
    raw[central + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(bytes(raw))
    with pytest.raises(DataError, match="is encrypted"):
        load("cifar10", tmp_path / "locked.zip", strict=False)
    with zipfile.ZipFile(tmp_path / "lzma.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("data_batch_1.bin", bytes(3073))
    with pytest.raises(DataError, match="otherwise than by deflate"):
        load("cifar10", tmp_path / "lzma.zip", strict=False)


def bomb_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("cifar/data_batch_1.bin", bytes(400 << 20))


def bomb_tar(path: Path) -> None:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        info = tarfile.TarInfo("cifar/data_batch_1.bin")
        info.size = 400 << 20
        archive.addfile(info, io.BytesIO(bytes(info.size)))


def bomb_beside(path: Path) -> None:
    """The bomb is a member that nobody asks for, in front of those that are."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        info = tarfile.TarInfo("cifar/readme.html")
        info.size = 700 << 20
        archive.addfile(info, io.BytesIO(bytes(info.size)))


def many_members(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(1001):
            archive.writestr(f"{i}", b"")


def many_in_tar(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for i in range(1001):
            archive.addfile(tarfile.TarInfo(f"{i}"))


@pytest.mark.parametrize(
    ("bomb", "words"),
    [
        (bomb_zip, "bytes uncompressed"),
        (bomb_tar, "bytes uncompressed"),
        (bomb_beside, "more than .* bytes uncompressed"),
        (many_members, "more than 1000 members"),
        (many_in_tar, "more than 1000 members"),
    ],
)
def test_bombs_are_not_set_off(tmp_path: Path, bomb: Callable[[Path], None], words: str) -> None:
    path = tmp_path / "bomb"
    bomb(path)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=words):
            load("cifar10", path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
    assert [p.name for p in tmp_path.iterdir()] == ["bomb"]


def test_sparse_member(make: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "c.tar"
    info = tarfile.TarInfo("data_batch_1.bin")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % 3073  # real size: three kilobytes out of none
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(DataError, match="sparse"):
        load("cifar10", path, strict=False)


def test_gzip_stops_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(bytes(1001)))
    with pytest.raises(DataError, match="more than 1,000 bytes"):
        read_plain_or_gzip(path, 1000)
    assert read_plain_or_gzip(path, 1001) == bytes(1001)
    path.write_bytes(gzip.compress(bytes(1001))[:-3])
    with pytest.raises(DataError, match="damaged or truncated"):
        read_plain_or_gzip(path, 1001)


def test_missing_and_unreadable(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_members(tmp_path / "none", {})
    with pytest.raises(DataError, match="No such file"):
        read_plain_or_gzip(tmp_path / "none", 10)


def test_kind_goes_by_content(make: SimpleNamespace, tmp_path: Path) -> None:
    members = {"a": b"1"}
    assert kind_of(make.zip(tmp_path / "a.tar.gz", members)) == "zip"
    assert kind_of(make.tar(tmp_path / "a.zip", members)) == "gzip"
    assert kind_of(make.tar(tmp_path / "a.bin", members, mode="w")) == "tar"
    (tmp_path / "empty").touch()
    assert kind_of(tmp_path / "empty") == "file"


@settings(max_examples=60)
@given(
    data=st.binary(max_size=2000),
    head=st.sampled_from([b"", b"PK\x03\x04", b"\x1f\x8b\x08\x00", b"\0" * 257 + b"ustar\0"]),
)
def test_any_bytes_are_data_errors(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, head: bytes
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x"
    path.write_bytes(head + data)
    with pytest.raises(DataError):
        load("cifar10", path)
    with pytest.raises(DataError):
        load(path)


def test_names_that_are_no_text(make: SimpleNamespace, tmp_path: Path) -> None:
    path = make.zip(tmp_path / "c.zip", {"data_batch_1.bin": bytes(3073)}, prefix="\xe4/")
    raw = path.read_bytes().replace("\xe4/".encode(), b"\xff\xff/")
    path.write_bytes(raw)
    for read in (lambda: load("cifar10", path), lambda: load(path)):
        with pytest.raises(DataError, match="damaged or truncated"):
            read()
