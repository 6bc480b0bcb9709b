"""An LMTP server in a thread, which a test tells what to answer (RFC 2033)."""

from __future__ import annotations

import re
import threading
from socketserver import StreamRequestHandler, ThreadingTCPServer
from types import TracebackType
from typing import Final, Self

_ADDRESS: Final = re.compile(rb"<([^>]*)>")


class LmtpPeer(ThreadingTCPServer):
    """Listens on loopback while it is entered.

    :ivar reply: to every RCPT.
    :ivar final: to each recipient's content.
    :ivar goes_on: while it is not set, content is waited for and not answered.
    :ivar taken: recipients and contents, in the order of their coming.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, reply: bytes = b"250 2.1.5 ok") -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.reply = reply
        self.final = b"250 2.0.0 taken"
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.taken: list[tuple[list[str], bytes]] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.goes_on.set()
        self.shutdown()
        self.server_close()


class _Session(StreamRequestHandler):
    server: LmtpPeer

    def handle(self) -> None:
        try:
            self._talk()
        except ConnectionError:
            return

    def _talk(self) -> None:
        recipients: list[str] = []
        self._say(b"220 peer.test LMTP")
        for line in self.rfile:
            match line[:4].upper():
                case b"LHLO":
                    self._say(b"250-peer.test", b"250-PIPELINING", b"250 8BITMIME")
                case b"MAIL":
                    recipients = []
                    self._say(b"250 2.1.0 ok")
                case b"RCPT":
                    found = _ADDRESS.search(line)
                    if found is not None and self.server.reply.startswith(b"2"):
                        recipients.append(found[1].decode())
                    self._say(self.server.reply)
                case b"DATA" if recipients:
                    self._say(b"354 go on")
                    self._take(recipients)
                case b"DATA":
                    self._say(b"503 5.5.1 no valid recipients")
                case b"QUIT":
                    self._say(b"221 2.0.0 bye")
                    return
                case _:
                    self._say(b"250 2.0.0 ok")

    def _take(self, recipients: list[str]) -> None:
        lines = []
        for line in self.rfile:
            if line == b".\r\n":
                break
            lines.append(line.removeprefix(b"."))
        self.server.goes_on.wait()
        if self.server.final.startswith(b"2"):
            self.server.taken.append((recipients, b"".join(lines)))
        self._say(*[self.server.final] * len(recipients))

    def _say(self, *lines: bytes) -> None:
        self.wfile.write(b"".join(line + b"\r\n" for line in lines))
