"""Tests of ``/v1/events`` and its stream, octet for octet over an in-memory wire."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest

from protege_mta.http import events as events_endpoints
from protege_mta.http.listener import HttpLimits
from protege_mta.model.caller import Caller, Flaw, Scope
from protege_mta.observe.segments import Segments, StoredJournal

from .test_http_listener import Case, Wire


def line(number: int, event: str = "delivered", **members: str) -> bytes:
    told = {"event": event, "id": f"m{number}.0.1", "at": "2027-01-15T08:00:00.000Z"} | members
    return json.dumps(told).encode() + b"\n"


class EventsCase(Case):
    limits = HttpLimits()

    def setUp(self) -> None:
        super().setUp()
        folder = Path(self.mktemp())
        folder.mkdir()
        self.segments = Segments(
            folder / "journal",
            now=lambda: 1_800_000_000.0 + self.clock.seconds(),
            failed=self.fail,
            keep_octets=1_000_000,
            keep_s=1e6,
        )
        self.segments.open(0)
        self.addCleanup(self.segments.close)
        self.caller: Caller | Flaw = Caller(identity="key:a", scopes=frozenset({"read"}))
        self.scopes: list[Scope] = []
        self.thread_s = 0.0
        journal = StoredJournal(folder / "journal", self.in_thread)
        events_endpoints.add(self.app, journal, self.authenticate, self.clock)

    def in_thread(self, work: Callable[[], Any]) -> Deferred[Any]:
        return deferLater(self.clock, self.thread_s, work) if self.thread_s else execute(work)

    async def authenticate(self, request: IRequest, scope: Scope) -> Caller | Flaw:
        self.scopes.append(scope)
        return self.caller

    def write(self, *lines: bytes) -> None:
        self.segments.add(lines, sum(map(len, lines)))
        self.segments.write()

    def asked(self, query: str = "") -> tuple[int, dict[str, Any]]:
        status, _, body = self.get(f"/v1/events{query}")
        return status, json.loads(body)

    def ids(self, query: str = "") -> list[str]:
        status, found = self.asked(query)
        self.assertEqual(status, 200)
        return [one["id"] for one in found["events"]]


class PageTests(EventsCase):
    def test_page_by_page(self) -> None:
        """``next`` leads through all, and on to what comes."""
        self.assertEqual(self.asked(), (200, {"events": [], "next": "", "more": False}))
        self.write(*map(line, range(5)))
        _, first = self.asked("?limit=3")
        self.assertEqual([one["id"] for one in first["events"]], ["m0.0.1", "m1.0.1", "m2.0.1"])
        self.assertTrue(first["more"])
        _, second = self.asked(f"?limit=3&after={first['next']}")
        self.assertEqual([one["id"] for one in second["events"]], ["m3.0.1", "m4.0.1"])
        self.assertFalse(second["more"])
        self.assertEqual(self.asked(f"?after={second['next']}")[1]["events"], [])
        self.write(line(5))
        self.assertEqual(self.ids(f"?after={second['next']}"), ["m5.0.1"])
        self.assertEqual(set(self.scopes), {"read"})

    def test_filters(self) -> None:
        self.write(
            line(1, "received", recipient="a@x.test", message_id="m1"),
            b"# a person's note\n",
            line(2, "bounced", recipient="B@x.test", message_id="m2", tenant="t"),
            line(3, "delivered", recipient="a@x.test", message_id="m2", tenant="t"),
        )
        self.assertEqual(self.ids("?event=bounced,received"), ["m1.0.1", "m2.0.1"])
        self.assertEqual(self.ids("?event=bounced&event=delivered"), ["m2.0.1", "m3.0.1"])
        self.assertEqual(self.ids("?recipient=b@X.test"), ["m2.0.1"])
        self.assertEqual(self.ids("?message_id=m2&recipient=a@x.test"), ["m3.0.1"])
        self.assertEqual(self.ids("?tenant=t"), ["m2.0.1", "m3.0.1"])
        self.assertEqual(self.ids(), ["m1.0.1", "m2.0.1", "m3.0.1"])

    def test_tenants_are_apart(self) -> None:
        """A key of a tenant sees its tenant's; one that may do everything, everything."""
        self.write(line(1), line(2, tenant="t"), line(3, tenant="u"))
        self.caller = Caller(identity="key:a", scopes=frozenset({"read"}), tenant="t")
        self.assertEqual(self.ids(), ["m2.0.1"])
        self.assertEqual(self.ids("?tenant=t"), ["m2.0.1"])
        self.assertEqual(self.asked("?tenant=u")[0], 403)
        self.caller = Caller(identity="key:a", scopes=frozenset({"admin"}), tenant="t")
        self.assertEqual(self.ids("?tenant=u"), ["m3.0.1"])

    def test_refusals(self) -> None:
        self.assertEqual(self.asked("?limit=0")[1]["member"], "/limit")
        self.assertEqual(self.asked("?limit=-1")[0], 400)
        status, told = self.asked("?event=exploded")
        self.assertEqual((status, told["type"]), (400, "urn:protege-mta:problem:no-such-event"))
        self.caller = Flaw(401, "no-key", "a key is needed")
        self.assertEqual(self.asked()[0], 401)

    def test_gone(self) -> None:
        """A cursor that is none, or too old, is answered with the oldest."""
        self.write(line(1))
        for cursor in ("x", "00000000000001-0000000000"):
            status, told = self.asked(f"?after={cursor}")
            self.assertEqual(status, 410)
            self.assertEqual(self.ids(f"?after={told['oldest']}"), ["m1.0.1"])

    def test_few_among_many(self) -> None:
        """What is looked at for one request is bounded; the next one goes on behind it."""
        self.write(*[line(n) for n in range(25_000)], line(25_000, "bounced"))
        _, first = self.asked("?event=bounced")
        self.assertEqual((first["events"], first["more"]), ([], True))
        self.assertEqual(self.ids(f"?event=bounced&after={first['next']}"), ["m25000.0.1"])


