"""What one side needs of another, where both may not know each other.

Implementations are chosen in ``compose`` alone.  ``Deferred`` appears here as a type only: the one
word that every side of a Twisted program shares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import attrs

from .account import Account, ScramVerifier
from .address import Address
from .batch import Batch, BigFile
from .caller import Caller, Flaw
from .envelope import Envelope, Message, Origin, Recipient
from .hop import HopKind, Site
from .identity import Identity
from .ids import QueueId
from .outcome import Fate, Outcome, PermanentFailure, TlsFacts, TransientFailure
from .reply import Reply
from .return_path import Sent
from .status import RecipientStatus
from .stream import DeliveryState, Stream
from .value import value
from .verdicts import Verdicts

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

# --- spool ---------------------------------------------------------------------------------------


class SpoolFull(Exception):
    """Free space or inodes would fall below the floor: 452 4.3.1."""


class SpoolFailed(Exception):
    """The disk broke a promise (EIO, a failed sync); nothing more is accepted: 451 4.3.0."""


class SpoolLocked(Exception):
    """Another process owns this shard."""


class NoSuchMessage(Exception):
    """The id names nothing in the spool, or its last recipient has met its fate."""


class Damaged(Exception):
    """The content does not match its checksum; it has been moved to ``corrupt/``."""


class Content(Protocol):
    """A message's octets, CRLF line ends, no dot-stuffing.  Small ones are in memory."""

    @property
    def message(self) -> Message: ...

    @property
    def size_octets(self) -> int: ...

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        """Octets from ``offset``; all the rest where ``size`` is negative.

        Whoever may meet a big one asks in pieces.  Blocks for a page-cache read at most.
        """

    def close(self) -> None:
        """Give back the file descriptor, if there is one.  May be called more than once."""


@attrs.frozen
class Recovered:
    """A message found at start.

    :ivar statuses: for each recipient its status, or None where it has met its fate.
    """

    message: Message
    statuses: tuple[RecipientStatus | None, ...]


@attrs.frozen
class Stats:
    """Figures for metrics and ``status``.

    :ivar is_full: the disk had no room for what was committed last.
    """

    messages: int
    content_octets: int
    disk_octets: int
    free_octets: int
    free_inodes: int
    segments: int
    corrupt: int
    commits: int
    operations: int
    is_failed: bool
    is_full: bool = False


Position = tuple[int, int]
"""A place in the spool's log, ``(segment, offset)``; later ones compare greater.  Segments count
from 1, so ``(0, 0)`` lies before everything."""


class Journal(Protocol):
    """Where events go once the batch that carries them is durable; the spool keeps them until then.

    At start, between :meth:`Spool.recover` and the first commit, whoever owns the journal asks
    :meth:`Spool.recover_events` for what came after :meth:`synced`, and writes what is missing.
    """

    def publish(self, lines: Sequence[bytes], position: Position) -> None:
        """Take the lines of durable batches, in commit order, each once in the life of a process.

        Called in the spool's writer thread; never raises for a fault of its own disk.

        :param position: the end of those batches in the log.
        """

    def synced(self) -> Position:
        """What lies before this position need not be told again.  Any thread."""


class Octets(Protocol):
    """What can be read.  :class:`Content` is one."""

    @property
    def size_octets(self) -> int: ...

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        """As :meth:`Content.read`, in any thread."""


class Held(Octets, Protocol):
    """Content that has come in whole and is not accepted yet."""

    def close(self) -> None:
        """As :meth:`Content.close`."""


