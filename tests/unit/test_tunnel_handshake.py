"""Who comes in: the relay's handshake and the agent's, message by message, and over connections."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.identity import identity_of
from protege_mta.testing.strangers import KEY, ME
from protege_mta.testing.tunnels import Net, StrangeSocket
from protege_mta.tunnel.limits import TunnelLimits
from protege_mta.wire.tunnel.handshake import (
    Admitted,
    AgentHandshake,
    Failed,
    Proven,
    Refuse,
    RelayHandshake,
    Say,
)
from protege_mta.wire.tunnel.messages import (
    Challenge,
    ChallengeRequest,
    ChallengeResponse,
    Role,
    Terms,
    format_message,
    parse,
)

from .test_tunnel_wire import VECTORS

TERMS = Terms(1_048_576, 52_428_800)


def relay(now: float = 0.0) -> RelayHandshake:
    ids = (f"id-{number}" for number in itertools.count(1))
    return RelayHandshake(TERMS, challenge_s=60.0, now=lambda: now, new_id=lambda: next(ids))


def challenge(
    machine: RelayHandshake, seconds: float = 0.0, key: str = ME, role: Role | None = None
) -> Challenge:
    said = machine.received(format_message(ChallengeRequest(key, role)), seconds)
    assert isinstance(said, Say), said
    message = parse(said.text)
    assert isinstance(message, Challenge)
    return message


def answer(
    given: Challenge, *, role: Role | None = None, signature: str | None = None, key: str = ME
) -> bytes:
    if signature is None:
        signature = base64.b64encode(KEY.sign(given.text.encode())).decode()
    return format_message(ChallengeResponse(key, given.challenge_id, signature, role))


SMALL_ORDER = [
    bytes.fromhex(octets)
    for octets in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    )
]
"""All encodings of the eight points whose order divides 8."""
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


class RelayHandshakeTests(SynchronousTestCase):
    def test_keys_that_anybody_could_sign_for(self) -> None:
        """Whoever knows no secret logs in as nobody: for a key of a small order, some signature out
        of fourteen that anybody can write down holds for every second text."""
        for octets in SMALL_ORDER:
            machine = relay()
            said = machine.received(format_message(ChallengeRequest(identity_of(octets))), 0.0)
            self.assertEqual(said, Refuse("invalid_public_key"), octets.hex())

    def test_second_name_of_a_key(self) -> None:
        """A number that is written with the field's prime on top of it (RFC 8032, 5.1.3)."""
        for more in range(19):
            for sign in (0, 2**255):
                octets = (2**255 - 19 + more | sign).to_bytes(32, "little")
                machine = relay()
                said = machine.received(format_message(ChallengeRequest(identity_of(octets))), 0.0)
                self.assertEqual(said, Refuse("invalid_public_key"), more)

    def test_second_signature(self) -> None:
        """One that is not the signer's own, though the equation holds (RFC 8032, 8.4)."""
        machine = relay()
        given = challenge(machine)
        octets = KEY.sign(given.text.encode())
        scalar = int.from_bytes(octets[32:], "little") + GROUP_ORDER
        forged = base64.b64encode(octets[:32] + scalar.to_bytes(32, "little")).decode()
        said = machine.received(answer(given, signature=forged), 0.0)
        self.assertEqual(said, Refuse("invalid_signature"))

    def test_a_login(self) -> None:
        """What is told goes by the time of day, what is allowed by how long it took."""
        machine = relay(now=100.5)
        given = challenge(machine, seconds=7.5)
        self.assertEqual(given, Challenge(ME, "id-1", "relay-auth:id-1:id-2", 160.5, versions=(1,)))
        proven = machine.received(answer(given), 67.4)
        self.assertEqual(proven, Proven(ME, "inbound", None))
        assert isinstance(proven, Proven)
        self.assertEqual(
            json.loads(machine.admit(proven, None)),
            {
                "type": "auth_ok",
                "publicKeyBase32": ME,
                "emailLocalPart": ME,
                "sessionRole": "inbound",
                "replacedSocketId": None,
                "reliable": {
                    "versions": [1],
                    "version": None,
                    "window": 1_048_576,
                    "maxOctets": 52_428_800,
                },
            },
        )

    def test_recorded_signatures_are_good(self) -> None:
        for vector in VECTORS["challengeSignatureVectors"]:
            _, first, second = vector["challengeText"].split(":")
            ids = iter((first, second))
            machine = RelayHandshake(TERMS, challenge_s=60.0, now=lambda: 0.0, new_id=ids.__next__)
            key = vector["publicKeyBase32"]
            given = challenge(machine, key=key)
            self.assertEqual(given.text, vector["challengeText"])
            said = machine.received(answer(given, signature=vector["signatureBase64"], key=key), 1)
            self.assertEqual(said, Proven(key, "inbound", None))

    def test_what_is_refused(self) -> None:
        """Each with its code, in the order in which the original looks."""
        good = challenge(relay())
        other = identity_of(Ed25519PrivateKey.generate().public_key().public_bytes_raw())
        wrong = base64.b64encode(KEY.sign(b"something else")).decode()
        cases: list[tuple[str, list[bytes], float]] = [
            ("invalid_message", [b"hello"], 0),
            ("invalid_message", [b'{"type":"ping"}'], 0),
            ("invalid_message", [b'{"type":"auth_challenge_request"}'], 0),
            ("invalid_message", [b'{"type":"auth_error","code":"x"}'], 0),
            ("challenge_not_found", [answer(Challenge(ME, "id-9", "t", 0))], 0),
            ("challenge_mismatch", [answer(good, key=other)], 0),
            ("challenge_mismatch", [answer(good, key="abc")], 0),
            ("challenge_expired", [answer(good)], 60),
            ("invalid_signature_encoding", [answer(good, signature="")], 0),
            ("invalid_signature_encoding", [answer(good, signature="!?")], 0),
            ("invalid_signature", [answer(good, signature="AAAA")], 0),
            ("invalid_signature", [answer(good, signature=wrong)], 0),
            ("challenge_already_used", [answer(good), answer(good)], 0),
            ("challenge_already_used", [answer(good, signature=wrong), answer(good)], 0),
        ]
        for code, messages, seconds in cases:
            machine = relay()
            challenge(machine)
            said = [machine.received(message, seconds) for message in messages]
            self.assertEqual(said[-1], Refuse(code, 4401), messages)

    def test_keys_that_are_none_are_refused_at_once(self) -> None:
        """Among them the one that brought the original down, and other spellings of a good one."""
        for key in ("", "abc", "a" * 53, ME[:-1] + "b", ME + "=", "ä" * 52, ME[:-1]):
            said = relay().received(format_message(ChallengeRequest(key)), 0)
            self.assertEqual(said, Refuse("invalid_public_key"), key)

    def test_a_key_has_one_spelling_but_for_case_and_space(self) -> None:
        self.assertEqual(challenge(relay(), key=f" {ME.upper()}\n").public_key, ME)

    def test_keys_that_are_no_points(self) -> None:
        """32 octets that no signature can be checked with are refused, and break nothing."""
        key = "ai" + "a" * 50  # 2, which no point of the curve has
        machine = relay()
        given = challenge(machine, key=key)
        said = machine.received(answer(given, key=key), 0)
        self.assertEqual(said, Refuse("invalid_signature"))

    def test_roles(self) -> None:
        """The response's, else the request's, else inbound."""
        roles: list[Role | None] = ["inbound", "outbound", None]
        for asked, said in itertools.product(roles, roles):
            machine = relay()
            proven = machine.received(answer(challenge(machine, role=asked), role=said), 0)
            assert isinstance(proven, Proven)
            self.assertEqual(proven.role, said or asked or "inbound")

    def test_challenges_are_bounded(self) -> None:
        """Of those that a connection asks for, it may answer the last four."""
        machine = relay()
        given = [challenge(machine) for _ in range(6)]
        for old in given[:2]:
            self.assertEqual(machine.received(answer(old), 0), Refuse("challenge_not_found"))
        for new in given[2:]:
            self.assertIsInstance(machine.received(answer(new), 0), Proven)

    def test_challenges_are_their_connections(self) -> None:
        given = challenge(relay())
        said = relay().received(answer(given), 0)
        self.assertEqual(said, Refuse("challenge_not_found"))


