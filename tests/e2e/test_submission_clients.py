"""People's mail programs, unchanged, hand in mail.

swaks, smtplib, msmtp, curl, s-nail  -- STARTTLS, AUTH -->  submission   \\
                                     -- TLS,      AUTH -->  submissions  -->  Maildirs
Postfix, we being its smarthost      -- STARTTLS, AUTH -->  submission   /

Each client checks our certificate against the authority that issued it.
"""

from __future__ import annotations

import smtplib
import ssl
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Final
from unittest import SkipTest

from protege_mta.testing.postfix import Postfix

from .service import Service, ServiceTestCase, needs, send, until
from .submission import PASSWORD, add_account, open_doors

AGENT: Final = "agent@local.test"
SEEN_S: Final = 1.0
"""So soon a change of the accounts takes effect."""


class ClientTestCase(ServiceTestCase):
    """A service with an account for the agent, who may send as itself."""

    ca_file: ClassVar[Path]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.service, cls.ca_file = open_doors(
            stack, {"agent": ("--allowed-from", AGENT, "--cram-md5")}
        )

    def assert_came(self, name: str, *, protocol: bytes = b"ESMTPSA") -> bytes:
        """The message that was sent to ``name@other.test``, which came from the agent."""
        [stored] = self.service.wait_for_mail(name, domain="other.test")
        self.assertIn(b"with " + protocol + b" id", stored)
        event = self.service.event("received", recipient=f"{name}@other.test")
        self.assertEqual((event["source"], event["identity"]), ("submission", "agent"))
        return stored


def run(*command: str, stdin: bytes = b"", check: bool = True, timeout_s: float = 60) -> str:
    """What a program says.

    :raise RuntimeError: it fails, though it shall not.
    """
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout_s)
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    if check and done.returncode:
        raise RuntimeError(f"{command[0]}: exit status {done.returncode}\n{said}")
    return said


class SwaksTests(ClientTestCase):
    def swaks(self, listener: str, *arguments: str, password: str = PASSWORD) -> str:
        return run(
            needs("swaks"),
            *("--server", "127.0.0.1", "--port", str(self.service.port(listener))),
            *("--ehlo", "swaks.test", "--from", AGENT, "--tls-ca-path", str(self.ca_file)),
            *("--tls-verify", "--auth-user", "agent", "--auth-password", password, *arguments),
            check=False,
        )

    def test_each_mechanism(self) -> None:
        """Over both kinds of listener."""
        for listener, tls in (("submission", "--tls"), ("submissions", "--tls-on-connect")):
            for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
                name = f"{listener}.{mechanism}".lower()
                said = self.swaks(listener, tls, "--auth", mechanism, "--to", f"{name}@other.test")
                self.assertIn("235 2.7.0", said)
                self.assert_came(name)
                event = self.service.event("received", recipient=f"{name}@other.test")
                self.assertEqual(event["tls"]["protocol"], "TLSv1.3")

    def test_wrong_password(self) -> None:
        said = self.swaks(
            "submission", "--tls", "--auth", "PLAIN", "--to", "w@other.test", password="wrong pony"
        )
        self.assertIn("<~* 535 5.7.8", said)
        self.assertNotIn("MAIL FROM", said)
        event = self.service.event("rejected")
        self.assertEqual((event["reply"]["code"], event["reply"]["enhanced"]), (535, "5.7.8"))
        self.assertEqual(event["source"], "submission")
        self.assertEqual(event["tls"]["protocol"], "TLSv1.3")

    def test_nothing_without_tls(self) -> None:
        """Neither is AUTH offered in clear, nor is mail taken."""
        said = self.swaks("submission", "--auth", "PLAIN", "--to", "w@other.test")
        self.assertNotIn("AUTH", said.replace("Host did not advertise authentication", ""))
        port = self.service.port("submission")
        with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
            client.ehlo()
            self.assertEqual(client.docmd("AUTH", "PLAIN AGFnZW50AHg=")[0], 538)
            self.assertEqual(client.docmd("MAIL", f"FROM:<{AGENT}>")[0], 530)


