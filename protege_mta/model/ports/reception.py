"""Between the doors for mail and the house."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from ..account import ScramVerifier
from ..envelope import Envelope, Recipient, Source
from ..outcome import TlsFacts
from ..reply import Reply
from ..value import value
from ..verdicts import Verdicts
from .storage import Held

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


@attrs.define(eq=False)
class Peer:
    """Who is connected to one of our doors, and what is known of it.

    Mutable, owned by the connection; a door only reads it.

    :ivar listener: the listener's name.
    :ivar source: by which door it comes.
    :ivar helo: the argument of HELO or EHLO, checked for syntax; empty before.
    :ivar identity: who authenticated; empty if nobody did.
    :ivar offence: for what the session was broken off, where it was the client's doing: the name
        of the last reply in :data:`~..reply.TABLE`.
    """

    address: str
    port: int
    listener: str
    session_id: str
    helo: str = ""
    is_esmtp: bool = False
    tls: TlsFacts | None = None
    identity: str = ""
    offence: str = ""
    source: Source = "smtp"


@value
class MailCommand:
    """MAIL FROM with its parameters, syntax checked.

    :ivar size_octets: the SIZE parameter (RFC 1870); 0 where none was given.
    """

    envelope: Envelope  # with no recipients yet
    size_octets: int = 0


@attrs.frozen
class PasswordProof:
    """AUTH PLAIN or LOGIN, complete.

    :ivar name: as :func:`~..account.account_name` gives it; for what cannot be a name, the text as
        it came, which no account has.
    :ivar password: as the client sent it; whoever checks it prepares it (RFC 4616, 2).
    """

    name: str
    password: str = attrs.field(repr=False)


@attrs.frozen
class ResponseProof:
    """AUTH CRAM-MD5, complete (RFC 2195).

    :ivar digest: lower-case hexadecimal, as the client made it.
    """

    name: str
    challenge: bytes
    digest: str = attrs.field(repr=False)


@attrs.frozen
class ScramProof:
    """AUTH SCRAM-SHA-256, to its end.

    :ivar is_right: whether the client's proof was that of the verifier it was given.
    """

    name: str
    is_right: bool


Proof = PasswordProof | ResponseProof | ScramProof


@value
class LoggedIn:
    """A proof was right, and is another's than the name in it says: an API key's, whose holder says
    ``apikey``.

    :ivar identity: whose.
    """

    identity: str


class Intake(Protocol):
    """One message on its way into the house, from whatever door."""

    def write(self, octets: bytes) -> Deferred[None] | None:
        """As :meth:`Incoming.write`; never raises for a local fault, which :meth:`finish` tells."""

    def finish(self) -> Deferred[Reply]:
        """Judge, store, and answer: 2yz only once the message is durable.  Never fails."""

    def abort(self) -> None:
        """The peer went away, or broke the rules in the middle."""


class Arrival(Intake, Protocol):
    """A message on its way into the spool."""

    @property
    def size_octets(self) -> int:
        """What has been written, our trace field included."""

    def look(self) -> Deferred[Held | Reply]:
        """What has been written, once all has been; before :meth:`finish` or :meth:`abort`.

        :return: to be closed again; or why the message cannot be kept: it is ended then.
        """

    def mark(self, head: bytes, verdicts: Verdicts) -> None:
        """Before :meth:`finish`.

        :param head: fields to come before all else, our trace field included.
        """


class Door(Protocol):
    """What an SMTP server asks the house.

    A question is answered at once with a :class:`~..reply.Reply`, or later with a Deferred of one,
    which is cancelled when the peer hangs up.
    """

    def opened(self, peer: Peer) -> Reply | None:
        """A connection came in; a reply refuses it (it is said, and the channel closed).

        Each ``opened`` that returned None is followed by one ``closed``.
        """

    def closed(self, peer: Peer) -> None: ...

    def scram(self, peer: Peer, name: str) -> ScramVerifier:
        """What to check SCRAM by; for a name that nobody has, and for one without a verifier, a
        made-up one that is the same each time, and that nobody can meet (RFC 5802, 9)."""

    def login(self, peer: Peer, proof: Proof) -> LoggedIn | Reply | Deferred[Reply]:
        """Is it them?  With a 2yz reply the peer's identity is the proof's name from now on."""

    def sender(self, peer: Peer, mail: MailCommand) -> Reply | Deferred[Reply]: ...

    def recipient(
        self, peer: Peer, mail: MailCommand, recipient: Recipient
    ) -> Reply | Deferred[Reply]: ...

    def receive(self, peer: Peer, envelope: Envelope) -> Intake | Reply:
        """DATA or the first BDAT, with at least one accepted recipient; a reply refuses."""