class AgentHandshakeTests(SynchronousTestCase):
    def agent(self, seed: bytes = bytes(range(32))) -> AgentHandshake:
        key = Ed25519PrivateKey.from_private_bytes(seed)
        me = identity_of(key.public_key().public_bytes_raw())
        return AgentHandshake(me, key.sign, TERMS, "inbound")

    def test_recorded_logins(self) -> None:
        """What the original gateway says to the original relay, octet by octet."""
        for exchange in VECTORS["authExchanges"].values():
            key = Ed25519PrivateKey.from_private_bytes(
                bytes.fromhex(exchange["testPrivateSeedHex"])
            )
            request, given, response, ok = (
                said["text"].encode() for said in exchange["wireTextInOrder"]
            )
            role: Role = json.loads(request)["sessionRole"]
            machine = AgentHandshake(exchange["publicKeyBase32"], key.sign, TERMS, role)
            self.assertEqual(machine.begin(), request)
            self.assertEqual(machine.received(given), Say(response))
            admitted = machine.received(ok)
            assert isinstance(admitted, Admitted)
            self.assertIsNone(admitted.ok.reliable)

    def test_the_extension_is_asked_for_where_it_is_offered(self) -> None:
        machine = self.agent()
        said = machine.received(format_message(Challenge(ME, "c", "t", 0, (3, 1))))
        assert isinstance(said, Say)
        self.assertEqual(
            json.loads(said.text)["reliable"],
            {"version": 1, "window": 1_048_576, "maxOctets": 52_428_800},
        )
        said = self.agent().received(format_message(Challenge(ME, "c", "t", 0, (2,))))
        assert isinstance(said, Say)
        self.assertNotIn("reliable", json.loads(said.text))

    def test_strange_relays(self) -> None:
        """Are not followed, and break nothing."""
        machine = self.agent()
        for text in (b"", b"[]", b'{"type":"new"}', b'{"type":"auth_ok","publicKeyBase32":"k"}'):
            self.assertIsNone(machine.received(text))
        self.assertEqual(
            machine.received(b'{"type":"auth_error","code":"rate_limited"}'), Failed("rate_limited")
        )
        long = format_message(Challenge(ME, "c", "t" * 1025, 0))
        self.assertIsInstance(machine.received(long), Failed)
        machine.received(format_message(Challenge(ME, "c", "t", 0)))
        self.assertIsNone(machine.received(format_message(Challenge(ME, "c", "t", 0))))
        self.assertIsInstance(
            machine.received(b'{"type":"auth_ok","publicKeyBase32":"other"}'), Failed
        )


