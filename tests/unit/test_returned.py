"""Mail leaves with a signed return path, and what comes back to it finds its message."""

from __future__ import annotations

import json
from operator import methodcaller
from pathlib import Path
from typing import Any

from protege_mta.config.bounce_rules import classifier
from protege_mta.model.address import NULL, Address, domain_of
from protege_mta.model.envelope import Envelope, Message, Origin, Recipient
from protege_mta.model.hop import HopKind, NextHop
from protege_mta.model.ids import QueueId
from protege_mta.model.outcome import Scope, TransientFailure
from protege_mta.model.ports import Transport
from protege_mta.model.reply import Reply
from protege_mta.model.return_path import ReturnPaths
from protege_mta.policy.returned import ReturnsTransport
from protege_mta.schedule.intake import Arriving
from protege_mta.state.sent import SentMessages

from ..corpora import reports
from .test_suppression import HOST, WithheldCase

PATHS = ReturnPaths(b"secret")


FOR_REPORTS = Address("fbl@ours.test")


class ReturnedCase(WithheldCase):
    """As ``returns.py`` puts it together."""

    def setUp(self) -> None:
        self.own = {"a@ours.test"}
        super().setUp()

    def build(self) -> None:
        super().build()
        events: Any = self.dispatcher._events
        events.classify = classifier([])
        self.sent = SentMessages(self.database, self.clock.seconds)
        self.dispatcher.signs = self.signed
        self.returns = ReturnsTransport(
            lambda address: PATHS.read(address, None),
            find=self.sent.find,
            events=events,
            commit=self.spool.commit,
            suppression=self.suppression,
            forward=lambda envelope, origin: self.acceptance.begin(
                envelope, origin, lambda id, at: b"Received: x\r\n"
            ),
            has_mailbox=lambda address: address in self.own and PATHS.shape(address) is None,
        )
        transports: Any = self.dispatcher._transports
        transports["returns"] = self.returns

    def transports(self) -> dict[HopKind, Transport]:
        return {"mx": self.transport, "maildir": self.maildirs}

    def signed(self, message: Message, recipients: Any, kind: HopKind) -> Address:
        sender = message.envelope.sender
        if sender == NULL or kind != "mx":
            return sender
        self.sent.note(message)
        index = recipients[0] if len(recipients) == 1 else None
        return PATHS.address(message.id, index, domain_of(sender), self.clock.seconds())

    def hop(self, address: Address, message: Message) -> NextHop:
        if PATHS.shape(address) is not None or address == FOR_REPORTS:
            return NextHop("returns", "")
        return super().hop(address, message)

    def path(self) -> Address:
        """Of what was sent last."""
        return self.transport.attempts[-1].content.message.envelope.sender

    def come_back(self, name: str, to: Address | None = None) -> QueueId:
        octets = reports()[name].replace(b"<PATH>", f"<{self.path()}>".encode())
        return self.bring(octets, to or self.path())

    def bring(self, octets: bytes, to: Address) -> QueueId:
        envelope = Envelope(NULL, (Recipient(to),))
        arriving = self.acceptance.begin(envelope, Origin("smtp"), lambda id, at: b"")
        assert isinstance(arriving, Arriving)
        arriving.write(octets.replace(b"\n", b"\r\n"))
        self.assertEqual(self.successResultOf(arriving.finish()).code, 250)
        return arriving.id

    def last(self, name: str) -> dict[str, Any]:
        return [one for one in self.told if one["event"] == name][-1]


