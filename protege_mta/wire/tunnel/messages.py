"""Control messages of the tunnel.

Pure.  Members that nobody knows are passed over; those that are known have to have their type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, cast

import msgspec

from ...model.stream import DeliveryState
from ...model.value import value

MESSAGE_OCTETS: Final = 65_536
"""The longest control message that is taken."""

RELIABLE_VERSION: Final = 1
SMALLEST_WINDOW: Final = 16_384
"""Less would make frames of a few octets each."""

_LARGEST: Final = 2**53 - 1  # what every JSON library keeps exact

Role = Literal["inbound", "outbound"]


# --- before authentication -----------------------------------------------------------------------


@value
class Terms:
    """How much one side takes in reliable sessions.

    :ivar window: octets of chunks' bodies before it gives credit.
    :ivar max_octets: the largest message.
    """

    window: int
    max_octets: int


@value
class ChallengeRequest:
    """An agent names its key.  :ivar role: None where it gave none that is known."""

    public_key: str
    role: Role | None = None


@value
class Challenge:
    """The relay's text to be signed.

    :ivar expires_at: POSIX seconds; formatted in milliseconds.  Agents have no use for it.
    :ivar versions: of the reliable extension; empty where there is none.
    """

    public_key: str
    challenge_id: str
    text: str
    expires_at: float
    versions: tuple[int, ...] = ()


@value
class ChallengeResponse:
    """:ivar signature: base 64, as it came.  :ivar reliable: what the agent takes, if it asks for it."""

    public_key: str
    challenge_id: str
    signature: str
    role: Role | None = None
    reliable: Terms | None = None


@value
class AuthOk:
    """The session begins.

    :ivar replaced: the id of the session that had to go; None where there was none.
    :ivar versions: of the reliable extension; empty where the relay has none.
    :ivar reliable: what the relay takes; None where the session is not reliable.
    """

    public_key: str
    role: Role
    replaced: str | None = None
    versions: tuple[int, ...] = ()
    reliable: Terms | None = None
    offered: Terms | None = None


@value
class AuthError:
    code: str


# --- afterwards ----------------------------------------------------------------------------------


@value
class DeliveryResult:
    """What an original relay says of a stream.

    :ivar error: None where it was sent.
    """

    stream_id: str
    error: str | None = None
    message_id: str | None = None


@value
class StreamResume:
    """Go on from here."""

    stream_id: str
    offset: int


@value
class StreamResult:
    """The end of a stream, by its receiver.

    :ivar is_queued: the message is durable there.
    :ivar code: an enhanced status code (RFC 3463).
    """

    stream_id: str
    request_id: str
    is_queued: bool
    code: str
    text: str
    is_permanent: bool = False


@value
class Credit:
    octets: int


@value
class StreamCancel:
    stream_id: str


@value
class Unknown:
    """A message of a type that nobody here knows: passed over, where that is allowed."""

    type: str


@value
class Malformed:
    """No message.  :ivar why: for the log; no octets of the peer's."""

    why: str


Message = (
    ChallengeRequest | Challenge | ChallengeResponse | AuthOk | AuthError
    | DeliveryResult | StreamResume | StreamResult | Credit | StreamCancel | DeliveryState
)  # fmt: skip


# --- parsing -------------------------------------------------------------------------------------


class Wrong(Exception):
    """A member is missing, or of another type."""


def json_object(octets: bytes) -> Mapping[str, Any]:
    try:
        found = msgspec.json.decode(octets)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Wrong("no JSON") from error
    if not isinstance(found, dict):
        raise Wrong("no object")
    return cast(Mapping[str, Any], found)


def text_of(members: Mapping[str, Any], name: str) -> str:
    found = members.get(name)
    if not isinstance(found, str):
        raise Wrong(f"{name} is no string")
    return found


def _text_or_none(members: Mapping[str, Any], name: str) -> str | None:
    return None if members.get(name) is None else text_of(members, name)


def whole_of(members: Mapping[str, Any], name: str, least: int = 0) -> int:
    found = members.get(name)
    if type(found) is not int or not least <= found <= _LARGEST:
        raise Wrong(f"{name} is no number from {least}")
    return found


def _flag(members: Mapping[str, Any], name: str) -> bool:
    found = members.get(name)
    if not isinstance(found, bool):
        raise Wrong(f"{name} is neither true nor false")
    return found