class SmtplibTests(ClientTestCase):
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))

    def test_starttls(self) -> None:
        port = self.service.port("submission")
        with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
            client.starttls(context=self.context())
            client.login("agent", PASSWORD)
            client.sendmail(AGENT, ["lib@other.test"], f"From: {AGENT}\r\n\r\nhello\r\n")
        stored = self.assert_came("lib")
        self.assertIn(b"\nDate: ", stored)
        self.assertIn(b"\nMessage-ID: <", stored)

    def test_implicit_tls(self) -> None:
        port = self.service.port("submissions")
        with smtplib.SMTP_SSL("127.0.0.1", port, context=self.context(), timeout=30) as client:
            client.login("agent", PASSWORD)
            client.sendmail(
                AGENT,
                ["lib-tls@other.test"],
                f"From: {AGENT}\r\nBcc: secret@other.test\r\nSubject: x\r\n\r\nhello\r\n",
            )
        self.assertNotIn(b"secret@other.test", self.assert_came("lib-tls"))

    def test_an_account_made_now_works_now(self) -> None:
        """And one that is removed does not; neither takes a restart or a signal."""
        port = self.service.port("submissions")

        def login(name: str) -> int:
            with smtplib.SMTP_SSL("127.0.0.1", port, context=self.context(), timeout=30) as client:
                try:
                    return client.login(name, PASSWORD)[0]
                except smtplib.SMTPAuthenticationError as error:
                    return error.smtp_code

        self.assertEqual(login("fresh"), 535)
        add_account(self.service, "fresh")
        until(lambda: login("fresh") == 235, "the new account", SEEN_S)
        self.assertEqual(self.service.cli("user", "remove", "fresh").returncode, 0)
        until(lambda: login("fresh") == 535, "the end of the account", SEEN_S)


class MsmtpTests(ClientTestCase):
    def test_each_mechanism(self) -> None:
        msmtp = needs("msmtp")
        for mechanism in ("plain", "login", "cram-md5", "scram-sha-256", "scram-sha-256-plus"):
            if mechanism not in run(msmtp, "--version").replace("\n", " ").split():
                if mechanism == "scram-sha-256-plus":
                    continue  # of newer versions, with a TLS library that can
                raise SkipTest(f"this msmtp has no {mechanism}")
            for listener, starttls in (("submission", "on"), ("submissions", "off")):
                name = f"msmtp.{listener}.{mechanism}"
                run(
                    msmtp,
                    "--file=/dev/null",
                    "--host=127.0.0.1",
                    f"--port={self.service.port(listener)}",
                    "--tls=on",
                    f"--tls-starttls={starttls}",
                    f"--tls-trust-file={self.ca_file}",
                    f"--auth={mechanism}",
                    "--user=agent",
                    f"--passwordeval=echo {PASSWORD}",
                    f"--from={AGENT}",
                    f"{name}@other.test",
                    stdin=f"From: {AGENT}\nSubject: msmtp\n\nhello\n".encode(),
                )
                self.assert_came(name)


class CurlTests(ClientTestCase):
    def test_smtps(self) -> None:
        port = self.service.port("submissions")
        run(
            needs("curl"),
            *("--silent", "--show-error", "--url", f"smtps://127.0.0.1:{port}/curl.test"),
            *("--cacert", str(self.ca_file), "--user", f"agent:{PASSWORD}"),
            *("--mail-from", AGENT, "--mail-rcpt", "curl@other.test", "--upload-file", "-"),
            stdin=f"From: {AGENT}\r\nSubject: curl\r\n\r\nhello\r\n".encode(),
        )
        self.assertIn(b"\nSubject: curl\n", self.assert_came("curl"))

    def test_starttls(self) -> None:
        port = self.service.port("submission")
        run(
            needs("curl"),
            *("--silent", "--show-error", "--ssl-reqd", "--url", f"smtp://127.0.0.1:{port}"),
            *("--cacert", str(self.ca_file), "--user", f"agent:{PASSWORD}"),
            *("--login-options", "AUTH=LOGIN"),
            *("--mail-from", AGENT, "--mail-rcpt", "curl2@other.test", "--upload-file", "-"),
            stdin=f"From: {AGENT}\r\nSubject: curl\r\n\r\nhello\r\n".encode(),
        )
        self.assert_came("curl2")


class SNailTests(ClientTestCase):
    def test_both(self) -> None:
        mail = needs("s-nail")
        for listener, scheme in (("submission", "smtp"), ("submissions", "smtps")):
            name = f"nail.{listener}"
            url = f"{scheme}://agent:{PASSWORD.replace(' ', '%20')}@127.0.0.1"
            run(
                mail,
                *("-:/", "-S", "v15-compat", "-S", "sendwait", "-S", "save=no"),
                *("-S", f"mta={url}:{self.service.port(listener)}"),
                *("-S", "smtp-use-starttls", "-S", f"tls-ca-file={self.ca_file}"),
                *(
                    "-S",
                    "tls-ca-no-defaults",
                    "-S",
                    "tls-verify=strict",
                    "-S",
                    "hostname=nail.test",
                ),
                *("-S", f"from={AGENT}", "-r", AGENT, "-s", "nail", f"{name}@other.test"),
                stdin=b"hello\n",
            )
            self.assertIn(b"\nSubject: nail\n", self.assert_came(name))


