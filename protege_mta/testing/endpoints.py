"""An HTTP endpoint that answers as a test says, in threads of its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import ssl
import threading
from collections import deque
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import attrs

HANG_UP: Final = 0
"""In place of a status: close the connection without an answer."""

SILENCE: Final = -1
"""In place of a status: say nothing until the endpoint stops."""


@attrs.frozen
class Posted:
    """A request that came.  :ivar fields: by lower-case name.  :ivar client: its address and port."""

    path: str
    fields: dict[str, str]
    body: bytes
    client: tuple[str, int]

    def is_signed_by(self, secret: bytes) -> bool:
        """As Standard Webhooks 1.0 says it, checked apart from the code that signs."""
        text = f"{self.fields['webhook-id']}.{self.fields['webhook-timestamp']}.".encode()
        digest = hmac.new(secret, text + self.body, hashlib.sha256).digest()
        return f"v1,{base64.b64encode(digest).decode()}" in self.fields["webhook-signature"].split()


@attrs.frozen
class Said:
    """An answer."""

    status: int = 204
    body: bytes = b""
    fields: dict[str, str] = attrs.field(factory=dict)


class HttpEndpoint:
    """Listens on loopback until :meth:`stop`.

    :ivar script: the next answers; 204 when it is empty.
    :ivar posted: what came, in order.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.script: deque[Said] = deque()
        self.posted: list[Posted] = []
        self._stopped = threading.Event()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                endpoint._answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Tests look at what came."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Close the port; requests under way are not answered."""
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        fields = {name.lower(): value for name, value in handler.headers.items()}
        self.posted.append(Posted(handler.path, fields, body, handler.client_address))
        said = self.script.popleft() if self.script else Said()
        if said.status == SILENCE:
            self._stopped.wait()
        if said.status in (SILENCE, HANG_UP):
            handler.close_connection = True
            with suppress(OSError):  # the client has gone already
                handler.connection.shutdown(socket.SHUT_RDWR)
            return
        handler.send_response(said.status)
        for name, value in said.fields.items():
            handler.send_header(name, value)
        if said.status != 204:
            handler.send_header("content-length", str(len(said.body)))
        handler.end_headers()
        if said.status != 204:
            handler.wfile.write(said.body)
