"""Talk to an SMTP server's connection without a network, and replay written dialogues."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from ..model.ports import Door
from ..model.tally import Tally
from ..transport.smtp_factory import SmtpServerFactory
from ..wire.settings import ServerSettings
from .doors import FakeDoor


class Wire(StringTransport):
    """The server's end of a connection.

    :ivar writes: each write by itself.
    :ivar is_aborted: whether it was cut.
    """

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        super().write(data)

    def abortConnection(self) -> None:
        self.is_aborted = True


class Client:
    """A client whose server is ``mx.test``, connected from 192.0.2.1."""

    def __init__(
        self,
        door: Door | None = None,
        settings: ServerSettings | None = None,
        *,
        factory: SmtpServerFactory | None = None,
    ) -> None:
        self.clock = Clock()
        self.factory = factory or SmtpServerFactory(
            FakeDoor() if door is None else door,
            settings or ServerSettings("mx.test"),
            listener="mx",
            tally=Tally(),
            clock=self.clock,
            now=self.clock.seconds,
            new_session_id=lambda: "s1",
            new_nonce=lambda: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",  # of RFC 7677, 3
        )
        self.transport = Wire()
        self.connection = self.factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1025))
        self.connection.makeConnection(self.transport)

    def hear(self) -> bytes:
        """What the server has said since the last call."""
        said: bytes = self.transport.value()
        self.transport.clear()
        return said

    def say(self, octets: bytes, *, cut: Callable[[bytes], Iterator[bytes]] | None = None) -> bytes:
        """Send ``octets``, in pieces if ``cut`` makes some, and hear the replies."""
        for piece in cut(octets) if cut else (octets,):
            self.connection.dataReceived(piece)
        return self.hear()

    def codes(self, octets: bytes) -> list[int]:
        """Send ``octets``, and hear the codes of the replies."""
        return reply_codes(self.say(octets))


def reply_codes(said: bytes) -> list[int]:
    """The codes of the replies in ``said``, one for a reply of several lines."""
    lines = said.split(b"\r\n")
    if lines.pop() != b"":
        raise ValueError(f"not whole lines: {said!r}")
    return [int(line[:3]) for line in lines if line[3:4] == b" "]
