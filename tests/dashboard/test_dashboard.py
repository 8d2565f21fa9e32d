"""The page: who may see it, what it shows, that it moves; in a real browser where there is one."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("bottle")

from stepgraph.dashboard import Dashboard, parse_address
from stepgraph.dashboard.server import as_json
from stepgraph.errors import SettingError, UnsupportedError
from stepgraph.runs.events import Seen, Stepped
from stepgraph.runs.live import Live, View

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
KEEP = os.environ.get("STEPGRAPH_SCREENSHOTS")


def get(url: str, **headers: str) -> tuple[int, dict[str, str], str]:
    request = urllib.request.Request(url, headers={k.title(): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read().decode()


@pytest.fixture
def live() -> Live:
    made = Live(["cat", "<b>dog</b>"])
    for step in range(1, 31):
        made.stepped(Stepped(step, 100, 1, 4, step, 25, 2.0 / step, step / 40, 123.0, 9.0))
    x = np.zeros((4, 3, 5, 3), np.float32)
    x[..., 0] = 1
    y = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]
    chances = np.tile(np.float32([0.25, 0.75]), (4, 1))
    made.seen(Seen(x, y, lambda x: chances, lambda: 12_000_000))
    return made


@pytest.fixture
def served(live: Live) -> Iterator[Dashboard]:
    with Dashboard(live) as dashboard:
        yield dashboard


def test_the_view_as_the_page_gets_it(served: Dashboard) -> None:
    code, headers, text = get(served.url + "view.json")
    assert code == 200
    assert headers["Content-Type"].startswith("application/json")
    view = json.loads(text)
    assert view["step"] | {} == view["step"]
    assert (view["step"]["step"], view["step"]["total"]) == (30, 100)
    assert view["curve"]["steps"] == list(range(1, 31))
    assert view["curve"]["loss"] == pytest.approx([2.0 / s for s in range(1, 31)])
    assert len(view["curve"]["smooth_loss"]) == 30
    assert view["planned"] == 12_000_000
    assert [p["right"] for p in view["pictures"]] == [False, True, False, True]
    picture = Image.open(io.BytesIO(base64.b64decode(view["pictures"][0]["png"])))
    assert picture.size == (5, 3)
    assert picture.getpixel((0, 0)) == (255, 0, 0)


def test_an_empty_view_is_json_too() -> None:
    assert json.loads(json.dumps(as_json(View())))["step"] is None
    failed = as_json(View(phase="failed", message="it broke\n  at: a path of this machine"))
    assert failed["message"] == "it broke"


def test_nothing_comes_from_elsewhere(served: Dashboard) -> None:
    code, headers, page = get(served.url)
    assert code == 200
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert "http://www.w3.org/2000/svg" in page
    assert len(re.findall("https?://", page)) == 1
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert headers["Referrer-Policy"] == "no-referrer"


def test_another_name_for_this_machine_is_refused(served: Dashboard) -> None:
    port = served.url.rsplit(":", 1)[1]
    assert get(served.url + "view.json", host=f"localhost:{port}")[0] == 200
    code, _, text = get(served.url + "view.json", host="evil.example")
    assert code == 403
    assert "loss" not in text


def test_beyond_this_machine_a_token_is_needed(live: Live) -> None:
    with Dashboard(live, "0.0.0.0") as dashboard:
        plain, _, token = dashboard.url.partition("?token=")
        plain = plain.replace("0.0.0.0", "127.0.0.1")
        assert len(token) >= 30
        for url in (plain, plain + "view.json", plain + "?token=", plain + "?token=" + token[:-1]):
            code, _, text = get(url)
            assert code == 403
            assert "smooth_loss" not in text
        code, headers, _ = get(plain + "?token=" + token)
        assert code == 200
        assert "HttpOnly" in headers["Set-Cookie"]
        assert "samesite=strict" in headers["Set-Cookie"].lower()
        cookie = headers["Set-Cookie"].partition(";")[0]
        assert get(plain + "view.json", cookie=cookie)[0] == 200
        assert get(plain + "view.json", cookie="stepgraph-token=wrong")[0] == 403
    with Dashboard(live, "0.0.0.0") as another:
        assert token not in another.url


def test_only_two_addresses(served: Dashboard) -> None:
    assert get(served.url + "page.html")[0] == 404
    assert get(served.url + "../server.py")[0] == 404
    assert get(served.url + "%2e%2e/server.py")[0] == 404


def test_addresses() -> None:
    assert parse_address("localhost:1") == ("localhost", 1)
    for wrong in ("", "a", "1:b", "70000", "::1:80", "-1"):
        with pytest.raises(SettingError, match="HOST:PORT"):
            parse_address(wrong)


def test_a_port_in_use_is_said(live: Live, served: Dashboard) -> None:
    port = int(served.url.rsplit(":", 1)[1].strip("/"))
    with pytest.raises(UnsupportedError, match="cannot listen"):
        Dashboard(live, "127.0.0.1", port)


def test_without_the_web_library_the_way_out_is_named(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bottle", None)
    with pytest.raises(UnsupportedError, match=r"stepgraph\[dashboard\]"):
        Dashboard(live)


def browse(url: str, folder: Path, *more: str) -> str:
    """The page's elements after its script has run for some seconds."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={folder}", "--virtual-time-budget=2500",
            "--window-size=1200,900", *more, "--dump-dom", url,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    return done.stdout


def points(page: str, chart: str, line: str) -> int:
    (svg,) = re.findall(rf'<svg id="{chart}".*?</svg>', page, re.S)
    (polyline,) = [p for p in re.findall("<polyline[^>]*>", svg) if f'data-name="{line}"' in p]
    (found,) = re.findall('points="([^"]*)"', polyline)
    return len(found.split())


browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@browser
@pytest.mark.slow
def test_the_page_in_a_browser(served: Dashboard, tmp_path: Path) -> None:
    page = browse(served.url, tmp_path)
    assert "Training</h1>" in page
    assert points(page, "loss-chart", "smoothed") == 30
    assert points(page, "accuracy-chart", "each step") == 30
    assert page.count("<figure") == 4
    assert page.count('class="wrong"') == 2
    assert "2 of 4 right" in page
    assert "step 30 of 100" in page
    # A class's name is text, whatever is in it.
    assert "<b>&lt;b&gt;dog&lt;/b&gt;" in page
    assert "<b><b>" not in page


@browser
@pytest.mark.slow
def test_a_training_run_is_seen_to_move(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "stepgraph", "train", "--model", "cnn", "--epochs", "5000",
        "--run-dir", str(tmp_path / "run"), "--dashboard", "0", "--quiet",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "http://" in line)
            url = line.split()[-1]
            assert url.startswith("http://127.0.0.1:")
            view = {"step": None, "pictures": []}
            end = time.monotonic() + 60
            while not view["pictures"]:
                assert time.monotonic() < end
                view = json.loads(get(url + "view.json")[2])
            pictures = [f"--screenshot={KEEP}/dashboard.png"] if KEEP else []
            first = browse(url, tmp_path / "a", *pictures)
            second = browse(url, tmp_path / "b")
            counts = [
                int(re.findall(r"step ([\d,]+) of", page)[0].replace(",", ""))
                for page in (first, second)
            ]
            assert counts[1] > counts[0] > 0
            for page in (first, second):
                assert page.count("<figure") == 8
                assert points(page, "loss-chart", "smoothed") > 1
                assert "images a second" in page
        finally:
            process.terminate()
    assert process.returncode == 143
