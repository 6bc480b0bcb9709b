"""The client's half of SASL, as SMTP carries it (RFC 4954; RFC 4616 for PLAIN)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping
from typing import Final

import attrs

INITIAL_OCTETS: Final = 480
"""A longer initial response would make the AUTH command too long (RFC 4954, 4)."""


@attrs.frozen
class Credentials:
    """Who we are to a smarthost."""

    username: str
    password: str = attrs.field(repr=False)


@attrs.define(eq=False)
class Exchange:
    """One AUTH command and the answers to the server's challenges.

    :ivar _answers: in order; PLAIN and LOGIN ignore what the challenges say.
    """

    _mechanism: str
    _answers: list[bytes]
    _is_initial: bool
    _is_cancelled: bool = attrs.field(default=False, init=False)

    def command(self) -> bytes:
        """The AUTH line, with the first answer in it where the mechanism begins with one."""
        words = [b"AUTH", self._mechanism.encode("ascii")]
        if self._is_initial and len(self._answers[0]) <= INITIAL_OCTETS:
            words.append(self._answers.pop(0))
        return b" ".join(words) + b"\r\n"

    def answer(self) -> bytes | None:
        """The line that meets a 334: ``*`` where nothing is left to say (RFC 4954, 4), and None
        to a server that goes on asking after that."""
        if self._answers:
            return self._answers.pop(0) + b"\r\n"
        if self._is_cancelled:
            return None
        self._is_cancelled = True
        return b"*\r\n"


def _plain(credentials: Credentials) -> Exchange:
    text = f"\0{credentials.username}\0{credentials.password}"
    return Exchange("PLAIN", [base64.b64encode(text.encode("utf-8"))], True)


def _login(credentials: Credentials) -> Exchange:
    texts = (credentials.username, credentials.password)
    return Exchange("LOGIN", [base64.b64encode(text.encode("utf-8")) for text in texts], False)


MECHANISMS: Final[Mapping[str, Callable[[Credentials], Exchange]]] = {
    "PLAIN": _plain,
    "LOGIN": _login,
}
"""The best first."""


def choose(offered: Collection[str], credentials: Credentials) -> Exchange | None:
    """Begin the best mechanism that the server offers, or None where we know none of them."""
    for name, begin in MECHANISMS.items():
        if name in offered:
            return begin(credentials)
    return None
