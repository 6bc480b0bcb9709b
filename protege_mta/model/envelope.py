"""What travels with a message and is not in it (RFC 5321, 2.3.1; RFC 3461; RFC 4865; RFC 6152;
RFC 6531; RFC 8689)."""

from __future__ import annotations

import enum
from typing import Literal

from .address import Address
from .ids import QueueId
from .outcome import TlsFacts
from .value import value
from .verdicts import UNCHECKED, Verdicts

Source = Literal["smtp", "submission", "http", "tunnel", "sendmail", "internal"]
"""By which door a message came in."""


class Notify(enum.IntFlag):
    """The NOTIFY parameter (RFC 3461, 4.1); UNSET where the sender left it out."""

    UNSET = 0
    NEVER = 1
    SUCCESS = 2
    FAILURE = 4
    DELAY = 8


@value
class Recipient:
    """One forward-path.

    :ivar orcpt: the ORCPT parameter as given, ``addr-type;xtext`` (RFC 3461, 4.2); empty if none.
    """

    address: Address
    notify: Notify = Notify.UNSET
    orcpt: str = ""


@value
class Envelope:
    """A mail transaction.

    :ivar sender: the reverse-path; :data:`~.address.NULL` for bounces.
    :ivar recipients: at least one; an index into it names a recipient for ever.
    :ivar body: the BODY parameter (RFC 6152); ``7BIT`` where none was given.
    :ivar ret: the RET parameter (RFC 3461, 4.3); empty if none.
    :ivar envid: the ENVID parameter as given, in xtext (RFC 3461, 4.4); empty if none.
    :ivar hold_until: not to be sent before, POSIX seconds (RFC 4865); 0 where nothing was said.
    :ivar future_release: how the sender said so, as DSNs quote it: ``for;`` and the value of
        HOLDFOR, or ``until;`` and that of HOLDUNTIL; empty if none.
    :ivar requires_tls: the REQUIRETLS parameter (RFC 8689): better returned than sent on without.
    """

    sender: Address
    recipients: tuple[Recipient, ...]
    body: Literal["7BIT", "8BITMIME"] = "7BIT"
    is_smtputf8: bool = False
    ret: Literal["", "FULL", "HDRS"] = ""
    envid: str = ""
    hold_until: float = 0.0
    future_release: str = ""
    requires_tls: bool = False


@value
class Origin:
    """Who handed a message to us.

    :ivar identity: the account, key or tunnel identity; empty where nobody authenticated.
    :ivar peer_address: IP address of the SMTP or HTTP client, empty for local doors.
    :ivar may_sign: whether the source may use the From domain, so that we may put our DKIM
        signature on it; never true of public mail that merely claims a domain.
    :ivar request_id: what ``identity`` calls this very message, so that it can hand it in again
        and it is there once; empty where it has no name for it.
    :ivar answer: what its door says besides the message's id, to hear again whoever hands it in
        again: a small text of the door's own making; empty where the id is all.
    :ivar hold: why it does not leave before a person has released it; empty where nobody has to.
    :ivar tags: the sender's words for reports.
    :ivar is_sandbox: it never leaves, nor does what comes of it; :mod:`.sandbox` says its fate.
    :ivar tls: how the client's channel is protected; for the event of its arrival alone: the spool
        does not keep it.
    """

    source: Source
    identity: str = ""
    peer_address: str = ""
    may_sign: bool = False
    tenant: str = ""
    campaign: str = ""
    request_id: str = ""
    answer: str = ""
    hold: str = ""
    is_sandbox: bool = False
    tags: tuple[str, ...] = ()
    tls: TlsFacts | None = None


@value
class Message:
    """Everything about a queued message but its octets and its recipients' fates.

    :ivar arrived_at: when we took responsibility, POSIX seconds.
    :ivar size_octets: of the content as it lies in the spool, our Received field included.
    :ivar header_message_id: the Message-ID field's value, empty if none.
    :ivar subject: the Subject field's value, decoded, cut to 200 characters.
    :ivar is_eight_bit: whether the content has an octet above 127.
    :ivar is_urgent: the fast lane of its site.
    :ivar verdicts: of its sender; nothing is checked of our own users' mail.
    """

    id: QueueId
    envelope: Envelope
    origin: Origin
    arrived_at: float
    size_octets: int
    header_message_id: str = ""
    subject: str = ""
    is_eight_bit: bool = False
    is_urgent: bool = False
    verdicts: Verdicts = UNCHECKED