class ReturnPathTests(ReturnedCase):
    def test_one_recipient_is_named(self) -> None:
        id = self.hand_in("gone@example.net")
        found = PATHS.read(self.path(), self.clock.seconds())
        assert found is not None
        self.assertEqual((found.id, found.recipient), (id, 0))

    def test_those_of_one_transaction_are_not(self) -> None:
        self.hand_in("gone@example.net", "other@example.net")
        found = PATHS.read(self.path(), self.clock.seconds())
        self.assertIsNone(found and found.recipient)

    def test_content_and_events_stay_as_they_are(self) -> None:
        id = self.hand_in("gone@example.net")
        self.assertEqual(self.transport.sent, [b"X: y\r\nSubject: Hi\r\n\r\nHello.\r\n"])
        self.assertEqual({one["sender"] for one in self.told}, {"a@ours.test"})
        kept = self.sent.find(id)
        self.assertEqual(kept and kept.sender, "a@ours.test")

    def test_what_is_kept(self) -> None:
        """For the events that reports bring; what a message has not costs nothing."""
        origin = Origin("http", "key:app", tags=("x", "y"))
        tagged = self.send("gone@example.net", sender="a@ours.test", origin=origin)
        plain = self.hand_in("gone@example.net")
        for id, tags in ((tagged, ("x", "y")), (plain, ())):
            kept = self.sent.find(id)
            self.assertEqual(kept and (kept.tags, kept.subject), (tags, "Hi"))
        with self.database.snapshot() as connection:
            rows = dict(connection.execute("SELECT message_id, facts FROM sent"))
        self.assertEqual(
            [list(json.loads(rows[id])) for id in (tagged, plain)],
            [
                [
                    *("sender", "recipients", "source", "identity"),
                    *("header_message_id", "tags", "size_octets", "subject"),
                ],
                ["sender", "recipients", "source", "tenant", "size_octets", "subject"],
            ],
        )

    def test_what_earlier_versions_kept(self) -> None:
        facts = ["a@ours.test", ["b@example.net"], "http", "key:app", "t", "c", "<m@x>", False]
        for number, more in enumerate(([], [["x", "y"]])):
            id = QueueId(f"old-{number}")
            row = (id, self.clock.seconds(), json.dumps([*facts, *more]))
            put = methodcaller("execute", "INSERT INTO sent VALUES (?, ?, ?)", row)
            self.database.write_now(put)
            kept = self.sent.find(id)
            assert kept is not None
            self.assertEqual(
                (kept.recipients, kept.campaign, kept.header_message_id, kept.tags, kept.subject),
                (("b@example.net",), "c", "<m@x>", tuple(*more), ""),
            )


