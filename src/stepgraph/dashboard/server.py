"""The server: two addresses, on a thread of its own."""

from __future__ import annotations

import base64
import hmac
import io
import ipaddress
import secrets
import threading
from importlib.resources import files
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import numpy as np
from numpy.typing import NDArray

from stepgraph.errors import SettingError, UnsupportedError, describe
from stepgraph.runs.live import Live, View, smooth

LOOPBACK = "127.0.0.1"
_COOKIE = "stepgraph-token"

# Nothing is loaded from elsewhere, and nobody else may frame the page or learn its address.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src data:; connect-src 'self'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = 30  # seconds for a client to say what it wants

    def log_message(self, format: str, *args: Any) -> None:
        """The terminal belongs to training."""


class Dashboard:
    """Serves a run's view until it is closed; a context manager.

    Beyond loopback every request needs a token, which `url` contains; on loopback only requests to
    a loopback name are answered, so that no page from elsewhere can read it through the browser.

    Args:
        live: what to show.
        host: address to listen at.
        port: 0 for a free one.

    Attributes:
        url: what to open in a browser.

    Raises:
        UnsupportedError: the web library is not installed, or the address cannot be listened at.
    """

    def __init__(self, live: Live, host: str = LOOPBACK, port: int = 0) -> None:
        self.live = live
        self.token = None if is_loopback(host) else secrets.token_urlsafe(24)
        try:
            self._server = make_server(
                host, port, self._application(), server_class=_Server, handler_class=_Handler
            )
        except OSError as error:
            raise UnsupportedError(
                describe(
                    "dashboard",
                    f"cannot listen at {host}:{port}: {error.strerror or error}",
                    fix="another port, or 0 for a free one",
                )
            ) from error
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_port}/"
        if self.token:
            self.url += f"?token={self.token}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="dashboard", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Ends it; may be called twice."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Dashboard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _application(self) -> Any:
        try:
            import bottle
        except ImportError as error:
            raise UnsupportedError(
                describe(
                    "dashboard",
                    "needs the web library bottle, which is not installed",
                    fix="pip install 'stepgraph[dashboard]'",
                )
            ) from error
        app = bottle.Bottle()
        page = (files("stepgraph.dashboard") / "page.html").read_text(encoding="utf-8")

        @app.hook("before_request")  # type: ignore[untyped-decorator]
        def admit() -> None:
            request, response = bottle.request, bottle.response
            if self.token is None:
                if not is_loopback(_host_name(request.get_header("Host", ""))):
                    raise bottle.HTTPError(403, "This page is for this machine alone.")
                return
            given = request.query.get("token") or request.get_cookie(_COOKIE) or ""
            if not hmac.compare_digest(given.encode(), self.token.encode()):
                raise bottle.HTTPError(403, "The address needs the token that was printed with it.")
            response.set_cookie(_COOKIE, self.token, httponly=True, samesite="strict", path="/")

        @app.hook("after_request")  # type: ignore[untyped-decorator]
        def harden() -> None:
            for name, value in _HEADERS.items():
                bottle.response.set_header(name, value)

        @app.get("/")  # type: ignore[untyped-decorator]
        def show_page() -> str:
            return page

        @app.get("/view.json")  # type: ignore[untyped-decorator]
        def show_view() -> dict[str, Any]:
            return as_json(self.live.view())

        return app


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``PORT``, ``HOST:PORT`` or ``[V6]:PORT``.

    Raises:
        SettingError: it is none of these.

    Example:
        >>> parse_address("8000"), parse_address("0.0.0.0:80"), parse_address("[::1]:0")
        (('127.0.0.1', 8000), ('0.0.0.0', 80), ('::1', 0))
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535 or (":" in host and host[0] + host[-1] != "[]"):
        raise SettingError(f"'{text}' is no PORT (0 to 65535) and no HOST:PORT.")
    return host.strip("[]") or LOOPBACK, int(port)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, seen from itself.

    Example:
        >>> [is_loopback(h) for h in ("localhost", "127.8.8.8", "::1", "0.0.0.0", "a.example")]
        [True, True, True, False, False]
    """
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(header: str) -> str:
    """The name in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


def as_json(view: View) -> dict[str, Any]:
    """A view as plain values; pictures as PNG in base64."""
    started, stepped, ended = view.started, view.stepped, view.ended
    losses = [p.loss for p in view.curve]
    accuracies = [p.accuracy for p in view.curve]
    return {
        "phase": view.phase,
        "message": view.message.partition("\n")[0],
        "run": started
        and {
            "model": started.model,
            "parameters": started.parameters,
            "dataset": started.dataset,
            "device": started.device,
            "optimizer": started.optimizer,
            "folder": str(started.run_dir),
        },
        "step": stepped
        and {
            "step": stepped.step,
            "total": stepped.total,
            "epoch": stepped.epoch,
            "epochs": stepped.epochs,
            "images_per_second": stepped.images_per_second,
            "seconds_left": stepped.seconds_left,
        },
        "curve": {
            "steps": [p.step for p in view.curve],
            "loss": losses,
            "accuracy": accuracies,
            "smooth_loss": smooth(losses),
            "smooth_accuracy": smooth(accuracies),
        },
        "looks": [
            {"step": x.step, "epoch": x.epoch, "loss": x.loss, "accuracy": x.accuracy}
            for x in view.looks
        ],
        "pictures": [
            {
                "png": _png(p.pixels),
                "truth": p.truth,
                "taken_for": p.taken_for,
                "probability": p.probability,
                "right": p.right,
            }
            for p in view.pictures
        ],
        "validated": view.validated,
        "memory": view.memory,
        "planned": view.planned,
        "notes": [note.partition("\n")[0] for note in view.notes],
        "ended": ended and {"status": ended.status, "seconds": ended.seconds},
    }


def _png(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    grey = pixels.shape[2] == 1
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if grey else pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
