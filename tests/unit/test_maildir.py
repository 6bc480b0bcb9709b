"""Tests of Maildir delivery, into real folders."""

from __future__ import annotations

import errno
import mailbox
import os
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import attrs
from twisted.internet.defer import Deferred, execute
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import NULL, Address
from protege_mta.model.envelope import Envelope, Message, Origin, Recipient
from protege_mta.model.hop import Site
from protege_mta.model.ids import QueueId
from protege_mta.model.outcome import (
    Contact,
    Delivered,
    Outcome,
    PermanentFailure,
    Scope,
    TransientFailure,
)
from protege_mta.model.ports import Attempt, HopAbilities, Prepared, Transport
from protege_mta.model.reply import TABLE
from protege_mta.transport.maildir import MaildirTransport, Outcomes, folder_name, resolver

ID = QueueId("01k5vz4m00abcdefgh00000001")
NAME = "1000.01k5vz4m00abcdefgh00000001R0.mx.test"
ARRIVED_AT = 1000.75


@attrs.define
class Octets:
    """Content in memory, read a few octets at a time."""

    message: Message
    octets: bytes
    most: int = 1 << 30

    @property
    def size_octets(self) -> int:
        return len(self.octets)

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        end = len(self.octets) if size < 0 else offset + size
        return self.octets[offset : min(end, offset + self.most)]

    def close(self) -> None: ...


def unprepared(abilities: HopAbilities) -> Prepared:
    raise RuntimeError("a Maildir stores a message as it came")


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.base = Path(self.mktemp()).absolute()
        self.folder = self.base / "b.test" / "b"
        self.transport = self.new(started_at=500.0)

    def new(self, started_at: float) -> MaildirTransport:
        return MaildirTransport(
            resolver({"b.test": f"{self.base}/{{domain}}/{{local_part}}"}),
            in_thread=self.in_thread,
            hostname="mx.test",
            started_at=started_at,
        )

    def in_thread(self, work: Callable[[], Outcomes]) -> Deferred[Outcomes]:
        return execute(work)

    def attempt(
        self,
        *recipients: str,
        octets: bytes = b"Subject: x\r\n\r\nhello\r\n",
        sender: str = "a@a.test",
    ) -> Attempt:
        message = Message(
            ID,
            Envelope(Address(sender), tuple(Recipient(Address(r)) for r in recipients)),
            Origin("smtp"),
            ARRIVED_AT,
            len(octets),
        )
        return Attempt(
            Site("maildir:b.test", "maildir"),
            "b.test",
            Octets(message, octets),
            tuple(range(len(recipients))),
            unprepared,
        )

    def deliver(self, attempt: Attempt, transport: Transport | None = None) -> list[Outcome]:
        outcomes = self.successResultOf((transport or self.transport).deliver(attempt))
        self.assertEqual(tuple(index for index, _ in outcomes), attempt.recipients)
        return [outcome for _, outcome in outcomes]

    def files(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.base)) for path in self.base.rglob("*") if path.is_file()
        )