class NotifiedTests(ReturnedCase):
    """A DSN that comes when the message has long left."""

    def test_a_late_bounce(self) -> None:
        id = self.hand_in("gone@example.net")
        self.assertEqual(self.events(id)[-1], ("delivered", "gone@example.net"))
        report = self.come_back("postfix")
        event = self.last("returned")
        self.assertEqual(event["id"], f"{id}.0.{report}")
        self.assertEqual(
            {
                key: event[key]
                for key in (
                    *("recipient", "sender", "tenant", "source", "action", "mx", "report_id"),
                    *("size_octets", "subject"),
                )
            },
            {
                "size_octets": 29,
                "subject": "Hi",
                "recipient": "gone@example.net",
                "sender": "a@ours.test",
                "tenant": "t",
                "source": "http",
                "action": "failed",
                "mx": "mail.example.net",
                "report_id": report,
            },
        )
        self.assertEqual((event["bounce_class"], event["reply"]["code"]), ("InvalidRecipient", 550))
        self.assertEqual(self.listed(), [("gone@example.net", "t", "hard_bounce")])

    def test_the_sender_has_the_report(self) -> None:
        self.hand_in("gone@example.net")
        report = self.come_back("postfix")
        attempt = self.maildirs.attempts[-1]
        envelope = attempt.content.message.envelope
        self.assertEqual((envelope.sender, envelope.recipients[0].address), (NULL, "a@ours.test"))
        self.assertTrue(self.maildirs.sent[-1].startswith(b"Received: x\r\nReceived: by mail.exam"))
        self.assertEqual(self.events(report)[-1][0], "delivered")
        self.assertEqual(self.spool.ids(), [])

    def test_a_sender_without_mailbox(self) -> None:
        self.own.clear()
        self.hand_in("gone@example.net")
        self.come_back("postfix")
        self.assertEqual(self.maildirs.attempts, [])

    def test_a_report_that_is_faster_than_the_disk(self) -> None:
        """What is known of the message is known from its first attempt on."""
        self.database.is_holding = True
        self.hand_in("gone@example.net")
        self.come_back("postfix")
        self.database.turn()
        self.assertEqual(self.last("returned")["sender"], "a@ours.test")
        self.assertEqual(self.listed(), [("gone@example.net", "t", "hard_bounce")])

    def test_several_recipients(self) -> None:
        """Found by their addresses; a delay is told and suppresses nobody."""
        id = self.hand_in("late@example.net", "GONE@example.net")
        self.come_back("sendmail")
        told = [
            (one["id"].split(".")[1], one["recipient"], one["action"])
            for one in self.told
            if one["event"] == "returned" and one["message_id"] == id
        ]
        self.assertEqual(
            told, [("1", "GONE@example.net", "failed"), ("0", "late@example.net", "delayed")]
        )
        self.assertEqual(self.listed(), [("gone@example.net", "t", "hard_bounce")])

    def test_forwarded(self) -> None:
        """The report names where the recipient's mail goes on to; the return path whose it was."""
        self.hand_in("me@alumni.example")
        self.come_back("postfix")
        self.assertEqual(self.last("returned")["recipient"], "me@alumni.example")

    def test_one_recipient_says_that_another_is_gone(self) -> None:
        """A return path speaks for its own recipient, whoever else is named in a report to it."""
        later = TransientFailure(Scope.RECIPIENT, Reply(451, "4.3.0", ("later",)), HOST)
        self.transport.script.append({0: later})
        self.hand_in("gone@example.net", "other@example.net")
        self.turn(400)
        found = PATHS.read(self.path(), None)
        self.assertEqual(found and found.recipient, 0)
        octets = reports()["postfix"].replace(b"gone@example.net", b"other@example.net")
        self.bring(octets, self.path())
        self.assertNotIn("other@example.net", [address for address, *_ in self.listed()])

    def test_who_never_got_the_message(self) -> None:
        """Is in no event, whatever a report says of him."""
        self.hand_in("late@example.net", "gone@example.net")
        octets = reports()["sendmail"].replace(b"late@example.net", b"victim@example.net")
        self.bring(octets.replace(b"<PATH>", f"<{self.path()}>".encode()), self.path())
        told = [one for one in self.told if one["event"] == "returned"]
        self.assertEqual([one["recipient"] for one in told], ["gone@example.net"])
        self.hand_in("alone@example.net")
        octets = reports()["sendmail"]
        self.bring(octets.replace(b"<PATH>", f"<{self.path()}>".encode()), self.path())
        self.assertEqual(len([one for one in self.told if one["event"] == "returned"]), 1)

    def test_ids_of_what_is_known_no_more(self) -> None:
        """No two events have one id, though nobody can tell which recipients they were."""
        self.hand_in("late@example.net", "gone@example.net")
        self.returns._find = lambda id: None
        self.come_back("sendmail")
        self.assertEqual(len([one for one in self.told if one["event"] == "returned"]), 1)

    def test_a_block_suppresses_nobody(self) -> None:
        self.hand_in("other@example.net", "gone@example.net")
        self.come_back("qmail")
        self.assertEqual(self.listed(), [("gone@example.net", "t", "hard_bounce")])

    def test_nothing_is_known_any_more(self) -> None:
        """Then there is an event of what the report says, and nobody is suppressed."""
        self.own.add("postmaster@ours.test")
        self.hand_in("gone@example.net")
        self.patch(self.sent, "find", lambda id: None)
        self.returns._find = lambda id: None
        self.come_back("postfix")
        self.assertEqual(self.last("returned")["recipient"], "gone@example.net")
        self.assertEqual(self.listed(), [])
        to = self.maildirs.attempts[-1].content.message.envelope.recipients[0].address
        self.assertEqual(to, "postmaster@ours.test")

    def test_other_mail_is_handed_on(self) -> None:
        self.hand_in("reader@example.net")
        self.come_back("vacation")
        self.assertIn(b"Out of office", self.maildirs.sent[-1])
        self.assertNotIn("returned", [one["event"] for one in self.told])

    def test_no_room(self) -> None:
        """The report waits, like any other mail."""
        self.hand_in("gone@example.net")
        self.returns._forward = lambda envelope, origin: Reply(452, "4.3.1", ("no room",))
        report = self.come_back("postfix")
        self.assertEqual(self.events(report)[-1][0], "deferred")


