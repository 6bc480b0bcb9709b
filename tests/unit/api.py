"""The HTTP API over the parts between door and transport, in memory and on a clock of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import attrs
import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from twisted.web.iweb import IRequest

from protege_mta.clerk import Clerk
from protege_mta.http import events as http_events
from protege_mta.http import messages
from protege_mta.http.listener import HttpLimits, new_app, site
from protege_mta.http.outgoing import MessageLimits
from protege_mta.http.reading import ReadLimits
from protege_mta.http.wanted import Writer
from protege_mta.injection import MailroomDesk
from protege_mta.message_log import MessageLog
from protege_mta.model.address import Address
from protege_mta.model.batch import Batch
from protege_mta.model.caller import Caller, Flaw, Scope
from protege_mta.model.envelope import Envelope
from protege_mta.model.ids import IdSource
from protege_mta.model.ports import CursorGone, Page
from protege_mta.observe.events import EventLines
from protege_mta.observe.metrics import Counts
from protege_mta.policy.relaying import Relaying
from protege_mta.testing.requests import MemoryRequests
from protege_mta.transport.control import ControlFault, Done

from .test_http_listener import CLOSED, Case, Wire
from .test_schedule_dispatch import FlowCase

Told = tuple[int, dict[str, Any]]


class ListJournal:
    """:class:`~protege_mta.model.ports.JournalReader` over a list, whose end is seen when flushed.

    :ivar lines: what has happened.  :ivar visible: so many of them are in the files.
    :ivar oldest: so many are no longer kept.
    :ivar refuses: whether the disk does.
    """

    def __init__(self, lines: list[bytes]) -> None:
        self.lines = lines
        self.visible = 0
        self.oldest = 0
        self.refuses = False

    def flush(self) -> bool:
        if not self.refuses:
            self.visible = len(self.lines)
        return not self.refuses

    def after(self, cursor: str, most: int) -> Deferred[Page]:
        at = int(cursor or self.oldest)
        if at < self.oldest:
            return fail(CursorGone(cursor, f"{self.oldest:06d}"))
        lines = self.lines[at : min(at + most, self.visible)]
        ends = [f"{at + n + 1:06d}" for n in range(len(lines))]
        end = at + len(lines)
        return succeed(Page(lines, ends, f"{end:06d}", not lines))

    def end(self) -> str:
        return f"{self.visible:06d}"


class Allowing:
    """A :class:`~protege_mta.model.ports.Sending`, and its permit.  :ivar hold: of each message."""

    hold = ""
    caller: Caller

    def begin(self, caller: Caller, sender: Address) -> Allowing:
        self.caller = caller
        return self

    def judge(
        self,
        caller: Caller,
        envelope: Envelope,
        fields: bytes,
        *,
        from_member: str = "/from",
        sender_member: str = "",
        members: Sequence[str] = (),
    ) -> Allowing:
        return self.begin(caller, envelope.sender)

    def add(self, address: Address) -> None: ...

    def look(
        self, fields: bytes, *, from_member: str = "", members: Sequence[str] = ()
    ) -> None: ...

    def settle(self) -> None: ...

    def release(self) -> None: ...


def key(name: str = "app", *scopes: Scope, tenant: str = "", is_sandbox: bool = False) -> Caller:
    return Caller(
        identity=f"key:{name}",
        scopes=frozenset(scopes or ("send",)),
        tenant=tenant,
        is_sandbox=is_sandbox,
    )


class ApiCase(FlowCase, Case):
    """:ivar caller: who asks.  :ivar link: to unsubscribe."""

    limits = HttpLimits(body_octets=1_000_000)
    relaying = Relaying({}, {}, Address(""))

    def setUp(self) -> None:
        self.boots = 0
        self.link = ""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.journal = ListJournal([])
        self.sending = Allowing()
        self.caller: Caller | Flaw = key()
        super().setUp()

    def tearDown(self) -> None:
        self.successResultOf(self.log.close())
        super().tearDown()

    def restart(self) -> None:
        self.scheduler.stop()  # the dead have no timers
        self.successResultOf(self.log.close())
        super().restart()

    def build(self) -> None:
        super().build()
        self.journal.lines = self.lines
        self.app = new_app()
        self.factory = site(self.app, clock=self.clock, limits=self.limits)
        self.factory.doStart()
        self.addCleanup(self.factory.doStop)
        self.log = MessageLog(
            self.folder, self.journal, self.journal.flush, self.desk, self.in_thread, self.clock
        )
        self.log.add(self.app, self.authenticate)
        http_events.add(self.app, self.journal, self.authenticate, self.clock)
        now = self.clock.seconds
        self.boots += 1
        boot = bytes([self.boots])
        self.new_id = IdSource(now, lambda count: boot * count)
        limits = MessageLimits(
            recipients=100, message_octets=10**6, attachment_octets=10**6, future_release_s=86_400
        )
        self.mailroom = MailroomDesk(
            self.relaying,
            self.sending,
            self.acceptance,
            MemoryRequests(),
            EventLines(now, self.lines.append, Counts()),
            is_suppressed=lambda address, tenant: None,
            now=now,
            new_id=self.new_id,
            hostname=lambda: "us.test",
        )
        self.messages = messages.Desk(
            mailroom=self.mailroom,
            authenticate=self.authenticate,
            writer=Writer(
                limits=lambda: limits,
                now=now,
                hostname=lambda: "us.test",
                unsubscribe_url=lambda id, address, tenant: self.link,
            ),
            read_limits=ReadLimits,
            pause=lambda: succeed(None),
            new_session_id=lambda: "s-1",
        )
        messages.add(self.app, self.messages)

    def in_thread(self, work: Any) -> Deferred[Any]:
        return succeed(None).addCallback(lambda _: work())

    async def authenticate(self, request: IRequest, scope: Scope, *others: Scope) -> Caller | Flaw:
        if isinstance(self.caller, Flaw) or {scope, *others, "admin"} & self.caller.scopes:
            return self.caller
        return Flaw(403, "scope-missing", "not with this key")

    # --- requests ----------------------------------------------------------------------------------

    def asking(self, method: str, path: str, body: bytes = b"", more: str = "") -> Wire:
        """A request on its way.  :param more: header fields, each with its line end."""
        wire = self.connect()
        assert wire is not None
        wire.protocol.dataReceived(
            f"{method} {path} HTTP/1.1\r\nHost: mx.test\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode()
            + body
        )
        return wire

    def answered(self, wire: Wire) -> Told:
        status, _, body = self.parse(wire.value())
        return status, json.loads(body)

    def asked(self, path: str, method: str = "GET", body: bytes = b"", more: str = "") -> Told:
        """An answer, for which some time may have to pass."""
        wire = self.asking(method, path, body, more)
        for _ in range(10):
            if wire.value():
                break
            self.clock.advance(0.1)
        told = self.answered(wire)
        wire.protocol.connectionLost(CLOSED)
        return told

    def do(self, id: str, action: str) -> Told:
        return self.asked(f"/v1/message/{id}/{action}", "POST")

    def timeline(self, id: str) -> dict[str, Any]:
        status, told = self.asked(f"/v1/message/{id}")
        self.assertEqual(status, 200, told)
        return told

    def statuses(self, id: str) -> list[str]:
        return [one["status"] for one in self.timeline(id)["recipients"]]

    def listed(self, query: str = "") -> list[str]:
        status, told = self.asked(f"/v1/messages{query}")
        self.assertEqual(status, 200, told)
        return [one["id"] for one in told["messages"]]

    def problem(self, told: Told) -> tuple[int, str, str]:
        """Its status, the last word of its type, and the member."""
        status, body = told
        return status, body["type"].rpartition(":")[2], body.get("member", "")

    def post(self, **members: Any) -> Told:
        body = {"from": "a@a.test", "to": ["b@b.test"], "text": "Hello.", **members}
        return self.asked("/v1/message", "POST", msgspec.json.encode(body))

    def in_s(self, seconds: float) -> str:
        """A time, as RFC 3339 has it."""
        return f"{datetime.fromtimestamp(self.clock.seconds() + seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"

    def posted(self, **members: Any) -> str:
        status, told = self.post(**members)
        self.assertEqual(status, 202, told)
        return cast(str, told["id"])

    def lags(self) -> list[Batch]:
        """Deliveries are noted a while after they have left the queue.  :return: those that wait."""
        waiting: list[Batch] = []

        def note(batch: Batch) -> None:
            # The queue has forgotten it, and the journal does not know yet.
            lines, self.spool._journal = self.spool._journal, None
            self.spool.commit(batch)
            self.spool._journal = lines
            waiting.append(batch)

        self.patch(self.spool, "note", note)
        return waiting

    # --- commands ----------------------------------------------------------------------------------

    def command(self, name: str, *ids: str) -> dict[str, Any] | str:
        """What a command of the queue comes to, or its fault."""

        return self.successResultOf(self.ordered(name, *ids))

    def ordered(
        self, name: str, *ids: str, told: Deferred[None] | None = None
    ) -> Deferred[dict[str, Any] | str]:
        """The same, once the log of events tells of it (at once by default)."""

        async def nothing() -> None: ...

        clerk = Clerk(self.desk, dict, nothing, nothing, lambda: told or nothing())
        handle = clerk.handlers()[f"queue.{name}"]

        async def run() -> dict[str, Any] | str:
            try:
                async for one in handle({"ids": list(ids)}):
                    if isinstance(one, Done):
                        return one.summary
            except ControlFault as fault:
                return fault.kind
            return {}

        return Deferred.fromCoroutine(run())


@attrs.define
class HeldBack:
    """A spool's commit whose word comes late: done already, and not told of.

    :ivar waiting: what is told when they are called back.
    """

    commit: Any
    waiting: list[Deferred[None]] = attrs.field(factory=list)

    def __call__(self, batch: Any) -> Deferred[None]:
        self.commit(batch)
        told: Deferred[None] = Deferred()
        self.waiting.append(told)
        return told

    def tell(self) -> None:
        """Everything, and what comes of that."""
        while self.waiting:
            self.waiting.pop(0).callback(None)
