"""AUTH over real TLS, with clients that others wrote.

smtplib, swaks      -- STARTTLS; PLAIN, LOGIN, CRAM-MD5 -->  SmtpServerFactory, FakeDoor
GNU SASL (gsasl)    -- STARTTLS; SCRAM, bound to TLS 1.2 and 1.3 -->
msmtp               -- STARTTLS, implicit; SCRAM -->
"""

from __future__ import annotations

import secrets
import shutil
import smtplib
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from unittest import SkipTest

from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore, IReactorTime
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from protege_mta.model.ports import PasswordProof, Peer, ResponseProof, ScramProof
from protege_mta.model.tally import Tally
from protege_mta.testing.authority import Authority
from protege_mta.testing.doors import FakeDoor
from protege_mta.transport.listening import bind
from protege_mta.transport.smtp_factory import SmtpServerFactory
from protege_mta.wire.settings import ServerSettings

MECHANISMS: Final = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN")
PASSWORD: Final = "pencil"

Result = TypeVar("Result")


def needs(program: str) -> str:
    """:raise SkipTest: a program of somebody else's is not installed."""
    found = shutil.which(program)
    if found is None:
        raise SkipTest(f"{program} is not installed (Debian package {program})")
    return found


class Case(TestCase):
    timeout = 60
    mechanisms = MECHANISMS

    def setUp(self) -> None:
        self.door = FakeDoor()
        self.peers: list[Peer] = []
        self.door.on_opened = self.peers.append
        folder = Path(self.mktemp())
        folder.mkdir()
        authority = Authority(folder)
        self.ca_file = authority.ca_file.absolute()
        self.tls = authority.context("localhost", "127.0.0.1")

    async def serve(self, talk: Callable[[int], Result], **options: Any) -> Result:
        """What ``talk`` has to tell after it has spoken, in a thread, to our port."""
        factory = SmtpServerFactory(
            self.door,
            ServerSettings("mx.test", mechanisms=self.mechanisms, is_submission=True),
            listener="submission",
            tally=Tally(),
            clock=cast(IReactorTime, _reactor),
            now=time.time,
            new_session_id=lambda: "s1",
            new_nonce=lambda: secrets.token_urlsafe(18),
            tls=self.tls,
            **options,
        )
        port = bind("mx", "127.0.0.1", 0).accept(cast(IReactorCore, _reactor), factory)
        try:
            return cast(Result, await deferToThread(talk, cast(IPv4Address, port.getHost()).port))
        finally:
            await cast(Deferred[None], port.stopListening())
            await factory.drain()


class SmtplibTests(Case):
    def login(self, port: int, mechanism: str, password: str, *, is_initial: bool = True) -> int:
        """The code of the last reply."""
        with smtplib.SMTP("127.0.0.1", port, "client.test", 10) as client:
            client.starttls(context=ssl.create_default_context(cafile=str(self.ca_file)))
            client.ehlo()
            client.user, client.password = "user", password
            method = getattr(client, f"auth_{mechanism.lower().replace('-', '_')}")
            try:
                code = client.auth(mechanism, method, initial_response_ok=is_initial)[0]
            except smtplib.SMTPAuthenticationError as error:
                return error.smtp_code
            client.sendmail("a@b.example", ["c@d.example"], b"Subject: x\r\n\r\n")
            return code

    async def test_each_mechanism_it_knows(self) -> None:
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
            for is_initial in (True, False):
                code = await self.serve(
                    lambda port, name=mechanism, first=is_initial: self.login(  # type: ignore[misc]
                        port, name, PASSWORD, is_initial=first
                    )
                )
                self.assertEqual(code, 235, mechanism)
        self.assertEqual([peer.identity for peer in self.peers], ["user"] * 6)
        self.assertEqual(len(self.door.messages), 6)
        kinds = [type(proof) for proof in self.door.proofs]
        self.assertEqual(kinds, [PasswordProof] * 4 + [ResponseProof] * 2)

    async def test_wrong_passwords(self) -> None:
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
            code = await self.serve(
                lambda port, name=mechanism: self.login(port, name, "wrong")  # type: ignore[misc]
            )
            self.assertEqual(code, 535, mechanism)
        self.assertEqual({peer.identity for peer in self.peers}, {""})

    async def test_nothing_is_offered_in_clear(self) -> None:
        def talk(port: int) -> tuple[bool, int, int]:
            with smtplib.SMTP("127.0.0.1", port, "client.test", 10) as client:
                client.ehlo()
                return (
                    client.has_extn("auth"),
                    client.docmd("AUTH", "PLAIN AHVzZXIAcGVuY2ls")[0],
                    client.docmd("MAIL FROM:<a@b.example>")[0],
                )

        self.assertEqual(await self.serve(talk), (False, 538, 530))
        self.assertEqual(self.door.proofs, [])


