"""Mail handed in by several clients at once, and what was promised for each message of it."""

from __future__ import annotations

import base64
import hashlib
import random
import smtplib
import threading
from collections.abc import Sequence
from typing import Final

import attrs

from .sink import MARK

CLIENTS: Final = 4
MESSAGES: Final = 60

MIB: Final = 1024 * 1024
BIG: Final = 0.03
"""The share of messages that get files of their own."""


@attrs.define
class Sent:
    """A message that was begun.

    :ivar sender: its own, so that a bounce says whose it is.
    :ivar digest: as the sink computes it.
    :ivar is_promised: whether 250 came for it.
    """

    sender: str
    recipients: tuple[str, ...]
    digest: str
    is_promised: bool = False


class Load:
    """Clients in threads, each with one connection until that ends.

    :param prefix: what all keys begin with.
    :param sent: takes every message, by its key.
    :param messages: from each client, if nobody ends the service before.
    """

    def __init__(
        self,
        port: int,
        prefix: str,
        rng: random.Random,
        sent: dict[str, Sent],
        clients: int = CLIENTS,
        messages: int = MESSAGES,
        big: float = BIG,
    ) -> None:
        self._port = port
        self._sent = sent
        self._messages = messages
        self._big = big
        self._threads = [
            threading.Thread(
                target=self._run, args=(f"{prefix}-{n}", random.Random(rng.random())), daemon=True
            )
            for n in range(clients)
        ]
        self.failures: list[str] = []
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        """Until all clients have ended, as they do when the service is gone.

        :raise AssertionError: a client was told what it should not have been.
        """
        for thread in self._threads:
            thread.join(60)
            if thread.is_alive():
                self.failures.append("a client hangs")
        if self.failures:
            raise AssertionError("; ".join(self.failures))

    def _run(self, prefix: str, rng: random.Random) -> None:
        try:
            with smtplib.SMTP("127.0.0.1", self._port, "client.test", timeout=30) as client:
                client.ehlo()
                for count in range(self._messages):
                    self._send(client, f"{prefix}-{count}", rng)
        except (smtplib.SMTPServerDisconnected, ConnectionError):
            return  # that is what being killed looks like
        except (smtplib.SMTPException, OSError) as error:
            self.failures.append(repr(error))

    def _send(self, client: smtplib.SMTP, key: str, rng: random.Random) -> None:
        content = message(key, rng, self._big)
        sent = Sent(f"{key}@back.test", _recipients(key, rng), digest_of(content))
        self._sent[key] = sent
        _said(client.mail(sent.sender))
        for recipient in sent.recipients:
            _said(client.rcpt(recipient))
        if rng.random() < 0.5:
            _said(client.data(content))
        else:
            half = rng.randrange(len(content))
            client.send(b"BDAT %d\r\n%b" % (half, content[:half]))
            rest = content[half:]
            client.send(b"BDAT %d LAST\r\n%b" % (len(rest), rest))
            _said(client.getreply())
            _said(client.getreply())
        sent.is_promised = True


def _said(reply: tuple[int, bytes]) -> None:
    """:raise smtplib.SMTPResponseException: it was no 250."""
    if reply[0] != 250:
        raise smtplib.SMTPResponseException(*reply)


def _recipients(key: str, rng: random.Random) -> tuple[str, ...]:
    count = 1 if rng.random() < 0.7 else rng.randrange(2, 6)
    kinds = ["no" if rng.random() < 0.05 else "to" for _ in range(count)]
    return tuple([f"{kind}-{n}-{key}@far.test" for n, kind in enumerate(kinds)])


def message(key: str, rng: random.Random, big: float) -> bytes:
    """A message with lines that need dot-stuffing."""
    if rng.random() < big:
        least, most = MIB, 2 * MIB
    else:
        least, most = (200, 4_000) if rng.random() < 0.7 else (4_000, 200_000)
    text = base64.b64encode(rng.randbytes(rng.randrange(least, most) * 3 // 4))
    lines: Sequence[bytes] = [text[at : at + 75] for at in range(0, len(text), 75)]
    body = b"\r\n".join(b"." + line if n % 7 == 0 else line for n, line in enumerate(lines))
    return b"".join(
        (
            MARK + key.encode() + b"\r\n",
            f"Message-ID: <{key}@client.test>\r\n".encode(),
            b"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\n",
            f"From: <{key}@back.test>\r\nSubject: {key}\r\n\r\n".encode(),
            body,
            b"\r\n",
        )
    )


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
