"""Mail that leaves is signed, for those who may use the From domain.

client  -- relay listener -->  protege-mta  -- smarthost -->  smtp-sink, which keeps it
                                                                 |--> OpenDKIM
                                                                 |--> dkimpy
anybody -- public listener -->  protege-mta  -->  Maildir, smtp-sink by LMTP

The keys are those of ``protege-mta init``, the records those of ``protege-mta dkim show``.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Final

import dkim  # type: ignore[import-untyped]

from protege_mta.testing.opendkim import OpenDkim
from protege_mta.testing.peers import SmtpSink

from .service import Service, ServiceTestCase, send, until

TABLES: Final = """
[domains."inside.test"]
deliver = "lmtp"
lmtp = "127.0.0.1:LMTP"

[outbound]
route = "smarthost"
smarthost = { host = "127.0.0.1", port = PORT, tls = "none" }

[dkim."signed.test"]
selectors = [
    { name = "rsa", private_key = "made/keys/rsa.pem" },
    { name = "ed25519", private_key = "made/keys/ed25519.pem" },
]
"""

BODY: Final = b"""\
.a dot
  white \t space  \r
trailing \t\r
gr\xc3\xbc\xc3\x9fe\r
\r
\r
\r
""".replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


class SigningTestCase(ServiceTestCase):
    """A service whose smarthost keeps what comes.

    :cvar flags: of smtp-sink.
    """

    flags: ClassVar[tuple[str, ...]] = ()
    sink: ClassVar[SmtpSink]
    lmtp: ClassVar[SmtpSink]
    records: ClassVar[dict[str, str]]
    opendkim: ClassVar[OpenDkim]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.sink = SmtpSink(*cls.flags, keeps=True)
        stack.callback(cls.sink.stop)
        cls.lmtp = SmtpSink("-L", keeps=True)
        stack.callback(cls.lmtp.stop)
        tables = TABLES.replace("LMTP", str(cls.lmtp.port)).replace("PORT", str(cls.sink.port))
        cls.service = service = Service(tables)
        stack.callback(service.close)
        made = service.cli("init", "made", "--domain", "signed.test")
        if made.returncode:
            raise RuntimeError(made.stderr.decode())
        shown = json.loads(service.cli("dkim", "show", "--json").stdout)
        cls.records = {one["name"].removesuffix("."): one["value"] for one in shown}
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        cls.opendkim = OpenDkim(cls.records, Path(folder))
        service.start()

    def sent(self, sender: str, author: str, subject: str, recipient: str = "b@far.test") -> bytes:
        """Relay a message, and see it as the next hop got it."""
        content = f"From: {author}\r\nTo: {recipient}\r\nSubject: {subject}\r\n\r\n".encode() + BODY
        port = self.service.port("relay")
        send(port, sender, recipient, content, mail_options=["BODY=8BITMIME"])
        return self.kept(subject)

    def kept(self, subject: str) -> bytes:
        """The message of this subject as it was on the wire, from its first own field on."""
        wanted = f"\nSubject: {subject}\n".encode()
        sinks = (self.sink, self.lmtp)
        found = until(
            lambda: next((one for s in sinks for one in s.captured() if wanted in one), None),
            subject,
        )
        # smtp-sink puts X- fields and one Received of three lines in front, and a line behind.
        head, _, rest = found.partition(b" +0000 (UTC)\n")
        self.assertIn(b"by smtp-sink", head)
        return rest.removesuffix(b"\n").replace(b"\n", b"\r\n")

    def findings(self, octets: bytes) -> dict[str, str]:
        """What each verifier thinks of each selector's signature."""
        found = {f"opendkim {key}": value for key, value in self.opendkim.findings(octets).items()}
        if not self.opendkim.knows_ed25519:
            found.pop("opendkim ed25519", None)
        verifier = dkim.DKIM(octets)
        for number in range(octets.lower().count(b"dkim-signature:")):
            try:
                is_good = verifier.verify(idx=number, dnsfunc=self.txt)
            except dkim.ValidationError:  # as a changed body is told
                is_good = False
            selector = verifier.signature_fields[b"s"].decode()
            found[f"dkimpy {selector}"] = "pass" if is_good else "fail"
        return found

    def txt(self, name: bytes, timeout: float = 5) -> bytes:
        return self.records[name.decode().removesuffix(".")].encode()

    def all_pass(self) -> dict[str, str]:
        wanted = {"opendkim rsa", "dkimpy rsa", "dkimpy ed25519"}
        if self.opendkim.knows_ed25519:
            wanted.add("opendkim ed25519")
        return dict.fromkeys(wanted, "pass")


class SigningTests(SigningTestCase):
    def test_relayed(self) -> None:
        """Both keys sign, and both verifiers are content."""
        octets = self.sent("a@signed.test", "a@signed.test", "first")
        self.assertTrue(octets.endswith(b"\r\n\r\n" + BODY))
        self.assertEqual(self.findings(octets), self.all_pass())

    def test_verifiers_are_awake(self) -> None:
        octets = self.sent("a@signed.test", "a@signed.test", "changed")
        changed = octets.replace(b".a dot", b".a dash")
        self.assertEqual(set(self.findings(changed).values()), {"fail"})

    def test_from_decides(self) -> None:
        """Not the reverse-path; another domain's mail goes as it is."""
        octets = self.sent("a@other.test", '"A." <A@Signed.TEST>', "from-decides")
        self.assertEqual(self.findings(octets), self.all_pass())
        self.assertNotIn(b"DKIM-Signature", self.sent("a@signed.test", "a@other.test", "other"))

    def test_public_mail(self) -> None:
        """That merely claims the domain is not signed, wherever it goes."""
        content = b"From: a@signed.test\r\nSubject: claimed\r\n\r\nhello\r\n"
        recipients = ["agent@local.test", "agent@inside.test"]
        send(self.service.port("smtp"), "a@signed.test", recipients, content)
        [delivered] = self.service.wait_for_mail("agent")
        for octets in (delivered, self.kept("claimed")):
            self.assertIn(b"From: a@signed.test", octets)
            self.assertNotIn(b"dkim-signature", octets.lower())

    def test_sendmail(self) -> None:
        """A user of this machine may use its domains."""
        content = b"From: root@signed.test\nSubject: local\n\nhello\n"
        done = self.service.cli("sendmail", "-i", "b@far.test", stdin=content)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.findings(self.kept("local")), self.all_pass())