class LoginTests(SynchronousTestCase):
    """Whole connections."""

    def stranger(self, net: Net) -> tuple[StrangeSocket, Any]:
        socket = StrangeSocket()
        connection = net.relay.connection(socket)
        connection.opened()
        return socket, connection

    def say(self, connection: Any, octets: bytes, is_binary: bool = False) -> None:
        connection.message_began(is_binary)
        connection.message_data(octets)
        connection.message_ended()

    def test_ours_with_ours_is_reliable(self) -> None:
        net = Net()
        pair = net.connect(KEY)
        self.assertTrue(pair.session.is_reliable)
        self.assertTrue(net.at_relay(pair).is_reliable)
        self.assertIs(net.relay.to(ME), net.at_relay(pair))
        self.assertEqual(net.at_relay(pair).peer_address, "192.0.2.1")

    def test_the_crash_of_two_messages(self) -> None:
        """The second one is not even looked at."""
        net = Net()
        socket, connection = self.stranger(net)
        self.say(connection, b'{"type":"auth_challenge_request","publicKeyBase32":"abc"}')
        self.say(
            connection,
            b'{"type":"auth_challenge_response","publicKeyBase32":"abc","challengeId":"x",'
            b'"signatureBase64":"AAAA"}',
        )
        self.assertEqual(
            socket.said,
            [
                ("text", b'{"type":"auth_error","code":"invalid_public_key"}'),
                ("close", (4401, "invalid_public_key")),
            ],
        )

    def test_json_may_come_in_a_binary_message(self) -> None:
        net = Net()
        socket, connection = self.stranger(net)
        self.say(connection, format_message(ChallengeRequest(ME)), is_binary=True)
        self.assertEqual(json.loads(socket.said[0][1])["type"], "auth_challenge")  # type: ignore[arg-type]

    def test_a_message_without_end_before_login(self) -> None:
        net = Net()
        socket, connection = self.stranger(net)
        connection.message_began(False)
        for _ in range(100):
            connection.message_data(b"x" * 100)
        self.assertEqual(socket.said[-1], ("close", (4401, "invalid_message")))

    def test_too_many_attempts(self) -> None:
        """A login takes two."""
        asked: list[str] = []

        def may_attempt(address: str) -> bool:
            asked.append(address)
            return len(asked) < 4

        net = Net(may_attempt=may_attempt)
        net.connect(KEY)
        pair = net.connect(KEY)
        self.assertEqual(asked, ["192.0.2.1"] * 4)
        self.assertEqual(pair.watch.ends, [(4401, "rate_limited")])
        socket, connection = self.stranger(net)
        self.say(connection, format_message(ChallengeRequest(ME)))
        self.assertEqual(socket.said[-1], ("close", (4408, "rate_limited")))

    def test_who_may_not_come(self) -> None:
        net = Net(may_log_in=lambda identity: False)
        pair = net.connect(KEY)
        self.assertEqual(pair.watch.ends, [(4401, "identity_not_allowed")])
        self.assertEqual(net.relay_house.sessions, [])

    def test_the_clock_is_set_during_a_login(self) -> None:
        """By an hour, either way: a challenge lives as long as it would have."""
        for ahead_s in (3600.0, -3600.0):
            net = Net(limits=TunnelLimits(auth_s=90))
            for waited_s, wanted in ((59, "auth_ok"), (61, "auth_error")):
                socket, connection = self.stranger(net)
                self.say(connection, format_message(ChallengeRequest(ME)))
                given = parse(socket.said[0][1])  # type: ignore[arg-type]
                assert isinstance(given, Challenge)
                net.ahead_s += ahead_s
                net.clock.advance(waited_s)
                self.say(connection, answer(given))
                self.assertEqual(json.loads(socket.said[1][1])["type"], wanted)  # type: ignore[arg-type]
            self.assertEqual(socket.said[-1], ("close", (4401, "challenge_expired")))

    def test_nobody_waits_for_a_login_for_ever(self) -> None:
        net = Net(limits=TunnelLimits(auth_s=30, close_s=5))
        socket, connection = self.stranger(net)
        net.clock.pump([1] * 40)
        self.assertEqual(socket.said[-1], ("close", (4408, "auth_timeout")))
        self.assertTrue(socket.is_aborted)
        connection.gone(1006, "")
        self.assertEqual(net.relay.connections, 0)
        net.clock.advance(1)
        self.assertEqual(net.clock.getDelayedCalls(), [])

    def test_the_first_after_a_long_time(self) -> None:
        """Has its time to log in."""
        net = Net()
        net.connect(KEY).relay.cut()
        net.clock.advance(1)
        net.clock.advance(3600)
        socket, _ = self.stranger(net)
        net.clock.pump([1] * 25)
        self.assertEqual(socket.said, [])

    def test_a_second_login_takes_the_first_ones_place(self) -> None:
        net = Net()
        first = net.connect(KEY)
        old = net.at_relay(first)
        second = net.connect(KEY)
        self.assertEqual(first.watch.ends, [(4400, "replaced_by_new_session")])
        self.assertEqual(second.watch.ends, [])
        self.assertIs(net.relay.to(ME), net.at_relay(second))
        self.assertEqual(net.relay_house.closed_sessions, [old])

    def test_the_second_is_told_of_the_first(self) -> None:
        net = Net()
        old = net.at_relay(net.connect(KEY))
        socket, connection = self.stranger(net)
        self.say(connection, format_message(ChallengeRequest(ME)))
        given = parse(socket.said[0][1])  # type: ignore[arg-type]
        assert isinstance(given, Challenge)
        self.say(connection, answer(given))
        ok = json.loads(socket.said[1][1])  # type: ignore[arg-type]
        self.assertEqual(ok["replacedSocketId"], old.socket_id)

    def test_outbound_sessions_replace_nobody(self) -> None:
        net = Net()
        first = net.connect(KEY)
        for _ in range(2):
            other = net.connect(KEY, "outbound")
            self.assertFalse(other.session.takes_mail)
        self.assertEqual(first.watch.ends, [])
        self.assertIs(net.relay.to(ME), net.at_relay(first))

    def test_a_session_that_is_gone_is_nobodys(self) -> None:
        net = Net()
        pair = net.connect(KEY)
        pair.relay.cut()
        self.assertIsNone(net.relay.to(ME))
        self.assertEqual(pair.watch.ends, [(1006, "cut")])
        net.clock.advance(1)
        self.assertEqual(net.clock.getDelayedCalls(), [])

    def test_the_server_stops(self) -> None:
        net = Net()
        pair = net.connect(KEY)
        gone = net.relay.close()
        self.assertNoResult(gone)
        net.flow()
        self.successResultOf(gone)
        self.assertEqual(pair.watch.ends, [(1001, "shutting down")])
        net.agents.close()
        self.assertEqual(net.clock.getDelayedCalls(), [])
