"""The outbound client and servers that others wrote.

SmtpTransport  -- SMTP, LMTP -->  Postfix's smtp-sink, obliging and not
               -- LMTP over TCP, TLS, a UNIX socket -->  Dovecot
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.trial.unittest import TestCase

from protege_mta.model.outcome import (
    Delivered,
    Outcome,
    PermanentFailure,
    Scope,
    TransientFailure,
)
from protege_mta.model.ports import Attempt
from protege_mta.model.tally import Tally
from protege_mta.testing.attempts import make_attempt
from protege_mta.testing.authority import Authority
from protege_mta.testing.peers import DovecotLmtp, SmtpSink
from protege_mta.transport.client_settings import ClientSettings
from protege_mta.transport.relay import Network, SmtpTransport

SUBJECT = b"Subject: hello\r\n\r\n"


class PeerTestCase(TestCase):
    def setUp(self) -> None:
        self.tally = Tally()

    def transport(self, **settings: Any) -> SmtpTransport:
        settings.setdefault("tls", "none")
        transport = SmtpTransport(
            cast(Network, _reactor),
            ClientSettings("me.test", **settings),
            clock=cast(IReactorTime, _reactor),
            tally=self.tally,
            is_prohibited=lambda address, port: False,
        )
        self.addCleanup(transport.close)
        return transport

    def sink(self, *flags: str) -> SmtpSink:
        sink = SmtpSink(*flags)
        self.addCleanup(sink.stop)
        return sink

    async def outcomes(
        self, transport: SmtpTransport, attempt: Attempt
    ) -> Sequence[tuple[int, Outcome]]:
        return sorted(await transport.deliver(attempt), key=lambda pair: pair[0])


def to(port: int, *recipients: str, content: bytes = SUBJECT + b"hello\r\n") -> Attempt:
    return make_attempt(
        ("peer.test", ["127.0.0.1"]),
        port=port,
        recipients=recipients or ("b@b.test",),
        content=content,
    )


class SmtpSinkTests(PeerTestCase):
    async def test_variants(self) -> None:
        """With and without ESMTP, pipelining, DSN, enhanced codes, 8BITMIME; in LMTP too."""
        for flags in ((), ("-e",), ("-p",), ("-N",), ("-E",), ("-8",), ("-4",), ("-P",)):
            sink = self.sink(*flags)
            transport = self.transport()
            recipients = [f"{n}@b.test" for n in range(250)]
            for _ in range(2):
                pairs = await self.outcomes(transport, to(sink.port, *recipients))
                self.assertEqual([index for index, _ in pairs], list(range(250)), flags)
                self.assertEqual({type(outcome) for _, outcome in pairs}, {Delivered}, flags)
            self.assertEqual(self.tally.connections_out_open, 1, flags)
            await transport.close()

    async def test_lmtp(self) -> None:
        sink = self.sink("-L")
        transport = self.transport(protocol="lmtp")
        for _ in range(2):
            pairs = await self.outcomes(transport, to(sink.port, "b@b.test", "c@b.test"))
            self.assertEqual([type(outcome) for _, outcome in pairs], [Delivered, Delivered])

    async def test_big_content(self) -> None:
        sink = self.sink()
        content = SUBJECT + b"." * 70 + b"\r\n" + b".line\r\n" * 1_500_000
        [(_, outcome)] = await self.outcomes(self.transport(), to(sink.port, content=content))
        self.assertIsInstance(outcome, Delivered)

    async def test_many_at_once(self) -> None:
        """Twenty connections, each used again and again."""
        sink = self.sink()
        transport = self.transport()
        for _ in range(5):
            results = await gatherResults(
                [transport.deliver(to(sink.port)) for _ in range(20)], consumeErrors=True
            )
            self.assertEqual({type(pairs[0][1]) for pairs in results}, {Delivered})
        self.assertEqual(self.tally.connections_out, 20)

    async def test_hard_and_soft_refusals(self) -> None:
        """Of each command, one by one."""
        for flag, failure in (("-f", PermanentFailure), ("-r", TransientFailure)):
            for command, scope in (
                ("MAIL", Scope.SENDER),
                ("RCPT", Scope.RECIPIENT),
                ("DATA", Scope.MESSAGE),
                (".", Scope.MESSAGE),
            ):
                sink = self.sink(flag, command)
                transport = self.transport()
                for _ in range(2):
                    [(_, outcome)] = await self.outcomes(transport, to(sink.port))
                    self.assertIsInstance(outcome, failure, f"{flag} {command}")
                    assert not isinstance(outcome, Delivered)
                    self.assertIs(outcome.scope, scope, (flag, command))

    async def test_refused_at_the_door(self) -> None:
        for flags in (
            ("-f", "CONNECT"),
            ("-r", "CONNECT"),
            ("-r", "EHLO"),
            ("-f", "EHLO,HELO"),
            ("-q", "CONNECT"),
            ("-q", "EHLO"),
            ("-Q", "CONNECT"),
            ("-Q", "EHLO"),
        ):
            sink = self.sink(*flags)
            [(_, outcome)] = await self.outcomes(self.transport(), to(sink.port))
            assert isinstance(outcome, TransientFailure), flags
            self.assertIs(outcome.scope, Scope.SITE, flags)

    async def test_cut_off_in_the_transaction(self) -> None:
        """Cut or told 421: transient whatever the command, and not without an end."""
        for flag in ("-q", "-Q"):
            for command in ("MAIL", "RCPT", "DATA", "."):
                sink = self.sink(flag, command)
                [(_, outcome)] = await self.outcomes(self.transport(), to(sink.port))
                assert isinstance(outcome, TransientFailure), (flag, command)
                self.assertIs(outcome.scope, Scope.HOST, (flag, command))

    async def test_refused_in_the_middle_of_the_content(self) -> None:
        """smtp-sink -A: 550 without reading to the end."""
        sink = self.sink("-A", "0")
        [(_, outcome)] = await self.outcomes(
            self.transport(), to(sink.port, content=SUBJECT + b"x" * 5_000_000)
        )
        self.assertNotIsInstance(outcome, Delivered)

    async def test_falls_to_the_next_host(self) -> None:
        bad, good = self.sink("-q", "DATA"), self.sink()
        attempt = make_attempt(("bad.test", ["127.0.0.1"]), port=bad.port)
        hosts = (*attempt.site.hosts, *to(good.port).site.hosts)
        both = Attempt(
            type(attempt.site)("mx:both", "mx", hosts),
            attempt.domain,
            attempt.content,
            attempt.recipients,
            attempt.prepare,
        )
        [(_, outcome)] = await self.outcomes(self.transport(), both)
        assert isinstance(outcome, Delivered)
        self.assertEqual(outcome.contact.host, "peer.test")


class DovecotTests(PeerTestCase):
    USERS: ClassVar = {"b@b.test": 0, "full@b.test": 10}
    RECIPIENTS = ("b@b.test", "nobody@b.test", "full@b.test")

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def check(self, dovecot: DovecotLmtp, pairs: Sequence[tuple[int, Outcome]]) -> None:
        """One is taken, one unknown at RCPT, one found full after the data."""
        outcomes = [outcome for _, outcome in pairs]
        self.assertEqual(
            [type(outcome) for outcome in outcomes], [Delivered, PermanentFailure, PermanentFailure]
        )
        codes = [
            outcome.reply.code if isinstance(outcome, Delivered) else outcome.cause.code
            for outcome in outcomes
        ]
        self.assertEqual(codes, [250, 550, 552], dovecot.log())
        [message] = dovecot.mailbox("b@b.test")
        self.assertTrue(message.endswith(b"Subject: hello\n\n.dot\nend\n"), message)

    async def test_over_tcp(self) -> None:
        dovecot = DovecotLmtp(self.USERS)
        self.addCleanup(dovecot.stop)
        transport = self.transport(protocol="lmtp")
        attempt = to(dovecot.port, *self.RECIPIENTS, content=SUBJECT + b".dot\r\nend\r\n")
        self.check(dovecot, await self.outcomes(transport, attempt))

    async def test_over_a_socket(self) -> None:
        dovecot = DovecotLmtp(self.USERS)
        self.addCleanup(dovecot.stop)
        path = f"unix:{dovecot.path}"
        attempt = make_attempt(
            (path, [path]),
            kind="lmtp",
            recipients=self.RECIPIENTS,
            content=SUBJECT + b".dot\r\nend\r\n",
        )
        transport = self.transport(protocol="lmtp", tls="opportunistic")
        self.check(dovecot, await self.outcomes(transport, attempt))
        again = make_attempt((path, [path]), kind="lmtp", recipients=["b@b.test"])
        [(_, outcome)] = await self.outcomes(transport, again)
        self.assertIsInstance(outcome, Delivered)
        self.assertEqual(self.tally.connections_out, 1)

    async def test_under_tls(self) -> None:
        authority = Authority(self.folder)
        dovecot = DovecotLmtp(self.USERS, authority.issue("peer.test"))
        self.addCleanup(dovecot.stop)
        transport = self.transport(protocol="lmtp", tls="starttls", ca_file=str(authority.ca_file))
        attempt = to(dovecot.port, *self.RECIPIENTS, content=SUBJECT + b".dot\r\nend\r\n")
        pairs = await self.outcomes(transport, attempt)
        self.check(dovecot, pairs)
        outcome = pairs[0][1]
        assert isinstance(outcome, Delivered)
        assert outcome.contact.tls is not None
        self.assertTrue(outcome.contact.tls.is_verified)
