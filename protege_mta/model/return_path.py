"""Addresses and links that only we can have made, and that say which message they are about.

A signed return path, ``b+TOKEN@domain``, is what other servers send their reports to: nobody else
can have us take a report for mail that we never sent, and each report finds its message.  A link to
unsubscribe says who wants no more of whose mail.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from typing import Final, Literal

import attrs

from .address import NULL, Address, domain_of, local_part_of
from .envelope import Message, Source
from .ids import QueueId
from .value import value

DAYS: Final = 30
"""How long a return path is good for: reports come within days, complaints within weeks."""

_DAY_S: Final = 86_400
_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_ALL: Final = 32**4 - 1
_SHAPE: Final = re.compile(
    rf"b\+([{_DIGITS}]{{26}})([{_DIGITS}]{{4}})([{_DIGITS}]{{4}})([{_DIGITS}]{{16}})"
)
_LINK_OCTETS: Final = 16


@value
class Returned:
    """What a return path says.

    :ivar recipient: an index into the envelope; None for the message as a whole, whose recipients
        shared a transaction.
    """

    id: QueueId
    recipient: int | None


@attrs.frozen
class Sent:
    """What is kept of a message that has left, for the events that come of reports.

    :ivar recipients: empty where nothing is known any more but the id; so are the texts.
    """

    id: QueueId
    sender: Address = NULL
    recipients: tuple[Address, ...] = ()
    source: Source | Literal[""] = ""
    identity: str = ""
    tenant: str = ""
    campaign: str = ""
    header_message_id: str = ""
    is_sandbox: bool = False
    tags: tuple[str, ...] = ()
    size_octets: int = 0
    subject: str = ""


def sent_of(message: Message) -> Sent:
    """What is kept of a message."""
    envelope, origin = message.envelope, message.origin
    return Sent(
        message.id,
        envelope.sender,
        tuple([one.address for one in envelope.recipients]),
        origin.source,
        origin.identity,
        origin.tenant,
        origin.campaign,
        message.header_message_id,
        origin.is_sandbox,
        origin.tags,
        message.size_octets,
        message.subject,
    )


class ReturnPaths:
    """Makes return paths, and knows them again.

    The token is the message's id, the day it is good until, the recipient's number, each in
    Crockford's base 32, and 80 bits of an HMAC-SHA-256 over them and the domain: 52 characters with
    what stands before it, of the 64 that a local-part may have, and in no case.

    :param secret: of this server's own, for ever the same.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"return path", "sha256")

    def address(self, id: QueueId, recipient: int | None, domain: str, now: float) -> Address:
        """The return path of a message that is sent now, at one of our domains.

        :param now: POSIX seconds.
        """
        index = _ALL if recipient is None or recipient >= _ALL else recipient
        said = f"{id}{_digits(int(now // _DAY_S) + DAYS, 4)}{_digits(index, 4)}"
        return Address(f"b+{said}{self._sealed(said, domain)}@{domain}")

    def read(self, address: Address, now: float | None) -> Returned | None:
        """What an address says that is a return path of ours; None for any other.

        :param now: POSIX seconds, to take only those that are still good; None for all.
        """
        found = self.shape(address)
        if found is None:
            return None
        id, day, index, seal = found.groups()
        sealed = self._sealed(f"{id}{day}{index}", domain_of(address))
        if not hmac.compare_digest(sealed, seal):
            return None
        if now is not None and _number(day) < now // _DAY_S:
            return None
        number = _number(index)
        return Returned(QueueId(id), None if number == _ALL else number)

    @staticmethod
    def shape(address: Address) -> re.Match[str] | None:
        """Whether it looks like a return path, of ours or a forged one."""
        if address[:2] not in ("b+", "B+"):
            return None
        return _SHAPE.fullmatch(local_part_of(address).lower())

    def _sealed(self, said: str, domain: str) -> str:
        digest = hmac.digest(self._key, _octets(f"{said}@{domain.lower()}"), "sha256")
        return _digits(int.from_bytes(digest[:10], "big"), 16)


@attrs.frozen
class Subscription:
    """What a link to unsubscribe is about."""

    address: str
    tenant: str = ""
    message_id: str = ""


class UnsubscribeLinks:
    """Makes links for RFC 8058, and knows them again; they are good for ever.

    :param secret: of this server's own, for ever the same.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"unsubscribe", "sha256")

    def url(self, public_url: str, subscription: Subscription) -> str:
        """:param public_url: where our HTTP is reached from outside."""
        return f"{public_url.rstrip('/')}/u/{self.token(subscription)}"

    def token(self, subscription: Subscription) -> str:
        said = json.dumps(attrs.astuple(subscription), separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._seal(said) + said).rstrip(b"=").decode("ascii")

    def read(self, token: str) -> Subscription | None:
        """What a token says; None where it is none of ours."""
        try:
            octets = base64.b64decode(
                token.encode("ascii") + b"=" * (-len(token) % 4), b"-_", validate=True
            )
        except (UnicodeEncodeError, binascii.Error, ValueError):
            return None
        seal, said = octets[:_LINK_OCTETS], octets[_LINK_OCTETS:]
        if not hmac.compare_digest(seal, self._seal(said)):
            return None
        return Subscription(*json.loads(said))

    def _seal(self, said: bytes) -> bytes:
        return hmac.new(self._key, said, hashlib.sha256).digest()[:_LINK_OCTETS]


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _digits(number: int, count: int) -> str:
    return "".join(_DIGITS[number >> 5 * at & 31] for at in reversed(range(count)))


def _number(digits: str) -> int:
    number = 0
    for digit in digits:
        number = number << 5 | _DIGITS.index(digit)
    return number