class Incoming(Protocol):
    """Content on its way in.  One of :meth:`sealed` and :meth:`discard` ends it, or the latter
    after the former."""

    def write(self, octets: bytes) -> Deferred[None] | None:
        """Take the next octets.

        :return: None to go on at once, or what to wait for before the next ``write``
            (back-pressure of big content).
        """

    @property
    def size_octets(self) -> int: ...

    def sealed(self) -> Deferred[tuple[bytes, ...] | BigFile]:
        """The content as :class:`~.batch.Append` takes it; big files are durable by then.

        Fails with :class:`SpoolFull` or :class:`SpoolFailed`.
        """

    def look(self) -> Deferred[Held]:
        """All of it, to be read before it is sealed; no more writes.

        Fails as :meth:`sealed` does.  Whoever gets it closes it.
        """

    def at_hand(self) -> tuple[bytes, ...] | None:
        """:meth:`sealed` where all is in memory, without the price of a Deferred; None, and
        nothing has been done, where it is not."""

    def discard(self) -> None:
        """Forget it; nothing stays on the disk."""


class Spool(Protocol):
    """Where accepted mail lies until its last recipient has met a fate (design of the spool:
    ``docs/explanation/spool.md``)."""

    def acquire(self, shard: int = 0) -> None:
        """Take the lease on a shard; blocks, touches the disk.  :raise SpoolLocked:"""

    def recover(self, shard: int = 0) -> Iterator[Recovered]:
        """Every message that is there, oldest first.  Once, after :meth:`acquire` and before the
        first commit; blocks."""

    def recover_events(self, after: Position) -> Iterator[tuple[Sequence[bytes], Position]]:
        """The events of every batch that ends after ``after``, in order, as they were or would
        have been published.  After :meth:`recover`, before the first commit; blocks."""

    def receive(self) -> Incoming:
        """A place for content to come in."""

    def check_room(self, size_octets: int) -> None:
        """:raise SpoolFull: where so much more would cross the floor.  :raise SpoolFailed:"""

    def commit(self, batch: Batch) -> Deferred[None]:
        """Resolves, in the order of the calls, once all of ``batch`` is durable (a lazy one: once
        it is in line).  Fails with :class:`SpoolFull`, :class:`SpoolFailed`; then none of it is."""

    def note(self, batch: Batch) -> Deferred[None] | None:
        """:meth:`commit` of a lazy batch, without the price of a Deferred: None where it is in line
        already, else what :meth:`commit` gives."""

    def open(self, id: QueueId) -> Deferred[Content]:
        """Fails with :class:`NoSuchMessage` or :class:`Damaged`."""

    def at_hand(self, id: QueueId) -> Content | None:
        """What :meth:`open` would give at once, without the price of a Deferred; None where only
        :meth:`open` can tell."""

    def statuses(self, id: QueueId) -> Deferred[Recovered]:
        """What :meth:`recover` would say of one message now; fails as :meth:`open` does."""

    def ids(self) -> Sequence[QueueId]:
        """Every queued message, oldest first."""

    def corrupt_ids(self) -> Sequence[QueueId]:
        """Those of :meth:`ids` whose content was found damaged; :meth:`recover` passes them over,
        and only a person's ``remove`` ends them."""

    def stats(self) -> Stats: ...

    def close(self) -> Deferred[None]:
        """Sync what is in line, release the lease."""


# --- reception -----------------------------------------------------------------------------------


