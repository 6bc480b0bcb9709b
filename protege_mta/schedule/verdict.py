"""What an attempt's outcomes mean for each recipient: pure, and the only place that says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..model.hop import HopKind
from ..model.outcome import (
    Delivered,
    Fate,
    Outcome,
    PermanentFailure,
    Scope,
    TransientFailure,
)
from ..model.reply import Reply
from ..model.value import value
from .entry import Health


@value
class Ended:
    """A recipient meets its fate.

    :ivar outcome: the attempt's; None where a person ended it.
    """

    recipient: int
    fate: Fate
    outcome: Outcome | None


@value
class Verdict:
    """Every recipient of an attempt is in one of the two.

    :ivar waiting: to be tried again.
    """

    ended: tuple[Ended, ...]
    waiting: tuple[tuple[int, TransientFailure], ...] = ()

    @property
    def is_delivery(self) -> bool:
        """Whether everybody has it, so that recording it may wait for the next sync."""
        return not self.waiting and all(
            one.fate == "delivered" or one.fate == "relayed" for one in self.ended
        )


def judge(outcomes: Sequence[tuple[int, Outcome]], *, is_last: bool, is_removed: bool) -> Verdict:
    """Sort recipients into those that are done with and those that wait.

    :param is_last: whether the message's age allows no further attempt.
    :param is_removed: whether a person took the message out of the queue meanwhile.
    """
    ended: list[Ended] = []
    waiting: list[tuple[int, TransientFailure]] = []
    for index, outcome in outcomes:
        match outcome:
            case Delivered(is_relayed=is_relayed):
                ended.append(Ended(index, "relayed" if is_relayed else "delivered", outcome))
            case PermanentFailure():
                ended.append(Ended(index, "bounced", outcome))
            case TransientFailure() if is_removed:
                ended.append(Ended(index, "removed", None))
            case TransientFailure() if is_last:
                ended.append(Ended(index, "expired", expired(str(outcome.cause), outcome)))
            case TransientFailure():
                waiting.append((index, outcome))
    return Verdict(tuple(ended), tuple(waiting))


def expired(cause: str, last: TransientFailure | None = None) -> PermanentFailure:
    """The outcome of running out of time (RFC 3463, X.4.7).

    :param cause: the last failure in words; empty where it was never tried.
    """
    text = f"too old to be tried again; last failure: {cause}" if cause else "never tried in time"
    contact = None if last is None else last.contact
    return PermanentFailure(Scope.MESSAGE, Reply(554, "5.4.7", (text,)), contact)


def unclaimed(cause: str) -> PermanentFailure:
    """The outcome of running out of time where nobody has come for it (RFC 3463, X.4.7).

    :param cause: as for :func:`expired`.
    """
    text = "the agent has been away for as long as mail is held for it"
    if cause:
        text += f"; last failure: {cause}"
    return PermanentFailure(Scope.MESSAGE, Reply(554, "5.4.7", (text,)))


def unreleased(why: str) -> PermanentFailure:
    """The outcome of running out of time where nobody has let it go (RFC 3463, X.4.7).

    :param why: what it was held for.
    """
    text = f"nobody has released the message in time; it was held for {why}"
    return PermanentFailure(Scope.MESSAGE, Reply(554, "5.4.7", (text,)))


_HEALTH: Final = {
    Scope.SITE: Health.DEAD,
    Scope.HOST: Health.HOST_TROUBLE,
    Scope.ABSENT: Health.ABSENT,
}


def is_absence(outcome: Outcome | None) -> bool:
    """Whether there was nobody to try it with."""
    return isinstance(outcome, TransientFailure) and outcome.scope is Scope.ABSENT


def is_cut(outcomes: Sequence[tuple[int, Outcome]], kind: HopKind) -> bool:
    """Whether those who wait do so for a tunnel that was cut in the middle, and for nothing else:
    the next session goes on with what had come through."""
    waiting = [one for _, one in outcomes if isinstance(one, TransientFailure)]
    is_tunnel = kind == "tunnel" and bool(waiting)
    return is_tunnel and all(one.scope is Scope.HOST for one in waiting)


def health(outcomes: Sequence[tuple[int, Outcome]], kind: HopKind) -> Health:
    """What the attempt taught about its site; transports give all recipients one scope of those
    that are about it.

    A session that is lost is no host in trouble: the next one may be there already.
    """
    for _, outcome in outcomes:
        if isinstance(outcome, TransientFailure) and outcome.scope in _HEALTH:
            known = _HEALTH[outcome.scope]
            is_lost = kind in ("agent", "tunnel") and known is Health.HOST_TROUBLE
            return Health.ABSENT if is_lost else known
    return Health.GOOD
