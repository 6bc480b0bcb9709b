"""What a delivery status notification says, read by the standard library's parser (RFC 3464)."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage, Message
from typing import cast

import attrs


@attrs.frozen
class Dsn:
    """One notification.

    :ivar header: its own header fields.
    :ivar text: for people.
    :ivar message_fields: of the whole report, one value each.
    :ivar recipients: the fields of each recipient.
    :ivar returned_type: of the third part, ``message/rfc822`` or ``text/rfc822-headers``.
    :ivar returned: what came back of the message.
    """

    header: EmailMessage
    text: str
    message_fields: dict[str, str]
    recipients: list[dict[str, str]]
    returned_type: str
    returned: str

    @property
    def status(self) -> str:
        """Of the only recipient."""
        [fields] = self.recipients
        return fields["Status"]

    @property
    def action(self) -> str:
        """Of the only recipient."""
        [fields] = self.recipients
        return fields["Action"]


def read(octets: bytes) -> Dsn:
    """:raise ValueError: it is no DSN."""
    message = email.message_from_bytes(octets, policy=email.policy.default)
    kind = (message.get_content_type(), message.get_param("report-type"))
    if kind != ("multipart/report", "delivery-status"):
        raise ValueError(f"not a DSN: {kind}")
    if message["Return-Path"] != "<>":
        raise ValueError(f"not from the null reverse-path: {message['Return-Path']}")
    text, status, returned = cast("list[EmailMessage]", message.get_payload())
    if not status.get_content_type().endswith("delivery-status"):
        raise ValueError(f"no report in second place: {status.get_content_type()}")
    whole, *recipients = map(_fields, _groups(status))
    payload: object = returned.get_payload()
    return Dsn(
        message,
        text.get_content(),
        whole,
        recipients,
        returned.get_content_type(),
        str(payload[0]) if isinstance(payload, list) else str(payload),
    )


def _groups(status: Message) -> list[bytes]:
    """The groups of fields; the parser knows them of ASCII reports only, not of RFC 6533's."""
    _, _, body = status.as_bytes().partition(b"\n\n")
    return [group for group in body.split(b"\n\n") if group.strip()]


def _fields(group: bytes) -> dict[str, str]:
    lines = group.decode("utf-8").replace("\n ", " ").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
