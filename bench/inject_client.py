"""Injects messages over HTTP, as many as are asked for, on connections that are kept.

``python -m bench.inject_client PORT SESSIONS MESSAGES SIZE BATCH``, the API key on standard input.
Its requests are made beforehand, so that what is measured is the server.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys


def message(size_octets: int) -> dict[str, object]:
    """One whose content has about so many octets."""
    line = "x" * 70 + "\n"
    return {
        "from": "sender@client.test",
        "to": ["rcpt@dest.test"],
        "subject": "injected",
        "text": line * max(1, (size_octets - 400) // len(line)),
    }


def request(key: str, messages: int, size_octets: int, batch: int) -> bytes:
    """:param batch: 0 for the single form."""
    one = message(size_octets)
    body = json.dumps([one] * messages if batch else one).encode("ascii")
    return (
        f"POST /v1/message HTTP/1.1\r\nHost: relay.bench.test\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode("ascii") + body


class Session:
    """One connection, with one request at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self._came = b""

    def send(self, octets: bytes) -> None:
        self._came = b""
        self.socket.sendall(octets)

    def is_answered(self) -> bool:
        """Read what is there.  :raise RuntimeError: it is no 202, or refuses a message."""
        octets = self.socket.recv(1 << 18)
        if not octets:
            raise RuntimeError("the server hung up")
        self._came += octets
        head, blank, body = self._came.partition(b"\r\n\r\n")
        if not blank:
            return False
        if not head.startswith(b"HTTP/1.1 202 "):
            raise RuntimeError(self._came.decode("latin-1"))
        if b"chunked" in head.lower():
            if not body.endswith(b"0\r\n\r\n"):
                return False
        else:
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(body) < length:
                return False
        if b'"error"' in body:
            raise RuntimeError(body.decode("latin-1"))
        return True


def main() -> None:
    port, sessions, messages, size_octets, batch = map(int, sys.argv[1:])
    key = sys.stdin.readline().strip()
    each = batch or 1
    whole = request(key, each, size_octets, batch)
    rest = request(key, messages % each, size_octets, batch) if messages % each else b""
    todo = [whole] * (messages // each) + ([rest] if rest else [])
    waiting = 0
    with selectors.DefaultSelector() as selector:
        for _ in range(min(sessions, len(todo))):
            session = Session(port)
            selector.register(session.socket, selectors.EVENT_READ, session)
            session.send(todo.pop())
            waiting += 1
        while waiting:
            for ready, _ in selector.select():
                session = ready.data
                if not session.is_answered():
                    continue
                if todo:
                    session.send(todo.pop())
                else:
                    waiting -= 1


if __name__ == "__main__":
    main()
