"""What a program may send: as whom, to whom, how much, and what a person has to see first.

The one judgement of keys and accounts, by whatever door they come: at once of a whole message, or
piece by piece as SMTP brings it.  It needs no network; the limits are those of :mod:`.usage`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from ..message import headers
from ..message.mailboxes import mailboxes
from ..model.address import NULL, Address
from ..model.caller import Caller, Flaw
from ..model.envelope import Envelope
from ..model.ports import Contacts, StateFailed
from ..model.reply import TABLE, Reply
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

    def begin(self, caller: Caller, sender: Address) -> Permit | Flaw:
        """As :meth:`~..model.ports.Sending.begin`."""
        return self._begin(caller, sender, recipients=1)

    def judge(
        self,
        caller: Caller,
        envelope: Envelope,
        fields: bytes,
        *,
        from_member: str = "/from",
        sender_member: str = "",
        members: Sequence[str] = (),
    ) -> Permit | Flaw:
        """As :meth:`~..model.ports.Sending.judge`."""
        recipients = [one.address for one in envelope.recipients]
        permit = self._begin(caller, envelope.sender, recipients=len(set(recipients)))
        if isinstance(permit, Flaw):
            is_about_sender = permit.kind == _NOT_ALLOWED
            return _at(permit, sender_member or from_member) if is_about_sender else permit
        for index, address in enumerate(recipients):
            flaw = permit.add(address)
            if flaw is not None:
                permit.release()
                return _at(flaw, _member(members, index)) if flaw.kind == _NO_RECIPIENT else flaw
        flaw = permit.look(fields, from_member=from_member, members=members)
        if flaw is not None:
            permit.release()
            return flaw
        return permit

    def _begin(self, caller: Caller, sender: Address, recipients: int) -> Permit | Flaw:
        """:param recipients: so many there will be at least."""
        if not {"send", "admin"} & caller.scopes:
            return _MAY_NOT_SEND
        allowed = caller.allowed_from
        # The null reverse-path is anybody's (RFC 5321, 4.5.5; RFC 8098, 3): programs that read mail
        # send reports about it.  Their From is held to the rule all the same.
        if allowed and sender != NULL and sender not in addresses(allowed):
            return _SENDER
        reservation = self._usage.begin(caller.identity, caller.limits)
        if reservation is None:
            return self._limited(caller, recipients)
        return Permit(self, caller, reservation, recipients)

    def _first(self, caller: Caller, address: Address) -> bool | Flaw:
        """Whether the recipient counts as one that the caller has never written to.

        :raise StateFailed:
        """
        identity, most = caller.identity, caller.policy.first_time_per_day
        if not most or not self._contacts.strangers(identity, [address]):
            return False
        pending = self._pending.get(identity, Counter())
        spent = self._contacts.since(identity, self._now() - DAY_S)
        if address not in pending and spent + len(pending) >= most:
            return _too_many_strangers(most)
        return True

    def _hold(self, caller: Caller, address: Address) -> str:
        """Why a person has to release what goes there.  :raise StateFailed:"""
        approval = caller.policy.approval
        if approval == "first_time" and self._contacts.strangers(
            caller.identity, [address], is_known=True
        ):
            return APPROVE_FIRST
        return ""

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

    def _holds(self, identity: str, first: Address) -> None:
        self._pending.setdefault(identity, Counter())[first] += 1

    def _ended(self, permit: Permit, *, is_accepted: bool) -> None:
        identity, policy = permit.caller.identity, permit.caller.policy
        if permit.first:
            pending = self._pending[identity]
            pending.subtract(permit.first)
            pending += Counter()  # without those that are at nought
            if not pending:
                del self._pending[identity]
        # Whoever has no such policy is not written down.
        is_told = policy.first_time_per_day or policy.approval == "first_time"
        if is_accepted and is_told and permit.recipients:
            self._contacts.add(identity, tuple(permit.recipients), is_known=not permit.hold)


class Permit:
    """As :class:`~..model.ports.Permit`.

    :ivar recipients: those that have a place, each once, in order.
    :ivar first: those of them that the caller has never written to, where they are counted.
    """

    __slots__ = ("_expected", "_policy", "_reservation", "caller", "first", "hold", "recipients")

    def __init__(
        self, policy: SendingPolicy, caller: Caller, reservation: Reservation, expected: int
    ) -> None:
        self._policy = policy
        self._reservation = reservation
        self._expected = expected
        self.caller = caller
        self.hold = APPROVE_ALL if caller.policy.approval == "all" else ""
        self.recipients: dict[Address, None] = {}
        self.first: list[Address] = []

    def add(self, address: Address) -> Flaw | None:
        """As :meth:`~..model.ports.Permit.add`."""
        caller, policy, recipients = self.caller, self._policy, self.recipients
        if address in recipients:  # one copy, however often it is named
            return None
        if (caller.allowed_to and address not in addresses(caller.allowed_to)) or (
            caller.denied_to and address in addresses(caller.denied_to)
        ):
            return attrs.evolve(_RECIPIENT, recipient=address)
        most, count = caller.limits.recipients, max(self._expected, len(recipients) + 1)
        if most and count > most:
            return _TOO_MANY
        try:
            is_first = policy._first(caller, address)
            hold = policy._hold(caller, address)
        except StateFailed:
            return _UNAVAILABLE
        if isinstance(is_first, Flaw):
            return attrs.evolve(is_first, recipient=address)
        if not self._reservation.add_recipient():
            return policy._limited(caller, count)
        recipients[address] = None
        self.hold = self.hold or hold
        if is_first:
            policy._holds(caller.identity, address)
            self.first.append(address)
        return None

    def look(
        self, fields: bytes, *, from_member: str = "", members: Sequence[str] = ()
    ) -> Flaw | None:
        """As :meth:`~..model.ports.Permit.look`.  Reply-To is anybody's."""
        caller = self.caller
        fields = fields[: headers.header_end(fields)].removesuffix(b"\r\n\r\n")
        fields += b"" if fields.endswith(b"\r\n") or not fields else b"\r\n"
        if caller.allowed_from and not may_claim(addresses(caller.allowed_from), fields):
            return _at(_SENDER, from_member)
        if caller.policy.may_bcc:
            return None
        seen = _visible(fields)
        for index, address in enumerate(self.recipients):
            if address not in seen:
                return _at(_BCC, _member(members, index))
        return None

    def settle(self) -> None:
        self._reservation.settle()
        self._policy._ended(self, is_accepted=True)

    def release(self) -> None:
        self._reservation.release()
        self._policy._ended(self, is_accepted=False)


