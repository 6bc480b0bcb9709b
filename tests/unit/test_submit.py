"""Tests of the submission socket's protocol."""

from __future__ import annotations

import json
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.envelope import Notify
from protege_mta.model.ports import Intake
from protege_mta.model.reply import TABLE, Reply
from protege_mta.transport.submit import (
    Submission,
    SubmitFactory,
    SubmitLimits,
    SubmitProtocol,
)
from protege_mta.transport.unix import Credentials

ID = "01k5vz4m00abcdefgh00000001"
LINE = b'{"sender":"a@a.test","recipients":["b@b.test"],"size_octets":%d}\n'
QUEUED = Reply(250, "2.0.0", (f"ok, queued as {ID}",))


@attrs.define
class House:
    """Takes everything in, as slowly as the test says."""

    reply: Reply = QUEUED
    octets: bytes = b""
    ended: str = ""
    slow: Deferred[None] | None = None

    def write(self, octets: bytes) -> Deferred[None] | None:
        self.octets += octets
        slow, self.slow = self.slow, None
        return slow

    def finish(self) -> Deferred[Reply]:
        self.ended = "finished"
        return succeed(self.reply)

    def abort(self) -> None:
        self.ended = "aborted"


class SubmitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.house = House()
        self.asked: list[tuple[Credentials, Submission]] = []
        self.uid = 1000
        self.factory = SubmitFactory(
            self.receive,
            domain="mx.test",
            limits=SubmitLimits(message_octets=100, connections=3, connections_per_uid=2),
            clock=self.clock,
            who=lambda transport: Credentials(1, self.uid, 100),
        )

    def receive(self, who: Credentials, submission: Submission) -> Intake | Reply:
        self.asked.append((who, submission))
        return self.house

    def connect(self) -> tuple[SubmitProtocol, StringTransport]:
        protocol, wire = self.factory.buildProtocol(None), StringTransport()
        protocol.makeConnection(wire)
        return protocol, wire

    def send(self, *chunks: bytes) -> dict[str, Any]:
        """What is answered in the end."""
        protocol, wire = self.connect()
        for chunk in chunks:
            protocol.dataReceived(chunk)
        self.assertTrue(wire.disconnecting)
        protocol.connectionLost(Failure(ConnectionDone()))
        (line,) = wire.value().splitlines()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def refused(self, **members: object) -> str:
        line = {"sender": "a@a.test", "recipients": ["b@b.test"], "size_octets": 1} | members
        answer = self.send(json.dumps(line).encode() + b"\n")
        self.assertEqual((answer["code"], answer["enhanced"]), (501, "5.5.4"))
        return str(answer["error"])

    def test_submitted(self) -> None:
        self.assertEqual(self.send(LINE % 7 + b"hello\r\n"), {"id": ID})
        self.assertEqual((self.house.octets, self.house.ended), (b"hello\r\n", "finished"))
        ((who, submission),) = self.asked
        self.assertEqual((who.uid, who.gid), (1000, 100))
        self.assertEqual(submission.envelope.sender, "a@a.test")
        self.assertEqual(submission.size_octets, 7)

    def test_chunks_are_invisible(self) -> None:
        stream = LINE % 14 + b"hello\r\nworld\r\n"
        self.send(*(stream[at : at + 1] for at in range(len(stream))))
        self.assertEqual(self.house.octets, b"hello\r\nworld\r\n")

    def test_envelope(self) -> None:
        """Names without a domain are ours; DSN parameters hold for all recipients."""
        self.send(
            b'{"sender":"","recipients":["root","\xc3\xa9@b.test"],"size_octets":2,'
            b'"notify":"SUCCESS,delay","ret":"HDRS","envid":"x","body":"8BITMIME"}\n\r\n'
        )
        envelope = self.asked[0][1].envelope
        self.assertEqual(envelope.sender, "")
        self.assertEqual([one.address for one in envelope.recipients], ["root@mx.test", "é@b.test"])
        self.assertEqual(envelope.recipients[1].notify, Notify.SUCCESS | Notify.DELAY)
        self.assertEqual((envelope.ret, envelope.envid, envelope.body), ("HDRS", "x", "8BITMIME"))
        self.assertTrue(envelope.is_smtputf8)

    def test_bad_requests(self) -> None:
        """What is wrong is said in words."""
        self.assertEqual(self.refused(sender="a b"), "sender is no address")
        self.assertEqual(
            self.refused(recipients=["b@b.test", "c@@b.test"]), "recipient 2 is no address"
        )
        self.assertEqual(self.refused(notify="NOW"), "notify has an unknown word")
        self.assertEqual(
            self.refused(notify="NEVER,DELAY"), "notify is never, or some of the others"
        )
        self.assertIn("$.recipients", self.refused(recipients=[]))
        self.assertIn("$.size_octets", self.refused(size_octets=-1))
        for envid in ("a b", "a+1e", "a=b", "a\n"):
            self.assertIn("$.envid", self.refused(envid=envid))
        for line in (b"MAIL FROM:<a@a.test>\n", b'{"sender":"\xff"}\n'):
            self.assertIn("not a request", self.send(line)["error"])
        self.assertEqual(self.asked, [])

    def test_bare_line_ends(self) -> None:
        """No door smuggles: a bare CR or LF is refused, wherever chunks are cut."""
        for content in (b"a\nb\r\n", b"a\rb\r\n", b"abc\r\r\n", b"abcd\r", b"\nabc"):
            for cut in range(len(content) + 1):
                self.house = House()
                answer = self.send(LINE % len(content) + content[:cut], content[cut:])
                self.assertEqual((answer["code"], answer["enhanced"]), (550, "5.6.11"), content)
                self.assertEqual(self.house.ended, "aborted")

    def test_last_line_without_end(self) -> None:
        """Content in this house ends in CRLF."""
        self.send(LINE % 5 + b"hello")
        self.assertEqual(self.house.octets, b"hello\r\n")
        self.house = House()
        self.send(LINE % 0)
        self.assertEqual((self.house.octets, self.house.ended), (b"\r\n", "finished"))

    def test_too_big(self) -> None:
        self.assertEqual(self.send(LINE % 101)["code"], 552)
        self.assertEqual(self.asked, [])

    def test_refused_by_the_house(self) -> None:
        """A refusal is said when the client has written all, since before it does not listen."""
        self.factory.receive = lambda who, submission: TABLE["no-relaying"]
        protocol, wire = self.connect()
        protocol.dataReceived(LINE % 7 + b"hello")
        self.assertEqual(wire.value(), b"")
        protocol.dataReceived(b"\r\n")
        self.assertEqual(
            json.loads(wire.value()),
            {"error": "relaying denied", "code": 550, "enhanced": "5.7.1"},
        )

    def test_refused_in_the_end(self) -> None:
        self.house.reply = TABLE["spool-full"]
        self.assertEqual(self.send(LINE % 7 + b"hello\r\n")["code"], 452)

    def test_bug(self) -> None:
        """A bug in the house is 451, and logged."""

        def broken(who: Credentials, submission: Submission) -> Reply:
            raise KeyError

        self.factory.receive = broken
        self.assertEqual(self.send(LINE % 7 + b"hello\r\n")["code"], 451)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_back_pressure(self) -> None:
        """A slow disk slows the client; the clock of idleness stands meanwhile."""
        slow = self.house.slow = Deferred()
        protocol, wire = self.connect()
        protocol.dataReceived(LINE % 7 + b"hel")
        self.assertEqual(wire.producerState, "paused")
        self.clock.advance(1000)
        self.assertFalse(wire.disconnecting)
        slow.callback(None)
        self.assertEqual(wire.producerState, "producing")
        slow = self.house.slow = Deferred()
        protocol.dataReceived(b"lo\r\n")
        self.assertEqual(self.house.ended, "")
        slow.callback(None)
        self.assertEqual(json.loads(wire.value()), {"id": ID})

    def test_client_goes_away(self) -> None:
        """Half a message is none."""
        protocol, _ = self.connect()
        protocol.dataReceived(LINE % 7 + b"hello")
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.house.ended, "aborted")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_client_goes_away_while_the_disk_works(self) -> None:
        slow = self.house.slow = Deferred()
        protocol, _ = self.connect()
        protocol.dataReceived(LINE % 7 + b"hello\r\n")
        protocol.connectionLost(Failure(ConnectionDone()))
        slow.callback(None)
        self.assertEqual(self.house.ended, "aborted")

    def test_idle(self) -> None:
        protocol, wire = self.connect()
        protocol.dataReceived(LINE % 7 + b"h")
        self.clock.advance(61)
        self.assertEqual(json.loads(wire.value())["code"], 421)
        self.assertEqual(self.house.ended, "aborted")

    def test_more_than_announced(self) -> None:
        """Octets behind the announced ones are nobody's."""
        self.assertEqual(self.send(LINE % 7 + b"hello\r\nmore\r\n"), {"id": ID})
        self.assertEqual(self.house.octets, b"hello\r\n")

    def test_connections(self) -> None:
        """One user cannot take all, and all together not too many."""
        first, _ = self.connect()
        self.connect()
        self.assertEqual(self.send()["code"], 421)
        self.uid = 1001
        self.connect()
        self.uid = 1002
        self.assertEqual(self.send()["code"], 421)
        first.connectionLost(Failure(ConnectionDone()))
        _, wire = self.connect()
        self.assertFalse(wire.disconnecting)
