"""Who is not written to any more: asked at the doors of our users and before each attempt, and
learnt from what comes back.

Mail that leaves for other hosts is concerned: what is for mailboxes of ours is withheld only where
somebody has said so, and teaches nothing, and our own reports are owed to their recipients.  What is
learnt is about a recipient: that a host does not like us, or this message, says nothing of who lives there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.address import Address
from ..model.bounce_class import Classify
from ..model.envelope import Message
from ..model.hop import HopKind, Site
from ..model.outcome import PermanentFailure, Scope
from ..model.ports import StateFailed, Suppressed, Suppressions
from ..model.reply import TABLE, Reply
from ..model.suppression import Reason, of_address

OUTWARD: Final[frozenset[HopKind]] = frozenset(("mx", "smarthost", "tunnel"))

_INWARD: Final[frozenset[HopKind]] = frozenset(("maildir", "lmtp", "webhook", "agent"))
_HOSTS: Final[frozenset[HopKind]] = frozenset(("mx", "smarthost"))
_BY_THE_DNS: Final = (TABLE["no-such-domain"], TABLE["null-mx"])
_DETAIL_CHARACTERS: Final = 300


class Suppression:
    """A :class:`~..model.ports.Withholding`, and what the doors ask.

    :param is_own: whether an address is at a domain of ours.
    :param now: POSIX seconds.
    :ivar classify: what a failure was about; like ``hard_bounce_s`` replaced when the configuration
        is read again.
    :ivar hard_bounce_s: how long a mailbox that does not exist is not written to; 0 = it is.
    """

    log = Logger()

    def __init__(
        self,
        entries: Suppressions,
        *,
        is_own: Callable[[Address], bool],
        now: Callable[[], float],
        classify: Classify,
        hard_bounce_s: float,
    ) -> None:
        self._entries = entries
        self._is_own = is_own
        self._now = now
        self.classify = classify
        self.hard_bounce_s = hard_bounce_s

    def refusal(self, address: Address, tenant: str) -> Reply | None:
        """What a door of our users says to a recipient; None for nothing."""
        try:
            found = self._entries.find(address, tenant, is_by_hand=self._is_own(address))
        except StateFailed:
            return TABLE["local-error"]
        return None if found is None else reply_of(found)

    def stopped(
        self, message: Message, recipients: Sequence[int], kind: HopKind
    ) -> Mapping[int, Reply]:
        origin = message.origin
        is_inward = kind in _INWARD
        if not (is_inward or kind in OUTWARD) or not _is_ours(message):
            return {}
        found = {}
        for index in recipients:
            address = message.envelope.recipients[index].address
            entry = self._entries.find(address, origin.tenant, is_by_hand=is_inward)
            if entry is not None and _is_of(entry, message):
                own = entry
                entry = self._entries.find(
                    address, origin.tenant, but_of=message.id, is_by_hand=is_inward
                )
                if entry is None:
                    # It bounced, and a crash came before that was written down: it is tried anew,
                    # and may be delivered now.
                    self._entries.withdraw(own)
            if entry is not None:
                found[index] = reply_of(entry)
        return found

    def learned(
        self, message: Message, failures: Sequence[tuple[int, PermanentFailure]], site: Site | None
    ) -> Deferred[None] | None:
        if not self.hard_bounce_s or not _is_ours(message):
            return None
        is_alone = len(message.envelope.recipients) == 1
        adding = [
            self.hard_bounce(
                message.envelope.recipients[index].address,
                message.origin.tenant,
                failure.cause,
                message.id,
            )
            for index, failure in failures
            if _is_about_recipient(failure, site, is_alone=is_alone)
        ]
        waiting = [one for one in adding if one is not None]
        if not waiting:
            return None
        return DeferredList(waiting).addCallback(lambda _: None)

    def hard_bounce(
        self, address: Address, tenant: str, cause: Reply, message_id: str
    ) -> Deferred[None] | None:
        """A host has refused a recipient, if that is what it refused.

        :return: None where there is nothing to be learnt; else it never fails.
        """
        if not self.hard_bounce_s or self._is_own(address):
            return None
        known = self.classify(cause)
        if known.action != "suppress" or known.scope != "recipient":
            return None
        until = self._now() + self.hard_bounce_s
        return self._add(address, tenant, "hard_bounce", message_id, str(cause), until)

    def complained(self, address: Address, tenant: str, message_id: str) -> Deferred[None]:
        """The recipient has called a message spam; never fails."""
        return self._add(address, tenant, "complaint", message_id, "")

    def unsubscribed(self, address: Address, tenant: str, message_id: str) -> Deferred[None]:
        """The recipient wants no more; fails with :class:`~..model.ports.StateFailed`."""
        return self._entries.add(self._entry(address, tenant, "unsubscribe", message_id, "", None))

    def _add(
        self,
        address: Address,
        tenant: str,
        reason: Reason,
        message_id: str,
        detail: str,
        until: float | None = None,
    ) -> Deferred[None]:
        entry = self._entry(address, tenant, reason, message_id, detail, until)
        return self._entries.add(entry).addErrback(self._not_kept, reason, message_id)

    def _entry(
        self,
        address: Address,
        tenant: str,
        reason: Reason,
        message_id: str,
        detail: str,
        until: float | None,
    ) -> Suppressed:
        printable = "".join(each if each.isprintable() else " " for each in detail)
        printable = printable[:_DETAIL_CHARACTERS]
        return Suppressed(
            of_address(address), reason, tenant, self._now(), until, printable, message_id
        )

    def _not_kept(self, failure: Failure, reason: Reason, message_id: str) -> None:
        self.log.failure(
            "the {reason} of {id} suppresses nobody", failure=failure, reason=reason, id=message_id
        )


def reply_of(entry: Suppressed) -> Reply:
    """What is said of a recipient that is not written to."""
    return TABLE.get(f"suppressed-{entry.reason}", TABLE["suppressed-policy"])


def _is_ours(message: Message) -> bool:
    """Whether one of our users sends it: neither a stranger to a mailbox that is elsewhere, nor we
    ourselves a report."""
    origin = message.origin
    return origin.source != "internal" and (origin.source != "smtp" or origin.may_sign)


def _is_of(entry: Suppressed, message: Message) -> bool:
    """Whether it is there because that message has bounced."""
    return entry.reason == "hard_bounce" and entry.message_id == message.id


def _is_about_recipient(failure: PermanentFailure, site: Site | None, *, is_alone: bool) -> bool:
    """Whether somebody who knows has refused this recipient, and not the message that it shares
    with others."""
    if failure.cause in _BY_THE_DNS:
        return True
    if site is None or site.kind not in _HOSTS or failure.contact is None:
        return False
    return failure.scope is Scope.RECIPIENT or (is_alone and failure.scope is Scope.MESSAGE)
