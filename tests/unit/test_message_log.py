"""Tests of the transaction log, and of who may see and change what."""

from __future__ import annotations

import json
import sqlite3
from itertools import combinations
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.http.message_query import STATUSES
from protege_mta.http.timeline import Whose, may_change, may_see
from protege_mta.model.caller import Caller, Scope
from protege_mta.model.event import EVENTS
from protege_mta.model.message_query import MessageQuery
from protege_mta.model.ports import StateFailed
from protege_mta.state.log import NAME, VERSIONS, LoggedRecipient, TransactionLog


def line(id: str, number: int, transition: int, event: str, **members: object) -> bytes:
    told = {
        "event": event,
        "id": f"{id}.{number}.{transition}",
        "message_id": id,
        "sender": "s@x.test",
    }
    return json.dumps(told | {"recipient": f"r{number}@y.test"} | members).encode()


class LogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.log = TransactionLog(self.folder, most=2)
        self.addCleanup(self.log.close)

    def ids(self, **wanted: str) -> list[str]:
        return [one.message.id for one in self.log.list(MessageQuery(**wanted), 10)]

    def test_last_state(self) -> None:
        """The last event of a recipient is where it stands."""
        lines = [
            line("a", 0, 0, "received"),
            line("a", 1, 0, "received"),
            line("a", 0, 1, "relayed"),
        ]
        self.log.add(lines, "c1")
        found = self.log.find("a")
        assert found is not None
        self.assertEqual([one.status for one in found.recipients], ["relayed", "received"])
        self.assertEqual(self.log.cursor(), "c1")
        self.assertEqual(self.log.events("a"), [lines[0], lines[2], lines[1]])

    def test_reports(self) -> None:
        """What others say of a message later is part of its story, and changes no fate."""
        lines = [line("a", 0, 0, "received"), line("a", 0, 1, "relayed")]
        later = {
            "id": "a.0.01xyz",
            "event": "feedback",
            "message_id": "a",
            "recipient": "r0@y.test",
        }
        lines.append(json.dumps(later).encode())
        self.log.add(lines, "c1")
        self.log.add(lines[2:], "c1")
        found = self.log.find("a")
        assert found is not None
        self.assertEqual([one.status for one in found.recipients], ["relayed"])
        self.assertEqual(self.log.events("a"), lines)

    def test_each_event(self) -> None:
        """What each does to where its recipient stands, and that it is in the story."""
        for event, wanted in (
            *((name, name) for name in STATUSES),
            ("returned", "received"),
            ("feedback", "received"),
        ):
            with self.subTest(event=event):
                log = TransactionLog(Path(self.mktemp()))
                log._path.parent.mkdir()
                self.addCleanup(log.close)
                second = line("a", 0, 1, event)
                if event == "received":
                    second = line("a", 0, 0, event)
                log.add([line("a", 0, 0, "received"), second], "c1")
                found = log.find("a")
                assert found is not None
                self.assertEqual(found.recipients, [LoggedRecipient(0, "r0@y.test", wanted)])
                self.assertEqual(log.events("a")[-1], second)

    def test_every_event_is_known(self) -> None:
        """A new one has to say what it does to where a recipient stands."""
        others = ("returned", "feedback", "rejected")
        self.assertEqual(sorted((*STATUSES, *others)), sorted(EVENTS))

    def test_read_twice_written_once(self) -> None:
        """After a crash the journal is read from the cursor on."""
        lines = [line("a", 0, 0, "received"), line("a", 0, 1, "relayed")]
        self.log.add(lines, "c1")
        self.log.close()
        self.log.add(lines, "c1")
        self.assertEqual(len(self.log.events("a")), 2)

    def test_told_again(self) -> None:
        """Wherever what is told again ends, nobody goes back to where it has been."""
        lines = [
            line("a", 0, 0, "received", tags=["x"]),
            line("a", 0, 1, "deferred"),
            line("a", 0, 2, "held"),
            line("a", 0, 3, "released"),
            line("a", 0, 4, "delivered"),
        ]
        self.log.add(lines, "c1")
        once = (self.log.find("a"), self.log.events("a"))
        for start in range(5):
            for end in range(start + 1, 6):
                self.log.add(lines[start:end], "c1")
                self.assertEqual((self.log.find("a"), self.log.events("a")), once)
        self.assertEqual(self.ids(tag="x"), ["a"])

    def test_in_one_batch_or_many(self) -> None:
        """Where pages of the journal end makes no difference."""
        lines = [
            line("a", 0, n, name) for n, name in enumerate(("received", "deferred", "bounced"))
        ]
        for one in lines:
            self.log.add([one], "c")
        by_one = self.log.find("a"), self.log.events("a")
        with_all = TransactionLog(Path(self.mktemp()))
        with_all._path.parent.mkdir()
        self.addCleanup(with_all.close)
        with_all.add(lines, "c")
        self.assertEqual((with_all.find("a"), with_all.events("a")), by_one)

    def test_the_beginning_is_no_longer_kept(self) -> None:
        """What is left of a story is told, under the recipients' own numbers."""
        self.log.add([line("a", 3, 2, "delivered", size_octets=7, tags=["x"])], "c")
        found = self.log.find("a")
        assert found is not None
        self.assertEqual((found.message.size_octets, found.message.tags), (7, ("x",)))
        self.assertEqual(found.recipients, [LoggedRecipient(3, "r3@y.test", "delivered")])

    def test_killed_in_between(self) -> None:
        """Rows and cursor are of one mind, whatever the disk refuses in the middle."""
        self.log.add([line("a", 0, 0, "received")], "c1")
        spoilt = line("b", 0, 0, "received", tags=["x"])
        connection = self.log._open()
        connection.execute(
            "CREATE TRIGGER full BEFORE DELETE ON place BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
        self.assertRaises(StateFailed, self.log.add, [spoilt], "c2")
        self.log.close()
        self.assertEqual((self.log.cursor(), self.ids(), self.ids(tag="x")), ("c1", ["a"], []))
        self.log._open().execute("DROP TRIGGER full")
        self.log.add([spoilt], "c2")
        self.assertEqual((self.log.cursor(), self.ids(tag="x")), ("c2", ["b"]))

    def test_choices(self) -> None:
        self.log.add([line("a", 0, 0, "received"), line("b", 1, 0, "received", tenant="t")], "c")
        self.assertEqual(self.ids(), ["b", "a"])
        self.assertEqual(self.ids(recipient="R1@y.test"), ["b"])
        self.assertEqual(self.ids(recipient="r1@y.test", status="relayed"), [])
        self.assertEqual(self.ids(status="received", before="b"), ["a"])
        self.assertEqual(self.ids(tenant="t", sender="s@x.test"), ["b"])

        self.assertEqual(self.ids(sender="S@X.test"), ["b", "a"])
        self.assertEqual(self.ids(since="b"), ["b"])
        self.assertEqual(self.ids(since="a", before="b"), ["a"])

    def test_each_message_once(self) -> None:
        """However many of its recipients are what is looked for."""
        twice = {"recipient": "Same@y.test"}
        self.log.add(
            [line("a", 0, 0, "received", **twice), line("a", 1, 0, "received", **twice)], "c"
        )
        self.assertEqual(self.ids(recipient="same@y.test"), ["a"])
        self.assertEqual(self.ids(status="received"), ["a"])

    def test_one_recipient_is_all_that_is_wanted(self) -> None:
        """Status and address are of the same one."""
        self.log.add([line("a", 0, 0, "received"), line("a", 1, 1, "held")], "c")
        self.assertEqual(self.ids(recipient="r0@y.test", status="held"), [])
        self.assertEqual(self.ids(recipient="r1@y.test", status="held"), ["a"])

    def test_tags(self) -> None:
        self.log.add(
            [
                line("a", 0, 0, "received", tags=["x", "y"]),
                line("b", 0, 0, "received", tags=["y"], campaign="c1"),
            ],
            "c",
        )
        self.assertEqual((self.ids(tag="x"), self.ids(tag="y")), (["a"], ["b", "a"]))
        self.assertEqual(self.ids(tag="y", campaign="c1"), ["b"])
        self.assertEqual(self.ids(tag="y", recipient="r0@y.test", before="b"), ["a"])
        self.assertEqual(self.ids(tag="z"), [])

    def test_the_oldest_go(self) -> None:
        self.log.add([line(id, 0, 0, "received", tags=["x"]) for id in "abc"], "c")
        self.log.trim()
        self.assertEqual((self.ids(), self.log.events("a")), (["c", "b"], []))
        rows = self.log._open().execute("SELECT message_id FROM tag").fetchall()
        self.assertEqual(rows, [("b",), ("c",)])
        self.log.add([line("c", 0, 1, "delivered")], "c")  # no other message
        self.log.trim()
        self.assertEqual(self.ids(), ["c", "b"])
        self.log.close()
        self.log.add([line(id, 0, 0, "received") for id in "bde"], "c")
        self.log.trim()
        self.assertEqual(self.ids(), ["e", "d"])
        self.log.add([line("f", 0, 0, "received")], "c")
        self.log.trim()
        self.assertEqual(self.ids(), ["f", "e"])

    def test_an_older_file(self) -> None:
        """Is brought up to date, with all that is in it."""
        path = self.folder / NAME
        old = sqlite3.connect(path)
        for statement in VERSIONS[0]:
            old.execute(statement)
        document = (
            b'{"id":"a","at":"x","sender":"S@x.test","subject":"","size_octets":1,"source":"smtp",'
            b'"identity":"i","tenant":"t","campaign":"c","header_message_id":""}'
        )
        old.execute("INSERT INTO message VALUES ('a', 'S@x.test', 't', 'i', 'c', ?)", (document,))
        old.execute("INSERT INTO recipient VALUES ('a', 0, 'r0@y.test', 'deferred')")
        old.execute("INSERT INTO event VALUES ('a', 0, 0, ?)", (line("a", 0, 0, "received"),))
        old.execute("INSERT INTO place VALUES ('c7')")
        old.execute("PRAGMA user_version = 1")
        old.commit()
        old.close()
        self.assertEqual(self.log.cursor(), "c7")
        for wanted in ({"sender": "s@x.test"}, {"campaign": "c"}, {"status": "deferred"}):
            self.assertEqual(self.ids(**wanted), ["a"])
        self.log.add([line("a", 0, 3, "delivered"), line("b", 0, 0, "received", tags=["x"])], "c8")
        self.assertEqual((self.ids(status="delivered"), self.ids(tag="x")), (["a"], ["b"]))

    def test_a_file_of_a_later_version(self) -> None:
        """Nobody knows what is in it: it is made anew, from the journal."""
        self.log.add([line("a", 0, 0, "received")], "c")
        self.log._open().execute("PRAGMA user_version = 99")
        self.log.close()
        self.assertEqual((self.log.cursor(), self.ids()), ("", []))

    def test_no_list_is_sorted_or_gone_through(self) -> None:
        """An index leads to what is wanted, in order, whatever is asked for with what."""
        choices: dict[str, Any] = {
            "recipient": "r@y.test",
            "sender": "s@x.test",
            "status": "held",
            "tenant": "t",
            "identity": "key:a",
            "campaign": "c",
            "tag": "x",
            "before": "b",
            "since": "a",
        }
        names = list(choices)
        for count in range(len(names) + 1):
            for some in combinations(names, count):
                for status in ("held", "delivered"):
                    chosen = {name: choices[name] for name in some}
                    if "status" in chosen:
                        chosen["status"] = status
                    plan = self.log.plan(MessageQuery(**chosen))
                    leading = set(some) - {"before", "since"}
                    scans = [step for step in plan if step.startswith("SCAN")]
                    self.assertFalse([step for step in plan if "TEMP B-TREE" in step], plan)
                    self.assertFalse(scans and leading, (some, plan))

    def test_which_index(self) -> None:
        for wanted, index in (
            ({"recipient": "a@b.test", "status": "held", "tenant": "t"}, "recipient_by_address"),
            ({"tag": "x", "status": "held", "tenant": "t"}, "PRIMARY KEY (tag=?"),
            ({"campaign": "c", "status": "held", "tenant": "t"}, "message_by_campaign"),
            ({"sender": "s@x.test", "tenant": "t"}, "message_by_sender"),
            ({"status": "held", "identity": "key:a", "tenant": "t"}, "recipient_by_status"),
            ({"status": "delivered", "identity": "key:a", "tenant": "t"}, "message_by_identity"),
            ({"status": "delivered", "tenant": "t"}, "message_by_tenant"),
            ({"status": "delivered"}, "recipient_by_status"),
        ):
            plan = self.log.plan(MessageQuery(before="b", **wanted))
            self.assertIn(index, plan[0])
            self.assertIn("<?", plan[0])

    def test_spoilt_lines_and_refusals(self) -> None:
        """Are passed over."""
        refused = b'{"event":"rejected","id":"s-1.0.1","at":"x"}'
        self.log.add([b"\xff", b"{}", refused, line("a", 0, 0, "received")], "c")
        self.assertEqual(self.ids(), ["a"])

    def test_a_damaged_file(self) -> None:
        """Is made anew, from the journal."""
        self.log.add([line("a", 0, 0, "received")], "c")
        self.log.close()
        (self.folder / NAME).write_bytes(b"no database, no database, no database")
        self.assertEqual((self.log.cursor(), self.ids()), ("", []))

    def test_a_file_that_cannot_be_used(self) -> None:
        """Is told as every state is that nobody can read; once it can be, the log goes on."""
        (self.folder / NAME).mkdir()
        for work in (
            self.log.cursor,
            self.log.trim,
            lambda: self.log.find("a"),
            lambda: self.log.events("a"),
            lambda: self.log.list(MessageQuery(), 10),
            lambda: self.log.add([line("a", 0, 0, "received")], "c"),
        ):
            with self.assertRaises(StateFailed):
                work()
        (self.folder / NAME).rmdir()
        self.log.add([line("a", 0, 0, "received")], "c")
        self.assertEqual(self.ids(), ["a"])

    def test_damage_found_while_reading(self) -> None:
        """Whoever asks is told to come back, and by then the log is made anew."""
        self.log.add([line("a", 0, 0, "received")], "c")
        self.log.close()
        path = self.folder / NAME
        octets = bytearray(path.read_bytes())
        octets[4096:] = b"\xaa" * (len(octets) - 4096)  # its header and its schema are whole
        path.write_bytes(octets)
        with self.assertRaises(StateFailed):
            self.log.find("a")
        self.assertEqual((self.log.cursor(), self.ids()), ("", []))


class ScopeTests(SynchronousTestCase):
    def caller(self, *scopes: Scope, identity: str = "key:a", tenant: str = "t") -> Caller:
        return Caller(identity=identity, scopes=frozenset(scopes), tenant=tenant)

    def test_who_sees(self) -> None:
        """Its sender, the keys of its tenant and of none that may read, and admin; not a key of the
        sender's name that another tenant has now."""
        whose = Whose("key:a", "t")
        for caller, is_shown in (
            (self.caller("send"), True),
            (self.caller("send", identity="key:b"), False),
            (self.caller("read", identity="key:b", tenant="t"), True),
            (self.caller("read", identity="key:b", tenant="u"), False),
            (self.caller("read", identity="key:b", tenant=""), True),
            (self.caller("send", tenant=""), False),
            (self.caller("send", tenant="u"), False),
            (self.caller("admin", identity="key:b", tenant="u"), True),
        ):
            self.assertEqual(may_see(caller, whose), is_shown, caller)

    def test_nobody_is_no_identity(self) -> None:
        """Who came without a key owns nothing, not even what came without one."""
        self.assertFalse(may_see(self.caller("send", identity="", tenant=""), Whose("", "")))

    def test_who_changes(self) -> None:
        whose = Whose("key:a", "t")
        self.assertIsNone(may_change(self.caller("send"), whose, "cancel"))
        self.assertIsNone(may_change(self.caller("send"), whose, "release"))
        self.assertIsNotNone(may_change(self.caller("read", identity="key:b"), whose, "cancel"))
        self.assertIsNone(may_change(self.caller("admin", identity="key:b"), whose, "hold"))

    def test_nobody_approves_its_own(self) -> None:
        """Neither as a sender nor with the scope admin."""
        whose = Whose("key:a", "t", needs_approval=True)
        self.assertIsNotNone(may_change(self.caller("send"), whose, "release"))
        self.assertIsNotNone(may_change(self.caller("send", "admin"), whose, "release"))
        self.assertIsNotNone(may_change(self.caller("read", identity="key:b"), whose, "release"))
        self.assertIsNone(may_change(self.caller("admin", identity="key:b"), whose, "release"))
        self.assertIsNone(may_change(self.caller("send"), whose, "cancel"))
