"""Frames, control messages and attestations of the tunnel: octets that existing programs have sent,
and what is none of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.identity import identity_of, parse_identity
from protege_mta.model.stream import Attestation, DeliveryState, Stream
from protege_mta.testing.tunnels import frame_parts
from protege_mta.wire.tunnel.attestation import UNKNOWN, Check, Signals, payload, sign, verify
from protege_mta.wire.tunnel.bodies import (
    StartBody,
    format_end,
    format_start,
    lenient_base64,
    parse_end,
    parse_start,
)
from protege_mta.wire.tunnel.frames import (
    BODY_OCTETS,
    BadFrame,
    End,
    FramePart,
    FrameReader,
    Kind,
    Piece,
    Start,
    encode,
)
from protege_mta.wire.tunnel.messages import (
    AuthError,
    AuthOk,
    Challenge,
    ChallengeRequest,
    ChallengeResponse,
    Credit,
    DeliveryResult,
    Malformed,
    Message,
    StreamCancel,
    StreamResult,
    StreamResume,
    Terms,
    Unknown,
    format_message,
    parse,
    stamp,
)

VECTORS: Final[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "corpora" / "tunnel" / "vectors.json").read_text("utf-8")
)
KINDS: Final = {"smtp_start": Kind.START, "smtp_chunk": Kind.CHUNK, "smtp_end": Kind.END}
CAPTURED: Final = [
    event
    for name in (
        "realGateway_roundtrip_failed_then_sent",
        "realClient_outbound_multichunk_three_recipients",
    )
    for event in VECTORS[name]
]


def read(octets: bytes) -> list[FramePart]:
    return frame_parts([octets])


class FrameTests(SynchronousTestCase):
    def test_recorded_frames(self) -> None:
        """What was recorded is read as what it is, and written the same."""
        for vector in VECTORS["frameVectors"]:
            octets = bytes.fromhex(vector["hex"])
            stream_id = vector["streamId"]
            match vector["type"]:
                case "smtp_start":
                    [part] = read(octets)
                    self.assertIsInstance(part, Start)
                    body = octets[7 + len(stream_id.encode()) :]
                    self.assertEqual(json.loads(body), vector["json"])
                    start = parse_start(body, stream_id, is_reliable=False)
                    assert isinstance(start, StartBody)
                    self.assertEqual(format_start(start.stream, is_reliable=False), body)
                case "smtp_chunk":
                    body = bytes.fromhex(vector["chunkHex"])
                    self.assertEqual(read(octets), [Piece(stream_id, body)] if body else [])
                case _:
                    body = b""
                    self.assertEqual(read(octets), [End(stream_id, b"")])
            self.assertEqual(encode(KINDS[vector["type"]], stream_id, body), octets)

    def test_recorded_sessions(self) -> None:
        """Every message that was recorded is read, and written the same."""
        for event in CAPTURED:
            if "hex" in event:
                octets = bytes.fromhex(event["hex"])
                match read(octets):
                    case [Start(stream_id, body)]:
                        start = parse_start(body, stream_id, is_reliable=False)
                        assert isinstance(start, StartBody)
                        again = format_start(start.stream, is_reliable=False)
                        self.assertEqual(encode(Kind.START, stream_id, again), octets)
                    case [Piece(stream_id, body)]:
                        self.assertEqual(encode(Kind.CHUNK, stream_id, body), octets)
                    case [End(stream_id, body)]:
                        self.assertEqual(encode(Kind.END, stream_id, body), octets)
                    case other:
                        self.fail(f"{event} was read as {other}")
            else:
                message = parse(event["text"].encode())
                assert not isinstance(message, Unknown | Malformed)
                self.assertEqual(format_message(message).decode(), event["text"])

    def test_worked_example(self) -> None:
        self.assertEqual(
            encode(Kind.START, "s", b'{"mailFrom":"","rcptTo":"b@c"}').hex(),
            "0101010000001e737b226d61696c46726f6d223a22222c2272637074546f223a22624063227d",
        )
        self.assertEqual(encode(Kind.CHUNK, "s", b"\0\xff\r\n").hex(), "010201000000047300ff0d0a")
        self.assertEqual(encode(Kind.END, "s").hex(), "0103010000000073")

    def test_broken_frames(self) -> None:
        """What the original refuses is refused, and so is a start without JSON."""
        for vector in VECTORS["invalidFrames"]:
            match read(bytes.fromhex(vector["hex"])):
                case [BadFrame()]:
                    pass
                case [Start(stream_id, body)]:
                    found = parse_start(body, stream_id, is_reliable=False)
                    self.assertIsInstance(found, Malformed)
                case other:
                    self.fail(f"{vector} was read as {other}")

    def test_content_is_handed_on_as_it_comes(self) -> None:
        """A chunk is never whole in memory."""
        reader = FrameReader()
        frame = encode(Kind.CHUNK, "s", bytes(100_000))
        self.assertEqual(reader.feed(frame[:1000]), [Piece("s", bytes(992))])
        self.assertEqual(reader.feed(frame[1000:1001]), [Piece("s", b"\0")])
        self.assertEqual(reader.feed(frame[1001:]), [Piece("s", bytes(99_007))])
        self.assertEqual(reader.finish(), [])

    def test_a_body_has_its_limit(self) -> None:
        """Told by the head, before anything of the body is kept."""
        head = encode(Kind.START, "s", bytes(BODY_OCTETS + 1))[:8]
        self.assertEqual(FrameReader().feed(head), [BadFrame("body too long")])
        [whole] = read(encode(Kind.START, "s", bytes(BODY_OCTETS)))
        self.assertIsInstance(whole, Start)

    def test_a_bad_frame_is_told_of_once(self) -> None:
        reader = FrameReader()
        self.assertEqual(len(reader.feed(b"\2")), 1)
        self.assertEqual(reader.feed(b"more") + reader.finish(), [])
        reader.begin()
        self.assertEqual([*reader.feed(encode(Kind.END, "s")), *reader.finish()], [End("s", b"")])

    def test_ids_fit_their_field(self) -> None:
        [end] = read(encode(Kind.END, "ä" * 127))
        self.assertEqual(end, End("ä" * 127, b""))
        with self.assertRaises(ValueError):
            encode(Kind.END, "ä" * 128)
        self.assertEqual(read(b"\1\3\1\0\0\0\0\xff"), [BadFrame("stream id is not UTF-8")])


class MessageTests(SynchronousTestCase):
    def test_recorded_logins(self) -> None:
        for exchange in VECTORS["authExchanges"].values():
            for message in exchange["wireTextInOrder"]:
                found = parse(message["text"].encode())
                assert not isinstance(found, Unknown | Malformed)
                self.assertEqual(format_message(found).decode(), message["text"])

    def test_the_extension(self) -> None:
        """Its messages, member by member."""
        terms = Terms(1_048_576, 52_428_800)
        messages: list[tuple[Message, str]] = [
            (
                Challenge("k", "c", "t", 0.0, (1,)),
                '{"type":"auth_challenge","publicKeyBase32":"k","challengeId":"c",'
                '"challengeText":"t","expiresAt":"1970-01-01T00:00:00.000Z",'
                '"reliable":{"versions":[1]}}',
            ),
            (
                ChallengeResponse("k", "c", "s", "inbound", terms),
                '{"type":"auth_challenge_response","publicKeyBase32":"k","challengeId":"c",'
                '"signatureBase64":"s","sessionRole":"inbound",'
                '"reliable":{"version":1,"window":1048576,"maxOctets":52428800}}',
            ),
            (
                AuthOk("k", "inbound", None, (1,), terms, terms),
                '{"type":"auth_ok","publicKeyBase32":"k","emailLocalPart":"k",'
                '"sessionRole":"inbound","replacedSocketId":null,'
                '"reliable":{"versions":[1],"version":1,"window":1048576,"maxOctets":52428800}}',
            ),
            (
                AuthOk("k", "outbound", "u", (1,), None, terms),
                '{"type":"auth_ok","publicKeyBase32":"k","emailLocalPart":"k",'
                '"sessionRole":"outbound","replacedSocketId":"u",'
                '"reliable":{"versions":[1],"version":null,"window":1048576,"maxOctets":52428800}}',
            ),
            (AuthError("invalid_message"), '{"type":"auth_error","code":"invalid_message"}'),
            (
                DeliveryResult("s"),
                '{"type":"relay_delivery_result","streamId":"s","status":"sent","messageId":null}',
            ),
            (StreamResume("s", 5), '{"type":"stream_resume","streamId":"s","offset":5}'),
            (
                StreamResult("s", "r", False, "5.1.1", "no", is_permanent=True),
                '{"type":"stream_result","streamId":"s","requestId":"r","status":"refused",'
                '"code":"5.1.1","text":"no","permanent":true}',
            ),
            (
                StreamResult("s", "r", True, "2.0.0", "ok"),
                '{"type":"stream_result","streamId":"s","requestId":"r","status":"queued",'
                '"code":"2.0.0","text":"ok","permanent":false}',
            ),
            (Credit(262_144), '{"type":"credit","octets":262144}'),
            (StreamCancel("s"), '{"type":"stream_cancel","streamId":"s"}'),
            (
                DeliveryState("r", "deferred", "4.4.1", "later", 60.5),
                '{"type":"delivery_state","requestId":"r","state":"deferred","code":"4.4.1",'
                '"text":"later","nextAttemptAt":"1970-01-01T00:01:00.500Z"}',
            ),
            (
                DeliveryState("r", "sent", "2.0.0", "ok"),
                '{"type":"delivery_state","requestId":"r","state":"sent","code":"2.0.0",'
                '"text":"ok","nextAttemptAt":null}',
            ),
        ]
        for message, text in messages:
            self.assertEqual(format_message(message).decode(), text)
            self.assertEqual(parse(text.encode()), message)

    def test_what_is_not_known_is_passed_over(self) -> None:
        self.assertEqual(parse(b'{"type":"ping"}'), Unknown("ping"))
        self.assertEqual(parse(b'{"x":[],"type":"auth_error","code":"c","y":null}'), AuthError("c"))
        self.assertEqual(
            parse(b'{"type":"auth_challenge_request","publicKeyBase32":"k","sessionRole":7}'),
            ChallengeRequest("k"),
        )
        self.assertEqual(
            parse(
                b'{"type":"auth_ok","publicKeyBase32":"k","sessionRole":"inbound",'
                b'"reliable":{"versions":[2],"version":2,"window":65536,"maxOctets":9}}'
            ),
            AuthOk("k", "inbound", None, (2,), None, Terms(65_536, 9)),
        )

    def test_what_is_known_has_its_type(self) -> None:
        for text in (
            b"", b"{", b"[]", b'"x"', b"null", b"\xff", b"{}", b'{"type":1}', b"[" * 60_000,
            b'{"type":"auth_challenge_request"}',
            b'{"type":"auth_challenge_request","publicKeyBase32":5}',
            b'{"type":"auth_challenge_response","publicKeyBase32":"k","challengeId":"c"}',
            b'{"type":"credit","octets":true}', b'{"type":"credit","octets":-1}',
            b'{"type":"credit","octets":0}', b'{"type":"credit","octets":1.5}',
            b'{"type":"credit","octets":99999999999999999999}', b'{"type":"credit","octets":"1"}',
            b'{"type":"stream_resume","streamId":"s"}',
            b'{"type":"stream_result","streamId":"s","requestId":"r","status":"maybe",'
            b'"code":"","text":"","permanent":true}',
            b'{"type":"stream_result","streamId":"s","requestId":"r","status":"queued",'
            b'"code":"","text":"","permanent":0}',
            b'{"type":"auth_challenge_response","publicKeyBase32":"k","challengeId":"c",'
            b'"signatureBase64":"s","reliable":{"version":1,"window":1,"maxOctets":9}}',
        ):  # fmt: skip
            self.assertIsInstance(parse(text), Malformed, text[:80])

    def test_starts_of_the_extension(self) -> None:
        stream = Stream("a@b", "c@d", None, "r-1", 7, "s")
        body = format_start(stream, is_reliable=True, is_resume=True)
        self.assertEqual(
            body.decode(),
            '{"mailFrom":"a@b","rcptTo":"c@d","requestId":"r-1","size":7,"resume":true}',
        )
        self.assertEqual(parse_start(body, "s", is_reliable=True), StartBody(stream, True))
        self.assertEqual(
            parse_start(body, "s", is_reliable=False),
            StartBody(Stream("a@b", "c@d", stream_id="s")),
        )

    def test_request_ids_are_printable(self) -> None:
        for text in ("", "a b", "x" * 129, "ä", "a\\n"):
            body = f'{{"mailFrom":"","rcptTo":"","requestId":"{text}"}}'.encode()
            start = parse_start(body, "s", is_reliable=True)
            assert isinstance(start, StartBody)
            self.assertEqual(start.stream.request_id, "", text)

    def test_a_start_is_strict_in_its_types(self) -> None:
        for body in (
            b"{}", b'{"mailFrom":""}', b'{"mailFrom":"","rcptTo":null}', b'["mailFrom"]',
            b'{"mailFrom":"","rcptTo":"","size":"7"}', b'{"mailFrom":"","rcptTo":"","size":-1}',
        ):  # fmt: skip
            self.assertIsInstance(parse_start(body, "s", is_reliable=True), Malformed, body)

    def test_half_an_attestation_is_none(self) -> None:
        for text in (
            "{}",
            "[]",
            '"x"',
            '{"keyId":"k","payloadBase64":"e30=","signatureBase64":" "}',
        ):
            body = f'{{"mailFrom":"","rcptTo":"","authAttestation":{text}}}'.encode()
            start = parse_start(body, "s", is_reliable=False)
            assert isinstance(start, StartBody)
            self.assertIsNone(start.stream.attestation, text)

    def test_digests(self) -> None:
        digest = "0123456789abcdef" * 4
        self.assertEqual(format_end(digest).decode(), f'{{"sha256":"{digest}"}}')
        self.assertEqual(parse_end(format_end(digest)), digest)
        for body in (
            b"",
            b"{}",
            b'{"sha256":5}',
            b'{"sha256":"00"}',
            b'{"sha256":"%b"}' % (b"F" * 64),
        ):
            self.assertIsNone(parse_end(body), body)

    def test_base64_as_the_original_reads_it(self) -> None:
        for text, octets in (
            ("AAEC", b"\0\1\2"), ("AAE", b"\0\1"), ("AAE=", b"\0\1"), ("-_-_", b"\xfb\xff\xbf"),
            ("A A\nEC!", b"\0\1\2"), ("", b""), ("A", b""), ("AAECA", b"\0\1\2"), ("AA=EC", b"\0"),
        ):  # fmt: skip
            self.assertEqual(lenient_base64(text), octets, text)

    def test_times(self) -> None:
        self.assertEqual(stamp(1_790_000_000.0), "2026-09-21T14:13:20.000Z")
        self.assertEqual(stamp(0.0006), "1970-01-01T00:00:00.001Z")


class AttestationTests(SynchronousTestCase):
    VECTOR = VECTORS["attestationVector"]
    LIVE = VECTORS["liveRelayAttestation"]

    def setUp(self) -> None:
        said = self.VECTOR["payload"]
        self.key = Ed25519PrivateKey.from_private_bytes(
            bytes.fromhex(self.VECTOR["signingKeySeedHex"])
        )
        self.stream = Stream(said["mailFrom"], said["rcptTo"], stream_id=said["streamId"])
        self.trusted = {"relay-primary": self.key.public_key()}
        self.at = 1_780_308_000.0

    def _attested(self, attestation: Attestation) -> Stream:
        stream = self.stream
        return Stream(stream.sender, stream.recipient, attestation, stream_id=stream.stream_id)

    def test_made_as_the_original_makes_it(self) -> None:
        signals = Signals("pass", "fail", "unknown")
        self.assertEqual(
            payload(self.stream, self.at, signals).decode(), self.VECTOR["canonicalJson"]
        )
        attestation = sign(self.stream, self.at, signals, key_id="relay-primary", key=self.key)
        body = json.loads(format_start(self._attested(attestation), is_reliable=False))
        self.assertEqual(body["authAttestation"], self.VECTOR["envelope"])
        self.assertEqual(verify(self._attested(attestation), self.trusted), (Check.OK, signals))

    def test_of_a_living_relay(self) -> None:
        envelope = self.LIVE["envelope"]
        said = json.loads(self.LIVE["payloadJson"])
        attestation = Attestation(
            envelope["keyId"],
            lenient_base64(envelope["payloadBase64"]),
            lenient_base64(envelope["signatureBase64"]),
        )
        stream = Stream(said["mailFrom"], said["rcptTo"], attestation, stream_id=said["streamId"])
        key: Any = load_pem_public_key(self.LIVE["relayPublicKeyPem"].encode())
        self.assertEqual(verify(stream, {"relay-primary": key}), (Check.OK, Signals()))

    def test_what_is_not_believed(self) -> None:
        """Each in the order in which the original looks at it."""
        good = sign(self.stream, self.at, Signals("pass"), key_id="relay-primary", key=self.key)
        self.assertEqual(verify(self.stream, self.trusted), (Check.MISSING_ATTESTATION, UNKNOWN))
        self.assertEqual(verify(self._attested(good), {}), (Check.MISSING_TRUSTED_KEY, UNKNOWN))
        for octets in (b"", b"{}", b"[]", b'{"signals":{}}', b"\xff"):
            bad = Attestation("relay-primary", octets, self.key.sign(octets))
            found = verify(self._attested(bad), self.trusted)
            self.assertEqual(found, (Check.INVALID_PAYLOAD, UNKNOWN))
        for signature in (b"", bytes(64), good.signature[:-1]):
            forged = Attestation("relay-primary", good.payload, signature)
            found = verify(self._attested(forged), self.trusted)
            self.assertEqual(found, (Check.INVALID_SIGNATURE, UNKNOWN))
        other = Stream("eve@b.test", self.stream.recipient, good, stream_id=self.stream.stream_id)
        self.assertEqual(verify(other, self.trusted), (Check.CONTEXT_MISMATCH, UNKNOWN))


class IdentityTests(SynchronousTestCase):
    def test_recorded_keys(self) -> None:
        for vector in VECTORS["identityVectors"]:
            key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector["seedHex"]))
            text = identity_of(key.public_key().public_bytes_raw())
            self.assertEqual(text, vector["publicKeyBase32"])
            self.assertEqual(parse_identity(text.upper() + " "), text)
