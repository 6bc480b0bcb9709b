"""What a program may send: as whom, to whom, how much, and what a person has to see first.

One judgement of a whole message, for doors that have all of it before they answer.  It needs no
network: the limits are those of :mod:`.usage`, the lists and From rules those that submission has.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from ..message import headers
from ..message.mailboxes import mailboxes
from ..model.address import NULL, Address
from ..model.caller import Caller, Flaw
from ..model.envelope import Envelope
from ..model.ports import Contacts, StateFailed
from .addresses import Addresses, addresses, listed
from .authorship import may_claim
from .usage import DAY_S, HOUR_S, Reservation, Usage

APPROVE_ALL: Final = "approval: all mail of this key waits for a person"
APPROVE_FIRST: Final = "approval: the first mail to a recipient waits for a person"

_VISIBLE: Final = (b"to", b"cc")


class SendingPolicy:
    """:class:`~..model.ports.Sending` over counts and contacts.

    :param now: POSIX seconds.
    """

    def __init__(self, usage: Usage, contacts: Contacts, now: Callable[[], float]) -> None:
        self._usage = usage
        self._contacts = contacts
        self._now = now
        # First recipients of what is being accepted just now, by identity.
        self._pending: dict[str, Counter[Address]] = {}

    def judge(
        self,
        caller: Caller,
        envelope: Envelope,
        fields: bytes,
        *,
        from_member: str = "/from",
        members: Sequence[str] = (),
    ) -> Permit | Flaw:
        """As :meth:`~..model.ports.Sending.judge`."""
        fields = fields[: headers.header_end(fields)].removesuffix(b"\r\n\r\n")
        fields += b"" if fields.endswith(b"\r\n") or not fields else b"\r\n"
        flaw = _sender_flaw(caller, envelope.sender, fields, from_member)
        flaw = flaw or _recipient_flaw(caller, envelope, fields, members)
        if flaw is not None:
            return flaw
        try:
            return self._permit(caller, [one.address for one in envelope.recipients])
        except StateFailed:
            return Flaw(
                503,
                "unavailable",
                "the state of the service cannot be read just now",
                retry_after_s=10,
            )

    def _permit(self, caller: Caller, recipients: Sequence[Address]) -> Permit | Flaw:
        policy, identity = caller.policy, caller.identity
        distinct = tuple(dict.fromkeys(recipients))
        first: tuple[Address, ...] = ()
        hold = APPROVE_ALL if policy.approval == "all" else ""
        if policy.approval == "first_time" and self._contacts.strangers(
            identity, distinct, is_known=True
        ):
            hold = APPROVE_FIRST
        if policy.first_time_per_day:
            pending = self._pending.get(identity, Counter())
            first = tuple(self._contacts.strangers(identity, distinct))
            spent = self._contacts.since(identity, self._now() - DAY_S)
            is_over = spent + len(pending.keys() | set(first)) > policy.first_time_per_day
            if is_over and not set(first) <= pending.keys():
                return _too_many_strangers(policy.first_time_per_day)
        reservation = self._usage.begin(identity, caller.limits)
        if reservation is None or not all(reservation.add_recipient() for _ in distinct):
            if reservation is not None:
                reservation.release()
            return self._limited(caller, len(distinct))
        if first:
            self._pending.setdefault(identity, Counter()).update(first)
        # Whoever has no such policy is not written down.
        told = distinct if policy.first_time_per_day or policy.approval == "first_time" else ()
        return Permit(self, caller, reservation, hold, told, first)

    def _limited(self, caller: Caller, recipients: int) -> Flaw:
        after_s = self._usage.wait_s(caller.identity, caller.limits, recipients)
        if after_s is None:
            return Flaw(
                403,
                "too-many-recipients",
                "the message has more recipients than this key may write to in an hour or a day",
                hint="send it to fewer at a time",
            )
        return Flaw(
            429,
            "rate-limited",
            "this key has sent what it may in an hour or a day",
            hint="send it again later; Retry-After says when",
            retry_after_s=max(1, math.ceil(after_s)),
        )

    def _ended(self, permit: Permit, *, is_accepted: bool) -> None:
        identity = permit.caller.identity
        if permit.first:
            pending = self._pending[identity]
            pending.subtract(permit.first)
            pending += Counter()  # without those that are at nought
            if not pending:
                del self._pending[identity]
        if is_accepted and permit.told:
            self._contacts.add(identity, permit.told, is_known=not permit.hold)


class Permit:
    """As :class:`~..model.ports.Permit`.

    :ivar told: the recipients to be remembered.
    :ivar first: those of them that the caller has never written to, where they are counted.
    """

    __slots__ = ("_policy", "_reservation", "caller", "first", "hold", "told")

    def __init__(
        self,
        policy: SendingPolicy,
        caller: Caller,
        reservation: Reservation,
        hold: str,
        told: tuple[Address, ...],
        first: tuple[Address, ...],
    ) -> None:
        self._policy = policy
        self._reservation = reservation
        self.caller = caller
        self.hold = hold
        self.told = told
        self.first = first

    def settle(self) -> None:
        self._reservation.settle()
        self._policy._ended(self, is_accepted=True)

    def release(self) -> None:
        self._reservation.release()
        self._policy._ended(self, is_accepted=False)


# --- rules that know nothing of before -----------------------------------------------------------


def _sender_flaw(caller: Caller, sender: Address, fields: bytes, member: str) -> Flaw | None:
    """Reply-To is anybody's; the null reverse-path too (RFC 5321, 4.5.5), and From is held to the
    rule all the same."""
    if not caller.allowed_from:
        return None
    allowed = addresses(caller.allowed_from)
    if (sender == NULL or sender in allowed) and may_claim(allowed, fields):
        return None
    return Flaw(
        403,
        "sender-not-allowed",
        "this key may not send as this sender",
        member,
        "From, Sender and the envelope's sender have to be in its allowed-from list: \"protege-mta "
        'apikey show" shows it',
    )


def _recipient_flaw(
    caller: Caller, envelope: Envelope, fields: bytes, members: Sequence[str]
) -> Flaw | None:
    most = caller.limits.recipients
    recipients = [one.address for one in envelope.recipients]
    if most and len(set(recipients)) > most:
        return Flaw(
            403,
            "too-many-recipients",
            "the message has more recipients than this key may write to at a time",
            hint="send it to fewer at a time",
        )
    seen = _visible(fields) if not caller.policy.may_bcc else None
    allowed, denied = addresses(caller.allowed_to), addresses(caller.denied_to)
    for index, address in enumerate(recipients):
        member = members[index] if index < len(members) else ""
        if (caller.allowed_to and address not in allowed) or address in denied:
            return Flaw(
                403,
                "recipient-not-allowed",
                "this key may not send to this recipient",
                member,
                "leave the recipient out, or have the key's lists changed",
            )
        if seen is not None and address not in seen:
            return Flaw(
                403,
                "bcc-not-allowed",
                "this key may not hide a recipient from the others",
                member,
                "name every recipient in To or Cc",
            )
    return None


def _visible(fields: bytes) -> Addresses:
    """Whom every reader finds in To and Cc."""
    found: list[str] = []
    if headers.is_well_formed(fields):
        for name in _VISIBLE:
            for value in headers.values(fields, name):
                found += mailboxes(value) or ()
    return listed(found)


def _too_many_strangers(most: int) -> Flaw:
    return Flaw(
        429,
        "first-time-limit",
        f"this key may write to {most} recipients a day that it has never written to",
        hint="write to those it knows, or again tomorrow",
        retry_after_s=HOUR_S,
    )
