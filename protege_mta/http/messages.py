"""``POST /v1/message``: one message, or up to 1,000 in one request."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

import attrs
import msgspec
from klein import Klein
from msgspec import UNSET, UnsetType
from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest

from ..model.caller import Caller, Flaw
from ..model.ports import Peer
from . import answer
from .credentials import Client, peer_of
from .endpoint import Answer, AnyOf, Authenticate, Endpoint, Parameter
from .mailroom import Accepted, Mailroom, Outgoing, Posting, RecipientResult, RecipientState, Replay
from .new_message import NewMessage
from .reading import ReadLimits, Refused, body_of, pointer, typed, value_of
from .wanted import Writer

BATCH: Final = 1000
KEY_CHARACTERS: Final = 255
SLICE: Final = 25
"""So many messages are made before others have their turn."""


class RecipientAnswer(msgspec.Struct, omit_defaults=True, gc=False):
    """What becomes of a recipient.

    :ivar id: of its own message, where a template made one for each.
    :ivar detail: why it is rejected or suppressed.
    """

    address: str
    status: RecipientState
    id: str = ""
    detail: str = ""


class MessageAnswer(msgspec.Struct):
    """The message is durable, and will be tried until every recipient has met its fate."""

    id: str
    recipients: list[RecipientAnswer]


class BatchItem(msgspec.Struct, omit_defaults=True):
    """What became of one message of a batch: an id, or a problem."""

    id: str | UnsetType = UNSET
    recipients: list[RecipientAnswer] | UnsetType = UNSET
    error: answer.Problem | UnsetType = UNSET


class BatchAnswer(msgspec.Struct):
    """In the order of the request."""

    results: list[BatchItem]


class NewBatch(msgspec.Struct, forbid_unknown_fields=True):
    """Messages that are judged one by one and made durable together."""

    messages: list[NewMessage]


IDEMPOTENCY: Final = Parameter(
    name="Idempotency-Key",
    summary="The same key and body again are answered as at first, and sent once",
    place="header",
)

ENDPOINTS: Final = (
    Endpoint(
        method="POST",
        path="/v1/message",
        summary="Send a message, or a batch of up to 1,000",
        description="The body is a message, an array of messages, or an object with `messages`. "
        "The answer comes once all is on stable storage.",
        request=AnyOf((NewMessage, NewBatch, list[NewMessage])),
        parameters=(IDEMPOTENCY,),
        answers={
            202: Answer(summary="Taken over", type=AnyOf((MessageAnswer, BatchAnswer))),
        },
        problems=(400, 409, 413, 415, 422),
        scope="send",
        tag="Messages",
    ),
)


@attrs.frozen(kw_only=True)
class Desk:
    """What the endpoints that take messages share.

    :ivar read_limits: asked each time, since a reload may change them.
    :ivar pause: resolves when others have had their turn.
    :ivar new_session_id: names a request in events.
    """

    mailroom: Mailroom
    authenticate: Authenticate
    writer: Writer
    read_limits: Callable[[], ReadLimits]
    pause: Callable[[], Deferred[None]]
    new_session_id: Callable[[], str]

    def peer(self, request: IRequest, caller: Caller) -> Peer:
        """Who asks, as the house knows peers."""
        client = cast(Client, request)
        return peer_of(client, self.new_session_id(), caller.identity)

    def begin(self, request: IRequest, caller: Caller, octets: bytes) -> Posting | Replay:
        """Open the way for what a request brings.  :raise Refused:"""
        name = key_of(request)
        digest = ""
        if name:
            about = cast(bytes, request.path) + b"\n" + octets
            digest = hashlib.blake2b(about, digest_size=20).hexdigest()
        begun = self.mailroom.begin(caller, self.peer(request, caller), name=name, digest=digest)
        if isinstance(begun, Flaw):
            raise Refused(begun)
        return begun


def key_of(request: IRequest) -> str:
    """The Idempotency-Key; empty if none.  :raise Refused:"""
    values = cast(Any, request).requestHeaders.getRawHeaders(b"idempotency-key") or []
    if not values:
        return ""
    text: str = values[0].decode("latin-1").strip()
    if len(values) > 1 or not 0 < len(text) <= KEY_CHARACTERS or not text.isascii():
        raise Refused(
            Flaw(
                400,
                "bad-idempotency-key",
                "the Idempotency-Key is not one of 1 to 255 characters",
                hint="a UUID is a good key",
            )
        )
    return text


def replayed(request: IRequest, replay: Replay, status: int) -> bytes:
    """The first answer again."""
    request.setHeader(b"Idempotent-Replayed", b"true")
    request.setHeader(b"Content-Type", b"application/json")
    request.setResponseCode(status)
    return replay.answer.encode("utf-8")


def add(app: Klein, desk: Desk) -> None:
    """Serve it."""

    @app.route("/v1/message", methods=["POST"])
    async def send(request: IRequest) -> bytes:
        caller = await desk.authenticate(request, "send")
        if isinstance(caller, Flaw):
            return answer.flaw(request, caller)
        return await _taken(desk, request, caller)


_encode: Final = msgspec.json.Encoder().encode


async def _taken(desk: Desk, request: IRequest, caller: Caller) -> bytes:
    limits = desk.read_limits()
    octets = body_of(request, limits)
    posting = desk.begin(request, caller, octets)
    if isinstance(posting, Replay):
        return replayed(request, posting, 202)
    try:
        value = value_of(octets, limits)
        if isinstance(value, list):
            told: Any = await _batch(desk, posting, caller, value, "")
        elif isinstance(value, dict) and "messages" in value:
            if len(value) > 1 or not isinstance(value["messages"], list):
                typed(value, NewBatch)
                raise Refused(Flaw(422, "bad-member", "a batch has messages, and nothing else"))
            told = await _batch(desk, posting, caller, value["messages"], "/messages")
        else:
            told = await _message(desk, posting, caller, typed(value, NewMessage))
        body = _encode(told)
        if isinstance(told, MessageAnswer) or any(one.id is not UNSET for one in told.results):
            flaw = await posting.store(body.decode("utf-8"))
            if flaw is not None:
                raise Refused(flaw)
    finally:
        posting.abandon()
    request.setResponseCode(202)
    request.setHeader(b"Content-Type", b"application/json")
    return body


async def _message(
    desk: Desk, posting: Posting, caller: Caller, wanted: NewMessage, at: str = ""
) -> MessageAnswer:
    """The messages of one request, added; none of them where one is refused.

    Of a template's, those whose recipient alone is refused are told of and left out.
    """
    id, recipients = "", []
    first: Flaw | None = None
    is_template = wanted.template == "jinja"
    written = desk.writer.written(wanted, caller, posting.new_id, at)
    for number, (address, outgoing) in enumerate(written):
        if number % SLICE == SLICE - 1:
            await desk.pause()
        found = posting.add(outgoing) if isinstance(outgoing, Outgoing) else outgoing
        if isinstance(found, Flaw):
            if not is_template:
                raise Refused(found)
            first = first or found
            recipients.append(RecipientAnswer(address, "rejected", "", reason(found)))
            continue
        id = id or found.id
        recipients += _told(found, is_template)
    if not id and first is not None:
        raise Refused(first)
    return MessageAnswer(id, recipients)


def reason(flaw: Flaw) -> str:
    """A flaw in one line."""
    return f"{flaw.detail}: {flaw.hint}" if flaw.hint else flaw.detail


def _told(found: Accepted, has_id: bool) -> Iterable[RecipientAnswer]:
    def one(result: RecipientResult) -> RecipientAnswer:
        return RecipientAnswer(
            result.address, result.state, found.id if has_id else "", result.detail
        )

    return map(one, found.recipients)


async def _batch(
    desk: Desk, posting: Posting, caller: Caller, values: list[Any], at: str
) -> BatchAnswer:
    if len(values) > BATCH:
        raise Refused(Flaw(422, "too-many-messages", f"a batch has {BATCH} messages at most", at))
    results = []
    for number, value in enumerate(values):
        if number % SLICE == SLICE - 1:
            await desk.pause()
        where = at + pointer(number)
        try:
            wanted: NewMessage = typed(value, NewMessage, where)
            one = await _message(desk, posting, caller, wanted, where)
            results.append(BatchItem(id=one.id, recipients=one.recipients))
        except Refused as refused:
            results.append(BatchItem(error=answer.problem_of(refused.flaw)))
    return BatchAnswer(results)
