"""Final delivery to HTTP endpoints: a POST for each recipient, signed as Standard Webhooks 1.0 has it.

A message is posted once for each recipient, so that each has an outcome, and a name that stays the
same however often it comes: at least once, and told apart by ``webhook-id``.  2xx is delivered.  All
else is tried again, but for 410 and an answer that says ``{"reject": "why"}``: those are for good.
Redirects are answers like any other: where mail goes, the configuration says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote, urlsplit

import attrs
import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..message.inbound_json import compose
from ..model.envelope import Message
from ..model.outcome import Contact, Delivered, Outcome, PermanentFailure, Scope, TransientFailure
from ..model.ports import Attempt, Octets
from ..model.reply import TABLE, Reply
from ..wire.webhook import signed
from .poster import PIECE_OCTETS, Answered, Poster, printable

CONNECTIONS: Final = 20
"""As many are kept open for an endpoint as its window may have at work."""

MOST_RETRY_AFTER_S: Final = 3600
"""An endpoint that asks for more patience is tried after this nevertheless."""

_TROUBLE: Final = frozenset({429, 502, 503, 504})
"""Answers about the endpoint as a whole rather than the message (RFC 9110, 15.6; RFC 6585, 4)."""

_MISPLACED: Final = frozenset({401, 403, 404, 405, 407})
"""Answers that every message would get until a person mends the endpoint, or our configuration."""

Outcomes = Sequence[tuple[int, Outcome]]
InThread = Callable[[Callable[[], Any]], "Deferred[Any]"]


@attrs.frozen(kw_only=True)
class Endpoint:
    """Where the mail of a domain goes.

    :ivar secrets: what requests are signed with, each by itself; empty for requests without.
    :ivar timeout_s: how long nothing may move.
    :ivar ca_file: certificates that may sign the endpoint's; None for the system's.
    :ivar public_url: what the paths in the JSON form begin with; empty to leave them as paths.
    """

    url: str
    form: Literal["json", "raw"] = "json"
    secrets: tuple[bytes, ...] = attrs.field(default=(), repr=False)
    timeout_s: float = 30.0
    ca_file: Path | None = None
    public_url: str = ""

    @property
    def host(self) -> str:
        """As events name it: neither path nor query, which may hold what is secret."""
        return urlsplit(self.url).netloc

    @property
    def is_secure(self) -> bool:
        return self.url.startswith("https:")


def webhook_id(message: Message, recipient: int) -> str:
    """The one name of a message to a recipient, in every attempt and after every crash."""
    return f"{message.id}.{recipient}"


class WebhookTransport:
    """:class:`~..model.ports.Transport` for sites of the kind ``webhook``.

    :param endpoints: by domain, as A-labels in lower case.
    :param in_thread: runs what takes the processor or the disk for long.
    :param agent: what requests say they come from.
    :raise ValueError, OSError: a file of certificates cannot be used.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        endpoints: Mapping[str, Endpoint],
        *,
        now: Callable[[], float],
        in_thread: InThread,
        agent: str,
    ) -> None:
        self._clients = {
            domain: _Client(reactor, endpoint, now=now, in_thread=in_thread, agent=agent)
            for domain, endpoint in endpoints.items()
        }
        self._at_work = 0
        self._closing: Deferred[None] | None = None

    def deliver(self, attempt: Attempt) -> Deferred[Outcomes]:
        """Post to the domain's endpoint, one recipient after the other."""
        client = self._clients.get(attempt.domain)
        if client is None:
            gone = TransientFailure(Scope.SITE, TABLE["no-local-delivery"])
            return succeed([(index, gone) for index in attempt.recipients])
        self._at_work += 1

        def broke(failure: Failure) -> Outcomes:
            id = attempt.content.message.id
            self.log.failure("posting {id} failed", failure=failure, id=id)
            outcome = TransientFailure(Scope.MESSAGE, TABLE["local-error"])
            return [(index, outcome) for index in attempt.recipients]

        return (
            Deferred.fromCoroutine(client.deliver(attempt))
            .addErrback(broke)
            .addCallback(self._ended)
        )

    def close(self) -> Deferred[None]:
        """Resolves once what is at work has ended and idle connections are closed."""
        if self._at_work:
            self._closing = Deferred()
            return self._closing.addCallback(lambda _: self._hang_up())
        return self._hang_up()

    def _hang_up(self) -> Deferred[None]:
        closing = [client.close() for client in self._clients.values()]

        async def all_closed() -> None:
            for one in closing:
                await one

        return Deferred.fromCoroutine(all_closed())

    def _ended(self, outcomes: Outcomes) -> Outcomes:
        self._at_work -= 1
        if self._closing is not None and not self._at_work:
            self._closing.callback(None)
        return outcomes


