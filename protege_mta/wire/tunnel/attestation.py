"""A relay's signed word about a message's sender: what checks of SPF, DKIM and DMARC came to.

Ed25519 (RFC 8032) over the payload, which names the stream, its sender and its recipient; it says
nothing of the content.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ...model.stream import Attestation, Stream
from ...model.value import value
from ...model.verdicts import Signal
from .messages import stamp


@value
class Signals:
    spf: Signal = "unknown"
    dkim: Signal = "unknown"
    dmarc: Signal = "unknown"


UNKNOWN: Final = Signals()


class Check(enum.Enum):
    """What came of looking at an attestation."""

    OK = "ok"
    MISSING_ATTESTATION = "missing_attestation"
    MISSING_TRUSTED_KEY = "missing_trusted_key"
    INVALID_PAYLOAD = "invalid_payload"
    INVALID_SIGNATURE = "invalid_signature"
    CONTEXT_MISMATCH = "context_mismatch"


def payload(stream: Stream, issued_at: float, signals: Signals) -> bytes:
    """What is signed: JSON, in this order.

    :param stream: with its ``stream_id``.
    :param issued_at: POSIX seconds.
    """
    return msgspec.json.encode(
        {
            "streamId": stream.stream_id,
            "mailFrom": stream.sender,
            "rcptTo": stream.recipient,
            "issuedAt": stamp(issued_at),
            "signals": {"spf": signals.spf, "dkim": signals.dkim, "dmarc": signals.dmarc},
        }
    )


def sign(
    stream: Stream, issued_at: float, signals: Signals, *, key_id: str, key: Ed25519PrivateKey
) -> Attestation:
    """The attestation for a stream whose ``stream_id`` is chosen."""
    octets = payload(stream, issued_at, signals)
    return Attestation(key_id, octets, key.sign(octets))


def verify(stream: Stream, trusted: Mapping[str, Ed25519PublicKey]) -> tuple[Check, Signals]:
    """Look at a stream's attestation.

    The time in it is not looked at, as the original does not: a relay that holds mail signs when it
    delivers.

    :param stream: as it came, with its ``stream_id``.
    :param trusted: keys by their ids.
    :return: all signals ``unknown`` unless the check is OK.
    """
    attestation = stream.attestation
    if attestation is None:
        return Check.MISSING_ATTESTATION, UNKNOWN
    key = trusted.get(attestation.key_id)
    if key is None:
        return Check.MISSING_TRUSTED_KEY, UNKNOWN
    said = _payload(attestation.payload)
    if said is None:
        return Check.INVALID_PAYLOAD, UNKNOWN
    try:
        key.verify(attestation.signature, attestation.payload)
    except InvalidSignature:
        return Check.INVALID_SIGNATURE, UNKNOWN
    context, signals = said
    if context != (stream.stream_id, stream.sender, stream.recipient):
        return Check.CONTEXT_MISMATCH, UNKNOWN
    return Check.OK, signals


def _payload(octets: bytes) -> tuple[tuple[str, str, str], Signals] | None:
    try:
        said = msgspec.json.decode(octets)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(said, dict) or not isinstance(said.get("signals"), dict):
        return None
    context = [said.get(name) for name in ("streamId", "mailFrom", "rcptTo")]
    if not all(isinstance(part, str) for part in context):
        return None
    signals: dict[str, Any] = said["signals"]
    return cast(tuple[str, str, str], tuple(context)), Signals(
        _signal(signals.get("spf")), _signal(signals.get("dkim")), _signal(signals.get("dmarc"))
    )


def _signal(found: Any) -> Signal:
    return cast(Signal, found) if found in ("pass", "fail") else "unknown"
