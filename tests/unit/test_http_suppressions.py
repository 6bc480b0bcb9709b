"""The suppression list and the links to unsubscribe over HTTP, over an in-memory wire."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any, Final

from twisted.internet import _producer_helpers
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Cooperator
from twisted.web.iweb import IRequest

from protege_mta.http import suppressions, unsubscribe
from protege_mta.http.listener import HttpLimits
from protege_mta.http.reading import ReadLimits
from protege_mta.model.caller import Caller, Flaw, Scope
from protege_mta.model.ports import StateFailed, Suppressed
from protege_mta.model.return_path import Subscription, UnsubscribeLinks
from protege_mta.state.suppression import StoredSuppressions
from protege_mta.testing.states import HeldDatabase

from .test_http_listener import Case

NOW: Final = 1_790_000_000.0
CALLERS: Final[dict[str, Caller]] = {
    "admin": Caller(identity="key:admin", scopes=frozenset(("admin", "read", "send"))),
    "t": Caller(identity="key:t", scopes=frozenset(("read", "send")), tenant="t"),
    "nobody": Caller(identity="key:nobody", scopes=frozenset(("read", "send"))),
}


class ListCase(Case):
    limits = HttpLimits(connections=3, connections_per_ip=2, idle_s=30, body_octets=20_000_000)

    def setUp(self) -> None:
        super().setUp()
        self.reads = ReadLimits()
        pages = Cooperator(scheduler=lambda work: self.clock.callLater(0, work))
        self.patch(_producer_helpers, "cooperate", pages.cooperate)
        self.database = HeldDatabase(Path(self.mktemp()), lambda: 0.0)
        self.database.open()
        self.addCleanup(self.database.close)
        self.list = StoredSuppressions(self.database, lambda: NOW)
        suppressions.add(
            self.app,
            self.list,
            authenticate=self.authenticate,
            now=lambda: NOW,
            limits=lambda: self.reads,
        )

    async def authenticate(self, request: IRequest, scope: Scope) -> Caller | Flaw:
        caller = CALLERS.get((request.getHeader("Authorization") or "").removeprefix("Bearer "))
        return caller or Flaw(401, "no-key", "no such key")

    def call(
        self,
        method: str,
        query: str = "",
        body: bytes = b"",
        kind: str = "application/json",
        who: str = "admin",
        accept: str = "*/*",
        packed: str = "",
    ) -> tuple[int, Any]:
        transport = self.connect()
        assert transport is not None
        encoding = f"Content-Encoding: {packed}\r\n" if packed else ""
        transport.protocol.dataReceived(
            f"{method} /v1/suppressions{query} HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer {who}\r\n"
            f"{encoding}Accept: {accept}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        self.clock.pump([0] * 20)  # pages of an export
        head, _, answer = transport.value().partition(b"\r\n\r\n")
        transport.protocol.connectionLost(self.closed())
        status = int(head.split(b" ")[1])
        is_json = b"json\r\n" in head + b"\r\n" and b"ndjson" not in head
        return status, json.loads(answer) if is_json else answer.decode()

    def closed(self) -> Any:
        from .test_http_listener import CLOSED

        return CLOSED

    def add_some(self) -> None:
        for address, tenant in (("a@b.test", ""), ("b@b.test", "t"), ("c@c.test", "u")):
            self.successResultOf(self.list.add(Suppressed(address, "manual", tenant, NOW)))


class SuppressionsTests(ListCase):
    def test_one_is_added_and_seen(self) -> None:
        status, entry = self.call("POST", body=b'{"address": "Bob@B.test", "detail": "asked"}')
        wanted = {
            "address": "bob@b.test",
            "reason": "manual",
            "since": "2026-09-21T14:13:20Z",
            "detail": "asked",
        }
        self.assertEqual((status, entry), (201, wanted))
        self.assertEqual(self.call("GET"), (200, {"suppressions": [wanted]}))
        self.assertIsNotNone(self.list.find("bob@b.test", ""))

    def test_what_is_over_is_not_seen(self) -> None:
        """Nor exported; who looks for an address here takes what there is for what holds."""
        for body in (
            b'{"address":"a@b.test","until":"2026-01-01T00:00:00Z"}',
            b'{"address":"c@b.test","until":"2030-01-01T00:00:00Z"}',
        ):
            self.assertEqual(self.call("POST", body=body)[0], 201)
        _, page = self.call("GET")
        self.assertEqual([one["address"] for one in page["suppressions"]], ["c@b.test"])
        _, text = self.call("GET", accept="application/x-ndjson")
        self.assertEqual(text.count("@"), 1)
        self.assertEqual(self.call("DELETE", "?address=a@b.test"), (200, {"removed": 1}))

    def test_pages(self) -> None:
        self.add_some()
        _, page = self.call("GET", "?limit=2")
        self.assertEqual([one["address"] for one in page["suppressions"]], ["a@b.test", "b@b.test"])
        _, page = self.call("GET", f"?limit=2&after={page['next']}")
        self.assertEqual([one["address"] for one in page["suppressions"]], ["c@c.test"])
        self.assertNotIn("next", page)

    def test_filters(self) -> None:
        self.add_some()
        for query, count in (
            ("?domain=B.test", 2),
            ("?address=A@b.test", 1),
            ("?tenant=u", 1),
            ("?tenant=", 1),
            ("?reason=complaint", 0),
        ):
            status, page = self.call("GET", query)
            self.assertEqual((status, len(page["suppressions"])), (200, count), query)

    def test_a_tenant_sees_its_own_and_what_holds_for_everybody(self) -> None:
        self.add_some()
        _, page = self.call("GET", who="t")
        self.assertEqual([one["address"] for one in page["suppressions"]], ["a@b.test", "b@b.test"])
        self.assertEqual(self.call("GET", "?tenant=u", who="t")[0], 403)

    def test_a_tenant_changes_its_own(self) -> None:
        self.add_some()
        status, entry = self.call("POST", body=b'{"address":"x@b.test"}', who="t")
        self.assertEqual((status, entry["tenant"]), (201, "t"))
        other = b'{"address":"x@b.test","tenant":"u"}'
        self.assertEqual(self.call("POST", body=other, who="t")[0], 422)
        for address, count in (("a@b.test", 0), ("b@b.test", 1), ("c@c.test", 0)):
            found = self.call("DELETE", f"?address={address}", who="t")
            self.assertEqual(found, (200, {"removed": count}))

    def test_who_has_no_tenant_changes_nothing(self) -> None:
        for method in ("POST", "DELETE"):
            status, problem = self.call(method, "?address=a@b.test", b"{}", who="nobody")
            self.assertEqual(
                (status, problem["type"]), (403, "urn:protege-mta:problem:not-allowed")
            )

    def test_nobody_asks(self) -> None:
        for method in ("GET", "POST", "DELETE"):
            self.assertEqual(self.call(method, who="x")[0], 401)

    def test_what_is_wrong_is_named(self) -> None:
        for body, status, member in (
            (b"{", 400, None),
            (b"[]", 422, None),
            (b'{"address":"x"}', 422, "/address"),
            (b'{"address":"a@b.test","reason":"whim"}', 422, "/reason"),
            (b'{"address":"a@b.test","until":"soon"}', 422, "/until"),
            (b'{"address":1}', 422, "/address"),
            (b'{"address":"a@b.test","wrong":"x"}', 422, "/wrong"),
        ):
            found, problem = self.call("POST", body=body)
            self.assertEqual((found, problem.get("member")), (status, member), body)
        self.assertEqual(self.call("POST", body=b"x", kind="text/plain")[0], 415)
        for query in (
            "?limit=0",
            "?limit=x",
            "?after=!",
            "?after=W10",
            "?what=x",
            "?address=x",
            "?reason=x",
            "?tenant=a&tenant=b",
            "?address=%ff",
        ):
            self.assertEqual(self.call("GET", query)[0], 400, query)
        self.assertEqual(self.call("DELETE")[0], 400)

    def test_import_and_export(self) -> None:
        """What was exported can be imported again, in either form."""
        lines = b"".join(
            b'{"address":"%d@b.test","until":"2030-01-01T00:00:00Z"}\n' % n for n in range(2500)
        )
        self.assertEqual(
            self.call("POST", body=lines, kind="application/x-ndjson"), (200, {"added": 2500})
        )
        for form, first in (("application/x-ndjson", 0), ("text/csv", 1)):
            status, text = self.call("GET", accept=form)
            self.assertEqual((status, len(text.splitlines())), (200, 2500 + first))
            self.call("DELETE", "?address=7@b.test")
            self.assertEqual(
                self.call("POST", body=text.encode(), kind=form), (200, {"added": 2500})
            )
            self.assertEqual(self.list.find("7@b.test", "").until, 1_893_456_000.0)  # type: ignore[union-attr]

    def test_lines_that_are_none(self) -> None:
        body = b"address,reason\r\na@b.test,manual\r\nx,manual\r\n\r\nb@b.test,whim\r\n"
        status, found = self.call("POST", body=body, kind="text/csv; charset=utf-8")
        self.assertEqual((status, found["added"], found["refused"]), (200, 1, 2))
        self.assertEqual(
            [(one["line"], one["member"]) for one in found["lines"]],
            [(3, "address"), (5, "reason")],
        )

    def test_another_charset(self) -> None:
        """Nothing of an import is taken that would be read as what it is not."""
        for kind in ("text/csv", "application/x-ndjson", "application/json"):
            status, found = self.call("POST", body=b"{}", kind=f"{kind}; charset=iso-8859-1")
            self.assertEqual((status, found["type"]), (415, "urn:protege-mta:problem:not-utf-8"))

    def test_too_many_lines(self) -> None:
        status, _ = self.call("POST", body=b"{}\n" * 100_002, kind="application/x-ndjson")
        self.assertEqual(status, 413)
        self.assertEqual(self.call("GET"), (200, {"suppressions": []}))

    def test_packed(self) -> None:
        """In either way and either form; lines are counted as they come out."""
        for n, packed in enumerate(("gzip", "deflate")):
            for kind, text in (
                ("text/csv", f"address,reason\nc{n}@b.test,manual\nx,manual\n"),
                ("application/x-ndjson", f'{{"address":"j{n}@b.test"}}\n{{"address":"x"}}\n'),
            ):
                octets = text.encode()
                body = gzip.compress(octets) if packed == "gzip" else zlib.compress(octets)
                status, found = self.call("POST", body=body, kind=kind, packed=packed)
                self.assertEqual((status, found["added"], found["refused"]), (200, 1, 1))
                self.assertEqual(found["lines"][0]["line"], text.count("\n"))
        _, page = self.call("GET")
        self.assertEqual(
            [one["address"] for one in page["suppressions"]],
            ["c0@b.test", "c1@b.test", "j0@b.test", "j1@b.test"],
        )
        lines = gzip.compress(b"{}\n" * 100_002)
        kind = "application/x-ndjson"
        self.assertEqual(self.call("POST", body=lines, kind=kind, packed="gzip")[0], 413)

    def test_packed_and_refused(self) -> None:
        """As at any other endpoint, and nothing of it is taken."""
        self.reads = ReadLimits(body_octets=1000)
        whole = gzip.compress(b'{"address":"a@b.test"}\n')
        large = gzip.compress(b'{"address":"a@b.test"}\n' + b" " * 1000)
        for kind in ("application/x-ndjson", "text/csv", "application/json"):
            for body, packed, status, why in (
                (whole[:-1], "gzip", 400, "bad-encoding"),
                (b'{"address":"a@b.test"}', "gzip", 400, "bad-encoding"),
                (large, "gzip", 413, "too-large"),
                (whole, "br", 415, "unknown-encoding"),
                (whole, "gzip, gzip", 415, "unknown-encoding"),
            ):
                found = self.call("POST", body=body, kind=kind, packed=packed)
                wanted = (status, f"urn:protege-mta:problem:{why}")
                self.assertEqual((found[0], found[1]["type"]), wanted, (kind, packed))
        self.assertEqual(self.call("GET"), (200, {"suppressions": []}))

    def test_no_disk(self) -> None:
        self.database.is_failed = True
        self.assertEqual(self.call("POST", body=b'{"address":"x@b.test"}')[0], 503)
        self.assertEqual(self.call("DELETE", "?address=x@b.test")[0], 503)


class UnsubscribeTests(ListCase):
    limits = HttpLimits(connections=100, connections_per_ip=100, body_octets=1000)

    def setUp(self) -> None:
        super().setUp()
        self.links = UnsubscribeLinks(b"secret")
        self.token = self.links.token(Subscription("<b>@b.test", "t", "id"))
        self.done: list[Subscription] = []
        self.may = True
        self.is_broken = False
        unsubscribe.add(
            self.app, read=self.links.read, unsubscribe=self.unsubscribe, may=lambda _: self.may
        )

    def unsubscribe(self, found: Subscription) -> Deferred[None]:
        if self.is_broken:
            raise StateFailed("no disk")
        self.done.append(found)
        return succeed(None)

    def go(self, method: str, token: str) -> tuple[int, dict[str, str], str]:
        body = "List-Unsubscribe=One-Click" if method == "POST" else ""
        status, headers, answer = self.ask(
            f"{method} /u/{token} HTTP/1.0\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}".encode()
        )
        return status, headers, answer.decode()

    def test_one_click(self) -> None:
        """RFC 8058, 3.2; and once more changes nothing."""
        for _ in range(2):
            status, _, text = self.go("POST", self.token)
            self.assertEqual(status, 200)
        self.assertIn("Unsubscribed", text)
        self.assertEqual(set(self.done), {Subscription("<b>@b.test", "t", "id")})

    def test_a_scanner_of_links_unsubscribes_nobody(self) -> None:
        status, headers, text = self.go("GET", self.token)
        self.assertEqual((status, self.done), (200, []))
        self.assertIn('<form method="post">', text)
        self.assertIn("&lt;b&gt;@b.test", text)
        self.assertNotIn("script", text)
        self.assertIn("default-src 'none'", headers["Content-Security-Policy"])

    def test_a_forged_link(self) -> None:
        for method in ("GET", "POST"):
            self.assertEqual(self.go(method, self.token[:-4])[0], 404)
        self.assertEqual(self.done, [])

    def test_too_often(self) -> None:
        """Are those who guess; whoever has a link gets out."""
        self.may = False
        self.assertEqual(self.go("POST", "x" + self.token)[0], 429)
        self.assertEqual(self.go("POST", self.token)[0], 200)

    def test_every_octet_is_sealed(self) -> None:
        for at in range(len(self.token) - 1):  # of the last some bits stand for nothing
            other = "A" if self.token[at] != "A" else "B"
            forged = self.token[:at] + other + self.token[at + 1 :]
            self.assertIsNone(self.links.read(forged), at)

    def test_forms_of_the_body(self) -> None:
        """RFC 8058, 3.1: either kind of form; who sends none, or another, has asked to get out too."""
        boundary = (
            '--x\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\n'
            "One-Click\r\n--x--\r\n"
        )
        for kind, body in (
            ("application/x-www-form-urlencoded", "List-Unsubscribe=One-Click"),
            ("multipart/form-data; boundary=x", boundary),
            ("application/json", "{"),
            ("text/plain", ""),
        ):
            self.done.clear()
            status, _, _ = self.ask(
                f"POST /u/{self.token} HTTP/1.0\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
                f"Content-Type: {kind}\r\n\r\n{body}".encode()
            )
            self.assertEqual((status, len(self.done)), (200, 1), kind)

    def test_other_methods_unsubscribe_nobody(self) -> None:
        for method, wanted in (("HEAD", 200), ("PUT", 405), ("DELETE", 405), ("OPTIONS", 405)):
            self.assertEqual(self.go(method, self.token)[0], wanted, method)
        self.assertEqual(self.done, [])

    def test_no_disk(self) -> None:
        self.is_broken = True
        self.assertEqual(self.go("POST", self.token)[0], 503)
