"""Who is not written to, and under which reverse-path others are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import attrs

from ..address import Address
from ..envelope import Message
from ..hop import HopKind, Site
from ..outcome import PermanentFailure
from ..reply import Reply

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


@attrs.frozen
class Suppressed:
    """Why nothing is sent to an address.

    :ivar reason: ``hard_bounce``, ``complaint``, ``unsubscribe``, ``manual`` or ``policy``.
    :ivar address: as :func:`~..suppression.normalised` has it.
    :ivar tenant: empty for everybody's mail.
    :ivar until: POSIX seconds; None for ever.
    :ivar message_id: what was sent when it came to this; empty where nothing was.
    """

    address: str
    reason: str
    tenant: str = ""
    since: float = 0.0
    until: float | None = None
    detail: str = ""
    message_id: str = ""


class Suppressions(Protocol):
    """Who is not to be written to.  Answers come from memory or a page cache."""

    def find(
        self, address: str, tenant: str, *, but_of: str = "", is_by_hand: bool = False
    ) -> Suppressed | None:
        """What holds for mail of this tenant now.

        :param but_of: the id of a message; that it has bounced itself does not count.
        :param is_by_hand: only what a person has done counts: ``manual``, ``policy`` and
            ``unsubscribe``.
        :raise StateFailed:
        """

    def withdraw(self, entry: Suppressed) -> Deferred[None]:
        """Forget an entry, if it is still there as it is; never fails."""

    def add(self, entry: Suppressed) -> Deferred[None]:
        """Durable once it resolves; takes the place of an entry of the same address, tenant and
        reason."""


class Withholding(Protocol):
    """Decides whom mail on its way out does not go to."""

    def stopped(
        self, message: Message, recipients: Sequence[int], kind: HopKind
    ) -> Mapping[int, Reply]:
        """Which of a message's recipients are not to be written to, and what is said of each.

        :raise StateFailed: nobody knows now.
        """

    def learned(
        self, message: Message, failures: Sequence[tuple[int, PermanentFailure]], site: Site | None
    ) -> Deferred[None] | None:
        """Recipients have bounced; called before that is made durable.

        :return: what to wait for, which never fails; None to go on at once.
        """


class SignsReturnPath(Protocol):
    def __call__(self, message: Message, recipients: Sequence[int], kind: HopKind) -> Address:
        """The reverse-path under which a message goes to some of its recipients."""
