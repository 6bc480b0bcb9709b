"""Mail to an HTTP endpoint of the standard library, which fails in all ways that there are."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred, execute
from twisted.trial.unittest import TestCase

from protege_mta.model.hop import Site
from protege_mta.model.outcome import Delivered, PermanentFailure, Scope, TransientFailure
from protege_mta.model.ports import Attempt, Content, HopAbilities, Prepared
from protege_mta.model.reply import TABLE
from protege_mta.testing.authority import Authority
from protege_mta.testing.endpoints import HANG_UP, SILENCE, HttpEndpoint, Said
from protege_mta.transport.webhook import Endpoint, WebhookTransport

from ..unit.test_inbound_json import ID, message_of

CONTENT = b"From: a@x.test\r\nSubject: hello\r\n\r\n.dot\r\n"
SECRET = b"0123456789abcdef01234567"


@attrs.define
class Stored:
    """Content that says how it is read."""

    message: Any
    octets: bytes
    largest: int = 0

    @property
    def size_octets(self) -> int:
        return len(self.octets)

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        found = self.octets[offset:] if size < 0 else self.octets[offset : offset + size]
        self.largest = max(self.largest, len(found))
        return found

    def close(self) -> None: ...


def unprepared(abilities: HopAbilities) -> Prepared:
    raise RuntimeError("an endpoint gets a message as it came")


class Case(TestCase):
    def setUp(self) -> None:
        self.now = 1000.0
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def endpoint(self, tls: ssl.SSLContext | None = None) -> HttpEndpoint:
        made = HttpEndpoint(tls)
        self.addCleanup(made.stop)
        return made

    def transport(self, url: str, **others: Any) -> WebhookTransport:
        made = WebhookTransport(
            reactor,
            {"y.test": Endpoint(url=url, **others)},
            now=lambda: self.now,
            in_thread=lambda work: execute(work),
            agent="test",
        )
        self.addCleanup(made.close)
        return made

    def post(
        self,
        transport: WebhookTransport,
        octets: bytes = CONTENT,
        recipients: tuple[int, ...] = (0,),
    ) -> Deferred[Any]:
        self.content: Content = Stored(message_of(octets), octets)
        site = Site("webhook:y.test", "webhook")
        return transport.deliver(Attempt(site, "y.test", self.content, recipients, unprepared))


class WebhookTests(Case):
    async def check(self, said: Said, is_right: Callable[[Any], bool]) -> None:
        endpoint = self.endpoint()
        endpoint.script.append(said)
        transport = self.transport(f"http://127.0.0.1:{endpoint.port}/mail")
        [(_, outcome)] = await self.post(transport)
        self.assertTrue(is_right(outcome), (said, outcome))

    async def test_json(self) -> None:
        """Each recipient's is a request of its own, signed, over one connection."""
        endpoint = self.endpoint()
        transport = self.transport(f"http://127.0.0.1:{endpoint.port}/mail?k=v", secrets=(SECRET,))
        outcomes = await self.post(transport, recipients=(0, 1))
        self.assertEqual([type(one) for _, one in outcomes], [Delivered, Delivered])
        first, second = endpoint.posted
        self.assertEqual(first.client, second.client)
        self.assertEqual(first.path, "/mail?k=v")
        self.assertTrue(first.is_signed_by(SECRET) and second.is_signed_by(SECRET))
        self.assertEqual(first.fields["webhook-id"], f"{ID}.0")
        self.assertEqual(json.loads(second.body)["envelope"]["rcpt_to"], "two@y.test")
        self.assertEqual(outcomes[0][1].contact.host, f"127.0.0.1:{endpoint.port}")

    async def test_raw(self) -> None:
        """All octets of a big message, in pieces."""
        endpoint = self.endpoint()
        url = f"http://127.0.0.1:{endpoint.port}/"
        transport = self.transport(url, form="raw", secrets=(SECRET,))
        octets = CONTENT + b"x" * 5_000_000
        [(_, outcome)] = await self.post(transport, octets)
        self.assertIsInstance(outcome, Delivered)
        [posted] = endpoint.posted
        self.assertEqual(posted.body, octets)
        self.assertTrue(posted.is_signed_by(SECRET))
        self.assertEqual(posted.fields["content-type"], "message/rfc822")
        self.assertEqual(posted.fields["protege-mail-from"], "a@x.test")
        self.assertLessEqual(self.content.largest, 65_536)  # type: ignore[attr-defined]

    async def test_answers(self) -> None:
        """What is about the message holds back nothing else; what is about the endpoint does."""

        def is_transient(scope: Scope) -> Callable[[Any], bool]:
            return lambda one: isinstance(one, TransientFailure) and one.scope is scope

        for status, scope in (
            (400, Scope.RECIPIENT), (500, Scope.RECIPIENT), (503, Scope.HOST), (429, Scope.HOST),
            (302, Scope.SITE), (404, Scope.SITE), (401, Scope.SITE),
        ):  # fmt: skip
            await self.check(Said(status, fields={"Location": "/other"}), is_transient(scope))

    async def test_no_answer_but_the_end(self) -> None:
        endpoint = self.endpoint()
        endpoint.script.extend([Said(HANG_UP), Said(HANG_UP)])
        [(_, outcome)] = await self.post(self.transport(f"http://127.0.0.1:{endpoint.port}/"))
        self.assertIsInstance(outcome, TransientFailure)

    async def test_for_good(self) -> None:
        await self.check(
            Said(410), lambda one: one.cause == TABLE["webhook-gone"] and is_final(one)
        )
        await self.check(
            Said(422, b'{"reject": "no such agent\\r\\n"}'),
            lambda one: one.cause.text.endswith("no such agent") and is_final(one),
        )
        await self.check(Said(500, b'{"reject": "x"}'), lambda one: not is_final(one))

    async def test_a_kept_connection_that_was_closed(self) -> None:
        """Costs nothing: the request is made once more, under the same name."""
        endpoint = self.endpoint()
        transport = self.transport(f"http://127.0.0.1:{endpoint.port}/")
        endpoint.script.extend([Said(), Said(HANG_UP), Said()])
        outcomes = await self.post(transport, recipients=(0, 1))
        self.assertEqual([type(one) for _, one in outcomes], [Delivered, Delivered])
        ids = [one.fields["webhook-id"] for one in endpoint.posted]
        self.assertEqual(ids, [f"{ID}.0", f"{ID}.1", f"{ID}.1"])

    async def test_silence(self) -> None:
        """Ends after the time that was set, and the other recipients are not tried."""
        endpoint = self.endpoint()
        endpoint.script.extend([Said(SILENCE)] * 2)
        transport = self.transport(f"http://127.0.0.1:{endpoint.port}/", timeout_s=0.3)
        outcomes = await self.post(transport, recipients=(0, 1))
        self.assertEqual([one.scope for _, one in outcomes], [Scope.HOST, Scope.HOST])
        self.assertEqual(len(endpoint.posted), 1)

    async def test_required_tls(self) -> None:
        """Is not to be had in clear (RFC 8689, 4.4)."""
        endpoint = self.endpoint()
        transport = self.transport(f"http://127.0.0.1:{endpoint.port}/")
        message = message_of(CONTENT)
        envelope = attrs.evolve(message.envelope, requires_tls=True)
        content = Stored(attrs.evolve(message, envelope=envelope), CONTENT)
        site = Site("webhook:y.test", "webhook")
        attempt = Attempt(site, "y.test", content, (0,), unprepared)
        [(_, outcome)] = await transport.deliver(attempt)
        assert isinstance(outcome, PermanentFailure)
        self.assertEqual((outcome.cause, endpoint.posted), (TABLE["webhook-requiretls"], []))

    async def test_nobody_there(self) -> None:
        endpoint = HttpEndpoint()
        endpoint.stop()
        [(_, outcome)] = await self.post(self.transport(f"http://127.0.0.1:{endpoint.port}/"))
        self.assertEqual((type(outcome), outcome.scope), (TransientFailure, Scope.SITE))

    async def test_retry_after(self) -> None:
        """Nothing is posted before the endpoint wants it."""
        endpoint = self.endpoint()
        endpoint.script.append(Said(503, fields={"Retry-After": "60"}))
        transport = self.transport(f"http://127.0.0.1:{endpoint.port}/")
        await self.post(transport)
        self.now += 59
        [(_, outcome)] = await self.post(transport)
        self.assertEqual((outcome.scope, len(endpoint.posted)), (Scope.SITE, 1))
        self.now += 1
        [(_, outcome)] = await self.post(transport)
        self.assertIsInstance(outcome, Delivered)

    async def test_an_answer_without_end(self) -> None:
        """Is read as far as it is worth it; its status counts."""
        await self.check(Said(200, b"x" * 1_000_000), lambda one: isinstance(one, Delivered))

    async def test_tls(self) -> None:
        """Is checked against the authorities that are named."""
        authority = Authority(self.folder)
        certificate, key = authority.issue("localhost", "127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        endpoint = self.endpoint(context)
        url = f"https://127.0.0.1:{endpoint.port}/"
        [(_, outcome)] = await self.post(self.transport(url, ca_file=authority.ca_file))
        self.assertIsInstance(outcome, Delivered)
        [(_, outcome)] = await self.post(self.transport(url))
        self.assertEqual((type(outcome), outcome.scope), (TransientFailure, Scope.SITE))
        self.assertEqual(len(endpoint.posted), 1)


def is_final(outcome: Any) -> bool:
    return isinstance(outcome, PermanentFailure)
