"""How messages that come by HTTP get into the house: judged, named, stored together.

:class:`MailroomDesk` is what the endpoints in ``http`` ask; :class:`Injection` puts both together,
once, for the house.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import attrs
import msgspec
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from . import __version__
from .config.model import Settings
from .http import catalogue, kumo, messages, openapi, portal
from .http.endpoint import Authenticate
from .http.mailroom import FAILED, Accepted, Outgoing, RecipientResult, RecipientState, Replay
from .http.outgoing import MessageLimits
from .http.reading import ReadLimits
from .http.wanted import UnsubscribeUrl, Writer
from .message import headers, trace
from .message.loop import HOPS
from .model.address import Address
from .model.caller import Caller, Flaw
from .model.envelope import Message, Origin
from .model.ids import QueueId
from .model.outcome import Fate
from .model.ports import About, Events, Known, Peer, Permit, Request, Requests, Sending, StateFailed
from .model.reply import TABLE, Reply, name_of
from .policy.relaying import Relaying
from .policy.sending import refusal
from .schedule.intake import HEADER_OCTETS, Acceptance, distinct

PROTOCOL: Final = "HTTP"
"""The WITH keyword of Received; IANA has none."""

POSTING_OCTETS: Final = 134_217_728
"""What the messages of one request may have together: they are in memory until they are stored."""


NOT_KEPT: Final = TABLE["not-kept"]


class _Answer(msgspec.Struct, array_like=True, gc=False):
    """What is kept with the name of a request."""

    digest: str
    body: str


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Answer).decode


class Injection:
    """The endpoints that take messages, and what is behind them.

    :param now: POSIX seconds.
    :param settings: those in force, asked each time.
    :param unsubscribe_url: the link in a message for its recipient.
    :param is_configured: whether mail can leave.
    :param look: where a message stands; see :meth:`.message_log.MessageLog.look`.
    :param place_s: takes one of so many places an hour that an address has, for an identity; the
        return is how long there is none, in seconds.
    :ivar mailroom: the way into the queue.
    """

    def __init__(
        self,
        mailroom: MailroomDesk,
        authenticate: Authenticate,
        *,
        settings: Callable[[], Settings],
        unsubscribe_url: UnsubscribeUrl,
        now: Callable[[], float],
        pause: Callable[[], Deferred[None]],
        new_session_id: Callable[[], str],
        is_configured: Callable[[], bool],
        look: portal.Look,
        place_s: Callable[[str, str, int], float],
        clock: IReactorTime,
    ) -> None:
        self.mailroom = mailroom
        self._settings = settings
        self.desk = messages.Desk(
            mailroom=mailroom,
            authenticate=authenticate,
            writer=Writer(
                limits=self._limits,
                now=now,
                hostname=lambda: settings().hostname,
                unsubscribe_url=unsubscribe_url,
            ),
            read_limits=self._read_limits,
            pause=pause,
            new_session_id=new_session_id,
        )
        self._portal = portal.Portal(
            default_from=lambda: settings().api.default_from,
            is_configured=is_configured,
            look=look,
            place_s=lambda address, who: place_s(address, who, settings().api.send_per_hour),
            clock=clock,
        )

    def add(self, app: Klein) -> None:
        """Serve them."""
        messages.add(app, self.desk)
        kumo.add(app, self.desk)
        portal.add(app, self.desk, self._portal)
        server = self._settings().api.public_url
        openapi.add(app, catalogue.ENDPOINTS, version=__version__, server=server)

    def _limits(self) -> MessageLimits:
        settings = self._settings()
        return MessageLimits(
            recipients=settings.limits.recipients,
            message_octets=settings.limits.message_octets,
            attachment_octets=settings.api.attachment_octets,
            future_release_s=settings.limits.future_release_s,
        )

    def _read_limits(self) -> ReadLimits:
        api = self._settings().api
        return ReadLimits(body_octets=api.body_octets, depth=api.depth)


class MailroomDesk:
    """:class:`~.http.mailroom.Mailroom` over the one queue.

    :param is_suppressed: what is said of an address that a tenant's mail does not go to; None for
        any other.
    :param hostname: ours, asked each time.
    :ivar relaying: replaced when the configuration is read again.
    """

    log = Logger()

    def __init__(
        self,
        relaying: Relaying,
        sending: Sending,
        acceptance: Acceptance,
        requests: Requests,
        events: Events,
        *,
        is_suppressed: Callable[[Address, str], Reply | None],
        now: Callable[[], float],
        new_id: Callable[[], QueueId],
        hostname: Callable[[], str],
    ) -> None:
        self.relaying = relaying
        self.sending = sending
        self.acceptance = acceptance
        self.events = events
        self.is_suppressed = is_suppressed
        self.now = now
        self.new_id = new_id
        self.hostname = hostname
        self._requests = requests
        self._waiting: dict[QueueId, _Waiting] = {}

    def begin(
        self, caller: Caller, peer: Peer, *, name: str = "", digest: str = ""
    ) -> DeskPosting | Replay | Flaw:
        """As :meth:`.http.mailroom.Mailroom.begin`."""
        if not name:
            return DeskPosting(self, caller, peer, "", digest, None)
        origin = Origin("http", caller.identity, request_id=name)
        try:
            begun = self._requests.begin(origin)
        except StateFailed:
            return UNAVAILABLE
        if begun is None:
            return Flaw(
                409,
                "request-in-progress",
                "a request with this Idempotency-Key is being worked on",
                hint="ask again in a moment",
                retry_after_s=1,
            )
        if isinstance(begun, Known):
            answer = _decode(begun.answer)
            if answer.digest != digest:
                return Flaw(
                    409,
                    "idempotency-key-reused",
                    "another request came with this Idempotency-Key",
                    hint="a new request needs a key of its own",
                )
            return Replay(answer.body, begun.id)
        begun.settle()  # all of it is here: nobody takes it over
        return DeskPosting(self, caller, peer, name, digest, begun)

    def outcome(self, id: QueueId) -> Deferred[bool]:
        """As :meth:`.http.mailroom.Mailroom.outcome`."""

        def forget(_: Deferred[bool]) -> None:
            self._waiting.pop(id, None)

        waiting = self._waiting[id] = _Waiting(Deferred(forget))
        return waiting.told

    def settled(self, message: Message, fate: Fate | Literal["deferred"]) -> None:
        """What became of a recipient's attempt is about to be written down."""
        if not self._waiting:
            return
        waiting = self._waiting.get(message.id)
        if waiting is None:
            return
        waiting.recipients += 1
        waiting.has_failed = waiting.has_failed or fate in FAILED
        if waiting.recipients >= len(message.envelope.recipients):
            del self._waiting[message.id]
            waiting.told.callback(waiting.has_failed)


