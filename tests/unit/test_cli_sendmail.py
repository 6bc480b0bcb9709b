"""``sendmail``: what programs that know nothing of us may rely on."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.cli.sendmail_message import BadMessage, complete, recipients_in, with_crlf
from protege_mta.cli.sendmail_options import Asked, NoSuchOption, parsed

from .console import Ran, run, service, submission

USER = pwd.getpwuid(os.getuid()).pw_name
WHOLE = b"From: a@local.test\nDate: Thu, 1 Jan 1970 00:00:00 +0000\nMessage-ID: <1@local.test>\n\nHello.\n"


class OptionTests(SynchronousTestCase):
    def test_what_programs_say(self) -> None:
        """Command lines of cron, PHP, mailx, git and mutt."""
        for line, expected in {
            "-FCronDaemon -i -B8BITMIME -oem root": Asked(
                recipients=["root"], full_name="CronDaemon", ignores_dots=True
            ),
            "-t -i": Asked(takes_recipients=True, ignores_dots=True),
            "-ti -fa@b.test": Asked(takes_recipients=True, ignores_dots=True, sender="a@b.test"),
            "-oi -oem -f a@b.test -- c@d.test -e@f.test": Asked(
                recipients=["c@d.test", "-e@f.test"], ignores_dots=True, sender="a@b.test"
            ),
            "-o i -odi -om -q1h -bm c@d.test": Asked(recipients=["c@d.test"], ignores_dots=True),
            "-N success,DELAY -R hdrs -V a+b=c x@y.test": Asked(
                recipients=["x@y.test"], notify="SUCCESS,DELAY", ret="HDRS", envid="a+2Bb+3Dc"
            ),
            "-N never -v -r <> x@y.test": Asked(
                recipients=["x@y.test"], notify="NEVER", is_verbose=True, sender="<>"
            ),
            "c@d.test -f a@b.test --config x.toml": Asked(
                recipients=["c@d.test"], sender="a@b.test", config="x.toml"
            ),
            "--config=x.toml -O DeliveryMode=b -p ESMTP:host": Asked(config="x.toml"),
        }.items():
            self.assertEqual(parsed(line.split()), expected, line)

    def test_what_cannot_be_obeyed(self) -> None:
        for line in ("-bs", "-bp", "-bd", "-f", "-N sometimes", "-R all", "--nonsense", "-Z", "-"):
            self.assertRaises(NoSuchOption, parsed, line.split())
        self.assertRaises(NoSuchOption, parsed, ["-V", "caf\u00e9"])


class LineEndTests(SynchronousTestCase):
    def test_line_ends(self) -> None:
        """LF and CRLF become CRLF, and the last line has one."""
        for text, expected in {
            b"a\nb\n": b"a\r\nb\r\n",
            b"a\r\nb\n\nc": b"a\r\nb\r\n\r\nc\r\n",
            b"": b"",
        }.items():
            self.assertEqual(with_crlf(text, ends_at_dot=True), expected)

    def test_dot(self) -> None:
        """A dot alone ends the message, unless it is told not to."""
        for text, expected in {
            b"a\n.\nb\n": b"a\r\n",
            b"a\r\n.\r\nb\r\n": b"a\r\n",
            b"a\n.": b"a\r\n",
            b".\nb\n": b"",
            b".": b"",
            b"..\n.a\n": b"..\r\n.a\r\n",
        }.items():
            self.assertEqual(with_crlf(text, ends_at_dot=True), expected)
        self.assertEqual(with_crlf(b"a\n.\nb\n", ends_at_dot=False), b"a\r\n.\r\nb\r\n")

    def test_smuggling(self) -> None:
        """A CR that ends no line could end the message elsewhere; a NUL has no place in mail."""
        for text in (b"a\rb\n", b"a\r\r\n.\r\r\n", b"a\n.\r", b"a\0b"):
            self.assertRaises(BadMessage, with_crlf, text, ends_at_dot=True)


class HeaderTests(SynchronousTestCase):
    def complete(self, message: bytes, name: str = "") -> bytes:
        return complete(
            message, author=(name, "me@local.test"), hostname="mx.local.test", now=1_700_000_000.0
        )

    def test_whole_message_stays_as_it_is(self) -> None:
        message = WHOLE.replace(b"\n", b"\r\n")
        self.assertEqual(self.complete(message), message)

    def test_what_is_missing(self) -> None:
        message = self.complete(b"Subject: x\r\n\r\nbody\r\n", "Me")
        self.assertRegex(
            message,
            rb"\ASubject: x\r\n"
            rb"Date: \w{3}, 1[45] Nov 2023 \d\d:\d\d:20 [+-]\d{4}\r\n"
            rb"From: Me <me@local.test>\r\n"
            rb"Message-ID: <[0-9a-f-]{36}@mx\.local\.test>\r\n"
            rb"\r\nbody\r\n\Z",
        )

    def test_no_header_at_all(self) -> None:
        """A text that starts with no field is all body."""
        message = self.complete(b"Hello there\r\nSubject: not one\r\n")
        self.assertTrue(message.endswith(b"\r\n\r\nHello there\r\nSubject: not one\r\n"))
        self.assertTrue(message.startswith(b"Date: "))

    def test_header_alone(self) -> None:
        message = self.complete(b"Subject: x\r\n")
        self.assertTrue(message.startswith(b"Subject: x\r\nDate: "))
        self.assertTrue(message.endswith(b"@mx.local.test>\r\n\r\n"))

    def test_secret_recipients(self) -> None:
        """Bcc never leaves, nor do its folded lines."""
        message = self.complete(b"Bcc: a@b.test,\r\n c@d.test\r\n" + WHOLE.replace(b"\n", b"\r\n"))
        self.assertEqual(message, WHOLE.replace(b"\n", b"\r\n"))

    def test_mailbox_line(self) -> None:
        message = self.complete(b"From a@b.test Sat Jan  1\r\n" + WHOLE.replace(b"\n", b"\r\n"))
        self.assertEqual(message, WHOLE.replace(b"\n", b"\r\n"))

    def test_names(self) -> None:
        """A name is quoted or encoded as need be, and cannot add a field."""
        for name, expected in {
            "Me": b"From: Me <me@local.test>\r\n",
            "": b"From: me@local.test\r\n",
            'J. "X" Doe': b'From: "J. \\"X\\" Doe" <me@local.test>\r\n',
            "Zo\u00eb": b"From: =?utf-8?q?Zo=C3=AB?= <me@local.test>\r\n",
            "x\r\nBcc: y": b'From: "xBcc: y" <me@local.test>\r\n',
        }.items():
            self.assertIn(expected, self.complete(b"Subject: x\r\n\r\n", name))

    def test_recipients(self) -> None:
        """Addresses of To, Cc and Bcc: with names, comments, groups and folded lines."""
        for header, expected in {
            b'To: "Doe, J." <j@a.test>, k@a.test\r\nCc: l@a.test\r\nBcc: m@a.test\r\n': [
                "j@a.test",
                "k@a.test",
                "l@a.test",
                "m@a.test",
            ],
            b"To: team: a@a.test,\r\n b@a.test; (all of them)\r\n": ["a@a.test", "b@a.test"],
            b"To: undisclosed-recipients:;\r\n": [],
            b'To: "two words"@a.test\r\n': ['"two words"@a.test'],
            b"To: root\r\n": ["root"],
            b"To: a@a.test\r\nResent-To: b@b.test\r\n": ["b@b.test"],
            b"Subject: x\r\n": [],
        }.items():
            self.assertEqual(recipients_in(header + b"\r\nTo: body@a.test\r\n"), expected)


class SendmailTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.config = self.folder / "c.toml"
        self.config.write_text('hostname = "mx.local.test"\nrun_dir = "run"\n')

    def send(
        self, *arguments: str, stdin: bytes = WHOLE, answer: bytes = b'{"id": "x1"}\n'
    ) -> tuple[Ran, Any, bytes]:
        environment = {"PROTEGE_MTA_CONFIG": str(self.config)}
        with service(self.folder / "run/submit.sock", submission(answer)) as heard:
            ran = run(*arguments, stdin=stdin, program="sendmail", environment=environment)
        envelope, message = heard.heard[0] if heard.heard else (None, b"")
        return ran, envelope, message

    def test_envelope(self) -> None:
        ran, envelope, message = self.send(
            *("-f", "a@local.test", "-N", "failure", "-R", "full", "-V", "e1", "b@b.test", "root")
        )
        self.assertEqual((ran.code, ran.out, ran.err), (0, "", ""))
        self.assertEqual(
            envelope,
            {
                "sender": "a@local.test",
                "recipients": ["b@b.test", "root@mx.local.test"],
                "size_octets": 96,
                "notify": "FAILURE",
                "ret": "FULL",
                "envid": "e1",
                "body": "7BIT",
            },
        )
        self.assertEqual(message, WHOLE.replace(b"\n", b"\r\n"))

    def test_sender(self) -> None:
        """We, unless it says otherwise; nobody for <>."""
        for arguments, sender in (
            ([], f"{USER}@mx.local.test"),
            (["-f", "<>"], ""),
            (["-f", "<c@d.test>"], "c@d.test"),
            (["-r", "other"], "other@mx.local.test"),
        ):
            _, envelope, _ = self.send(*arguments, "b@b.test")
            self.assertEqual(envelope["sender"], sender)

    def test_recipients_from_the_header(self) -> None:
        _, envelope, message = self.send(
            "-t", "b@b.test", stdin=b"To: c@c.test, b@b.test\nBcc: d@d.test\n" + WHOLE
        )
        self.assertEqual(envelope["recipients"], ["b@b.test", "c@c.test", "d@d.test"])
        self.assertNotIn(b"d@d.test", message)

    def test_eight_bit(self) -> None:
        _, envelope, message = self.send("b@b.test", stdin=WHOLE + b"caf\xe9\n")
        self.assertEqual(envelope["body"], "8BITMIME")
        self.assertTrue(message.endswith(b"caf\xe9\r\n"))

    def test_refusals(self) -> None:
        """The exit status says whether to come back."""
        for answer, code in {
            b'{"error": "no room", "code": 452}\n': 75,
            b'{"error": "too big", "code": 552}\n': 69,
            b"": 75,
            b"nonsense\n": 75,
            b"[]\n": 75,
        }.items():
            ran, _, _ = self.send("b@b.test", answer=answer)
            self.assertEqual(ran.code, code, answer)
            self.assertTrue(ran.err.startswith("protege-mta: sendmail: "), ran.err)

    def test_service_is_down(self) -> None:
        ran = run("sendmail", "--config", str(self.config), "b@b.test", stdin=WHOLE)
        self.assertEqual(ran.code, 75)
        self.assertIn("the service cannot be reached", ran.err)

    def test_mistakes(self) -> None:
        """Nothing is sent."""
        for arguments, stdin, code in (
            ([], WHOLE, 64),
            (["-bs"], WHOLE, 64),
            (["a b@c.test"], WHOLE, 64),
            (["-f", "@", "b@b.test"], WHOLE, 64),
            (["b@b.test"], b"a\rb\n", 65),
            (["-t"], b"To: <>\n\n", 65),
        ):
            ran, envelope, _ = self.send(*arguments, stdin=stdin)
            self.assertEqual((ran.code, envelope), (code, None), arguments)

    def test_as_a_command(self) -> None:
        """``protege-mta sendmail`` takes the same options, and --config too."""
        with service(self.folder / "run/submit.sock", submission(b'{"id": "x1"}\n')) as heard:
            ran = run("sendmail", "--config", str(self.config), "-v", "--", "b@b.test", stdin=WHOLE)
        self.assertEqual((ran.code, ran.out), (0, "queued as x1\n"))
        self.assertEqual(heard.heard[0][0]["recipients"], ["b@b.test"])

    def test_configuration_in_a_folder_of_strangers(self) -> None:
        """Called by the name of sendmail it takes no configuration from where it happens to be."""
        (self.folder / "protege-mta.toml").write_text('run_dir = "run"\n')
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.folder)
        with service(self.folder / "run/submit.sock", submission(b'{"id": "x1"}\n')) as heard:
            ran = run("b@b.test", stdin=WHOLE, program="sendmail")
        self.assertEqual((ran.code, heard.heard), (75, []))
        self.assertRegex(ran.err, re.escape("/run/protege-mta/submit.sock"))

    def test_early_refusal_of_a_big_message(self) -> None:
        """What the service says before it has read all is what we tell."""

        def serve(stream: Any, state: Any) -> None:
            state.heard.append(stream.readline())
            stream.write(b'{"error": "too big", "code": 552}\n')

        environment = {"PROTEGE_MTA_CONFIG": str(self.config)}
        big = WHOLE + b"x" * 78 + b"\n" * 4_000_000
        with service(self.folder / "run/submit.sock", serve):
            ran = run("b@b.test", stdin=big, program="sendmail", environment=environment)
        self.assertEqual((ran.code, ran.err), (69, "protege-mta: sendmail: too big\n"))