class _Client:
    """Mail for one endpoint."""

    def __init__(
        self,
        reactor: Any,
        endpoint: Endpoint,
        *,
        now: Callable[[], float],
        in_thread: InThread,
        agent: str,
    ) -> None:
        self._endpoint = endpoint
        self._now = now
        self._in_thread = in_thread
        self._contact = Contact(endpoint.host)
        self._poster = Poster(
            reactor,
            endpoint.url,
            timeout_s=endpoint.timeout_s,
            ca_file=endpoint.ca_file,
            agent=agent,
            kept=CONNECTIONS,
        )
        self._closed_until = 0.0  # as its Retry-After said
        self._closed_by = TABLE["no-answer"]

    def close(self) -> Deferred[None]:
        return self._poster.close()

    async def deliver(self, attempt: Attempt) -> Outcomes:
        content = attempt.content
        message, endpoint = content.message, self._endpoint
        if message.envelope.requires_tls and not endpoint.is_secure:
            refused = PermanentFailure(Scope.MESSAGE, TABLE["webhook-requiretls"], self._contact)
            return [(index, refused) for index in attempt.recipients]
        if self._now() < self._closed_until:
            waits = TransientFailure(Scope.SITE, self._closed_by, self._contact)
            return [(index, waits) for index in attempt.recipients]
        compose_for: Callable[[int], bytes] | None = None
        if endpoint.form == "json":
            compose_for = await self._in_thread(
                lambda: compose(content, message, public_url=endpoint.public_url)
            )
        outcomes: list[tuple[int, Outcome]] = []
        trouble: TransientFailure | None = None
        for index in attempt.recipients:
            outcome: Outcome
            if trouble is not None:  # it would be the same for all
                outcome = trouble
            else:
                body: bytes | Octets = content if compose_for is None else compose_for(index)
                outcome = await self._post(message, index, body)
                if isinstance(outcome, TransientFailure) and outcome.scope in (
                    Scope.HOST,
                    Scope.SITE,
                ):
                    trouble = outcome
            outcomes.append((index, outcome))
        return outcomes

    async def _post(self, message: Message, recipient: int, body: bytes | Octets) -> Outcome:
        id, timestamp = webhook_id(message, recipient), int(self._now())
        fields = await self._signature(id, timestamp, body)
        content_type = "application/json"
        if self._endpoint.form == "raw":
            fields |= _envelope(message, recipient)
            content_type = "message/rfc822"
        answer = await self._poster.post(body, fields, content_type)
        if not isinstance(answer, Answered) and answer.kind == "cut":
            # A connection that was kept may have been closed by the other side in this very
            # moment; whatever it was, a name that stays the same makes a second try harmless.
            answer = await self._poster.post(body, fields, content_type)
        if isinstance(answer, Answered):
            return self._judged(answer)
        match answer.kind:
            case "cut":
                return self._failed(Scope.HOST, "4.4.2", answer.cause)
            case "silent":
                return self._failed(Scope.HOST, "4.4.1", answer.cause)
            case _:
                return self._failed(Scope.SITE, "4.4.1", answer.cause)

    async def _signature(self, id: str, timestamp: int, body: bytes | Octets) -> dict[str, str]:
        def sign() -> dict[str, str]:
            pieces = (body,) if isinstance(body, bytes) else _pieces(body)
            return signed(self._endpoint.secrets, id, timestamp, pieces)

        size = len(body) if isinstance(body, bytes) else body.size_octets
        is_big = bool(self._endpoint.secrets) and size > PIECE_OCTETS
        return await self._in_thread(sign) if is_big else sign()

    # --- what an answer means --------------------------------------------------------------------

    def _judged(self, answer: Answered) -> Outcome:
        code = answer.status
        if answer.is_success:
            reply = Reply(250, "2.0.0", (f"the endpoint answered {code}",))
            return Delivered(self._contact, reply, is_final=True)
        why = _rejection(answer)
        if why is not None:
            text = f"rejected by the endpoint: {why}" if why else "rejected by the endpoint"
            return PermanentFailure(Scope.RECIPIENT, Reply(550, "5.7.1", (text,)), self._contact)
        if code == 410:
            return PermanentFailure(Scope.RECIPIENT, TABLE["webhook-gone"], self._contact)
        if code in _TROUBLE or code in _MISPLACED or code < 400:
            failure = self._failed(
                Scope.HOST if code in _TROUBLE else Scope.SITE,
                "4.3.2" if code in _TROUBLE else "4.3.5",
                f"the endpoint answered {code}",
            )
            wait_s = min(answer.retry_after_s(self._now()), MOST_RETRY_AFTER_S)
            if wait_s:
                self._closed_until = self._now() + wait_s
                self._closed_by = failure.cause
            return failure
        return self._failed(Scope.RECIPIENT, "4.3.0", f"the endpoint answered {code}")

    def _failed(self, scope: Scope, enhanced: str, cause: str) -> TransientFailure:
        return TransientFailure(scope, Reply(451, enhanced, (cause,)), self._contact)


class _Said(msgspec.Struct):
    reject: str | None = None


def _rejection(answer: Answered) -> str | None:
    """Why an endpoint will never take the message; None where it does not say so."""
    if not 400 <= answer.status < 500:
        return None
    try:
        said = msgspec.json.decode(answer.body, type=_Said).reject
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if said is None else printable(said)[:200].strip()


def _envelope(message: Message, recipient: int) -> dict[str, str]:
    """What the raw form has no place for."""
    return {
        "protege-message-id": message.id,
        "protege-mail-from": _ascii(message.envelope.sender),
        "protege-rcpt-to": _ascii(message.envelope.recipients[recipient].address),
        "protege-peer-address": message.origin.peer_address,
        "protege-spf": message.verdicts.spf,
        "protege-dkim": message.verdicts.dkim,
        "protege-dmarc": message.verdicts.dmarc,
    }


def _pieces(octets: Octets) -> Iterator[bytes]:
    for offset in range(0, octets.size_octets, PIECE_OCTETS):
        yield octets.read(offset, PIECE_OCTETS)


def _ascii(address: str) -> str:
    """An address in a header field: what is not printable US-ASCII is percent-encoded as UTF-8."""
    return quote(address, safe="!#$&'*+/=?^_`{|}~.@\"(),:;<>[]\\ -", errors="surrogatepass")