def _time_or_none(members: Mapping[str, Any], name: str) -> float | None:
    """POSIX seconds, to the millisecond; None where there is none, or no time."""
    try:
        at = datetime.fromisoformat(text_of(members, name))
        return round(at.timestamp(), 3) if at.tzinfo else None
    except (Wrong, ValueError, OverflowError):
        return None


def _role(members: Mapping[str, Any]) -> Role | None:
    """Any value that is not known counts as none."""
    found = members.get("sessionRole")
    return cast(Role, found) if found in ("inbound", "outbound") else None


def _extension(members: Mapping[str, Any]) -> Mapping[str, Any]:
    """The member ``reliable``; one that is no object counts as none."""
    found = members.get("reliable")
    return cast(Mapping[str, Any], found) if isinstance(found, dict) else {}


def _versions(members: Mapping[str, Any]) -> tuple[int, ...]:
    found = members.get("versions")
    return tuple(n for n in found if type(n) is int) if isinstance(found, list) else ()


def _terms(members: Mapping[str, Any]) -> Terms:
    return Terms(whole_of(members, "window", SMALLEST_WINDOW), whole_of(members, "maxOctets", 1))


def _challenge_request(members: Mapping[str, Any]) -> ChallengeRequest:
    return ChallengeRequest(text_of(members, "publicKeyBase32"), _role(members))


def _challenge(members: Mapping[str, Any]) -> Challenge:
    return Challenge(
        text_of(members, "publicKeyBase32"),
        text_of(members, "challengeId"),
        text_of(members, "challengeText"),
        _time_or_none(members, "expiresAt") or 0.0,
        _versions(_extension(members)),
    )


def _challenge_response(members: Mapping[str, Any]) -> ChallengeResponse:
    extension = _extension(members)
    is_ours = extension.get("version") == RELIABLE_VERSION
    return ChallengeResponse(
        text_of(members, "publicKeyBase32"),
        text_of(members, "challengeId"),
        text_of(members, "signatureBase64"),
        _role(members),
        _terms(extension) if is_ours else None,
    )


def _auth_ok(members: Mapping[str, Any]) -> AuthOk:
    extension = _extension(members)
    terms = _terms(extension) if extension else None
    return AuthOk(
        text_of(members, "publicKeyBase32"),
        _role(members) or "inbound",
        _text_or_none(members, "replacedSocketId"),
        _versions(extension),
        terms if extension.get("version") == RELIABLE_VERSION else None,
        terms,
    )


def _auth_error(members: Mapping[str, Any]) -> AuthError:
    return AuthError(text_of(members, "code"))


def _delivery_result(members: Mapping[str, Any]) -> DeliveryResult:
    match text_of(members, "status"):
        case "sent":
            return DeliveryResult(
                text_of(members, "streamId"), message_id=_text_or_none(members, "messageId")
            )
        case "failed":
            return DeliveryResult(
                text_of(members, "streamId"), _text_or_none(members, "error") or ""
            )
        case _:
            raise Wrong("status is unknown")


def _stream_resume(members: Mapping[str, Any]) -> StreamResume:
    return StreamResume(text_of(members, "streamId"), whole_of(members, "offset"))


def _stream_result(members: Mapping[str, Any]) -> StreamResult:
    status = text_of(members, "status")
    if status not in ("queued", "refused"):
        raise Wrong("status is unknown")
    return StreamResult(
        text_of(members, "streamId"),
        text_of(members, "requestId"),
        status == "queued",
        text_of(members, "code"),
        text_of(members, "text"),
        _flag(members, "permanent"),
    )


def _credit(members: Mapping[str, Any]) -> Credit:
    return Credit(whole_of(members, "octets", 1))


def _stream_cancel(members: Mapping[str, Any]) -> StreamCancel:
    return StreamCancel(text_of(members, "streamId"))


def _delivery_state(members: Mapping[str, Any]) -> DeliveryState:
    state = text_of(members, "state")
    if state not in ("sent", "deferred", "failed"):
        raise Wrong("state is unknown")
    return DeliveryState(
        text_of(members, "requestId"),
        cast(Literal["sent", "deferred", "failed"], state),
        text_of(members, "code"),
        text_of(members, "text"),
        _time_or_none(members, "nextAttemptAt"),
    )


_PARSERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Message]]] = {
    "auth_challenge_request": _challenge_request,
    "auth_challenge": _challenge,
    "auth_challenge_response": _challenge_response,
    "auth_ok": _auth_ok,
    "auth_error": _auth_error,
    "relay_delivery_result": _delivery_result,
    "stream_resume": _stream_resume,
    "stream_result": _stream_result,
    "credit": _credit,
    "stream_cancel": _stream_cancel,
    "delivery_state": _delivery_state,
}


def parse(octets: bytes) -> Message | Unknown | Malformed:
    """Read one control message."""
    try:
        members = json_object(octets)
        type_ = text_of(members, "type")
        parser = _PARSERS.get(type_)
        return Unknown(type_) if parser is None else parser(members)
    except Wrong as error:
        return Malformed(str(error))


# --- formatting ----------------------------------------------------------------------------------


def _reliable(terms: Terms) -> dict[str, Any]:
    return {"window": terms.window, "maxOctets": terms.max_octets}


def _members(message: Message) -> dict[str, Any]:
    match message:
        case ChallengeRequest(public_key, role):
            members: dict[str, Any] = {
                "type": "auth_challenge_request", "publicKeyBase32": public_key
            }  # fmt: skip
            return members | ({"sessionRole": role} if role else {})
        case Challenge(public_key, challenge_id, text, expires_at, versions):
            members = {
                "type": "auth_challenge",
                "publicKeyBase32": public_key,
                "challengeId": challenge_id,
                "challengeText": text,
                "expiresAt": stamp(expires_at),
            }
            return members | ({"reliable": {"versions": versions}} if versions else {})
        case ChallengeResponse(public_key, challenge_id, signature, role, reliable):
            members = {
                "type": "auth_challenge_response",
                "publicKeyBase32": public_key,
                "challengeId": challenge_id,
                "signatureBase64": signature,
            }
            if role:
                members["sessionRole"] = role
            if reliable:
                members["reliable"] = {"version": RELIABLE_VERSION, **_reliable(reliable)}
            return members
        case AuthOk(public_key, role, replaced, versions, reliable, offered):
            members = {
                "type": "auth_ok",
                "publicKeyBase32": public_key,
                "emailLocalPart": public_key,
                "sessionRole": role,
                "replacedSocketId": replaced,
            }
            if offered:
                version = RELIABLE_VERSION if reliable else None
                members["reliable"] = {
                    "versions": versions, "version": version, **_reliable(offered)
                }  # fmt: skip
            return members
        case AuthError(code):
            return {"type": "auth_error", "code": code}
        case DeliveryResult(stream_id, None, message_id):
            members = {"type": "relay_delivery_result", "streamId": stream_id, "status": "sent"}
            return members | {"messageId": message_id}
        case DeliveryResult(stream_id, error):
            members = {"type": "relay_delivery_result", "streamId": stream_id, "status": "failed"}
            return members | {"error": error}
        case StreamResume(stream_id, offset):
            return {"type": "stream_resume", "streamId": stream_id, "offset": offset}
        case StreamResult(stream_id, request_id, is_queued, code, text, is_permanent):
            return {
                "type": "stream_result",
                "streamId": stream_id,
                "requestId": request_id,
                "status": "queued" if is_queued else "refused",
                "code": code,
                "text": text,
                "permanent": is_permanent,
            }
        case Credit(octets):
            return {"type": "credit", "octets": octets}
        case StreamCancel(stream_id):
            return {"type": "stream_cancel", "streamId": stream_id}
        case DeliveryState(request_id, state, code, text, next_attempt_at):
            members = {
                "type": "delivery_state",
                "requestId": request_id,
                "state": state,
                "code": code,
                "text": text,
            }
            at = None if next_attempt_at is None else stamp(next_attempt_at)
            return members | {"nextAttemptAt": at}


def format_message(message: Message) -> bytes:
    """One control message as JSON, members in their order on the wire."""
    return msgspec.json.encode(_members(message))


# --- forms ---------------------------------------------------------------------------------------


def stamp(at: float) -> str:
    """A time as ISO 8601, UTC, with milliseconds.  :param at: POSIX seconds."""
    text = datetime.fromtimestamp(round(at, 3), UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