class PostfixTests(ServiceTestCase):
    """A Postfix that has us for its smarthost, where it has to authenticate itself."""

    postfix: ClassVar[Postfix]
    ca_file: ClassVar[Path]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.service, cls.ca_file = open_doors(stack, {"gateway": ("--allowed-from", "local.test")})
        port = cls.service.port("submission")
        cls.postfix = Postfix(
            {"other.test": port},
            settings=f"""\
smtp_tls_security_level = verify
smtp_tls_CAfile = {cls.ca_file}
smtp_tls_verify_cert_match = hostname
smtp_sasl_auth_enable = yes
smtp_sasl_security_options = noanonymous
smtp_sasl_password_maps = inline:{{ {{ [127.0.0.1]:{port} = gateway:{PASSWORD} }} }}
""",
        )
        stack.callback(cls.postfix.stop)

    def test_as_smarthost(self) -> None:
        content = b"From: agent@local.test\r\nSubject: by way of Postfix\r\n\r\nhello\r\n"
        send(self.postfix.port, "agent@local.test", "p@other.test", content)
        [stored] = self.service.wait_for_mail("p", domain="other.test")
        self.assertIn(b"with ESMTPSA id", stored)
        event = self.service.event("received", recipient="p@other.test")
        self.assertEqual((event["source"], event["identity"]), ("submission", "gateway"))

    def test_a_sender_that_is_not_the_accounts(self) -> None:
        """Postfix bounces it with our words; the bounce itself, which has a null reverse-path, is
        for its own sender."""
        send(self.postfix.port, "who@elsewhere.test", "no@other.test", b"Subject: no\r\n\r\nx\r\n")
        event = self.service.event("rejected", sender="who@elsewhere.test")
        self.assertEqual((event["reply"]["code"], event["identity"]), (550, "gateway"))


class TlsVersionTests(ClientTestCase):
    def test_new_versions_alone(self) -> None:
        """On both kinds of listener ``openssl s_client`` gets TLS 1.2 and 1.3 and no other."""
        openssl = needs("openssl")
        for listener, more in (("submission", ("-starttls", "smtp")), ("submissions", ())):
            address = f"127.0.0.1:{self.service.port(listener)}"
            for flag, version in (
                ("-tls1", ""),
                ("-tls1_1", ""),
                ("-tls1_2", "TLSv1.2"),
                ("-tls1_3", "TLSv1.3"),
            ):
                said = run(
                    openssl,
                    *("s_client", "-connect", address, *more, flag, "-ign_eof"),
                    *("-CAfile", str(self.ca_file), "-verify_ip", "127.0.0.1"),
                    *(("-cipher", "ALL:@SECLEVEL=0") if not version else ()),
                    stdin=b"QUIT\r\n",
                    check=False,
                )
                if version:
                    self.assertIn(f"New, {version}, Cipher is", said)
                    self.assertIn("Verification: OK", said)
                    self.assertIn("221 2.0.0", said)
                else:
                    self.assertIn("alert protocol version", said)


class HiddenClientTests(ServiceTestCase):
    def test_hide_client(self) -> None:
        """Received says nothing of where the user is."""
        with ExitStack() as stack:
            service, ca_file = open_doors(
                stack,
                {"agent": ()},
                '[[listener]]\nname = "hiding"\nkind = "submission"\nport = 0\nhide_client = true\n',
            )
            self.send(service, ca_file)
            [stored] = service.wait_for_mail("h", domain="other.test")
        header = stored.partition(b"\n\n")[0]
        self.assertNotIn(b"127.0.0.1", header)
        self.assertNotIn(b"laptop.test", header)
        self.assertIn(b"with ESMTPSA id", header)

    def send(self, service: Service, ca_file: Path) -> None:
        port = service.port("hiding")
        with smtplib.SMTP("127.0.0.1", port, local_hostname="laptop.test", timeout=30) as client:
            client.starttls(context=ssl.create_default_context(cafile=str(ca_file)))
            client.login("agent", PASSWORD)
            client.sendmail(AGENT, ["h@other.test"], f"From: {AGENT}\r\n\r\nhello\r\n")