class StreamTests(EventsCase):
    def follow(self, query: str = "", more: str = "", host: str = "192.0.2.1") -> Wire:
        wire = self.connect(host)
        assert wire is not None
        wire.protocol.dataReceived(
            f"GET /v1/events/stream{query} HTTP/1.1\r\nHost: mx.test\r\n{more}\r\n".encode()
        )
        self.addCleanup(self.leave, wire)
        return wire

    def leave(self, wire: Wire) -> None:
        if not wire.disconnected:
            wire.disconnected = True
            wire.protocol.connectionLost(Failure(ConnectionDone()))

    def told(self, wire: Wire) -> list[dict[str, str]]:
        """The events so far."""
        _, _, body = wire.value().partition(b"\r\n\r\n")
        chunks, text = body, ""
        while chunks:
            size, _, rest = chunks.partition(b"\r\n")
            text += rest[: int(size, 16)].decode()
            chunks = rest[int(size, 16) + 2 :]
        blocks = [block.split("\n") for block in text.split("\n\n") if "data" in block]
        return [dict(part.split(": ", 1) for part in block) for block in blocks]

    def test_what_comes(self) -> None:
        """Without a cursor, from now on; each with its cursor as its id."""
        self.write(line(1))
        wire = self.follow()
        self.clock.advance(1)
        self.assertEqual(self.told(wire), [])
        self.write(line(2, "bounced"))
        self.clock.advance(1)
        [told] = self.told(wire)
        self.assertEqual(told["event"], "bounced")
        self.assertEqual(told["data"].encode(), line(2, "bounced").strip())
        self.assertIn(b"Content-Type: text/event-stream\r\n", wire.value())

    def test_resumes(self) -> None:
        """Last-Event-ID says what was had."""
        self.write(line(1), line(2), line(3))
        _, first = self.asked("?limit=1")
        wire = self.follow(more=f"Last-Event-ID: {first['next']}\r\n")
        ids = [json.loads(one["data"])["id"] for one in self.told(wire)]
        self.assertEqual(ids, ["m2.0.1", "m3.0.1"])
        self.assertEqual(self.told(wire)[-1]["id"], self.asked()[1]["next"])

    def test_gone(self) -> None:
        self.write(line(1))
        wire = self.follow("?after=x")
        self.assertEqual(self.parse(wire.value())[0], 410)

    def test_heartbeats(self) -> None:
        wire = self.follow()
        for _ in range(20):
            self.clock.advance(1)
        self.assertIn(b": nothing new\n\n", wire.value())

    def test_slow_reader(self) -> None:
        """Who takes nothing is read no further for, and dropped after a minute."""
        wire = self.follow()
        producer = wire.producer
        assert producer is not None
        producer.pauseProducing()
        self.write(line(1))
        for _ in range(59):
            self.clock.advance(1)
        self.assertEqual(self.told(wire), [])
        producer.resumeProducing()
        self.clock.advance(1)
        self.assertEqual(len(self.told(wire)), 1)
        producer.pauseProducing()
        for _ in range(61):
            self.clock.advance(1)
        self.assertTrue(wire.disconnecting)

    def test_a_key_that_is_revoked(self) -> None:
        """Ends the stream within a second; one that cannot be looked at just now does not."""
        wire = self.follow()
        self.caller = Flaw(503, "unavailable", "")
        self.clock.advance(1)
        self.write(line(1))
        self.clock.advance(1)
        self.assertEqual(len(self.told(wire)), 1)
        self.caller = Flaw(401, "unauthorized", "")
        self.clock.advance(1)
        self.write(line(2))
        for _ in range(10):
            self.clock.advance(1)
        self.assertTrue(wire.value().endswith(b"0\r\n\r\n"))
        self.assertNotIn(b"m2.0.1", wire.value())

    def test_a_key_that_changes_hands(self) -> None:
        """A stream shows what its key may see now."""
        wire = self.follow()
        self.caller = Caller(identity="key:a", scopes=frozenset({"read"}), tenant="t")
        self.clock.advance(1)
        self.write(line(1), line(2, tenant="t"))
        self.clock.advance(1)
        self.assertEqual([json.loads(one["data"])["id"] for one in self.told(wire)], ["m2.0.1"])

    def test_a_hundred_readers(self) -> None:
        """All of them are told, none holds up another, and one more is sent away."""
        wires = [self.follow() for _ in range(100)]
        late = self.follow(host="192.0.2.2")
        self.assertEqual(self.parse(late.value())[0], 503)
        stuck = wires[0].producer
        assert stuck is not None
        stuck.pauseProducing()
        self.write(line(1))
        self.clock.advance(1)
        self.assertEqual([len(self.told(wire)) for wire in wires], [0] + [1] * 99)
        self.leave(wires[1])
        self.clock.advance(1)
        self.assertIn(b"retry: 2000", self.follow(host="192.0.2.2").value())

    def test_what_a_slow_reader_costs(self) -> None:
        """No more than what it was handed when it stopped, however much comes meanwhile."""
        wire = self.follow()
        producer = wire.producer
        assert producer is not None
        producer.pauseProducing()
        before = len(wire.value())
        for number in range(40):
            self.write(*(line(number * 100 + n) for n in range(100)))
            self.clock.advance(1)
        self.assertEqual(len(wire.value()), before)
        producer.resumeProducing()
        self.clock.advance(1)
        ids = [json.loads(one["data"])["id"] for one in self.told(wire)]
        self.assertEqual(ids, [f"m{n}.0.1" for n in range(4000)])

    def test_client_that_goes(self) -> None:
        """Nothing is left behind for it."""
        wire = self.follow()
        self.leave(wire)
        self.clock.advance(1)
        self.clock.advance(60)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_client_that_goes_from_a_journal_that_takes_its_time(self) -> None:
        """Klein cancels what waits before it is heard of here: its timer must not ring later."""
        self.thread_s = 0.01
        wire = self.follow()
        for _ in range(10):
            self.clock.advance(0.01)
        self.leave(wire)
        self.clock.pump([1.0] * 60)
        self.assertEqual(self.clock.getDelayedCalls(), [])
