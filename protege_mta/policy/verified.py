"""Mail from strangers: who it is from is checked once, when all of it is there and before it is
accepted, and what that came to stands in its first field (RFC 8601)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..message.authres import QUARANTINE, without_foreign
from ..model.address import domain_of
from ..model.domain import ascii_domain
from ..model.envelope import Envelope, Origin
from ..model.ports import Arrival, Authentication, Authenticator, Events, Intake, Octets, Peer
from ..model.reply import TABLE, Reply
from .header_first import HeaderFirst, about

Action = Literal["none", "quarantine", "reject"]
"""What becomes of mail for a domain of ours that fails DMARC."""

_TOLD = (TABLE["dmarc-failed"], TABLE["header-too-long"])


class Verification:
    """Opens the way for messages whose sender is to be checked.

    :param begin: opens the way into the spool.
    :param hostname: our authserv-id: nobody else's word goes by it.
    :param actions: by our own domains, as A-labels in lower case.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        events: Events,
        begin: Callable[[Peer, Envelope, Origin], Arrival | Reply],
        *,
        hostname: str,
        actions: Mapping[str, Action],
    ) -> None:
        self.hostname = hostname
        self._authenticator = authenticator
        self._events = events
        self._begin = begin
        self._actions = actions

    def begin(self, peer: Peer, envelope: Envelope, origin: Origin) -> Intake | Reply:
        """As :data:`~.door.Begin`."""
        arrival = self._begin(peer, envelope, origin)
        if isinstance(arrival, Reply):
            return arrival
        verified = _Verified(self, peer, envelope, arrival)

        def ended(reply: Reply | None, fields: bytes) -> None:
            if reply is not None and reply in _TOLD:
                self._events.rejected(peer, envelope.sender, "", reply, about(fields))

        return HeaderFirst(verified, verified.header, ended)

    def check(self, peer: Peer, envelope: Envelope, octets: Octets) -> Deferred[Authentication]:
        return self._authenticator.check(peer, envelope.sender, octets)

    def action(self, envelope: Envelope, found: Authentication) -> Action:
        """What is done with a message: refused only where each recipient's domain would have it
        so."""
        if found.policy == "none":
            return "none"
        actions = {
            self._actions.get(ascii_domain(domain_of(one.address)), "none")
            for one in envelope.recipients
        }
        if found.policy == "reject" and actions == {"reject"}:
            return "reject"
        return "none" if actions == {"none"} else "quarantine"


class _Verified:
    """One such message; an :class:`~..model.ports.Intake` behind :class:`~.header_first.HeaderFirst`."""

    log = Logger()

    __slots__ = ("_arrival", "_body_at", "_envelope", "_fields", "_peer", "_verification")

    def __init__(
        self, verification: Verification, peer: Peer, envelope: Envelope, arrival: Arrival
    ) -> None:
        self._verification = verification
        self._peer = peer
        self._envelope = envelope
        self._arrival = arrival
        self._fields = b""  # as they came
        self._body_at = 0  # in what has been written

    def header(self, fields: bytes) -> bytes:
        """The fields to pass on."""
        kept = without_foreign(fields, self._verification.hostname)
        self._fields = fields
        self._body_at = self._arrival.size_octets + len(kept) + 2
        return kept

    def write(self, octets: bytes) -> Deferred[None] | None:
        return self._arrival.write(octets)

    def abort(self) -> None:
        self._arrival.abort()

    def finish(self) -> Deferred[Reply]:
        return Deferred.fromCoroutine(self._finish())

    async def _finish(self) -> Reply:
        held = await self._arrival.look()
        if isinstance(held, Reply):
            return held
        try:
            octets = _AsSent(self._fields + b"\r\n", held, self._body_at)
            found = await self._verification.check(self._peer, self._envelope, octets)
        except Exception:
            self.log.failure("a message could not be checked")
            self._arrival.abort()
            return TABLE["local-error"]
        finally:
            held.close()
        action = self._verification.action(self._envelope, found)
        if action == "reject":
            self._arrival.abort()
            return TABLE["dmarc-failed"]
        mark = QUARANTINE if action == "quarantine" else b""
        self._arrival.mark(found.field + mark, found.verdicts)
        return await self._arrival.finish()


@attrs.frozen
class _AsSent:
    """A message as it came in: without our trace field, and with all fields of its own.

    :ivar header: with the blank line.
    :ivar written: where the body is, at ``body_at``.
    """

    header: bytes
    written: Octets
    body_at: int

    @property
    def size_octets(self) -> int:
        return len(self.header) + self.written.size_octets - self.body_at

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        end = None if size < 0 else offset + size
        first = self.header[offset:end]
        if size >= 0:
            size -= len(first)
        if size == 0:
            return first
        behind = max(0, offset - len(self.header))
        return first + self.written.read(self.body_at + behind, size)