class DeliveryTests(Case):
    def test_delivered(self) -> None:
        (outcome,) = self.deliver(self.attempt("b@b.test"))
        wanted = Delivered(Contact(str(self.folder)), TABLE["delivered"], is_final=True)
        self.assertEqual(outcome, wanted)
        self.assertEqual(self.files(), [f"b.test/b/new/{NAME}"])
        self.assertEqual(
            (self.folder / "new" / NAME).read_bytes(),
            b"Return-Path: <a@a.test>\nDelivered-To: b@b.test\nSubject: x\n\nhello\n",
        )

    def test_line_ends_of_our_own_fields(self) -> None:
        """Every line of the file ends alike."""
        self.deliver(self.attempt("b@b.test"))
        self.assertNotIn(b"\r", (self.folder / "new" / NAME).read_bytes())

    def test_others_cannot_read(self) -> None:
        self.deliver(self.attempt("b@b.test"))
        for path in (self.folder, self.folder / "new"):
            self.assertEqual(path.stat().st_mode & 0o777, 0o700)
        self.assertEqual((self.folder / "new" / NAME).stat().st_mode & 0o777, 0o600)

    def test_readers_see_a_maildir(self) -> None:
        """Another program's Maildir code reads what we wrote."""
        self.deliver(self.attempt("b@b.test", sender=NULL))
        (message,) = mailbox.Maildir(str(self.folder), create=False)
        self.assertEqual(message["Return-Path"], "<>")
        self.assertEqual(message.get_payload(), "hello\n")

    def test_durable_before_it_is_told(self) -> None:
        """Content is synced before it gets its name, and the name before anybody hears of it."""
        (self.folder / "new").mkdir(parents=True)
        (self.folder / "tmp").mkdir()
        (self.folder / "cur").mkdir()
        calls: list[str] = []

        def noting(name: str, call: Callable[..., object]) -> Callable[..., None]:
            def noted(*arguments: object) -> None:
                call(*arguments)
                path = os.readlink(f"/proc/self/fd/{arguments[0]}") if name != "rename" else ""
                calls.append(f"{name} {path.removeprefix(str(self.folder))}".strip())

            return noted

        for name in ("fdatasync", "rename", "fsync"):
            self.patch(os, name, noting(name, getattr(os, name)))
        self.deliver(self.attempt("b@b.test"))
        self.assertEqual(calls, [f"fdatasync /tmp/{NAME}", "rename", "fsync /new"])

    def test_several_recipients(self) -> None:
        outcomes = self.deliver(self.attempt("b@b.test", "C@b.test", '"../x y"@b.test'))
        self.assertTrue(all(isinstance(outcome, Delivered) for outcome in outcomes))
        self.assertEqual(
            self.files(),
            [
                f"b.test/%2E.%2Fx%20y/new/{NAME.replace('R0', 'R2')}",
                f"b.test/b/new/{NAME}",
                f"b.test/c/new/{NAME.replace('R0', 'R1')}",
            ],
        )

    def test_nothing_else_is_changed(self) -> None:
        """Octets beyond line ends are the sender's."""
        octets = b"Subject: \xff\r\n\r\n\x00\t\r\n.\r\n..\r\nFrom x\r\nno end"
        self.deliver(self.attempt("b@b.test", octets=octets))
        stored = (self.folder / "new" / NAME).read_bytes()
        self.assertTrue(stored.endswith(b"Subject: \xff\n\n\x00\t\n.\n..\nFrom x\nno end"))

    def test_big(self) -> None:
        """A message of many pieces is stored whole."""
        octets = b"Subject: x\r\n\r\n" + b"0123456789abcdef\r\n" * 100_000
        self.deliver(self.attempt("b@b.test", octets=octets))
        stored = (self.folder / "new" / NAME).read_bytes()
        self.assertEqual(stored.partition(b"Subject")[2], octets.replace(b"\r\n", b"\n")[7:])

    def test_loop(self) -> None:
        """A message that comes back to the mailbox it was delivered to bounces."""
        octets = b"Delivered-To: B@b.test\r\nSubject: x\r\n\r\nhello\r\n"
        loops, goes = self.deliver(self.attempt("b@b.test", "c@b.test", octets=octets))
        self.assertEqual(
            loops,
            PermanentFailure(Scope.RECIPIENT, TABLE["delivery-loop"], Contact(str(self.folder))),
        )
        self.assertIsInstance(goes, Delivered)

    def test_close_waits(self) -> None:
        """Closing ends when the last delivery has."""
        threads: list[Deferred[Outcomes]] = []

        def in_thread(work: Callable[[], Outcomes]) -> Deferred[Outcomes]:
            threads.append(Deferred())
            return threads[-1]

        self.assertIsNone(self.successResultOf(self.transport.close()))
        transport = MaildirTransport(
            lambda domain, local: self.folder, in_thread=in_thread, hostname="h", started_at=0
        )
        delivery = transport.deliver(self.attempt("b@b.test"))
        closing = transport.close()
        self.assertNoResult(closing)
        threads[0].callback([])
        self.assertEqual(self.successResultOf(delivery), [])
        self.assertIsNone(self.successResultOf(closing))


class RepeatedDeliveryTests(Case):
    """The mailbox has a message once, though a crash has it delivered twice."""

    def test_overwritten(self) -> None:
        for _ in range(2):
            self.deliver(self.attempt("b@b.test"))
        self.assertEqual(self.files(), [f"b.test/b/new/{NAME}"])

    def test_read_meanwhile(self) -> None:
        """After a restart, what a reader has seen does not come again."""
        self.deliver(self.attempt("b@b.test"))
        os.rename(self.folder / "new" / NAME, self.folder / "cur" / f"{NAME}:2,S")
        (outcome,) = self.deliver(self.attempt("b@b.test"), self.new(started_at=2000.0))
        self.assertIsInstance(outcome, Delivered)
        self.assertEqual(self.files(), [f"b.test/b/cur/{NAME}:2,S"])

    def test_doubtful(self) -> None:
        """A delivery whose last sync failed is tried again, and still makes one message."""
        (self.folder / "new").mkdir(parents=True)
        with mock.patch("os.fsync", side_effect=_fails_for(self.folder / "new")):
            (outcome,) = self.deliver(self.attempt("b@b.test"))
        self.assertIsInstance(outcome, TransientFailure)
        os.rename(self.folder / "new" / NAME, self.folder / "cur" / NAME)
        (outcome,) = self.deliver(self.attempt("b@b.test"))
        self.assertIsInstance(outcome, Delivered)
        self.assertEqual(self.files(), [f"b.test/b/cur/{NAME}"])

    def test_left_by_a_crash(self) -> None:
        """Half a file under ``tmp`` is written anew."""
        self.deliver(self.attempt("b@b.test"))
        os.rename(self.folder / "new" / NAME, self.folder / "tmp" / NAME)
        (self.folder / "tmp" / NAME).write_bytes(b"x" * 1000)
        self.deliver(self.attempt("b@b.test"))
        self.assertEqual(self.files(), [f"b.test/b/new/{NAME}"])
        self.assertTrue((self.folder / "new" / NAME).read_bytes().endswith(b"\nhello\n"))


