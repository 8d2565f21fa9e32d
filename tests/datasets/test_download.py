"""Downloads from a server on the loopback address that misbehaves in every way."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepgraph.datasets import DATASETS, RemoteFile, catalog, download, fetch, load
from stepgraph.errors import DataError

CONTENT = np.random.default_rng(0).integers(0, 256, 1_000_000, dtype=np.uint8).tobytes()


@dataclass
class Server:
    """What the server offers, how it behaves, and what it was asked."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)  # break off after so many bytes, once each
    ranges: bool = True
    status: list[int] = field(default_factory=list)  # answer with these first
    length: bool = True
    asked: list[str | None] = field(default_factory=list)

    def remote(self, name: str = "a.bin", content: bytes = CONTENT) -> RemoteFile:
        self.files.setdefault(name, content)
        return RemoteFile(
            name, f"{self.url}/{name}", len(content), hashlib.sha256(content).hexdigest(),
            hashlib.md5(content).hexdigest(),
        )  # fmt: skip


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            content = state.files.get(self.path.lstrip("/"))
            if state.status or content is None:
                self.send_error(state.status.pop(0) if state.status else 404)
                return
            start = int(wanted[6:-1]) if wanted and state.ranges else 0
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                last = len(content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
            if state.length:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            stop = start + state.cuts.pop(0) if state.cuts else len(content)
            with contextlib.suppress(ConnectionError):  # a client may have seen enough
                self.wfile.write(content[start:stop])

        def log_message(self, format: str, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    state.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_whole_file_with_progress(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    path = fetch(server.remote(), tmp_path / "new", lambda *a: seen.append(a))
    assert path.read_bytes() == CONTENT
    assert names(tmp_path / "new") == ["a.bin"]
    assert seen[0] == ("a.bin", 0, 1_000_000)
    assert seen[-1] == ("a.bin", 1_000_000, 1_000_000)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    fetch(server.remote(), tmp_path / "new")
    assert server.asked == [None]  # what is there and right is not fetched again


def test_interrupted_and_taken_up_again(server: Server, tmp_path: Path) -> None:
    server.cuts = [300_000, 1, 200_000]
    path = fetch(server.remote(), tmp_path, pause=0)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=300001-", "bytes=500001-"]
    assert names(tmp_path) == ["a.bin"]


def test_given_up_then_resumed_by_a_later_call(server: Server, tmp_path: Path) -> None:
    server.cuts = [10, 10]
    with pytest.raises(DataError, match="20 of 1,000,000 bytes came") as caught:
        fetch(server.remote(), tmp_path, attempts=2, pause=0)
    assert "goes on from there" in str(caught.value)
    assert names(tmp_path) == ["a.bin.part"]
    assert fetch(server.remote(), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=20-"
    assert names(tmp_path) == ["a.bin"]


def test_server_that_cannot_resume(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [400_000]
    assert fetch(server.remote(), tmp_path, pause=0).read_bytes() == CONTENT


def test_left_over_that_is_too_long_or_wrong(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"more")
    assert fetch(server.remote(), tmp_path, pause=0).read_bytes() == CONTENT
    (tmp_path / "a.bin").write_bytes(b"something else")
    (tmp_path / "a.bin.part").write_bytes(b"x" * 500)
    with pytest.raises(DataError, match="the checksum is wrong; the file was removed"):
        fetch(server.remote(), tmp_path)
    assert names(tmp_path) == ["a.bin"]  # the user's own file, untouched
    assert fetch(server.remote(), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("length", [True, False])
def test_wrong_content_leaves_nothing(server: Server, tmp_path: Path, length: bool) -> None:
    server.length = length
    remote = server.remote()
    server.files["a.bin"] = bytes(len(CONTENT))
    with pytest.raises(DataError, match="the checksum is wrong") as caught:
        fetch(remote, tmp_path)
    assert remote.sha256 in str(caught.value)
    assert names(tmp_path) == []
    server.files["a.bin"] = bytes(len(CONTENT) + 5)
    with pytest.raises(DataError, match="offers something else"):
        fetch(remote, tmp_path)
    assert names(tmp_path) == []


def test_server_errors(server: Server, tmp_path: Path) -> None:
    server.status = [503, 429]
    assert fetch(server.remote(), tmp_path, pause=0).read_bytes() == CONTENT
    gone = RemoteFile("b.bin", f"{server.url}/b.bin", 5, "00", "00")
    with pytest.raises(DataError, match="HTTP 404"):
        fetch(gone, tmp_path, pause=0)
    assert names(tmp_path) == ["a.bin"]


def test_no_network_says_what_to_fetch_and_where_to_put_it(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as taken:
        port = taken.server_port
    remote = RemoteFile("a.bin", f"http://127.0.0.1:{port}/a.bin", 1234, "5e" * 32, "9c" * 16)
    with pytest.raises(DataError) as caught:
        fetch(remote, tmp_path, attempts=2, pause=0)
    for words in ("no connection", remote.url, "1,234 bytes", remote.sha256, remote.md5,
                  str(tmp_path)):  # fmt: skip
        assert words in str(caught.value)
    assert names(tmp_path) == []


def test_one_at_a_time(server: Server, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / "a.bin.part").open("ab") as other:
        other.write(b"x")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process"):
            fetch(server.remote(), tmp_path)


def test_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="name a folder that can be written"):
        fetch(server.remote(), tmp_path / "file")


def test_full_disk(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = download.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match="no room for 1,000,000 bytes"):
        fetch(server.remote(), tmp_path)
    assert names(tmp_path) == []


def test_load_downloads_only_when_told(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    members, truth = make.cifar10_files()
    archive = make.tar(tmp_path / "x.tar.gz", members).read_bytes()
    from dataclasses import replace

    remote = server.remote("cifar-10-binary.tar.gz", archive)
    known = replace(DATASETS["cifar10"], files=(remote,))
    monkeypatch.setitem(catalog.DATASETS, "cifar10", known)
    with pytest.raises(DataError, match="download=True") as caught:
        load("cifar10", strict=False)
    assert remote.url in str(caught.value)
    assert str(catalog.data_folder()) in str(caught.value)
    assert server.asked == []
    for data in (None, tmp_path / "here"):
        splits = load("cifar10", data, download=True, strict=False)
        np.testing.assert_array_equal(splits.test.images, truth["test_batch.bin"][0])
        again = load("cifar10", data, strict=False)
        np.testing.assert_array_equal(again.test.images, splits.test.images)
    assert len(server.asked) == 2


def test_load_downloads_sets_of_several_files(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    from dataclasses import replace

    make.mnist(tmp_path / "m", 12)
    remotes = tuple(
        server.remote(p.name, p.read_bytes()) for p in sorted((tmp_path / "m").iterdir())
    )
    monkeypatch.setitem(catalog.DATASETS, "mnist", replace(DATASETS["mnist"], files=remotes))
    assert len(load("mnist", download=True, strict=False).train) == 12
    assert names(catalog.data_folder() / "mnist") == [r.name for r in remotes]
    assert len(load("mnist", strict=False).train) == 12
