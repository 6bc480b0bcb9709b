"""An HTTP endpoint for webhooks that keeps what it is told, and fails in any way it is asked to."""

from __future__ import annotations

import json
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, cast

from protege_mta.wire.webhook import signed

Way = Literal["take", "500", "429", "cut", "garbage", "taken but cut"]


class Endpoint:
    """A server on loopback, in threads of its own.

    :ivar taken: the events of each request that was taken, in the order in which they were.
    :ivar forged: ids of requests whose signature was none of ours.
    """

    def __init__(self, secrets: tuple[bytes, ...], seed: int) -> None:
        self.taken: list[dict[str, Any]] = []
        self.forged: list[str] = []
        self.is_failing = True
        self._secrets = secrets
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.endpoint = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def way(self) -> Way:
        """What becomes of the next request."""
        if not self.is_failing or self._rng.random() < 0.9:
            return "take"
        return self._rng.choice(("500", "429", "cut", "garbage", "taken but cut"))

    def take(self, headers: Any, body: bytes) -> None:
        id, at = headers["webhook-id"], int(headers["webhook-timestamp"])
        told = json.loads(body)
        with self._lock:
            if (
                headers["webhook-signature"]
                != signed(self._secrets, id, at, [body])["webhook-signature"]
                or abs(at - time.time()) > 300
            ):
                self.forged.append(id)
            self.taken += told if isinstance(told, list) else [told]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed says nothing about us."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        endpoint = cast(Endpoint, self.server.endpoint)  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers["content-length"]))
        way = endpoint.way()
        if way in ("take", "taken but cut"):
            endpoint.take(self.headers, body)
        if way == "garbage":
            self.wfile.write(b"220 mx.test ESMTP\r\n")
        if way in ("cut", "garbage", "taken but cut"):
            self.close_connection = True
            return
        self.send_response(204 if way == "take" else int(way))
        if way == "429":
            self.send_header("Retry-After", "1")
        if way != "take":
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Its requests are looked at, not logged."""