class FaultTests(Case):
    """Local trouble is never the sender's fault, and leaves nothing behind."""

    def failing(self, number: int, call: str = "os.write") -> Outcome:
        with mock.patch(call, side_effect=OSError(number, os.strerror(number))):
            (outcome,) = self.deliver(self.attempt("b@b.test"))
        self.assertEqual(self.files(), [])
        return outcome

    def test_full_disk(self) -> None:
        """Everybody on that disk waits."""
        self.assertEqual(
            self.failing(errno.ENOSPC),
            TransientFailure(Scope.SITE, TABLE["spool-full"], Contact(str(self.folder))),
        )

    def test_quota(self) -> None:
        self.assertEqual(
            self.failing(errno.EDQUOT),
            TransientFailure(Scope.RECIPIENT, TABLE["mailbox-full"], Contact(str(self.folder))),
        )

    def test_others(self) -> None:
        for number, call in (
            (errno.EIO, "os.fdatasync"),
            (errno.EACCES, "os.open"),
            (errno.EXDEV, "os.rename"),
        ):
            self.assertEqual(
                self.failing(number, call),
                TransientFailure(Scope.RECIPIENT, TABLE["local-error"], Contact(str(self.folder))),
            )

    def test_a_file_in_the_way(self) -> None:
        self.folder.parent.mkdir(parents=True)
        self.folder.write_bytes(b"")
        (outcome,) = self.deliver(self.attempt("b@b.test"))
        self.assertIsInstance(outcome, TransientFailure)

    def test_one_of_several(self) -> None:
        """One broken mailbox does not keep mail from the others."""
        self.folder.parent.mkdir(parents=True)
        self.folder.write_bytes(b"")
        broken, fine = self.deliver(self.attempt("b@b.test", "c@b.test"))
        self.assertIsInstance(broken, TransientFailure)
        self.assertIsInstance(fine, Delivered)

    def test_a_link_is_not_followed(self) -> None:
        """A link planted under ``tmp`` does not send mail elsewhere."""
        (self.folder / "tmp").mkdir(parents=True)
        (self.folder / "tmp" / NAME).symlink_to("/dev/null")
        (outcome,) = self.deliver(self.attempt("b@b.test"))
        self.assertIsInstance(outcome, TransientFailure)

    def test_content_that_ends_early(self) -> None:
        attempt = self.attempt("b@b.test")
        with mock.patch.object(Octets, "size_octets", 1000):
            (outcome,) = self.deliver(attempt)
        self.assertIsInstance(outcome, TransientFailure)
        self.assertEqual(self.files(), [])

    def test_bug(self) -> None:
        """A domain without a template is a bug of ours: logged, and tried again."""
        attempt = attrs.evolve(self.attempt("b@b.test"), domain="unknown.test")
        (outcome,) = self.deliver(attempt)
        self.assertEqual(outcome, TransientFailure(Scope.RECIPIENT, TABLE["local-error"]))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)


class FolderNameTests(SynchronousTestCase):
    """Names of mailboxes, as the configuration reference promises them."""

    def test_names(self) -> None:
        for text, name in (
            ("agent", "agent"),
            ("Agent+Tag", "agent+tag"),
            ("a.b_c-d", "a.b_c-d"),
            (".", "%2E"),
            ("..", "%2E."),
            (".hidden", "%2Ehidden"),
            ("a/b", "a%2Fb"),
            ("a\0", "a%00"),
            ("50%", "50%25"),
            ("É", "%C3%A9"),
            ("", "%"),
        ):
            self.assertEqual(folder_name(text), name)

    def test_long(self) -> None:
        self.assertEqual(folder_name("a" * 200), "a" * 200)
        self.assertEqual(
            folder_name("a" * 201),
            "%sha256-a92efd82109373e58f9a2056dee01e807e216ce6075f7051207c0a9f7d666e50",
        )


def _fails_for(folder: Path) -> Callable[[int], None]:
    fsync = os.fsync

    def syncing(fd: int) -> None:
        if os.path.samestat(os.fstat(fd), os.stat(folder)):
            raise OSError(errno.EIO, "Input/output error")
        fsync(fd)

    return syncing
