"""Tests of the journal's lines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import attrs
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import provider

from protege_mta.config.bounce_rules import classifier
from protege_mta.model.address import NULL, Address
from protege_mta.model.envelope import Envelope, Message, Origin, Recipient
from protege_mta.model.event import EVENTS
from protege_mta.model.hop import Site
from protege_mta.model.ids import QueueId
from protege_mta.model.outcome import (
    Contact,
    Delivered,
    PermanentFailure,
    Scope,
    TlsFacts,
    TransientFailure,
)
from protege_mta.model.ports import About, Events, Peer
from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.verdicts import Verdicts
from protege_mta.observe.events import Event, EventLines
from protege_mta.observe.metrics import Counts

NOON = 1_790_000_000.0
ID = QueueId("01k5vz4m00abcdefgh00000001")
SITE = Site("mx:mx.b.test", "mx")
CONTACT = Contact("mx.b.test", "192.0.2.7", TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", True))
REFERENCE = Path(__file__).parents[2] / "docs/reference/events.md"
MESSAGE = Message(
    id=ID,
    envelope=Envelope(
        Address("a@a.test"), (Recipient(Address("b@b.test")), Recipient(Address("c@b.test")))
    ),
    origin=Origin("smtp", peer_address="198.51.100.4"),
    arrived_at=NOON,
    size_octets=4096,
    header_message_id="<1@a.test>",
    subject="hello",
)


class EventLinesTests(SynchronousTestCase):
    """Every transition is one line with the members of the reference, and is counted."""

    def setUp(self) -> None:
        self.now = NOON + 1.25
        self.appended: list[bytes] = []
        self.counts = Counts()
        lines = EventLines(lambda: self.now, self.appended.append, self.counts)
        lines.classify = classifier([])
        self.lines: Events = lines

    def read(self, line: bytes) -> dict[str, Any]:
        self.assertEqual(line.count(b"\n"), 1)
        self.assertTrue(line.endswith(b"}\n"))
        event: dict[str, Any] = json.loads(line)
        return event

    def test_received(self) -> None:
        self.assertEqual(
            self.read(self.lines.received(MESSAGE, 1)),
            {
                "event": "received",
                "id": "01k5vz4m00abcdefgh00000001.1.0",
                "at": "2026-09-21T14:13:21.250Z",
                "message_id": "01k5vz4m00abcdefgh00000001",
                "recipient": "c@b.test",
                "sender": "a@a.test",
                "size_octets": 4096,
                "source": "smtp",
                "peer_address": "198.51.100.4",
                "header_message_id": "<1@a.test>",
                "subject": "hello",
            },
        )

    def test_what_is_known_of_the_sender(self) -> None:
        checked = attrs.evolve(MESSAGE, verdicts=Verdicts("softfail", "none", "fail"))
        event = self.read(self.lines.received(checked, 0))
        self.assertEqual(
            [event[one] for one in ("spf", "dkim", "dmarc")], ["softfail", "none", "fail"]
        )

    def test_messages_are_counted_once(self) -> None:
        """A message of two recipients is two events and one message."""
        self.lines.received(MESSAGE, 0)
        self.lines.received(MESSAGE, 1)
        self.assertEqual(self.counts.events, {("received", ""): 2})
        self.assertEqual((self.counts.messages["smtp"], self.counts.octets["smtp"]), (1, 4096))

    def test_delivered(self) -> None:
        line = self.lines.ended(
            MESSAGE,
            0,
            3,
            "relayed",
            2,
            SITE,
            Delivered(CONTACT, Reply(250, "2.0.0", ("queued", "thanks")), True),
            "",
        )
        event = self.read(line)
        self.assertEqual(event["id"], "01k5vz4m00abcdefgh00000001.0.3")
        self.assertEqual(
            {name: event[name] for name in ("event", "attempt", "route", "mx", "peer_address")},
            {
                "event": "relayed",
                "attempt": 2,
                "route": "mx",
                "mx": "mx.b.test",
                "peer_address": "192.0.2.7",
            },
        )
        self.assertEqual(
            event["tls"],
            {"protocol": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "verified": True},
        )
        self.assertEqual(
            event["reply"], {"code": 250, "enhanced": "2.0.0", "text": "queued thanks"}
        )
        self.assertEqual(event["queued_s"], 1.25)
        self.assertNotIn("dsn", event)
        self.assertNotIn("bounce_class", event)
        self.assertEqual(sum(self.counts.queued_s["mx"].counts), 1)

    def test_deferred(self) -> None:
        failure = TransientFailure(Scope.HOST, Reply(450, "4.2.2", ("mailbox full",)), CONTACT)
        event = self.read(
            self.lines.deferred(MESSAGE, 0, 1, 1, SITE, failure, next_attempt_at=NOON + 300)
        )
        self.assertEqual(event["next_attempt_at"], "2026-09-21T14:18:20.000Z")
        self.assertEqual(event["bounce_class"], "QuotaIssues")
        self.assertEqual(event["bounce_action"], "retry")
        self.assertEqual(self.counts.failures, {("deferred", "QuotaIssues"): 1})

    def test_bounced(self) -> None:
        """A bounce keeps the peer's own code and names the DSN."""
        outcome = PermanentFailure(Scope.RECIPIENT, Reply(550, "5.1.1", ("no such user",)), CONTACT)
        event = self.read(self.lines.ended(MESSAGE, 0, 1, "bounced", 1, SITE, outcome, "none"))
        self.assertEqual(event["reply"]["enhanced"], "5.1.1")
        self.assertEqual((event["bounce_class"], event["dsn"]), ("InvalidRecipient", "none"))

    def test_ended_by_a_person(self) -> None:
        event = self.read(self.lines.ended(MESSAGE, 0, 1, "removed", 0, None, None, ""))
        for name in ("attempt", "route", "mx", "reply", "tls", "dsn"):
            self.assertNotIn(name, event)

    def test_moved_and_delayed(self) -> None:
        """How often it was tried, how long it has waited, and what is known of the next time."""
        held = self.read(self.lines.moved(MESSAGE, 0, 2, "held", 1, "approval"))
        released = self.read(
            self.lines.moved(MESSAGE, 0, 3, "released", 1, next_attempt_at=NOON + 300)
        )
        delayed = self.read(self.lines.delayed(MESSAGE, 0, 4, 1, "some-dsn", NOON + 300))
        later = "2026-09-21T14:18:20.000Z"
        told: list[tuple[dict[str, Any], dict[str, Any]]] = [
            (held, {"event": "held", "reason": "approval"}),
            (released, {"event": "released", "next_attempt_at": later}),
            (delayed, {"event": "delayed", "dsn": "some-dsn", "next_attempt_at": later}),
        ]
        for event, members in told:
            members |= {"attempt": 1, "queued_s": 1.25, "subject": "hello"}
            self.assertLessEqual(members.items(), event.items())
        self.assertNotIn("next_attempt_at", held)

    def test_a_time_that_is_over_is_no_next_one(self) -> None:
        """It is due, and waits for its turn, which nobody can foretell."""
        for line in (
            self.lines.moved(MESSAGE, 0, 3, "released", 0, next_attempt_at=NOON),
            self.lines.delayed(MESSAGE, 0, 4, 1, "some-dsn", 0.0),
        ):
            self.assertNotIn("next_attempt_at", self.read(line))

    def test_a_protected_channel_is_told(self) -> None:
        origin = attrs.evolve(MESSAGE.origin, tls=TlsFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256"))
        event = self.read(self.lines.received(attrs.evolve(MESSAGE, origin=origin), 0))
        self.assertEqual(
            event["tls"],
            {"protocol": "TLSv1.3", "cipher": "TLS_AES_128_GCM_SHA256", "verified": False},
        )

    def test_null_reverse_path_is_told(self) -> None:
        """An empty sender is a fact, not a missing one."""
        bounce = attrs.evolve(MESSAGE, envelope=attrs.evolve(MESSAGE.envelope, sender=NULL))
        self.assertEqual(self.read(self.lines.received(bounce, 0))["sender"], "")

    def test_rejected_is_told_at_once(self) -> None:
        peer = Peer("203.0.113.9", 40000, "mx", session_id="s1")
        self.lines.rejected(peer, "x@x.test", "y@y.test", TABLE["no-relaying"])
        self.lines.rejected(peer, "x@x.test", "z@y.test", TABLE["no-relaying"])
        first, second = (self.read(line) for line in self.appended)
        self.assertEqual((first["id"], second["id"]), ("s1.0.1", "s1.0.2"))
        self.assertEqual(first["peer_address"], "203.0.113.9")
        self.assertEqual(first["source"], "smtp")
        self.assertEqual(first["recipient"], "y@y.test")
        self.assertEqual(first["reply"]["code"], 550)
        self.assertEqual(self.counts.rejections, {550: 2})
        self.assertEqual(self.counts.reasons, {"no-relaying": 2})

    def test_rejected_has_all_that_is_known(self) -> None:
        peer = Peer("203.0.113.9", 0, "http", session_id="s1", identity="key:a", source="http")
        about = About(
            tenant="t",
            campaign="c",
            size_octets=99,
            header_message_id="<1@x.test>",
            subject="hello",
        )
        self.lines.rejected(peer, "x@x.test", "", TABLE["rate-limited"], about)
        (event,) = (self.read(line) for line in self.appended)
        self.assertLessEqual(
            {
                "source": "http",
                "identity": "key:a",
                "tenant": "t",
                "campaign": "c",
                "size_octets": 99,
                "header_message_id": "<1@x.test>",
                "subject": "hello",
            }.items(),
            event.items(),
        )

    def test_a_connection_that_is_rejected_has_no_sender(self) -> None:
        """An empty one would be the null reverse-path."""
        peer = Peer("203.0.113.9", 40000, "mx", session_id="s1")
        self.lines.rejected(peer, None, "", TABLE["shut-out"])
        self.lines.rejected(peer, "", "y@y.test", Reply(550, "5.7.1", ("listed in x.test",)))
        first, second = (self.read(line) for line in self.appended)
        self.assertNotIn("sender", first)
        self.assertEqual(second["sender"], "")
        self.assertEqual(self.counts.reasons, {"shut-out": 1, "other": 1})

    def test_a_rejection_is_a_line_of_the_log_too(self) -> None:
        """What the client wrote stands behind all that it did not, and cannot end the line."""
        peer = Peer("203.0.113.9", 40000, "mx", session_id="s1")
        said: list[str] = []

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            said.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.lines.rejected(peer, "x@x.test", '"peer=a"\u2028@y.test', TABLE["no-relaying"])
        self.assertEqual(
            said,
            [
                "rejected session_id=s1 peer=203.0.113.9 reply=550 5.7.1 relaying denied: "
                "'x@x.test' to '\"peer=a\"\\u2028@y.test'"
            ],
        )

    def test_octets_that_are_not_text(self) -> None:
        """A peer's stray octets spoil neither the line nor the delivery."""
        outcome = Delivered(CONTACT, Reply(250, "", ("caf\udce9\n{",)))
        event = self.read(self.lines.ended(MESSAGE, 0, 1, "delivered", 1, SITE, outcome, ""))
        self.assertEqual(event["reply"]["text"], "caf?\n{")
        odd = attrs.evolve(MESSAGE, subject="\udcff")
        self.assertEqual(self.read(self.lines.received(odd, 0))["subject"], "?")

    def test_clock_stepping_back(self) -> None:
        """Time in the queue is never negative."""
        self.now = NOON - 60
        outcome = Delivered(CONTACT, Reply(250, "2.0.0", ("ok",)))
        event = self.read(self.lines.ended(MESSAGE, 0, 1, "delivered", 1, SITE, outcome, ""))
        self.assertEqual(event["queued_s"], 0.0)


class ReferenceTests(SynchronousTestCase):
    def test_complete(self) -> None:
        """The reference describes every member and every event, and no other."""
        text = REFERENCE.read_text("utf-8")
        self.assertEqual(
            re.findall(r"^\| `(\w+)` \|", text.split("## Members")[1], re.MULTILINE),
            list(Event.__struct_fields__),
        )
        events = text.split("## Events")[1].split("## Members")[0]
        self.assertEqual(re.findall(r"^\| `(\w+)` \|", events, re.MULTILINE), list(EVENTS))
