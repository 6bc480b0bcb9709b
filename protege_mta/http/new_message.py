"""What ``POST /v1/message`` takes, as types: the source of its description and of what is refused
before anybody looks at it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta


class Correspondent(msgspec.Struct, forbid_unknown_fields=True):
    """A mailbox with more about it than its address.

    :ivar name: the display name.
    :ivar substitutions: values for this recipient's copy, before those of the message.
    """

    address: str
    name: str = ""
    substitutions: dict[str, Any] = {}


AnyMailbox = str | Correspondent
Some = Annotated[list[AnyMailbox], Meta(max_length=100_000)]


class NewAttachment(msgspec.Struct, forbid_unknown_fields=True):
    """A file.

    :ivar content_b64: the content in base64 (RFC 4648, 4).
    :ivar content_id: for an image in HTML that says ``cid:`` and this; left out for a plain file.
    """

    content_b64: str
    filename: str = "attachment"
    content_type: str = "application/octet-stream"
    content_id: str = ""


class Unsubscribe(msgspec.Struct, forbid_unknown_fields=True):
    """How recipients get off the list (RFC 2369; RFC 8058).

    :ivar url: ``https:`` for one click.
    :ivar mailto: a ``mailto:`` URI.
    :ivar one_click: whether one POST to the URL does it; without a URL it is one of this server's,
        which suppresses the recipient.
    """

    url: str = ""
    mailto: str = ""
    one_click: bool = False


class NewMessage(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A message to send.

    Mailboxes are ``a@example.org``, ``Name <a@example.org>``, or objects.

    :ivar headers: more header fields, by name.
    :ivar tags: words for reports; they are in events, and in the field X-Tags.
    :ivar campaign: what it belongs to, for events; the field X-Campaign says the same.
    :ivar tenant: whose it is; left out, the key's.
    :ivar priority: ``high`` goes before other mail; the field ``X-Type: transactional`` says the same.
    :ivar send_at: not before, RFC 3339.
    :ivar template: ``jinja`` to have subject, text, HTML and header fields filled in for each
        recipient, each of whom gets a message of its own.
    :ivar substitutions: values for the template.
    """

    from_: AnyMailbox = msgspec.field(name="from")
    to: Some = []
    cc: Some = []
    bcc: Some = []
    reply_to: AnyMailbox | list[AnyMailbox] | None = None
    subject: str = ""
    text: str | None = None
    html: str | None = None
    headers: dict[str, str] = {}
    attachments: list[NewAttachment] = []
    tags: Annotated[list[str], Meta(max_length=20)] = []
    campaign: Annotated[str, Meta(max_length=200)] = ""
    tenant: Annotated[str, Meta(max_length=200)] | None = None
    priority: Literal["normal", "high"] = "normal"
    send_at: str | None = None
    template: Literal["none", "jinja"] = "none"
    substitutions: dict[str, Any] = {}
    unsubscribe: Unsubscribe | None = None
