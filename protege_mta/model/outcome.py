"""What became of one recipient in one attempt (RFC 5321, 4.2.1), and in the end (RFC 3464, 2.3.3)."""

from __future__ import annotations

import enum
from typing import Literal

import attrs

from .reply import Reply
from .value import value


class Scope(enum.Enum):
    """How far a failure reaches, and so what the scheduler must hold back."""

    RECIPIENT = "recipient"  # a reply to RCPT TO, or an LMTP reply after the data
    SENDER = "sender"  # a reply to MAIL FROM
    MESSAGE = "message"  # a reply to DATA or to the final dot
    HOST = "host"  # one host: refused, timed out, broke TLS
    SITE = "site"  # no host of the site could be reached
    ABSENT = "absent"  # nobody is there, which is no failure: mail waits until somebody comes


@attrs.frozen
class TlsFacts:
    """How a channel is protected.

    :ivar protocol: as OpenSSL names it, ``TLSv1.3``.
    :ivar is_verified: whether the peer's certificate was checked against its name.
    """

    protocol: str
    cipher: str
    is_verified: bool = False


@value
class Contact:
    """Whom an attempt spoke to.

    :ivar host: the MX host or smarthost; a path for Maildir.
    :ivar peer_address: IP address, empty where there was no network.
    """

    host: str
    peer_address: str = ""
    tls: TlsFacts | None = None


@value
class Delivered:
    """The next hop took responsibility.

    :ivar reply: what it said, kept for the log and for DSNs.
    :ivar is_relayed: the hop takes over the duties of RFC 3461 that the sender asked for.
    :ivar is_final: it lies in the mailbox itself (Maildir, LMTP), not with a further MTA.
    """

    contact: Contact
    reply: Reply
    is_relayed: bool = False
    is_final: bool = False


@value
class TransientFailure:
    """Try again later.  Named so, for ``Deferred`` is Twisted's word.

    :ivar cause: the peer's reply, or ours in the same shape where no peer spoke
        (RFC 3463 codes such as 4.4.1, no answer from host).
    """

    scope: Scope
    cause: Reply
    contact: Contact | None = None


@value
class PermanentFailure:
    """Never try again; return a DSN unless the reverse-path is null."""

    scope: Scope
    cause: Reply
    contact: Contact | None = None


Outcome = Delivered | TransientFailure | PermanentFailure

Fate = Literal["delivered", "relayed", "bounced", "expired", "suppressed", "removed"]
"""The one end that each recipient comes to."""