class ComplainedTests(ReturnedCase):
    def test_a_complaint(self) -> None:
        id = self.hand_in("reader@example.net")
        report = self.come_back("arf-yahoo")
        event = self.last("feedback")
        self.assertEqual(event["id"], f"{id}.0.{report}")
        self.assertEqual(
            (event["recipient"], event["feedback_type"], event["user_agent"]),
            ("reader@example.net", "abuse", "Yahoo!-Mail-Feedback/2.0"),
        )
        self.assertEqual((event["size_octets"], event["subject"]), (29, "Hi"))
        self.assertEqual(self.listed(), [("reader@example.net", "t", "complaint")])

    def test_the_original_s_return_path_tells_whose_it_was(self) -> None:
        """Whatever return path the complaint was sent to, and though it hides who complains."""
        self.hand_in("first@example.net")
        other = self.path()
        id = self.hand_in("reader@example.net")
        self.come_back("arf-redacted", other)
        self.assertEqual(self.last("feedback")["message_id"], id)
        self.assertEqual(self.listed(), [("reader@example.net", "t", "complaint")])

    def test_an_address_that_is_named_for_them(self) -> None:
        """The signed return path in the original says whose it was."""
        id = self.hand_in("reader@example.net")
        self.come_back("arf-redacted", FOR_REPORTS)
        self.assertEqual(self.last("feedback")["message_id"], id)
        self.assertEqual(self.listed(), [("reader@example.net", "t", "complaint")])

    def test_a_stranger_complains(self) -> None:
        """And names a message of ours by all that is known of it: a person gets to see it, and that
        is all."""
        self.hand_in("reader@example.net")
        self.own = {"postmaster@ours.test"}
        for name in ("arf-yahoo", "arf-redacted", "postfix"):
            octets = reports()[name].replace(b"<PATH>", b"<a@ours.test>")
            self.bring(octets, FOR_REPORTS)
            last = self.maildirs.attempts[-1].content.message.envelope
            self.assertEqual(last.recipients[0].address, "postmaster@ours.test")
        self.assertEqual([one for one in self.told if one["event"] in ("feedback", "returned")], [])
        self.assertEqual(self.listed(), [])

    def test_a_complaint_of_who_never_got_the_message(self) -> None:
        self.hand_in("a@example.net", "b@example.net")
        self.come_back("arf-yahoo")
        self.assertIsNone(self.last("feedback").get("recipient"))
        self.assertEqual(self.listed(), [])

    def test_no_complaint(self) -> None:
        self.hand_in("reader@example.net")
        self.come_back("arf-not-spam")
        self.assertEqual(self.last("feedback")["feedback_type"], "not-spam")
        self.assertEqual(self.listed(), [])

    def test_nobody_knows_who_of_many(self) -> None:
        self.hand_in("a@example.net", "b@example.net")
        self.come_back("arf-redacted")
        self.assertEqual(self.last("feedback").get("recipient"), None)
        self.assertEqual(self.listed(), [])


class SpoolTests(ReturnedCase):
    def test_paths_are_files_beside(self) -> None:
        """Old rows go."""
        self.hand_in("gone@example.net")
        self.clock.advance(40 * 86_400)
        self.sent.start()
        with self.database.snapshot() as connection:
            self.assertEqual(list(connection.execute("SELECT * FROM sent")), [])
        self.assertTrue((Path(self.folder) / "state.sqlite").exists())
