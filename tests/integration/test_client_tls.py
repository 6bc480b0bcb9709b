"""Outbound TLS with real handshakes.

SmtpTransport  -- loopback, STARTTLS or implicit -->  ScriptedHost under a test authority
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLContextFactory,
    IReactorSSL,
    IReactorTCP,
    IReactorTime,
)
from twisted.internet.ssl import CertificateOptions, KeyPair, PrivateCertificate
from twisted.trial.unittest import TestCase

from protege_mta.model.outcome import Delivered, Outcome, TransientFailure
from protege_mta.model.tally import Tally
from protege_mta.testing.attempts import make_attempt
from protege_mta.testing.authority import Authority
from protege_mta.testing.hosts import Script, ScriptedFactory
from protege_mta.transport.client_settings import ClientSettings
from protege_mta.transport.relay import Network, SmtpTransport
from protege_mta.wire.sasl_client import Credentials

OFFER = b"250-host.test\r\n250-PIPELINING\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n"
INSIDE = b"250-host.test\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n"
GO = b"220 go ahead\r\n"


def options(files: tuple[Path, Path]) -> CertificateOptions:
    text = b"".join(path.read_bytes() for path in files)
    certificate = PrivateCertificate.loadPEM(text)
    assert isinstance(certificate.privateKey, KeyPair)
    return cast(CertificateOptions, certificate.options())


class HandshakeTests(TestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.authority = Authority(folder)
        self.tally = Tally()
        self.script = Script(
            answers={"EHLO": [OFFER, INSIDE], "STARTTLS": GO, "AUTH": b"235 2.7.0 hello\r\n"},
            tls=options(self.authority.issue("mx.test", "127.0.0.1")),
        )

    def serve(self, *, is_implicit: bool = False) -> int:
        factory = ScriptedFactory(self.script)
        port: IListeningPort
        if is_implicit:
            listener = cast(IReactorSSL, _reactor)
            context = cast(IOpenSSLContextFactory, self.script.tls)
            port = listener.listenSSL(0, factory, context, interface="127.0.0.1")
        else:
            port = cast(IReactorTCP, _reactor).listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return cast(IPv4Address, port.getHost()).port

    async def deliver(self, port: int, host: str = "mx.test", **settings: Any) -> Outcome:
        transport = SmtpTransport(
            cast(Network, _reactor),
            ClientSettings("me.test", **settings),
            clock=cast(IReactorTime, _reactor),
            tally=self.tally,
            is_prohibited=lambda address, port: False,
        )
        content = settings.pop("content", b"Subject: x\r\n\r\n" + b".y\r\n" * 200_000)
        self.content = content
        attempt = make_attempt((host, ["127.0.0.1"]), port=port, content=content)
        try:
            [(_, outcome)] = await transport.deliver(attempt)
        finally:
            await transport.close()
        return outcome

    def verified(self, outcome: Outcome) -> bool:
        assert isinstance(outcome, Delivered)
        assert outcome.contact.tls is not None
        self.assertRegex(outcome.contact.tls.protocol, r"^TLSv1\.[23]$")
        self.assertTrue(outcome.contact.tls.cipher)
        return outcome.contact.tls.is_verified

    async def test_opportunistic(self) -> None:
        """Encrypted with whoever is there, and asked again inside."""
        outcome = await self.deliver(self.serve(), "another.name.test")
        self.assertFalse(self.verified(outcome))
        self.assertEqual(
            self.script.commands[:4], ["CONNECT", "EHLO me.test", "STARTTLS", "EHLO me.test"]
        )
        self.assertEqual((self.tally.tls_out, self.tally.tls_failures_out), (1, 0))

    async def test_big_content_arrives_whole(self) -> None:
        await self.deliver(self.serve())
        self.assertEqual(self.script.contents, [self.content.replace(b"\r\n.", b"\r\n..")])

    async def test_verified_by_name(self) -> None:
        outcome = await self.deliver(
            self.serve(), tls="starttls", ca_file=str(self.authority.ca_file)
        )
        self.assertTrue(self.verified(outcome))

    async def test_verified_by_address(self) -> None:
        """A smarthost given as an IP address shows it in its certificate."""
        outcome = await self.deliver(
            self.serve(), "127.0.0.1", tls="starttls", ca_file=str(self.authority.ca_file)
        )
        self.assertTrue(self.verified(outcome))

    async def test_implicit(self) -> None:
        self.script.answers = {"EHLO": INSIDE}
        outcome = await self.deliver(
            self.serve(is_implicit=True), tls="implicit", ca_file=str(self.authority.ca_file)
        )
        self.assertTrue(self.verified(outcome))
        self.assertEqual(self.script.commands[:2], ["CONNECT", "EHLO me.test"])

    async def test_credentials_go_under_tls(self) -> None:
        outcome = await self.deliver(
            self.serve(),
            tls="starttls",
            ca_file=str(self.authority.ca_file),
            credentials=Credentials("me", "secret"),
        )
        self.assertTrue(self.verified(outcome))
        self.assertEqual(
            self.script.commands[2:5],
            ["STARTTLS", "EHLO me.test", "AUTH PLAIN AG1lAHNlY3JldA=="],
        )

    async def test_other_name_or_authority(self) -> None:
        """Nothing is said to a server that is not who it should be; the mail waits."""
        for settings in (
            {"host": "other.test", "ca_file": str(self.authority.ca_file)},
            {"host": "127.0.0.1", "ca_file": ""},
            {"host": "mx.test", "ca_file": ""},
        ):
            self.script.answers = {"EHLO": [OFFER, INSIDE], "STARTTLS": GO}
            self.script.commands.clear()
            outcome = await self.deliver(
                self.serve(), tls="starttls", credentials=Credentials("me", "secret"), **settings
            )
            assert isinstance(outcome, TransientFailure)
            self.assertEqual(outcome.cause.enhanced, "4.7.5")
            self.assertEqual(self.script.commands, ["CONNECT", "EHLO me.test", "STARTTLS"])
        self.assertEqual(self.tally.tls_failures_out, 3)

    async def test_unverified_by_choice(self) -> None:
        outcome = await self.deliver(self.serve(), "other.test", tls="starttls", is_verifying=False)
        self.assertFalse(self.verified(outcome))

    async def test_server_that_cannot(self) -> None:
        """It says 220 and has no certificate: opportunistic mail goes in clear, on another
        connection."""
        self.script.tls = CertificateOptions()
        self.script.answers = {"EHLO": OFFER, "STARTTLS": GO}
        outcome = await self.deliver(self.serve())
        assert isinstance(outcome, Delivered)
        self.assertIsNone(outcome.contact.tls)
        self.assertEqual(self.script.commands.count("CONNECT"), 2)
        self.assertEqual(self.tally.tls_failures_out, 1)
