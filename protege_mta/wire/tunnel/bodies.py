"""The JSON in the frames of a stream: bodies of starts and ends.

Pure.  Members that nobody knows are passed over; those that are known have to have their type.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

import msgspec

from ...model.stream import REQUEST_ID_CHARACTERS, Attestation, Stream
from ...model.value import value
from .messages import Malformed, Wrong, json_object, text_of, whole_of

_REQUEST_ID: Final = re.compile(rf"[!-~]{{1,{REQUEST_ID_CHARACTERS}}}\Z")
_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")


@value
class StartBody:
    """What a start says, beside what is in the stream.

    :ivar stream: its ``request_id`` empty where there was none, or none that may be.
    :ivar is_resume: the sender has begun this request before.
    """

    stream: Stream
    is_resume: bool = False


def parse_start(body: bytes, stream_id: str, *, is_reliable: bool) -> StartBody | Malformed:
    """The body of a start.

    :param is_reliable: whether the extension's members mean anything.
    """
    try:
        members = json_object(body)
        sender, recipient = text_of(members, "mailFrom"), text_of(members, "rcptTo")
        attestation = _attestation(members.get("authAttestation"))
        if not is_reliable:
            return StartBody(Stream(sender, recipient, attestation, stream_id=stream_id))
        request_id = members.get("requestId")
        if not isinstance(request_id, str) or not _REQUEST_ID.match(request_id):
            request_id = ""
        size = None if members.get("size") is None else whole_of(members, "size")
        stream = Stream(sender, recipient, attestation, request_id, size, stream_id)
        return StartBody(stream, members.get("resume") is True)
    except Wrong as error:
        return Malformed(str(error))


def format_start(stream: Stream, *, is_reliable: bool, is_resume: bool = False) -> bytes:
    """The body of a start."""
    members: dict[str, Any] = {"mailFrom": stream.sender, "rcptTo": stream.recipient}
    if stream.attestation is not None:
        members["authAttestation"] = {
            "keyId": stream.attestation.key_id,
            "payloadBase64": base64.b64encode(stream.attestation.payload).decode("ascii"),
            "signatureBase64": base64.b64encode(stream.attestation.signature).decode("ascii"),
        }
    if is_reliable:
        members["requestId"] = stream.request_id
        members["size"] = stream.size_octets
        if is_resume:
            members["resume"] = True
    return msgspec.json.encode(members)


def _attestation(found: Any) -> Attestation | None:
    """Anything but three strings that are not blank counts as none."""
    if not isinstance(found, dict):
        return None
    key_id, payload, signature = map(found.get, ("keyId", "payloadBase64", "signatureBase64"))
    if not (isinstance(key_id, str) and isinstance(payload, str) and isinstance(signature, str)):
        return None
    if not (key_id.strip() and payload.strip() and signature.strip()):
        return None
    return Attestation(key_id, lenient_base64(payload), lenient_base64(signature))


def parse_end(body: bytes) -> str | None:
    """The digest of the whole content, lower-case hexadecimal; None where there is none."""
    try:
        digest = text_of(json_object(body), "sha256")
    except Wrong:
        return None
    return digest if _SHA256.match(digest) else None


def format_end(sha256: str) -> bytes:
    return msgspec.json.encode({"sha256": sha256})


_NOT_BASE64: Final = re.compile(r"[^A-Za-z0-9+/]")
_URL_SAFE: Final = str.maketrans("-_", "+/")


def lenient_base64(text: str) -> bytes:
    """Decode as the original does: either alphabet, anything else passed over, padding or none."""
    kept = _NOT_BASE64.sub("", text.partition("=")[0].translate(_URL_SAFE))
    if len(kept) % 4 == 1:
        kept = kept[:-1]
    try:
        return base64.b64decode(kept + "=" * (-len(kept) % 4))
    except binascii.Error:
        return b""
