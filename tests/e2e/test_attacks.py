"""Attacks on the doors of the real program; what floods do to others is measured in ``bench``.

attacker       -->  smtp, submission, submissions
honest client  -->  the same, meanwhile
"""

from __future__ import annotations

import base64
import smtplib
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

from .service import ServiceTestCase
from .submission import PASSWORD, open_doors

AGENT: Final = "agent@local.test"

ENDS: Final = tuple(
    before + b"." + after
    for before in (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\0", b"\r\n ", b"\x85", b"")
    for after in (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\0\r\n", b" \r\n", b"\x85\r\n")
    if b"\r\n.\r\n" not in before + b"." + after
)
"""What some server or other takes for the end of data, and none may."""

SMUGGLED: Final = (
    b"MAIL FROM:<evil@local.test>\r\nRCPT TO:<smuggled@local.test>\r\nDATA\r\n"
    b"Subject: smuggled\r\n\r\nevil\r\n.\r\n"
)
LINE_OCTETS: Final = 64 * 1024 * 1024
SPARE_OCTETS: Final = 24 * 1024 * 1024
"""So much the service may grow by while it is sent nonsense."""

GUESSES: Final = 12
LOGIN: Final = """
[login]
delay_s = 0.2
failures = 6
"""
"""Waits of 0.2, 0.4, ... 3.2 s, and then a lock."""


class Channel:
    """A raw connection."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 30, (address, 0))
        self.lines: BinaryIO = self.socket.makefile("rb")

    def encrypt(self, ca_file: Path) -> None:
        context = ssl.create_default_context(cafile=str(ca_file))
        self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self.lines = self.socket.makefile("rb")

    def send(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def reply(self) -> bytes:
        """The next one; empty once the channel is closed."""
        said = b""
        while line := self.lines.readline():
            said += line
            if line[3:4] != b"-":
                break
        return said

    def ask(self, line: bytes) -> bytes:
        self.send(line + b"\r\n")
        return self.reply()

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


class AttackTests(ServiceTestCase):
    ca_file: ClassVar[Path]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.service, cls.ca_file = open_doors(
            stack, {"agent": ("--allowed-from", AGENT), "target": ()}, LOGIN
        )

    @contextmanager
    def channel(self, listener: str = "smtp", address: str = "127.0.0.1") -> Iterator[Channel]:
        channel = Channel(self.service.port(listener), address)
        try:
            if listener == "submissions":
                channel.encrypt(self.ca_file)
            yield channel
        finally:
            channel.close()

    def assert_serves(self, listener: str = "smtp") -> None:
        """Somebody honest is still served, and quickly."""
        began = time.monotonic()
        with self.channel(listener, "127.0.0.3") as channel:
            self.assertEqual(channel.reply()[:3], b"220")
            self.assertEqual(channel.ask(b"EHLO honest.test")[:3], b"250")
            self.assertEqual(channel.ask(b"QUIT")[:3], b"221")
        self.assertLess(time.monotonic() - began, 5)

    def rss_octets(self) -> int:
        text = Path(f"/proc/{self.service.pid}/status").read_text("ascii")
        [line] = [line for line in text.splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1]) * 1024

    # --- what is hidden in what ------------------------------------------------------------------

    def test_commands_behind_starttls(self) -> None:
        """They end the session; none is obeyed under the TLS that follows (CVE-2011-0411)."""
        for listener in ("smtp", "submission"):
            with self.channel(listener) as channel:
                channel.reply()
                channel.ask(b"EHLO evil.test")
                channel.send(b"STARTTLS\r\nEHLO evil.test\r\nMAIL FROM:<>\r\n")
                self.assertEqual(channel.reply()[:3], b"421")
                self.assertEqual(channel.reply(), b"")

    def test_what_was_said_in_clear_is_forgotten(self) -> None:
        with self.channel("smtp") as channel:
            channel.reply()
            channel.ask(b"EHLO evil.test")
            self.assertEqual(channel.ask(b"MAIL FROM:<evil@elsewhere.test>")[:3], b"250")
            self.assertEqual(channel.ask(b"RSET")[:3], b"250")
            self.assertEqual(channel.ask(b"STARTTLS")[:3], b"220")
            channel.encrypt(self.ca_file)
            self.assertEqual(channel.ask(b"RCPT TO:<agent@local.test>")[:3], b"503")
            self.assertEqual(channel.ask(b"MAIL FROM:<a@b.test>")[:3], b"503")

    def test_auth_is_not_to_be_had_in_clear(self) -> None:
        """Whoever strips STARTTLS from our EHLO gets no password for it."""
        proof = base64.b64encode(f"\0agent\0{PASSWORD}".encode())
        with self.channel("submission") as channel:
            channel.reply()
            self.assertNotIn(b"AUTH", channel.ask(b"EHLO evil.test"))
            self.assertEqual(channel.ask(b"AUTH PLAIN " + proof)[:3], b"538")
            self.assertEqual(channel.ask(b"AUTH LOGIN")[:3], b"538")
            self.assertEqual(channel.ask(b"MAIL FROM:<agent@local.test>")[:3], b"530")

    def test_smuggling(self) -> None:
        """No end of data but the one ends it: what stands behind is content or is refused."""
        for number, end in enumerate(ENDS):
            with self.channel() as channel:
                channel.reply()
                channel.ask(b"EHLO evil.test")
                channel.ask(b"MAIL FROM:<evil@elsewhere.test>")
                channel.ask(b"RCPT TO:<outer@local.test>")
                self.assertEqual(channel.ask(b"DATA")[:3], b"354")
                channel.send(b"Subject: %d\r\n\r\nhello" % number + end + SMUGGLED)
                self.assertIn(channel.reply()[:3], (b"250", b"550"), end)
                # The next reply is to this command: there was one end of data.
                self.assertEqual(channel.ask(b"VRFY x")[:3], b"252", end)
        self.assertEqual(self.service.maildir("local.test", "smuggled"), [])
        for event in self.service.told():
            self.assertNotEqual(event.get("recipient"), "smuggled@local.test")

    def test_smuggling_in_chunks(self) -> None:
        """The same octets by BDAT are refused, or are no end to whoever gets them from us."""
        for end in ENDS:
            content = b"Subject: x\r\n\r\nhello" + end + SMUGGLED
            with self.channel() as channel:
                channel.reply()
                channel.ask(b"EHLO evil.test")
                channel.ask(b"MAIL FROM:<evil@elsewhere.test>")
                channel.ask(b"RCPT TO:<outer@local.test>")
                channel.send(b"BDAT %d LAST\r\n%b" % (len(content), content))
                reply = channel.reply()
                bare = content.replace(b"\r\n", b"")
                wanted = b"550" if b"\r" in bare or b"\n" in bare else b"250"
                self.assertEqual(reply[:3], wanted, end)

    def test_nothing_is_echoed(self) -> None:
        """No reply carries an octet of ours that somebody else might take for a reply of yours."""
        mark = b"250-mark"
        with self.channel("submissions") as channel:
            channel.reply()
            for line in (
                b"EHLO %b.test" % mark,
                b"EHLO [%b]" % mark,
                b"%b" % mark,
                b"NOOP %b" % mark,
                b"VRFY %b" % mark,
                b"EXPN %b" % mark,
                b"HELP %b" % mark,
                b"MAIL FROM:<%b@local.test>" % mark,
                b"MAIL FROM:<a@local.test> %b=1" % mark,
                b"AUTH %b" % mark,
                b"AUTH PLAIN %b" % mark,
                b"AUTH PLAIN %b" % base64.b64encode(b"\0%b\0%b" % (mark, mark)),
                b"RCPT TO:<%b@local.test>" % mark,
                b"EHLO a\r250 %b" % mark,
            ):
                self.assertNotIn(mark, channel.ask(line), line)

    # --- floods ----------------------------------------------------------------------------------

    def test_a_line_without_end(self) -> None:
        """As a command, as an answer to AUTH, and as content: memory stays, others are served."""
        begun = self.rss_octets()
        block = b"x" * 65536
        for opening in (
            (),
            (b"EHLO evil.test", b"AUTH PLAIN"),
            (b"EHLO evil.test", b"MAIL FROM:<a@b.test>", b"RCPT TO:<agent@local.test>", b"DATA"),
        ):
            listener = "submissions" if b"AUTH PLAIN" in opening else "smtp"
            with self.channel(listener) as channel:
                channel.reply()
                for line in opening:
                    self.assertIn(channel.ask(line)[:1], (b"2", b"3"), line)
                try:
                    for _ in range(LINE_OCTETS // len(block)):
                        channel.send(block)
                except OSError:
                    pass  # we were hung up on, which is an answer too
                self.assert_serves()
            self.assertLess(self.rss_octets() - begun, SPARE_OCTETS, opening)

    def test_many_connections_of_one_address(self) -> None:
        """It gets no more than its share; others do not notice."""
        port = self.service.port()
        with ExitStack() as stack:
            channels = [Channel(port, "127.0.0.66") for _ in range(300)]
            for channel in channels:
                stack.callback(channel.close)
            self.assert_serves()
            replies = [channel.reply()[:3] for channel in channels]
        self.assertEqual(set(replies), {b"220", b"421"})
        self.assertLessEqual(replies.count(b"220"), 50)

    # --- guessing --------------------------------------------------------------------------------

    def test_guessing(self) -> None:
        """Whoever guesses is slowed down and locked out; the account's owner is not."""
        port = self.service.port("submissions")
        context = ssl.create_default_context(cafile=str(self.ca_file))
        codes: list[int] = []
        began = time.monotonic()
        while len(codes) < GUESSES:
            with smtplib.SMTP_SSL(
                "127.0.0.1", port, context=context, timeout=60, source_address=("127.0.0.66", 0)
            ) as client:
                client.ehlo("evil.test")
                for _ in range(3):  # more than that it does not hear on one connection
                    proof = base64.b64encode(b"\0target\0guess-%d" % len(codes)).decode("ascii")
                    codes.append(client.docmd("AUTH", f"PLAIN {proof}")[0])
        self.assertEqual(codes, [535] * 6 + [454] * 6)
        self.assertGreater(time.monotonic() - began, 6)
        with smtplib.SMTP_SSL(
            "127.0.0.1", port, context=context, timeout=60, source_address=("127.0.0.4", 0)
        ) as client:
            self.assertEqual(client.login("target", PASSWORD)[0], 235)
        self.assertIn("login failed", self.service.log())
        self.assertNotIn("guess-", self.service.log())
