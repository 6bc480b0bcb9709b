"""Tests of the transaction log, and of who may see and change what."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.http.timeline import Whose, may_change, may_see
from protege_mta.model.caller import Caller, Scope
from protege_mta.state.log import NAME, TransactionLog, Wanted


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
        return [one.message.id for one in self.log.list(Wanted(**wanted), 10)]

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

    def test_read_twice_written_once(self) -> None:
        """After a crash the journal is read from the cursor on."""
        lines = [line("a", 0, 0, "received"), line("a", 0, 1, "relayed")]
        self.log.add(lines, "c1")
        self.log.close()
        self.log.add(lines, "c1")
        self.assertEqual(len(self.log.events("a")), 2)

    def test_choices(self) -> None:
        self.log.add([line("a", 0, 0, "received"), line("b", 1, 0, "received", tenant="t")], "c")
        self.assertEqual(self.ids(), ["b", "a"])
        self.assertEqual(self.ids(recipient="R1@y.test"), ["b"])
        self.assertEqual(self.ids(recipient="r1@y.test", status="relayed"), [])
        self.assertEqual(self.ids(status="received", before="b"), ["a"])
        self.assertEqual(self.ids(tenant="t", sender="s@x.test"), ["b"])

    def test_the_oldest_go(self) -> None:
        self.log.add([line(id, 0, 0, "received") for id in "abc"], "c")
        self.log.trim()
        self.assertEqual((self.ids(), self.log.events("a")), (["c", "b"], []))

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