@attrs.define(eq=False)
class Peer:
    """Who is connected to one of our SMTP listeners, and what is known of it.

    Mutable, owned by the connection; a door only reads it.

    :ivar listener: the listener's name.
    :ivar helo: the argument of HELO or EHLO, checked for syntax; empty before.
    :ivar identity: who authenticated; empty if nobody did.
    :ivar offence: for what the session was broken off, where it was the client's doing: the name
        of the last reply in :data:`~.reply.TABLE`.
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

    :ivar name: as :func:`~.account.account_name` gives it; for what cannot be a name, the text as
        it came, which no account has.
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

    A question is answered at once with a :class:`~.reply.Reply`, or later with a Deferred of one,
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

    def login(self, peer: Peer, proof: Proof) -> Reply | Deferred[Reply]:
        """Is it them?  With a 2yz reply the peer's identity is the proof's name from now on."""

    def sender(self, peer: Peer, mail: MailCommand) -> Reply | Deferred[Reply]: ...

    def recipient(
        self, peer: Peer, mail: MailCommand, recipient: Recipient
    ) -> Reply | Deferred[Reply]: ...

    def receive(self, peer: Peer, envelope: Envelope) -> Intake | Reply:
        """DATA or the first BDAT, with at least one accepted recipient; a reply refuses."""


# --- tunnels -------------------------------------------------------------------------------------


class Session(Protocol):
    """An authenticated connection of one agent, seen from either end of the tunnel."""

    @property
    def identity(self) -> Identity:
        """The agent's, on both sides."""

    @property
    def peer_address(self) -> str:
        """The IP address at the other end, as far as we can see."""

    @property
    def is_reliable(self) -> bool:
        """Whether both sides acknowledge streams."""

    @property
    def takes_mail(self) -> bool:
        """Whether the agent has its mail sent here: not so in the role ``outbound``."""

    def send(self, stream: Stream, octets: Octets) -> Deferred[Outcome]:
        """Send one message.  Never fails: an end of the session in between is a
        :class:`~.outcome.TransientFailure` of scope HOST.

        The other side has it when the outcome says so: acknowledged where the session is reliable;
        else, by an agent, that it has answered a ping sent after the end of the stream, and by a
        relay, its ``relay_delivery_result``.  ``octets`` is read until then.  Cancelling the Deferred
        gives the stream up.
        """

    def tell(self, state: DeliveryState) -> None:
        """Say what became of a message that the agent sent earlier; nothing where the session is
        not reliable, or is over."""

    def close(self, code: int, reason: str) -> None:
        """End it, with a status code of RFC 6455, 7.4."""


class StreamDoor(Protocol):
    """What a tunnel asks the house, at either end."""

    def opened(self, session: Session) -> None:
        """Authenticated.  Each ``opened`` is followed by one ``closed``."""

    def closed(self, session: Session) -> None: ...

    def receive(
        self, session: Session, stream: Stream
    ) -> Intake | Reply | Deferred[Intake | Reply]:
        """A stream has begun.  A reply ends it: 2yz where the message is known to be here already,
        else why it is refused; its content is passed over.

        In reliable sessions an intake may outlive its session: for some minutes it waits for the
        agent's next one, which goes on with it, or it is aborted.
        """


class Sessions(Protocol):
    """Who is connected."""

    def to(self, identity: Identity) -> Session | None:
        """The session that takes the agent's mail (at the agent's end: the one to its relay)."""


class Agents(Protocol):
    """The agents of a relay server, as they are now: a change of their file shows within a second.

    Answers come from memory.
    """

    def at(self, address: Address) -> Identity | None:
        """Whose mailbox it is: an agent's key or one of its aliases, in any case, at one of our
        tunnel domains; None where it is nobody's.

        Where any key may log in, each key is somebody's mailbox.
        """

    def may_hold(self, identity: Identity) -> bool:
        """Whether its mail may be kept until it comes: it is listed, or has logged in before."""


@attrs.frozen
class Authentication:
    """What is known of a message's sender before it is accepted.

    :ivar field: the Authentication-Results field (RFC 8601), CRLF at its end.
    :ivar policy: what the domain of From wants done with a message that fails DMARC (RFC 7489,
        6.3), ``none`` where it passes.
    """

    verdicts: Verdicts
    field: bytes = b""
    policy: Literal["none", "quarantine", "reject"] = "none"


class Authenticator(Protocol):
    """Checks SPF, DKIM and DMARC."""

    def check(self, peer: Peer, sender: Address, octets: Octets) -> Deferred[Authentication]:
        """Never fails: what cannot be found out is ``temperror``."""


# --- HTTP ----------------------------------------------------------------------------------------


class Callers(Protocol):
    """Finds out who asks.  Comparisons take the same time whatever is compared."""

    def bearer(self, secret: str) -> Caller | None:
        """The holder of an API key; None for nobody.  :raise StateFailed:"""

    def basic(self, name: str, password: str, peer: Peer) -> Deferred[Caller | Reply]:
        """A submission account, by its password, with the waits and locks of AUTH."""


