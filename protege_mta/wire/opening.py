"""From the greeting to the first MAIL: EHLO, STARTTLS, AUTH (RFC 5321, 3.1 and 3.2; RFC 3207;
RFC 4954; RFC 2033; RFC 8689).

A sans-IO machine: a reply goes in, what to do next comes out.
"""

from __future__ import annotations

import enum
from typing import Literal

import attrs

from ..model.reply import Reply
from . import abilities, sasl_client
from .abilities import Abilities
from .client import Awaited, our_reply, unmet
from .sasl_client import Credentials, Exchange


class Opened(enum.Enum):
    """What an :class:`Opening` comes to, other than a line to send."""

    START_TLS = enum.auto()  # shake hands, then call secured()
    READY = enum.auto()
    REFUSED = enum.auto()  # by the server or by us; see Opening.cause


@attrs.define(eq=False)
class Opening:
    """One connection's first words.

    :ivar name: ours, for EHLO.
    :ivar tls: ``required`` refuses to go on in clear.
    :ivar requires_tls: whether it has to offer REQUIRETLS, once encrypted; goes with a ``tls`` that
        is ``required``, or with TLS from the start.
    :ivar may_authenticate_in_clear: only true of a peer on this machine.
    :ivar awaited: what the next reply answers.
    :ivar cause: why it was refused, once it was.
    :ivar is_auth_fault: whether it was our credentials: a fault of the configuration.
    """

    name: str
    tls: Literal["none", "opportunistic", "required"] = "none"
    requires_tls: bool = False
    credentials: Credentials | None = None
    is_lmtp: bool = False
    is_encrypted: bool = False
    may_authenticate_in_clear: bool = False
    awaited: Awaited = Awaited.GREETING
    abilities: Abilities = attrs.field(factory=Abilities)
    cause: Reply | None = None
    is_auth_fault: bool = False
    _exchange: Exchange | None = None

    def reply(self, reply: Reply) -> bytes | Opened:
        """Take a reply; returns a line to send, or an end."""
        if reply.code == 421:
            return self._refuse(reply)
        kind = reply.code // 100
        match self.awaited:
            case Awaited.GREETING:
                # RFC 5321, 3.1 and 4.2.4.1: 554 and 521 refuse for this host; another may not.
                return self._hello() if kind == 2 else self._refuse(reply)
            case Awaited.EHLO:
                if kind == 2:
                    self.abilities = abilities.parse(reply)
                    return self._after_hello()
                if kind == 5 and not self.is_lmtp:
                    self.awaited = Awaited.HELO
                    return f"HELO {self.name}\r\n".encode("ascii")
                return self._refuse(reply)
            case Awaited.HELO:
                if kind != 2:
                    return self._refuse(reply)
                self.abilities = Abilities()
                return self._after_hello()
            case Awaited.STARTTLS:
                if kind == 2:
                    self.awaited = Awaited.TLS
                    return Opened.START_TLS
                if self.tls == "required":
                    is_unmet = self.requires_tls and kind == 5
                    return self._refuse(unmet("STARTTLS is refused") if is_unmet else reply)
                return self._authenticate()
            case Awaited.AUTH:
                return self._authenticated(reply, kind)
            case awaited:
                raise RuntimeError(f"a reply while waiting for {awaited.name}")

    def secured(self) -> bytes:
        """The handshake is done: forget what was said in clear and begin again (RFC 3207, 4.2).

        Under implicit TLS the greeting comes now, and there is nothing to send.
        """
        if self.awaited is Awaited.GREETING:
            self.is_encrypted = True
            return b""
        self.is_encrypted = True
        self.abilities = Abilities()
        return self._hello()

    def _hello(self) -> bytes:
        self.awaited = Awaited.EHLO
        return f"{'LHLO' if self.is_lmtp else 'EHLO'} {self.name}\r\n".encode("ascii")

    def _after_hello(self) -> bytes | Opened:
        if not self.is_encrypted and self.tls != "none":
            if self.abilities.has_starttls:
                self.awaited = Awaited.STARTTLS
                return b"STARTTLS\r\n"
            if self.requires_tls:
                return self._refuse(unmet("TLS is not offered"))
            if self.tls == "required":
                return self._refuse(our_reply("4.7.4", "TLS is required, and not offered"))
        if self.requires_tls and not self.abilities.has_requiretls:
            return self._refuse(unmet("the next hop does not offer it"))
        return self._authenticate()

    def _authenticate(self) -> bytes | Opened:
        if self.credentials is None:
            return Opened.READY
        if not (self.is_encrypted or self.may_authenticate_in_clear):
            return self._refuse_auth(our_reply("4.7.11", "credentials are not sent in clear"))
        exchange = sasl_client.choose(self.abilities.auth, self.credentials)
        if exchange is None:
            return self._refuse_auth(our_reply("4.7.4", "AUTH is not offered as we can speak it"))
        self._exchange = exchange
        self.awaited = Awaited.AUTH
        return exchange.command()

    def _authenticated(self, reply: Reply, kind: int) -> bytes | Opened:
        if kind == 2:
            return Opened.READY
        line = self._exchange.answer() if kind == 3 and self._exchange is not None else None
        return line or self._refuse_auth(reply)

    def _refuse_auth(self, cause: Reply) -> Opened:
        self.is_auth_fault = True
        return self._refuse(cause)

    def _refuse(self, cause: Reply) -> Opened:
        self.cause = cause
        return Opened.REFUSED
