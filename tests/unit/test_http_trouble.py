"""A disk, or a database on it, that fails while a request is answered: 503, and when to come back."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from typing import Any, Final

from twisted.internet import _producer_helpers
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Cooperator
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.web.iweb import IRequest
from zope.interface import provider

from protege_mta.http import events, messages, portal, suppressions, timeline, unsubscribe
from protege_mta.http.listener import HttpLimits
from protege_mta.http.mailroom import Replay
from protege_mta.http.outgoing import MessageLimits
from protege_mta.http.reading import ReadLimits
from protege_mta.http.timeline import Action, Done, MessageSummary, Whose
from protege_mta.http.wanted import Writer
from protege_mta.model.address import Address
from protege_mta.model.caller import Caller, Flaw, Scope
from protege_mta.model.envelope import Envelope, Message, Origin, Recipient
from protege_mta.model.ids import QueueId
from protege_mta.model.message_query import MessageQuery
from protege_mta.model.ports import (
    Content,
    Damaged,
    Page,
    Peer,
    SpoolFailed,
    SpoolFull,
    StateFailed,
    Suppressed,
)
from protege_mta.model.return_path import Subscription
from protege_mta.model.suppression import Chosen, Place

from .test_http_listener import CLOSED, Case, Wire

ID: Final = QueueId("01k5vz4m00abcdefgh00000001")
MESSAGE: Final = Message(
    ID,
    Envelope(Address("a@a.test"), (Recipient(Address("b@b.test")),)),
    Origin("http"),
    0.0,
    200_000,
)
FAULTS: Final = (
    StateFailed("state.sqlite: disk I/O error"),
    OSError(errno.EIO, "Input/output error"),
    SpoolFailed("a sync failed"),
    SpoolFull("no room"),
    Damaged(ID),
)
MINE: Final = Whose("key:a", "")


class Octets:
    """A message whose second piece cannot be read.

    :ivar reads: how often it can be, before.
    """

    message = MESSAGE
    size_octets = 200_000

    def __init__(self, reads: int) -> None:
        self.reads = reads
        self.is_closed = False

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        if not self.reads:
            raise OSError(errno.EIO, "Input/output error")
        self.reads -= 1
        return b"x" * size

    def close(self) -> None:
        self.is_closed = True


class Failing:
    """Every port of the endpoints at once, and all of them fail.

    :ivar fault: with what.
    :ivar knows: whether a message is known before that.
    :ivar has_come: whether what is handed in came before.
    """

    def __init__(self) -> None:
        self.fault: Exception = FAULTS[0]
        self.knows = False
        self.has_come = False
        self.content: Octets | None = None

    async def authenticate(self, request: IRequest, scope: Scope, *others: Scope) -> Caller:
        return Caller(identity="key:a", scopes=frozenset(("send", "read", "admin")))

    # --- records

    async def whose(self, id: QueueId) -> Whose | None:
        if self.knows:
            return MINE
        raise self.fault

    async def look(self, id: QueueId) -> MessageSummary | None:
        raise self.fault

    async def timeline(self, id: QueueId) -> tuple[MessageSummary, Sequence[bytes]] | None:
        raise self.fault

    async def list(self, query: MessageQuery, most: int) -> list[MessageSummary]:
        raise self.fault

    async def change(self, id: QueueId, action: Action) -> Done | Flaw:
        raise self.fault

    async def open(self, id: QueueId) -> Content | None:
        if self.content is not None:
            return self.content
        raise self.fault

    def in_thread(self, work: Any) -> Deferred[Any]:
        return fail(self.fault)

    # --- journal

    def after(self, cursor: str, most: int) -> Deferred[Page]:
        return fail(self.fault)

    def end(self) -> str:
        raise self.fault

    # --- suppressions

    def page(self, chosen: Chosen, after: Place | None, most: int) -> Any:
        raise self.fault

    def add_all(self, entries: Sequence[Suppressed]) -> Deferred[None]:
        return fail(self.fault)

    def remove(self, chosen: Chosen) -> Deferred[int]:
        return fail(self.fault)

    def unsubscribe(self, found: Subscription) -> Deferred[None]:
        return fail(self.fault)

    # --- mailroom

    def begin(self, caller: Caller, peer: Peer, *, name: str = "", digest: str = "") -> Any:
        if self.has_come:
            return Replay("", ID)
        raise self.fault

    def outcome(self, id: QueueId) -> Deferred[bool]:
        raise self.fault


REQUESTS: Final = (
    ("GET", "/v1/messages", b""),
    ("GET", f"/v1/message/{ID}", b""),
    ("GET", f"/v1/message/{ID}/raw", b""),
    ("GET", f"/v1/message/{ID}/attachments/0", b""),
    *[("POST", f"/v1/message/{ID}/{action}", b"") for action in timeline.ACTIONS],
    ("GET", "/v1/events", b""),
    ("GET", "/v1/events/stream", b""),
    ("GET", "/v1/events/stream?after=x", b""),
    ("GET", "/v1/suppressions", b""),
    ("POST", "/v1/suppressions", b'{"address":"a@b.test"}'),
    ("DELETE", "/v1/suppressions?address=a@b.test", b""),
    ("POST", "/v1/message", b"{}"),
    ("POST", "/u/token", b""),
)


class TroubleTests(Case):
    limits = HttpLimits(connections=50, connections_per_ip=50, idle_s=30, body_octets=2000)

    def setUp(self) -> None:
        super().setUp()
        pages = Cooperator(scheduler=lambda work: self.clock.callLater(0, work))
        self.patch(_producer_helpers, "cooperate", pages.cooperate)
        self.failing = failing = Failing()
        timeline.add(self.app, failing, failing.authenticate)
        events.add(self.app, failing, failing.authenticate, self.clock)
        suppressions.add(
            self.app,
            failing,
            authenticate=failing.authenticate,
            now=lambda: 0.0,
            limits=ReadLimits,
        )
        unsubscribe.add(
            self.app,
            read=lambda token: Subscription("a@b.test"),
            unsubscribe=failing.unsubscribe,
            may=lambda address: True,
        )
        desk = messages.Desk(
            mailroom=failing,
            authenticate=failing.authenticate,
            writer=Writer(
                limits=lambda: MessageLimits(
                    recipients=10,
                    message_octets=10_000,
                    attachment_octets=10_000,
                    future_release_s=0,
                ),
                now=lambda: 0.0,
                hostname=lambda: "mx.test",
                unsubscribe_url=lambda id, address, tenant: "",
            ),
            read_limits=ReadLimits,
            pause=lambda: succeed(None),
            new_session_id=lambda: "s-1",
        )
        messages.add(self.app, desk)
        portal.add(
            self.app,
            desk,
            portal.Portal(
                default_from=lambda: None,
                is_configured=lambda: True,
                look=failing.look,
                place_s=lambda address, identity: 0.0,
                clock=self.clock,
            ),
        )
        self.logged: list[LogEvent] = []

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            self.logged.append(event)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def begun(self, method: str, path: str, body: bytes = b"", more: str = "") -> Wire:
        """A request whose answer may not be whole."""
        transport = self.connect()
        assert transport is not None
        transport.protocol.dataReceived(
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{more}"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        self.clock.pump([0] * 20)
        return transport

    def told(self, method: str, path: str, body: bytes, more: str = "") -> tuple[int, Any, Any]:
        transport = self.begun(method, path, body, more)
        status, headers, octets = self.parse(transport.value())
        transport.protocol.connectionLost(CLOSED)
        return status, headers, json.loads(octets)

    def check(self, method: str, path: str, body: bytes, more: str = "") -> None:
        status, headers, problem = self.told(method, path, body, more)
        where = f"{method} {path} {self.failing.fault!r}"
        self.assertEqual((status, problem["status"]), (503, 503), where)
        self.assertEqual(headers["Content-Type"], "application/problem+json", where)
        self.assertGreater(int(headers["Retry-After"]), 0, where)
        self.assertNotIn("state.sqlite", json.dumps(problem))

    def test_every_endpoint(self) -> None:
        """Whatever fails, and whether it does at the first look or later."""
        for fault in FAULTS:
            self.failing.fault = fault
            for knows in (False, True):
                self.failing.knows = knows
                for method, path, body in REQUESTS:
                    self.check(method, path, body)
        for kind in ("text/csv", "application/x-ndjson"):
            self.check("GET", "/v1/suppressions", b"", f"Accept: {kind}\r\n")

    def test_the_form_of_the_endpoint(self) -> None:
        """The portal's clients know no problems, be it their first request or the same again."""
        for self.failing.has_come in (False, True):
            status, headers, told = self.told("POST", "/api/send", b"{}")
            self.assertEqual((status, told["ok"]), (503, False))
            self.assertEqual(headers["Content-Type"], "application/json")
            self.assertIn("Retry-After", headers)

    def test_it_is_logged_without_a_traceback(self) -> None:
        """The operator reads what failed; the path may hold a secret and is not said."""
        self.check("POST", "/u/token", b"")
        lines = [one for one in self.logged if one["log_level"] is LogLevel.error]
        self.assertEqual([one["kind"] for one in lines], ["StateFailed"])
        self.assertNotIn("token", str(lines))

    def test_the_first_piece_cannot_be_read(self) -> None:
        """Nothing has been said yet, and so the answer is a whole one."""
        self.failing.knows = True
        self.failing.content = Octets(0)
        self.check("GET", f"/v1/message/{ID}/raw", b"")
        self.assertTrue(self.failing.content.is_closed)

    def test_a_later_piece_cannot_be_read(self) -> None:
        """Half a message is never taken for a whole one, and nothing stays open."""
        self.failing.knows = True
        content = self.failing.content = Octets(1)
        transport = self.begun("GET", f"/v1/message/{ID}/raw")
        self.assertIn(b"Content-Length: 200000\r\n", transport.value())
        self.assertLess(len(transport.value()), 100_000)
        self.assertTrue(transport.disconnected)
        transport.protocol.connectionLost(CLOSED)
        self.assertTrue(content.is_closed)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_later_page_of_the_journal_cannot_be_read(self) -> None:
        """A stream has no end that a client could take for one: it comes back to where it was."""
        failing = self.failing
        pages = [succeed(Page((), (), "c", True))] * 2

        def after(cursor: str, most: int) -> Deferred[Page]:
            return pages.pop() if pages else fail(failing.fault)

        self.patch(failing, "after", after)
        transport = self.begun("GET", "/v1/events/stream?after=c")
        self.assertFalse(transport.disconnected)
        self.clock.advance(events.POLL_S)
        self.assertTrue(transport.disconnected)
        transport.protocol.connectionLost(CLOSED)
        self.assertFalse(transport.value().endswith(b"0\r\n\r\n"))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_bug_in_half_an_answer(self) -> None:
        """Is told to us, and cut off likewise."""

        @self.app.route("/bug")
        def bug(request: Any) -> bytes:
            request.write(b"half")
            raise RuntimeError("bug")

        transport = self.begun("GET", "/bug")
        self.assertTrue(transport.disconnected)
        transport.protocol.connectionLost(CLOSED)
        self.assertFalse(transport.value().endswith(b"0\r\n\r\n"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
