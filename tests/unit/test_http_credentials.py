"""Who asks over HTTP: keys and accounts, right and wrong, before a body is read.

A listener over an in-memory wire, with one endpoint for each scope::

    requests  -->  gate  -->  endpoint -- Credentials -->  keys, accounts
"""

from __future__ import annotations

import json
from base64 import b64encode
from ipaddress import ip_network
from typing import Any, Final, cast
from unittest.mock import patch

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.web.iweb import IRequest

from protege_mta.http import answer
from protege_mta.http.channel import LINGER_OCTETS
from protege_mta.http.credentials import Credentials
from protege_mta.http.listener import HttpLimits
from protege_mta.model.account import Account
from protege_mta.model.apikey import ApiKey, KeySecret, fingerprint, secret_text
from protege_mta.model.caller import Caller, Flaw, Scope
from protege_mta.model.ports import About, Events, PasswordProof, Peer, Proof, StateFailed
from protege_mta.model.reply import TABLE, Reply
from protege_mta.policy.callers import FREE, KnownCallers, Tries

from .test_http_listener import Case, Wire

SECRET: Final = secret_text(b"\1" * 32)
OTHER: Final = secret_text(b"\2" * 32)
TYPO: Final = SECRET[:-1] + "7"


class Keys:
    """In memory.  :ivar asked: every digest.  :ivar used_by: names, in order."""

    def __init__(self) -> None:
        digest = fingerprint(SECRET)
        assert digest is not None
        self.key = ApiKey(name="bot", secrets=(KeySecret(digest=digest, created_at=0.0),))
        self.asked: list[bytes] = []
        self.used_by: list[str] = []
        self.is_broken = False

    def find(self, digest: bytes) -> ApiKey | None:
        self.asked.append(digest)
        if self.is_broken:
            raise StateFailed("gone")
        return self.key if digest == self.key.secrets[0].digest else None

    def get(self, name: str) -> ApiKey | None:
        return self.key if name == self.key.name else None

    def used(self, name: str) -> None:
        self.used_by.append(name)


class House:
    """Accounts and logins: one account, ``alice``, and what is said to her password."""

    def __init__(self) -> None:
        self.account: Account | None = Account(
            name="alice", password_hash="", allowed_from=("alice@a.test",), tenant="t"
        )
        self.says: Reply | Deferred[Reply] = TABLE["logged-in"]
        self.proofs: list[Proof] = []

    def get(self, name: str) -> Account | None:
        return self.account

    def login(self, peer: Peer, proof: Proof) -> Reply | Deferred[Reply]:
        self.proofs.append(proof)
        return self.says