# --- refusals ------------------------------------------------------------------------------------

_NOT_ALLOWED: Final = "sender-not-allowed"
_NO_RECIPIENT: Final = "recipient-not-allowed"

_MAY_NOT_SEND: Final = Flaw(
    403,
    "scope-missing",
    "this needs the scope send, which these credentials do not have",
    hint='"protege-mta apikey set NAME --scope" gives a key others',
)
_SENDER: Final = Flaw(
    403,
    _NOT_ALLOWED,
    "this key may not send as this sender",
    hint="From, Sender and the envelope's sender have to be in its allowed-from list: "
    '"protege-mta apikey show" shows it, or "user show" for an account',
)
_RECIPIENT: Final = Flaw(
    403,
    _NO_RECIPIENT,
    "this key may not send to this recipient",
    hint="leave the recipient out, or have the key's lists changed",
)
_TOO_MANY: Final = Flaw(
    403,
    "too-many-recipients",
    "the message has more recipients than this key may write to at a time",
    hint="send it to fewer at a time",
)
_BCC: Final = Flaw(
    403,
    "bcc-not-allowed",
    "this key may not hide a recipient from the others",
    hint="name every recipient in To or Cc",
)
_UNAVAILABLE: Final = Flaw(
    503, "unavailable", "the state of the service cannot be read just now", retry_after_s=10
)


def refusal(flaw: Flaw) -> Reply:
    """A refusal as SMTP and events have it."""
    return TABLE["local-error"] if flaw.status >= 500 else TABLE[flaw.kind]


def _at(flaw: Flaw, member: str) -> Flaw:
    return attrs.evolve(flaw, member=member) if member else flaw


def _member(members: Sequence[str], index: int) -> str:
    return members[index] if index < len(members) else ""


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