class ProgramCase(Case):
    """Runs a program that logs in, and waits for it."""

    async def run_program(self, *command: str, text: str = "", **options: Any) -> tuple[int, str]:
        """Its exit code and all that it says; ``PORT`` in an argument is our port's number."""

        def talk(port: int) -> tuple[int, str]:
            done = subprocess.run(
                [word.replace("PORT", str(port)) for word in command],
                input=text,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=30,
            )
            return done.returncode, done.stdout

        return await self.serve(talk, **options)


class GsaslTests(ProgramCase):
    def setUp(self) -> None:
        super().setUp()
        self.gsasl = needs("gsasl")

    async def login(
        self, mechanism: str, *more: str, user: str = "user", password: str = PASSWORD
    ) -> str:
        """What its side of the dialogue shows."""
        _, said = await self.run_program(
            *(self.gsasl, "--smtp", "--verbose", "--connect=127.0.0.1:PORT"),
            *("--hostname=localhost", f"--x509-ca-file={self.ca_file}"),
            *(f"--mechanism={mechanism}", f"--authentication-id={user}", f"--password={password}"),
            *more,
        )
        return said

    async def test_bound_to_a_channel_of_each_version(self) -> None:
        """``tls-exporter`` and ``tls-unique``; it checks our signature, too."""
        for version, more in (("TLSv1.3", "NORMAL"), ("TLSv1.2", "NORMAL:-VERS-TLS1.3")):
            said = await self.login("SCRAM-SHA-256-PLUS", f"--priority={more}")
            self.assertIn("Client authentication finished (server trusted)", said)
            peer = self.peers[-1]
            assert peer.tls is not None
            self.assertEqual((peer.tls.protocol, peer.identity), (version, "user"))
        self.assertEqual(self.door.proofs, [ScramProof("user", True)] * 2)

    async def test_a_wrong_password(self) -> None:
        said = await self.login("SCRAM-SHA-256-PLUS", password="wrong")
        self.assertNotIn("server trusted", said)
        self.assertIn("535 5.7.8", said)
        self.assertEqual(self.door.proofs, [ScramProof("user", False)])

    async def test_not_bound(self) -> None:
        """A client that binds no channels."""
        said = await self.login("SCRAM-SHA-256", "--no-cb")
        self.assertIn("Client authentication finished (server trusted)", said)
        self.assertEqual(self.door.proofs, [ScramProof("user", True)])

    async def test_names_and_passwords_that_have_to_be_written_otherwise(self) -> None:
        """Comma and equals sign in a name; a password that it prepares as we do (RFC 4013)."""
        self.door.passwords = {"a,b=c": "\u00fc IX"}
        for mechanism, password in (
            ("SCRAM-SHA-256-PLUS", "u\u0308\u00a0\u00ad\u2168"),
            ("SCRAM-SHA-256-PLUS", "\u00fc\u00a0I\u00adX"),
            ("LOGIN", "\u00fc \u2168"),
        ):
            said = await self.login(mechanism, user="a,b=c", password=password)
            self.assertIn("235 2.7.0", said)


class MsmtpTests(ProgramCase):
    def setUp(self) -> None:
        super().setUp()
        self.msmtp = needs("msmtp")

    async def send(self, password: str, *more: str, **options: Any) -> tuple[int, str]:
        return await self.run_program(
            *(self.msmtp, "--host=127.0.0.1", "--port=PORT", "--auth=scram-sha-256"),
            *("--user=user", f"--passwordeval=echo {password}", "--from=a@b.example"),
            *("--tls=on", f"--tls-trust-file={self.ca_file}", *more, "c@d.example"),
            text="Subject: x\n\nHello.\n",
            **options,
        )

    async def test_starttls_and_implicit_tls(self) -> None:
        self.assertEqual(await self.send(PASSWORD, "--tls-starttls=on"), (0, ""))
        said = await self.send(PASSWORD, "--tls-starttls=off", is_tls_first=True)
        self.assertEqual(said, (0, ""))
        self.assertEqual(self.door.proofs, [ScramProof("user", True)] * 2)
        self.assertEqual(len(self.door.messages), 2)

    async def test_a_wrong_password(self) -> None:
        code, said = await self.send("wrong", "--tls-starttls=on")
        self.assertEqual(code, 77)  # EX_NOPERM
        self.assertIn("535 5.7.8", said)
        self.assertEqual(self.door.messages, [])


class SwaksTests(ProgramCase):
    async def test_each_mechanism_it_knows(self) -> None:
        swaks = needs("swaks")
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
            code, said = await self.run_program(
                *(swaks, "--server", "127.0.0.1", "--port", "PORT", "--ehlo", "client.test"),
                *("--from", "a@b.example", "--to", "c@d.example", "-tls"),
                *("--auth", mechanism, "--auth-user", "tim", "--auth-password", "tanstaaftanstaaf"),
            )
            self.assertEqual(code, 0, said)
        self.assertEqual([peer.identity for peer in self.peers], ["tim"] * 3)
        self.assertEqual(len(self.door.messages), 3)
