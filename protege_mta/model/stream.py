"""What travels through a tunnel: one message to one recipient, as a stream."""

from __future__ import annotations

from typing import Literal

from .value import value

REQUEST_ID_CHARACTERS = 128
"""The longest name of a stream's content, in printable ASCII."""


@value
class Attestation:
    """A relay's word about a message's sender, as it came or as it is to go.

    :ivar payload: the octets that are signed, JSON.
    :ivar signature: Ed25519, over exactly those.
    """

    key_id: str
    payload: bytes
    signature: bytes


@value
class Stream:
    """What is known before the content.

    :ivar sender: the reverse-path as it came; empty for the null one.  Not checked.
    :ivar recipient: the forward-path likewise.
    :ivar attestation: None where there is none.
    :ivar request_id: the sender's name for this very content to this recipient: the same again
        means the same message again.  Empty where it gave none.
    :ivar size_octets: None where it was not said.
    :ivar stream_id: the stream's name in its session, which an attestation names too.  Empty on the
        way out to have one made.
    """

    sender: str
    recipient: str
    attestation: Attestation | None = None
    request_id: str = ""
    size_octets: int | None = None
    stream_id: str = ""


@value
class DeliveryState:
    """What became of a message that an agent has sent, after its relay took it.

    :ivar code: an enhanced status code (RFC 3463), ``2.0.0`` for one that has been sent.
    :ivar text: the last reply, for people.
    :ivar next_attempt_at: POSIX seconds; None where there is none.
    """

    request_id: str
    state: Literal["sent", "deferred", "failed"]
    code: str
    text: str
    next_attempt_at: float | None = None