@attrs.define(eq=False)
class _Waiting:
    """Who waits for the first attempt of a message."""

    told: Deferred[bool]
    recipients: int = 0
    has_failed: bool = False


class DeskPosting:
    """:class:`~.http.mailroom.Posting`."""

    def __init__(
        self,
        desk: MailroomDesk,
        caller: Caller,
        peer: Peer,
        name: str,
        digest: str,
        request: Request | None,
    ) -> None:
        self._desk = desk
        self._caller = caller
        self._peer = peer
        self._name = name
        self._digest = digest
        self._request = request
        self._began_at = desk.now()
        self._messages: list[tuple[Message, tuple[bytes, ...]]] = []
        self._permits: list[Permit] = []
        self._octets = 0

    def new_id(self) -> QueueId:
        return self._desk.new_id()

    def add(self, outgoing: Outgoing) -> Accepted | Flaw:
        """As :meth:`.http.mailroom.Posting.add`."""
        desk, envelope, content = self._desk, outgoing.envelope, outgoing.content
        head = content[: min(headers.header_end(content[:HEADER_OCTETS]), HEADER_OCTETS)]
        glance = headers.glance(head)
        results, kept = self._judged(outgoing, glance)
        if not any(kept):
            first = results[0]
            member = outgoing.members[0] if outgoing.members else ""
            if first.detail == NOT_KEPT.text:
                hint = "send it by SMTP, which answers when the agent has it"
                return Flaw(422, "not-kept", NOT_KEPT.text, member, hint)
            return Flaw(422, "no-recipient", first.detail, member)
        if not all(kept):
            recipients = tuple(
                one for one, is_kept in zip(envelope.recipients, kept, strict=True) if is_kept
            )
            envelope = attrs.evolve(envelope, recipients=recipients)
        members = tuple(
            member for member, is_kept in zip(outgoing.members, kept, strict=False) if is_kept
        )
        envelope = distinct(desk.relaying.readdressed(envelope))
        self._octets += len(content)
        if self._octets > POSTING_OCTETS:
            return Flaw(413, "too-large", "the messages of one request are too large together")
        permit = desk.sending.judge(
            self._caller,
            envelope,
            head,
            from_member=outgoing.from_member,
            sender_member=outgoing.sender_member,
            members=members,
        )
        if isinstance(permit, Flaw):
            told = refusal(permit)
            desk.events.rejected(
                self._peer, envelope.sender, permit.recipient, told, _about(outgoing, glance)
            )
            return permit
        if glance.received_count >= HOPS:
            permit.release()
            return Flaw(422, "routing-loop", "the message has too many Received fields")
        self._permits.append(permit)
        arrived_at = self._began_at
        recipients = envelope.recipients
        received = trace.received(
            hostname=desk.hostname(),
            id=outgoing.id,
            at=arrived_at,
            protocol=PROTOCOL,
            recipient=recipients[0].address if len(recipients) == 1 else None,
        )
        origin = Origin(
            "http",
            self._caller.identity,
            self._peer.address,
            may_sign=True,
            tenant=outgoing.tenant,
            campaign=outgoing.campaign,
            tags=outgoing.tags,
            hold=permit.hold,
            is_sandbox=self._caller.is_sandbox,
            tls=self._peer.tls,
        )
        message = Message(
            outgoing.id,
            envelope,
            origin,
            arrived_at,
            len(received) + len(content),
            glance.message_id,
            glance.subject,
            not content.isascii(),
            outgoing.is_urgent,
        )
        self._messages.append((message, (received, content)))
        if permit.hold:
            results = [
                attrs.evolve(one, state="held") if one.state in ("queued", "scheduled") else one
                for one in results
            ]
        return Accepted(outgoing.id, tuple(results))

    def _judged(
        self, outgoing: Outgoing, glance: headers.Glance
    ) -> tuple[list[RecipientResult], list[bool]]:
        """What becomes of each recipient, and whether it is one of the message's."""
        envelope, tenant = outgoing.envelope, outgoing.tenant
        results, kept = [], []
        state: RecipientState = "scheduled" if envelope.hold_until else "queued"
        peer = self._peer
        # Whoever may ask may write to anybody: by a key, an account, or where it comes from.
        asks = peer if peer.identity else attrs.evolve(peer, identity="network")
        for recipient in envelope.recipients:
            reply = self._desk.relaying.judge(asks, recipient.address)
            # A 202 says that it is kept, and their mail never is, be they here or away; but for the
            # sandbox's, which does not come to them.
            if (
                reply.code < 500
                and not self._caller.is_sandbox
                and self._desk.relaying.is_passed_through(recipient)
            ):
                reply = NOT_KEPT
            is_kept = reply.code < 400
            kept.append(is_kept)
            if is_kept:
                results.append(self._kept(recipient.address, tenant, state))
            else:
                known = _about(outgoing, glance)
                self._desk.events.rejected(peer, envelope.sender, recipient.address, reply, known)
                results.append(RecipientResult(recipient.address, "rejected", reply.text))
        return results, kept

    def _kept(self, address: Address, tenant: str, state: RecipientState) -> RecipientResult:
        """One of the message's recipients; who is suppressed is one too, and meets that fate."""
        if self._caller.is_sandbox:  # nothing of it leaves
            return RecipientResult(address, state)
        reply = self._desk.is_suppressed(address, tenant)
        if reply is None or reply.code < 500:  # where nobody knows now, its attempt will
            return RecipientResult(address, state)
        return RecipientResult(address, "suppressed", reply.text)

    def store(self, answer: str) -> Deferred[Flaw | None]:
        """As :meth:`.http.mailroom.Posting.store`."""
        if not self._messages:
            raise RuntimeError("a posting without a message is abandoned, not stored")
        desk, messages, request = self._desk, self._messages, self._request
        permits, self._permits = self._permits, []
        self._request = None
        if request is not None:
            first, content = messages[0]
            kept = _encode(_Answer(self._digest, answer)).decode("utf-8")
            origin = attrs.evolve(first.origin, request_id=self._name, answer=kept)
            messages[0] = (attrs.evolve(first, origin=origin), content)
        told: Deferred[Flaw | None] = Deferred()  # a client that hangs up cancels it, and no more

        def stored(reply: Reply) -> None:
            is_ours = reply.code < 300
            for permit in permits:
                if is_ours:
                    permit.settle()
                else:
                    permit.release()
            if request is not None:
                request.release()
            told.callback(None if is_ours else flaw_of(reply))

        storing = desk.acceptance.store_all(messages, desk.now(), request)
        storing.addCallback(stored).addErrback(self._broken, told)
        return told

    def _broken(self, failure: Failure, told: Deferred[Flaw | None]) -> None:
        self._desk.log.failure("cannot end a request", failure=failure)
        if not told.called:
            told.callback(flaw_of(TABLE["local-error"]))

    def abandon(self) -> None:
        """As :meth:`.http.mailroom.Posting.abandon`."""
        permits, self._permits = self._permits, []
        for permit in permits:
            permit.release()
        request, self._request = self._request, None
        if request is not None:
            request.release()


def _about(outgoing: Outgoing, glance: headers.Glance) -> About:
    """What is told of a message that is refused."""
    return About(
        tenant=outgoing.tenant,
        campaign=outgoing.campaign,
        size_octets=len(outgoing.content),
        header_message_id=glance.message_id,
        subject=glance.subject,
    )


UNAVAILABLE: Final = Flaw(
    503, "unavailable", "the state of the service cannot be read just now", retry_after_s=10
)


def flaw_of(reply: Reply) -> Flaw:
    """A refusal of SMTP's as one of HTTP's: 4yz comes back later."""
    if reply is TABLE["spool-full"]:
        return Flaw(503, "no-room", reply.text, retry_after_s=60)
    status = 503 if reply.code < 500 else 422
    return Flaw(status, name_of(reply), reply.text, retry_after_s=10 if status == 503 else 0)
