"""Outbound TLS with real handshakes.

SmtpTransport  -- loopback, STARTTLS or implicit -->  ScriptedHost under a test authority
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import attrs
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

from protege_mta.model.hop import Host
from protege_mta.model.outcome import Delivered, Outcome, PermanentFailure, TransientFailure
from protege_mta.model.tally import Tally
from protege_mta.testing.attempts import make_attempt
from protege_mta.testing.authority import Authority
from protege_mta.testing.hosts import Script, ScriptedFactory
from protege_mta.transport.client_settings import ClientSettings
from protege_mta.transport.relay import Network, SmtpTransport
from protege_mta.wire.sasl_client import Credentials

OFFER = b"250-host.test\r\n250-PIPELINING\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n"
STRICT = b"250-host.test\r\n250-PIPELINING\r\n250 REQUIRETLS\r\n"
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


class RequireTlsTests(TestCase):
    """Mail that requires TLS (RFC 8689, 4.2.1)."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.authority = Authority(folder)
        strange = folder / "strange"
        strange.mkdir()
        self.stranger = Authority(strange)
        self.transport = SmtpTransport(
            cast(Network, _reactor),
            ClientSettings("me.test", ca_file=str(self.authority.ca_file)),
            clock=cast(IReactorTime, _reactor),
            tally=Tally(),
            is_prohibited=lambda address, port: False,
        )
        self.addCleanup(self.transport.close)

    def serve(
        self, name: str, inside: bytes = STRICT, authority: Authority | None = None
    ) -> tuple[Script, int]:
        """A host whose certificate bears this name."""
        script = Script(
            answers={"EHLO": [OFFER, inside, OFFER, inside], "STARTTLS": GO},
            tls=options((authority or self.authority).issue(name)),
        )
        listener = cast(IReactorTCP, _reactor)
        port = listener.listenTCP(0, ScriptedFactory(script), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return script, cast(IPv4Address, port.getHost()).port

    async def deliver(self, *hosts: tuple[str, int], **options: Any) -> Outcome:
        options.setdefault("requires_tls", True)
        attempt = make_attempt(("mx.test", ["127.0.0.1"]), is_authentic=True, **options)
        site = attrs.evolve(
            attempt.site, hosts=tuple(Host(name, ("127.0.0.1",), port) for name, port in hosts)
        )
        [(_, outcome)] = await self.transport.deliver(attrs.evolve(attempt, site=site))
        return outcome

    async def test_verified_and_passed_on(self) -> None:
        """Where other mail would take whatever certificate; one connection serves several."""
        script, port = self.serve("mx.test")
        for _ in range(2):
            outcome = await self.deliver(("mx.test", port))
            assert isinstance(outcome, Delivered)
            assert outcome.contact.tls is not None
            self.assertTrue(outcome.contact.tls.is_verified)
        self.assertEqual(script.commands.count("MAIL FROM:<a@a.test> REQUIRETLS"), 2)
        self.assertEqual(script.commands.count("CONNECT"), 1)

    async def test_other_mail_keeps_to_itself(self) -> None:
        script, port = self.serve("mx.test")
        for requires_tls in (False, True, False, True):
            outcome = await self.deliver(("mx.test", port), requires_tls=requires_tls)
            assert isinstance(outcome, Delivered)
            assert outcome.contact.tls is not None
            self.assertEqual(outcome.contact.tls.is_verified, requires_tls)
        self.assertEqual(script.commands.count("CONNECT"), 2)
        self.assertEqual(script.commands.count("MAIL FROM:<a@a.test> REQUIRETLS"), 2)

    async def test_another_host_can(self) -> None:
        bad, bad_port = self.serve("other.test")
        old, old_port = self.serve("mx2.test", inside=INSIDE)
        _, good_port = self.serve("mx3.test")
        outcome = await self.deliver(
            ("mx1.test", bad_port), ("mx2.test", old_port), ("mx3.test", good_port)
        )
        assert isinstance(outcome, Delivered)
        self.assertEqual(outcome.contact.host, "mx3.test")
        for script in (bad, old):
            self.assertEqual([one for one in script.commands if one.startswith("MAIL")], [])

    async def test_nobody_can(self) -> None:
        """Not even who is asked again in clear, and not with what DNS or a stranger vouches for."""
        old, old_port = self.serve("mx2.test", inside=INSIDE)
        bad, bad_port = self.serve("other.test")
        strange, strange_port = self.serve("mx1.test", authority=self.stranger)
        for host, why in (
            (("mx1.test", bad_port), "the certificate is not to be trusted: VerificationError"),
            (("mx1.test", strange_port), "certificate verify failed"),
            (("mx2.test", old_port), "the next hop does not offer it"),
        ):
            outcome = await self.deliver(host)
            assert isinstance(outcome, PermanentFailure)
            self.assertEqual((outcome.cause.code, outcome.cause.enhanced), (550, "5.7.30"))
            self.assertIn(why, outcome.cause.text)
        for script in (old, bad, strange):
            self.assertEqual(script.commands.count("CONNECT"), 1)
            self.assertEqual([one for one in script.commands if one.startswith("MAIL")], [])
