"""The syntax of commands: what is taken, what it means, and what is refused with which code."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import Address
from protege_mta.model.envelope import Envelope, Notify, Recipient
from protege_mta.model.ports import MailCommand
from protege_mta.model.reply import TABLE
from protege_mta.testing.smtp_dialog import Client
from protege_mta.wire import commands

CORPUS = Path(__file__).parent.parent / "corpora" / "smtp_server" / "syntax.txt"


def rcpt(argument: bytes, *, is_smtputf8: bool = False) -> object:
    return commands.rcpt(argument, is_smtputf8=is_smtputf8, hostname="mx.test")


class CorpusTests(SynchronousTestCase):
    def test_every_command_of_the_corpus_has_its_reply(self) -> None:
        cases = 0
        for line in CORPUS.read_text("ascii").splitlines():
            if line.startswith("#"):
                continue
            code, enhanced, text = line.split(" ", 2)
            command = text.encode("ascii").decode("unicode_escape").encode("latin-1")
            client = Client()
            before = [b"EHLO c.example"]
            if command.startswith(b"RCPT8"):
                before.append(b"MAIL FROM:<> SMTPUTF8")
                command = command.replace(b"RCPT8", b"RCPT")
            elif command.upper().startswith(b"RCPT"):
                before.append(b"MAIL FROM:<>")
            client.say(b"\r\n".join([*before, b""]))
            said = client.say(command + b"\r\n").split(b"\r\n")[-2]
            expected = f"{code} " if enhanced == "-" else f"{code} {enhanced} "
            self.assertEqual(said[: len(expected)].decode(), expected, line)
            self.assertEqual(client.say(b"NOOP\r\n"), b"250 2.0.0 ok\r\n", line)
            cases += 1
        self.assertGreater(cases, 140)


class MailTests(SynchronousTestCase):
    def test_the_null_reverse_path(self) -> None:
        self.assertEqual(commands.mail(b"FROM:<>"), MailCommand(Envelope(Address(""), ())))

    def test_a_source_route_is_ignored(self) -> None:
        self.assertEqual(
            commands.mail(b"FROM:<@x.example:a@b.example>"),
            MailCommand(Envelope(Address("a@b.example"), ())),
        )

    def test_all_parameters(self) -> None:
        self.assertEqual(
            commands.mail(b"FROM:<a@b.example> size=7 body=8bitmime SMTPUTF8 RET=full ENVID=Q+3D"),
            MailCommand(Envelope(Address("a@b.example"), (), "8BITMIME", True, "FULL", "Q+3D"), 7),
        )

    def test_a_future_release(self) -> None:
        for text, at in (
            ("HOLDFOR=3600", 4600.0),
            ("HOLDUNTIL=1970-01-01T01:00:00Z", 3600.0),
            ("HOLDUNTIL=1970-01-01t01:00:00.5z", 3600.5),
            ("holduntil=1970-01-01T02:30:00+01:30", 3600.0),
        ):
            mail = commands.mail(b"FROM:<a@b.example> " + text.encode())
            assert isinstance(mail, MailCommand)
            asked = mail.envelope.future_release
            self.assertEqual(asked, f"{text[4:].lower().split('=')[0]};{text.split('=')[1]}")
            self.assertEqual(mail.envelope.hold_until, 0.0)
            self.assertEqual(commands.release_at(asked, 1000.0), at)

    def test_tls_all_the_way(self) -> None:
        self.assertEqual(
            commands.mail(b"FROM:<a@b.example> requiretls"),
            MailCommand(Envelope(Address("a@b.example"), (), requires_tls=True)),
        )

    def test_the_longest_envid(self) -> None:
        self.assertIsInstance(commands.mail(b"FROM:<> ENVID=" + b"x" * 100), MailCommand)
        self.assertEqual(commands.mail(b"FROM:<> ENVID=" + b"x" * 101), TABLE["bad-argument"])

    def test_what_a_local_part_may_hold_is_kept_as_written(self) -> None:
        mail = commands.mail(b'FROM:<"a\\"> b"@B.Example>')
        self.assertEqual(mail, MailCommand(Envelope(Address('"a\\"> b"@B.Example'), ())))


class RcptTests(SynchronousTestCase):
    def test_postmaster_without_a_domain_is_ours_in_any_case(self) -> None:
        ours = Recipient(Address("postmaster@mx.test"))
        self.assertEqual(rcpt(b"TO:<Postmaster>"), ours)
        self.assertEqual(rcpt(b"to:<POSTMASTER>"), ours)

    def test_all_parameters(self) -> None:
        self.assertEqual(
            rcpt(b"TO:<a@b.example> NOTIFY=SUCCESS,delay ORCPT=rfc822;Bob+2B@b.example"),
            Recipient(
                Address("a@b.example"), Notify.SUCCESS | Notify.DELAY, "rfc822;Bob+2B@b.example"
            ),
        )

    def test_an_international_orcpt_needs_smtputf8(self) -> None:
        argument = "TO:<a@b.example> ORCPT=utf-8;jörg@b.example".encode()
        self.assertEqual(rcpt(argument), TABLE["bad-argument"])
        self.assertEqual(
            rcpt(argument, is_smtputf8=True),
            Recipient(Address("a@b.example"), orcpt="utf-8;jörg@b.example"),
        )

    def test_the_longest_orcpt(self) -> None:
        self.assertIsInstance(rcpt(b"TO:<a@b.example> ORCPT=rfc822;" + b"x" * 493), Recipient)
        self.assertEqual(
            rcpt(b"TO:<a@b.example> ORCPT=rfc822;" + b"x" * 494), TABLE["bad-argument"]
        )


class ChunkTests(SynchronousTestCase):
    def test_sizes(self) -> None:
        self.assertEqual(commands.chunk(b"0"), (0, False))
        self.assertEqual(commands.chunk(b"86 LAST"), (86, True))
        self.assertEqual(commands.chunk(b"086 last"), (86, True))

    def test_no_sizes(self) -> None:
        for bad in (
            b"",
            b"-1",
            b"1.0",
            b"0x10",
            b"1 ",
            b"1  LAST",
            b"LAST",
            b"1 LAST x",
            b"9" * 21,
        ):
            self.assertIsNone(commands.chunk(bad), bad)
