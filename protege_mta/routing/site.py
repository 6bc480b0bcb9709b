"""What routing answers: a site to deliver to, or why there is none.

Replies are those of the one table; a cause of this very lookup may stand behind the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from twisted.internet.defer import Deferred, succeed

from ..model.hop import HopKind, NextHop, Site
from ..model.outcome import PermanentFailure, Scope, TransientFailure
from ..model.reply import TABLE, Reply

Located: TypeAlias = Site | TransientFailure | PermanentFailure

Locate: TypeAlias = Callable[[NextHop], Deferred[Located]]
"""Where a next hop is.  Never fails."""


def try_again(reply: str, detail: str = "") -> TransientFailure:
    """:param reply: a name in :data:`~protege_mta.model.reply.TABLE`.  :param detail: for people."""
    return TransientFailure(Scope.SITE, _with_detail(reply, detail))


def give_up(reply: str, detail: str = "") -> PermanentFailure:
    """As :func:`try_again`, for what no later attempt would mend."""
    return PermanentFailure(Scope.SITE, _with_detail(reply, detail))


def _with_detail(name: str, detail: str) -> Reply:
    reply = TABLE[name]
    if not detail:
        return reply
    shown = detail.encode("ascii", "backslashreplace").decode()[:300]
    return Reply(reply.code, reply.enhanced, (*reply.lines[:-1], f"{reply.lines[-1]}: {shown}"))


class Locator:
    """Finds the site of any next hop, by its kind.

    :param by_kind: for each kind that has hosts; the others need no looking for.
    """

    def __init__(self, by_kind: Mapping[HopKind, Locate]) -> None:
        self._by_kind = by_kind

    def __call__(self, hop: NextHop) -> Deferred[Located]:
        locate = self._by_kind.get(hop.kind)
        if locate is not None:
            return locate(hop)
        return succeed(Site(f"{hop.kind}:{hop.name}", hop.kind))