class Told:
    """:ivar lines: address, identity and reply of each refusal."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, Reply]] = []

    def rejected(
        self, peer: Peer, sender: str | None, recipient: str, reply: Reply, about: About
    ) -> None:
        assert sender is None
        assert not recipient
        assert peer.source == "http"
        self.lines.append((peer.address, peer.identity, reply))


class CredentialsCase(Case):
    limits = HttpLimits(body_octets=4 * LINGER_OCTETS)

    def setUp(self) -> None:
        super().setUp()
        self.keys, self.house, self.told = Keys(), House(), Told()
        self.credentials = Credentials(
            KnownCallers(self.keys, self.house, self.house),
            Tries(self.clock.seconds),
            cast(Events, self.told),
            new_session_id=lambda: "s",
            empty_hands=Tries(self.clock.seconds),
        )
        self.factory.configure(
            trusted_proxies=(ip_network("198.51.100.0/24"),),
            trusted_networks=(ip_network("192.0.2.128/25"),),
            upgrade=None,
            gate=self.credentials.gate,
        )
        self.callers: list[Caller] = []

        async def endpoint(request: IRequest, scope: Scope) -> bytes:
            found = await self.credentials(request, scope)
            if isinstance(found, Flaw):
                return answer.flaw(request, found)
            self.callers.append(found)
            return answer.json(request, {"body": len(cast(Any, request).content.read())})

        @self.app.route("/v1/send", methods=["GET", "POST"])
        async def send(request: IRequest) -> bytes:
            return await endpoint(request, "send")

        @self.app.route("/v1/read", methods=["GET"])
        async def read(request: IRequest) -> bytes:
            return await endpoint(request, "read")

        @self.app.route("/api/inject/v1", methods=["POST"])
        async def inject(request: IRequest) -> bytes:
            return await endpoint(request, "send")

    def post(
        self, path: str, *fields: str, body: bytes = b"x", host: str = "192.0.2.1"
    ) -> tuple[int, dict[str, str], bytes]:
        wire = self.open(path, *fields, length=len(body), host=host)
        wire.protocol.dataReceived(body)
        return self.parse(wire.value())

    def open(self, path: str, *fields: str, length: int, host: str = "192.0.2.1") -> Wire:
        """Send a header, and nothing of its body."""
        wire = self.connect(host)
        assert wire is not None
        lines = ["Host: mx.test", f"Content-Length: {length}", *fields]
        head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n"
        wire.protocol.dataReceived(head.encode("utf-8"))
        return wire


class BearerTests(CredentialsCase):
    def test_right(self) -> None:
        """The scheme in any case (RFC 9110, 11.1)."""
        for scheme in ("Bearer", "bearer", "BEARER"):
            status, _, body = self.post(
                "/v1/send", f"Authorization: {scheme}  {SECRET}", body=b"abc"
            )
            self.assertEqual((status, json.loads(body)), (200, {"body": 3}))
        self.assertEqual(self.callers, [self.keys.key.caller()] * 3)
        self.assertEqual(self.callers[0].identity, "key:bot")
        self.assertEqual(self.keys.used_by[0], "bot")
        self.assertEqual(self.told.lines, [])

    def test_wrong(self) -> None:
        for field in (
            f"Authorization: Bearer {OTHER}",
            f"Authorization: Bearer {TYPO}",
            "Authorization: Bearer",
            "Authorization: Bearer \u00e4",
            f"Authorization: Digest {SECRET}",
            f"Authorization: Bearer {SECRET}\r\nAuthorization: Bearer {SECRET}",
        ):
            status, fields, body = self.post("/v1/send", field)
            self.assertEqual(status, 401, field)
            self.assertIn("Bearer", fields["WWW-Authenticate"])
            self.assertEqual(fields["Content-Type"], "application/problem+json")
            self.assertEqual(json.loads(body)["type"], "urn:protege-mta:problem:unauthorized")
        self.assertEqual(self.callers, [])
        self.assertEqual(self.told.lines, [("192.0.2.1", "", TABLE["key-refused"])] * 6)

    def test_none(self) -> None:
        self.assertEqual(self.get("/v1/send")[0], 401)
        self.assertEqual(self.post("/v1/send")[0], 401)
        self.assertEqual(self.told.lines, [("192.0.2.1", "", TABLE["key-required"])] * 2)

    def test_no_secret_is_told(self) -> None:
        """Not in what is answered, nor in events, nor as a value is shown."""
        for secret in (OTHER, TYPO):
            _, fields, body = self.post("/v1/send", f"Authorization: Bearer {secret}")
            self.assertNotIn(secret[5:20], f"{fields}{body!r}{self.told.lines}")

    def test_typo_takes_the_way_of_a_wrong_key(self) -> None:
        """What is looked up and compared is the same for all: a fingerprint of 32 octets."""
        for secret in (SECRET, OTHER, TYPO, "", "x" * 1000):
            self.keys.asked.clear()
            self.post("/v1/send", f"Authorization: Bearer {secret}")
            self.assertEqual({len(digest) for digest in self.keys.asked}, {32}, secret)

    def test_checksum_is_compared_in_constant_time(self) -> None:
        with patch("protege_mta.model.apikey.hmac.compare_digest", return_value=True) as compare:
            fingerprint(TYPO)
        self.assertEqual(compare.call_count, 1)

    def test_scope(self) -> None:
        status, _, body = self.get("/v1/read", f"Authorization: Bearer {SECRET}\r\n")
        self.assertEqual(status, 403)
        self.assertEqual(json.loads(body)["type"], "urn:protege-mta:problem:scope-missing")
        self.assertEqual(self.told.lines, [("192.0.2.1", "key:bot", TABLE["scope-missing"])])
        allowed: tuple[Scope, ...] = ("read", "admin")
        for scope in allowed:
            self.keys.key = attrs.evolve(self.keys.key, scopes=frozenset({scope}))
            self.assertEqual(self.get("/v1/read", f"Authorization: Bearer {SECRET}\r\n")[0], 200)

    def test_state_that_cannot_be_read(self) -> None:
        """Is no fault of the client's, and nobody's wrong try."""
        self.keys.is_broken = True
        status, fields, _ = self.post("/v1/send", f"Authorization: Bearer {SECRET}")
        self.assertEqual((status, fields["Retry-After"]), (503, "5"))
        self.assertEqual(self.told.lines, [])


class GateTests(CredentialsCase):
    def test_answered_before_the_body(self) -> None:
        wire = self.open("/v1/send", "Authorization: Bearer x", length=1000)
        self.assertEqual(self.parse(wire.value())[0], 401)
        self.assertFalse(wire.disconnecting)  # what is on its way goes by
        before = wire.value()
        wire.protocol.dataReceived(b"x" * 999)
        self.assertFalse(wire.disconnecting)
        wire.protocol.dataReceived(b"x")
        self.assertTrue(wire.disconnecting)
        self.assertEqual(wire.value(), before)

    def test_in_one_piece(self) -> None:
        """Header and body in one segment: one answer."""
        octets = b"POST /v1/send HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"
        wire = self.connect()
        assert wire is not None
        wire.protocol.dataReceived(octets)
        self.assertEqual(wire.value().count(b"HTTP/1.1 401"), 1)
        self.assertTrue(wire.disconnecting)

    def test_octet_by_octet(self) -> None:
        octets = b"POST /v1/send HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"
        wire = self.connect()
        assert wire is not None
        for at in range(len(octets)):
            wire.protocol.dataReceived(octets[at : at + 1])
        self.assertEqual(wire.value().count(b"HTTP/1.1 401"), 1)

    def test_chunked(self) -> None:
        wire = self.connect()
        assert wire is not None
        wire.protocol.dataReceived(
            b"POST /v1/send HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self.assertEqual(self.parse(wire.value())[0], 401)
        wire.protocol.dataReceived(b"1\r\nx\r\n0\r\n\r\n")
        self.assertTrue(wire.disconnecting)

    def test_a_client_that_does_not_stop_is_cut_off(self) -> None:
        wire = self.open("/v1/send", length=4 * LINGER_OCTETS)
        wire.protocol.dataReceived(b"x" * LINGER_OCTETS)
        self.assertFalse(wire.disconnecting)
        wire.protocol.dataReceived(b"x")
        self.assertTrue(wire.disconnecting)

    def test_a_client_that_waits_for_a_word(self) -> None:
        """Expect: 100-continue (RFC 9110, 10.1.1) is answered with the refusal alone."""
        wire = self.open("/v1/send", "Expect: 100-continue", length=1000)
        self.assertTrue(wire.value().startswith(b"HTTP/1.1 401"))
        self.assertNotIn(b"100 Continue", wire.value())
        self.assertTrue(wire.disconnecting)

    def test_a_client_with_a_key_is_told_to_go_on(self) -> None:
        wire = self.open(
            "/v1/send", f"Authorization: Bearer {SECRET}", "Expect: 100-continue", length=2
        )
        self.assertTrue(wire.value().startswith(b"HTTP/1.1 100 Continue"))

    def test_counts_once(self) -> None:
        self.post("/v1/send")
        self.assertEqual(len(self.told.lines), 1)

    def test_other_paths_are_open(self) -> None:
        self.assertEqual(self.post("/other")[0], 404)
        self.assertEqual(self.told.lines, [])


class BasicTests(CredentialsCase):
    def basic(self, text: str | bytes) -> tuple[int, dict[str, str], bytes]:
        octets = text if isinstance(text, bytes) else text.encode()
        return self.post("/v1/send", f"Authorization: basic {b64encode(octets).decode()}")

    def test_right(self) -> None:
        status, _, _ = self.basic("Alice:pass:w\u00f6rd")
        self.assertEqual(status, 200)
        [proof] = self.house.proofs
        self.assertEqual(proof, PasswordProof("alice", "pass:w\u00f6rd"))
        [caller] = self.callers
        self.assertEqual(
            (caller.identity, caller.allowed_from, caller.tenant, caller.scopes),
            ("alice", ("alice@a.test",), "t", {"send"}),
        )

    def test_later(self) -> None:
        """AUTH's waits hold the answer."""
        waiting: Deferred[Reply] = Deferred()
        self.house.says = waiting
        wire = self.open(
            "/v1/send", f"Authorization: Basic {b64encode(b'alice:x').decode()}", length=1
        )
        wire.protocol.dataReceived(b"x")
        self.assertEqual(wire.value(), b"")
        waiting.callback(TABLE["login-failed"])
        self.assertEqual(self.parse(wire.value())[0], 401)

    def test_what_auth_says(self) -> None:
        """It tells of refusals itself."""
        for name, status in (("login-failed", 401), ("login-locked", 429), ("login-later", 503)):
            self.house.says = succeed(TABLE[name])
            self.assertEqual(self.basic("alice:x")[0], status)
        self.assertEqual(self.told.lines, [])

    def test_gone_meanwhile(self) -> None:
        self.house.account = None
        self.assertEqual(self.basic("alice:x")[0], 401)

    def test_unreadable(self) -> None:
        for octets in (b"", b"alice", b"\xff\xfe:x"):
            self.assertEqual(self.basic(octets)[0], 401)
        self.assertEqual(self.post("/v1/send", "Authorization: Basic %%%")[0], 401)
        self.assertEqual(self.house.proofs, [])