class Contacts(Protocol):
    """Whom callers have written to.  Answers come from memory or a page cache."""

    def strangers(
        self, identity: str, recipients: Iterable[Address], *, is_known: bool = False
    ) -> list[Address]:
        """Those that it has never written to.

        :param is_known: whether to count among them those whose mail no person has released yet.
        :raise StateFailed:
        """

    def since(self, identity: str, at: float) -> int:
        """How many it wrote to for the first time after that moment, POSIX seconds.

        :raise StateFailed:
        """

    def add(self, identity: str, recipients: Sequence[Address], *, is_known: bool) -> None:
        """A message to them was accepted.

        :param is_known: whether it goes without a person's word.
        """


class Permit(Protocol):
    """A message that may be sent, and the place that it takes in its caller's limits until it is
    ended, once, by :meth:`settle` or :meth:`release`.

    :ivar hold: why a person has to release it first, for its :class:`~.envelope.Origin`; empty
        where nobody has to.
    """

    hold: str

    def settle(self) -> None:
        """The message was accepted."""

    def release(self) -> None:
        """It was not."""


class Sending(Protocol):
    """What callers may send."""

    def judge(
        self,
        caller: Caller,
        envelope: Envelope,
        fields: bytes,
        *,
        from_member: str = "/from",
        members: Sequence[str] = (),
    ) -> Permit | Flaw:
        """Whether a message may be sent as it is; what is under way holds its place meanwhile.

        :param fields: the header section, with or without the blank line behind it.
        :param from_member: where in the request its author is, as a JSON pointer.
        :param members: likewise for each recipient of the envelope, in order; empty for unknown.
        """


@attrs.frozen
class Suppressed:
    """Why nothing is sent to an address.

    :ivar reason: ``hard_bounce``, ``complaint``, ``unsubscribe``, ``manual`` or ``policy``.
    :ivar address: as :func:`~.suppression.normalised` has it.
    :ivar tenant: empty for everybody's mail.
    :ivar until: POSIX seconds; None for ever.
    :ivar message_id: what was sent when it came to this; empty where nothing was.
    """

    address: str
    reason: str
    tenant: str = ""
    since: float = 0.0
    until: float | None = None
    detail: str = ""
    message_id: str = ""


class Suppressions(Protocol):
    """Who is not to be written to.  Answers come from memory or a page cache."""

    def find(self, address: str, tenant: str, *, but_of: str = "") -> Suppressed | None:
        """What holds for mail of this tenant now.

        :param but_of: the id of a message; what it brought about itself does not count.
        :raise StateFailed:
        """

    def add(self, entry: Suppressed) -> Deferred[None]:
        """Durable once it resolves; takes the place of an entry of the same address, tenant and
        reason."""


class Withholding(Protocol):
    """Decides whom mail on its way out does not go to."""

    def stopped(
        self, message: Message, recipients: Sequence[int], kind: HopKind
    ) -> Mapping[int, Reply]:
        """Which of a message's recipients are not to be written to, and what is said of each.

        :raise StateFailed: nobody knows now.
        """

    def learned(
        self, message: Message, failures: Sequence[tuple[int, PermanentFailure]], site: Site | None
    ) -> Deferred[None] | None:
        """Recipients have bounced; called before that is made durable.

        :return: what to wait for, which never fails; None to go on at once.
        """


class SignsReturnPath(Protocol):
    def __call__(self, message: Message, recipients: Sequence[int], kind: HopKind) -> Address:
        """The reverse-path under which a message goes to some of its recipients."""


class CursorGone(LookupError):
    """What lies behind a cursor is no longer kept, or it was never one of ours.

    :ivar oldest: the cursor before all that is kept.
    """

    def __init__(self, cursor: str, oldest: str) -> None:
        super().__init__(f"the events behind {cursor!r} are no longer kept")
        self.oldest = oldest


@attrs.frozen
class Page:
    """Some of the journal's events.

    :ivar lines: each without its LF.
    :ivar ends: the cursor behind each of them.
    :ivar cursor: where to go on, which may be behind the last of them.
    :ivar is_end: whether there was no more.
    """

    lines: Sequence[bytes]
    ends: Sequence[str]
    cursor: str
    is_end: bool


