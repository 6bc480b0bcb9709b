"""A message is judged by its header before anything of it is passed on."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import NULL
from protege_mta.model.envelope import Envelope
from protege_mta.model.ports import Intake
from protege_mta.model.reply import TABLE, Reply
from protege_mta.policy.header_first import HEADER_OCTETS, HeaderFirst
from protege_mta.testing.doors import FakeIntake


class HeaderFirstTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.behind = FakeIntake(Envelope(NULL, ()))
        self.looked_at: list[bytes] = []
        self.ends: list[Reply | None] = []
        self.fields = b""
        self.intake: Intake = HeaderFirst(self.behind, self.look, self.ended)

    def ended(self, reply: Reply | None, fields: bytes) -> None:
        self.ends.append(reply)
        self.fields = fields

    def look(self, fields: bytes) -> bytes | Reply:
        self.looked_at.append(fields)
        if b"bad" in fields:
            return TABLE["bad-author"]
        if b"bug" in fields:
            raise RuntimeError("a bug")
        return fields + b"Added: yes\r\n"

    def finish(self) -> Reply:
        return self.successResultOf(self.intake.finish())

    def test_body_streams(self) -> None:
        for piece in (b"A: ", b"b\r\n", b"\r\nfirst", b" second"):
            self.intake.write(piece)
        self.assertEqual(self.behind.pieces, [b"A: b\r\nAdded: yes\r\n\r\nfirst", b" second"])
        self.assertEqual(self.looked_at, [b"A: b\r\n"])
        self.assertEqual(self.finish(), TABLE["ok"])
        self.assertEqual((self.behind.ended, self.ends), ("finished", [TABLE["ok"]]))

    def test_message_that_ends_in_its_header(self) -> None:
        self.intake.write(b"A: b")
        self.assertEqual(self.finish(), TABLE["ok"])
        self.assertEqual(self.behind.content, b"A: b\r\nAdded: yes\r\n\r\n")

    def test_refused(self) -> None:
        """At its end; nothing was passed on."""
        for piece in (b"A: bad\r\n", b"\r\n", b"body"):
            self.assertIsNone(self.intake.write(piece))
        self.assertEqual((self.behind.content, self.behind.ended), (b"", "aborted"))
        self.assertEqual(self.finish(), TABLE["bad-author"])
        self.assertEqual(self.ends, [TABLE["bad-author"]])
        self.assertEqual(self.fields, b"A: bad\r\n")

    def test_refused_at_the_end(self) -> None:
        self.intake.write(b"A: bad")
        self.assertEqual(self.finish(), TABLE["bad-author"])
        self.assertEqual(self.behind.ended, "aborted")

    def test_header_without_end(self) -> None:
        """Is held back so far and no further."""
        self.intake.write(b"A: " + b"b" * (HEADER_OCTETS - 3))
        self.assertEqual(self.behind.ended, "")
        self.intake.write(b"b")
        self.assertEqual((self.behind.content, self.behind.ended), (b"", "aborted"))
        self.intake.write(b"\r\n\r\n")
        self.assertEqual(self.finish(), TABLE["header-too-long"])

    def test_broken_off(self) -> None:
        """In the header, in the body, and after a refusal."""
        for octets in (b"A: ", b"A: b\r\n\r\nbody", b"A: bad\r\n\r\nbody"):
            self.setUp()
            self.intake.write(octets)
            self.intake.abort()
            self.assertEqual((self.behind.ended, self.ends), ("aborted", [None]))

    def test_back_pressure(self) -> None:
        pause: Deferred[None] = Deferred()
        self.behind.pauses.append(pause)
        self.assertIs(self.intake.write(b"A: b\r\n\r\nbody"), pause)
        self.behind.pauses.append(pause)
        self.assertIs(self.intake.write(b"more"), pause)

    def test_back_pressure_at_the_end(self) -> None:
        pause: Deferred[None] = Deferred()
        self.behind.pauses.append(pause)
        self.intake.write(b"A: b")
        fate = self.intake.finish()
        self.assertEqual(self.behind.ended, "")
        pause.callback(None)
        self.assertEqual(self.successResultOf(fate), TABLE["ok"])

    def test_our_own_fault(self) -> None:
        """Is not the sender's, and leaves nothing open."""
        self.intake.write(b"A: bug")
        self.assertEqual(self.finish(), TABLE["local-error"])
        self.assertEqual((self.behind.ended, self.ends), ("aborted", [TABLE["local-error"]]))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_fate_that_fails(self) -> None:
        """Whoever counts is told that it is over."""
        self.behind.fate = fail(RuntimeError("a bug"))
        self.intake.write(b"A: b\r\n\r\n")
        self.failureResultOf(self.intake.finish(), RuntimeError)
        self.assertEqual(self.ends, [None])