class TriesTests(CredentialsCase):
    def wrong(self, host: str = "192.0.2.1") -> tuple[int, str]:
        status, fields, _ = self.post("/v1/send", f"Authorization: Bearer {OTHER}", host=host)
        return status, fields.get("Retry-After", "")

    def test_waits_that_grow(self) -> None:
        for _ in range(FREE):
            self.assertEqual(self.wrong(), (401, ""))
        for wait_s in (1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300):
            self.assertEqual(self.wrong(), (429, str(wait_s)))
            self.clock.advance(wait_s)
            self.assertEqual(self.wrong(), (401, ""))

    def test_no_event_for_who_has_to_wait(self) -> None:
        for _ in range(100):
            self.wrong()
        self.assertEqual(len(self.told.lines), FREE)

    def test_without_a_key_nothing_is_guessed_at(self) -> None:
        """It is said each time that one is needed; who tries wrong ones is another matter."""
        for _ in range(50):
            self.assertEqual(self.post("/v1/send")[0], 401)
        self.assertEqual(len(self.told.lines), FREE)
        self.assertEqual(self.wrong(), (401, ""))

    def test_a_right_key_never_waits(self) -> None:
        for _ in range(FREE + 1):
            self.wrong()
        self.assertEqual(self.post("/v1/send", f"Authorization: Bearer {SECRET}")[0], 200)

    def test_others_do_not_wait(self) -> None:
        for _ in range(FREE + 1):
            self.wrong()
        self.assertEqual(self.wrong("192.0.2.2"), (401, ""))

    def test_forgotten_after_a_quiet_time(self) -> None:
        for _ in range(FREE):
            self.wrong()
        self.clock.advance(1000)
        for _ in range(FREE):
            self.assertEqual(self.wrong(), (401, ""))

    def test_proxies_do_not_count_for_their_clients(self) -> None:
        for _ in range(FREE + 1):
            self.post(
                "/v1/send",
                "X-Forwarded-For: 203.0.113.9",
                f"Authorization: Bearer {OTHER}",
                host="198.51.100.1",
            )
        self.assertEqual(self.wrong("198.51.100.1"), (401, ""))
        self.assertEqual(self.wrong("203.0.113.9")[0], 429)
        self.assertEqual(self.told.lines[0][0], "203.0.113.9")

    def test_memory_is_bounded(self) -> None:
        tries = Tries(self.clock.seconds)
        for number in range(30_000):
            tries.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        self.assertLessEqual(len(tries), 10_000)


class NetworkTests(CredentialsCase):
    def test_a_trusted_network_may_inject(self) -> None:
        self.assertEqual(self.post("/api/inject/v1", host="192.0.2.200")[0], 200)
        self.assertEqual(self.callers, [Caller(identity="", scopes=frozenset({"send"}))])

    def test_and_no_more(self) -> None:
        self.assertEqual(self.post("/v1/send", host="192.0.2.200")[0], 401)
        self.assertEqual(self.post("/api/inject/v1", host="192.0.2.1")[0], 401)

    def test_a_wrong_key_is_wrong_there_too(self) -> None:
        status, _, _ = self.post(
            "/api/inject/v1", f"Authorization: Bearer {OTHER}", host="192.0.2.200"
        )
        self.assertEqual(status, 401)

    def test_nobody_forwards_himself_there(self) -> None:
        status, _, _ = self.post("/api/inject/v1", "X-Forwarded-For: 192.0.2.200", host="192.0.2.1")
        self.assertEqual(status, 401)