class JournalReader(Protocol):
    """The events, in order, from any place on.

    A cursor is text that sorts as the events do, and stays good over restarts for as long as the
    events behind it are kept.
    """

    def after(self, cursor: str, most: int) -> Deferred[Page]:
        """Events behind a cursor; not always all that there are.

        :param cursor: empty for the oldest that is kept.
        :raise CursorGone:
        """

    def end(self) -> str:
        """The cursor behind what there is now."""


# --- accounts ------------------------------------------------------------------------------------


class StateFailed(OSError):
    """The database of accounts and settings cannot be read or written: no start, 4yz later."""


class Accounts(Protocol):
    """The submission accounts, as they are now: a change by another process shows within a second.

    Answers come from memory.
    """

    def get(self, name: str) -> Account | None:
        """:raise StateFailed: nobody knows what they are now."""


# --- requests ------------------------------------------------------------------------------------


@value
class Known:
    """Handed in before, under this very name, and ours since then.

    :ivar id: the message's, which may have met all its fates.
    :ivar answer: what its origin's ``answer`` was.
    """

    id: QueueId
    answer: str


class Request(Protocol):
    """The name of a message that is being handed in; ends by :meth:`remember` or :meth:`release`.

    :ivar superseded: called when the same is handed in anew: forget what has come so far.  This
        one is over then.
    """

    superseded: Callable[[], None]

    def settle(self) -> None:
        """All of it is there, and about to be stored: nobody supersedes it from now on."""

    def remember(self, message: Message, then: Callable[[], None]) -> Deferred[None]:
        """The message is in the spool: keep its name, durably.

        :param then: called once that is so, whenever that is, unless we go down first; then it is
            made good at the next start.
        :return: resolves behind ``then``; fails with :class:`StateFailed` where it is not so yet.
        """

    def release(self) -> None:
        """There is no message under this name; whoever brings it next is the first."""


class Requests(Protocol):
    """Remembers by which names messages were handed in, so that each is taken once.

    A name is an origin's ``request_id``, within its source and identity.
    """

    def begin(self, origin: Origin) -> Known | Request | None:
        """Someone hands in what has a name; what the same one has begun, and is not all there yet,
        is superseded.

        Blocks for a page-cache read at most.

        :return: None while the same is being stored.
        :raise StateFailed: nobody knows now whether it is known, or can be remembered.
        """


# --- names ---------------------------------------------------------------------------------------


@attrs.frozen
class Found:
    """An answer.

    :ivar records: for MX ``(preference, host)`` pairs, for A and AAAA addresses in text, for TXT
        joined strings.
    :ivar is_authentic: the AD bit, from a server whose AD bit we trust.
    """

    records: tuple[tuple[int, str], ...] | tuple[str, ...]
    is_authentic: bool = False


@attrs.frozen
class NoSuchName:
    """NXDOMAIN."""


@attrs.frozen
class NoSuchRecord:
    """The name exists, and has none of the type asked for."""


@attrs.frozen
class TryAgain:
    """SERVFAIL, no answer, or nonsense.  :ivar cause: for the log and the queue."""

    cause: str


Answer = Found | NoSuchName | NoSuchRecord | TryAgain


RecordKind = Literal["MX", "A", "AAAA", "TXT", "PTR", "TLSA"]


class Resolver(Protocol):
    """DNS as routing sees it.  CNAMEs are followed.  Never fails."""

    def lookup(self, name: str, kind: RecordKind) -> Deferred[Answer]: ...


# --- events --------------------------------------------------------------------------------------


