"""Guesses at passwords: how long each has to wait, and when there may be none for a while.

A *place* is where a client comes from: an IPv4 address, or the /64 of an IPv6 one, which is what
one customer has at least.  Failures are counted within a window

* for a name at a place: with ``failures`` of them, that name is locked at that place;
* for a place, whatever the names: with :data:`SPRAY` times as many, the place is locked;
* for a name, whatever the places: this one never locks anything.

Each answer waits, by the failures that there were before it: 0, 1, 2, 4, ... times ``delay_s``, up
to :data:`LONGEST_S`.  The wait comes before the look at the proof, so that right and wrong take the
same, parallel guesses gain nothing, and who hangs up costs no hash.  The failures of a name at other
places count a tenth (one for each ``failures``) towards that wait, which slows a botnet down and
keeps nobody out.

**The owner is not locked out by strangers.**  Locks are on places, so that a stranger elsewhere
cannot bring one about where the owner is, and an owner who comes from a new place gets in after a
wait of :data:`LONGEST_S` at worst.  Where the stranger is at the owner's own place (an office, a
carrier's NAT), a name that has logged in from there within :data:`KNOWN_S`, the account unchanged,
is not held up by what others do there at all: neither by the lock of the place nor by its waits.
When the failures were for that very name, as with a device that still has an old password, the lock
lets one attempt pass every :data:`LONGEST_S`.  A stranger at that place could use it too, and has
5,400 guesses a day by it.

Memory is bounded: so many of each are remembered, those longest unheard of forgotten first.  What
strangers do cannot push out what is known of owners, for only a success is entered there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

import attrs
from attrs import validators

SPRAY: Final = 3
LONGEST_S: Final = 16.0
"""Clients wait half a minute for a reply, and the patient ones minutes."""

KNOWN_S: Final = 30 * 86_400.0
REMEMBERED: Final = 10_000

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


@attrs.frozen(kw_only=True)
class LoginSettings:
    """How failed logins are answered.

    :ivar delay_s: what the answer after the first failure waits; 0 for no waits.
    :ivar failures: of one name at one place within ``window_s`` lock it there.
    :ivar lock_s: for how long; 0 for no locks.
    """

    delay_s: float = attrs.field(default=1.0, validator=validators.ge(0))
    failures: int = attrs.field(default=10, validator=validators.ge(1))
    window_s: float = attrs.field(default=600.0, validator=validators.gt(0))
    lock_s: float = attrs.field(default=900.0, validator=validators.ge(0))


class Recent(Generic[_K, _V]):
    """So many values by their keys; the one longest untouched makes room."""

    def __init__(self, size: int = REMEMBERED) -> None:
        self._size = size
        self._values: OrderedDict[_K, _V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: _K) -> _V | None:
        return self._values.get(key)

    def put(self, key: _K, value: _V) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._size:
            self._values.popitem(last=False)

    def drop(self, key: _K) -> None:
        self._values.pop(key, None)


@attrs.define
class _Strikes:
    """:ivar since: when the first of ``count`` failures was.  :ivar next_at: when a locked name may
    try once more where it is known."""

    since: float
    count: int = 0
    locked_until: float = 0.0
    next_at: float = 0.0


@attrs.frozen
class Guesser:
    """Who says that they are somebody.

    :ivar name: empty for all that cannot be a name.
    :ivar revision: the account's; 0 where there is none.
    """

    name: str
    place: str
    revision: int


class Guesses:
    """Remembers failures and successes; knows no password and no socket.

    :param now: seconds that never jump.
    """

    def __init__(self, settings: LoginSettings, now: Callable[[], float]) -> None:
        self.settings = settings
        self._now = now
        self._pairs: Recent[tuple[str, str], _Strikes] = Recent()
        self._places: Recent[str, _Strikes] = Recent()
        self._names: Recent[str, _Strikes] = Recent()
        self._known: Recent[tuple[str, str], tuple[int, float]] = Recent()

    def wait_s(self, who: Guesser) -> float | None:
        """How long the proof has to wait before it is looked at; None where it is not to be."""
        now, pair = self._now(), (who.name, who.place)
        is_known = self._is_known(who)
        strikes = self._pairs.get(pair)
        if strikes is not None and now < strikes.locked_until:
            if not is_known or now < strikes.next_at:
                return None
            strikes.next_at = now + LONGEST_S
            return 0.0
        if is_known:
            return self._doubled_s(self._count(strikes))
        if self._is_locked(self._places.get(who.place)):
            return None
        elsewhere = self._count(self._names.get(who.name)) // self.settings.failures
        return self._doubled_s(max(self._count(self._places.get(who.place)), elsewhere))

    def is_locked(self, who: Guesser) -> bool:
        """Whether failures since :meth:`wait_s` have put an end to it."""
        if self._is_known(who):
            return False
        pair = self._pairs.get((who.name, who.place))
        return self._is_locked(pair) or self._is_locked(self._places.get(who.place))

    def failed(self, who: Guesser) -> None:
        """Count one wrong guess."""
        failures, pair = self.settings.failures, (who.name, who.place)
        # What a lock lets pass is one name's affair, however long a device goes on with it.
        if not self._is_locked(self._pairs.get(pair)):
            self._strike(self._places, who.place, SPRAY * failures)
        self._strike(self._pairs, pair, failures)
        self._strike(self._names, who.name, None)

    def succeeded(self, who: Guesser) -> None:
        """The failures of the place stay: its next guess may be at another name."""
        pair = (who.name, who.place)
        self._pairs.drop(pair)
        self._known.put(pair, (who.revision, self._now()))

    def _is_known(self, who: Guesser) -> bool:
        revision, at = self._known.get((who.name, who.place)) or (0, 0.0)
        return revision == who.revision != 0 and self._now() - at < KNOWN_S

    def _is_locked(self, strikes: _Strikes | None) -> bool:
        return strikes is not None and self._now() < strikes.locked_until

    def _count(self, strikes: _Strikes | None) -> int:
        if strikes is None or self._now() - strikes.since >= self.settings.window_s:
            return 0
        return strikes.count

    def _doubled_s(self, count: int) -> float:
        if not count:
            return 0.0
        return min(self.settings.delay_s * 2.0 ** min(count - 1, 32), LONGEST_S)

    def _strike(self, table: Recent[_K, _Strikes], key: _K, limit: int | None) -> None:
        now = self._now()
        strikes = table.get(key)
        if strikes is None:
            strikes = _Strikes(now)
        elif now - strikes.since >= self.settings.window_s:
            strikes.since, strikes.count = now, 0
        strikes.count += 1
        if limit is not None and strikes.count >= limit:
            strikes.since, strikes.count = now, 0
            strikes.locked_until = now + self.settings.lock_s
        table.put(key, strikes)