class Events(Protocol):
    """Makes the journal's line for each transition, and counts it; one method an event.

    A line is JSON and ends in LF.  Its ``id`` is ``message.recipient.transition``: the same
    transition told again after a crash has the same id.
    """

    def received(self, message: Message, recipient: int) -> bytes:
        """We took responsibility; transition 0."""

    def scheduled(
        self, message: Message, recipient: int, transition: int, next_attempt_at: float
    ) -> bytes:
        """The first attempt waits for a time that the sender chose (RFC 4865)."""

    def deferred(
        self,
        message: Message,
        recipient: int,
        transition: int,
        attempt: int,
        site: Site | None,
        failure: TransientFailure,
        next_attempt_at: float,
    ) -> bytes: ...

    def delayed(self, message: Message, recipient: int, transition: int, dsn: str) -> bytes:
        """The sender is told of the delay.  :param dsn: the DSN's id, or ``none``."""

    def ended(
        self,
        message: Message,
        recipient: int,
        transition: int,
        fate: Fate,
        attempt: int,
        site: Site | None,
        outcome: Outcome | None,
        dsn: str,
    ) -> bytes:
        """The recipient's one fate.

        :param outcome: the last attempt's; None where a person or the clock ended it.
        :param dsn: the id of the DSN that tells of it; ``none`` where one was due by rights and may
            not be sent; empty where none was due.
        """

    def moved(
        self,
        message: Message,
        recipient: int,
        transition: int,
        event: Literal["held", "released"],
        reason: str = "",
    ) -> bytes:
        """:param reason: why, where a rule and not a person did it."""

    def returned(
        self,
        sent: Sent,
        recipient: int,
        address: str,
        action: str,
        reply: Reply,
        *,
        report: QueueId,
        reporting_mta: str,
    ) -> bytes:
        """Another server reports what became of a message that left, long after its fate here.

        :param address: whom it is about, as far as it is known.
        :param action: of RFC 3464, 2.3.3.
        :param report: our own name of the report, which makes the event's id.
        """

    def feedback(
        self,
        sent: Sent,
        recipient: int,
        address: str,
        kind: str,
        *,
        report: QueueId,
        user_agent: str,
    ) -> bytes:
        """A recipient's provider says what the recipient thinks of a message (RFC 5965).

        :param kind: the feedback type.
        """

    def rejected(self, peer: Peer, sender: str | None, recipient: str, reply: Reply) -> None:
        """Refused at the door: told at once, since there is no message to wait for.

        :param sender: None where the connection was, and nobody was named.
        """


# --- delivery ------------------------------------------------------------------------------------


@value
class Attempt:
    """One message for one site.

    :ivar content: the octets to send, signed and downgraded as need be *by the transport's hook*
        :attr:`prepare`, since only the hop's own EHLO says what it can take.
    :ivar recipients: indexes into ``content.message.envelope.recipients``.
    :ivar domain: the recipient domain whose TLS policy holds; recipients of other domains are in
        other attempts.
    :ivar failures: attempts before this one, as far as the transport has a use for it.
    """

    site: Site
    domain: str
    content: Content
    recipients: tuple[int, ...]
    prepare: Prepare
    failures: int = 0


@attrs.frozen
class HopAbilities:
    """What a hop said it can do, as far as it changes what is sent."""

    has_8bitmime: bool = True
    has_smtputf8: bool = True


@value
class Prepared:
    """A message in the form for one hop.

    :ivar head: octets that come first (signatures, and the header fields where they changed).
    :ivar skip_octets: how many octets of the content ``head`` stands in for.
    :ivar body: the whole rest where it was recoded; None to go on with the content itself.
    :ivar is_eight_bit: whether BODY=8BITMIME has to be said.
    """

    head: bytes = b""
    skip_octets: int = 0
    body: bytes | None = None
    is_eight_bit: bool = False


class Prepare(Protocol):
    def __call__(self, abilities: HopAbilities) -> Prepared | Deferred[Prepared | Reply] | Reply:
        """The octets for such a hop, or a 5yz reply where no form of them would do (5.6.3, 5.6.7)."""


class Transport(Protocol):
    """Takes an attempt and gives back an outcome for each of its recipients."""

    def deliver(self, attempt: Attempt) -> Deferred[Sequence[tuple[int, Outcome]]]:
        """Never fails: what goes wrong here is a :class:`~.outcome.TransientFailure`."""

    def close(self) -> Deferred[None]:
        """Say QUIT to idle connections; those at work end their message first."""
