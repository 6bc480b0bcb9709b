"""The floors: how much of the file system must stay free."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from twisted.logger import Logger

from ..model.ports import SpoolFull
from .files import Files, Room
from .settings import SpoolSettings

_LOOK_S: Final = 1.0
_LOOK_OCTETS: Final = 16 * 2**20


class Quota:
    """Looks at the file system at most once a second, or once for each 16 MiB accepted.

    :param reserve_octets: with less than that above the floors, room is tight.
    :param tight: called at each look that finds it so.
    """

    log = Logger()

    def __init__(
        self,
        files: Files,
        folder: Path,
        settings: SpoolSettings,
        now: Callable[[], float],
        *,
        reserve_octets: int,
        tight: Callable[[], None],
    ) -> None:
        self._files = files
        self._folder = folder
        self._settings = settings
        self._now = now
        self._reserve_octets = reserve_octets
        self._tight = tight
        self._room = Room(0, 0)
        self._spare_octets = 0  # of the room, above the floors
        self._looked_at = float("-inf")
        self._accepted = 0
        self._is_short = False

    def room(self) -> Room:
        """What is free, as of the last look."""
        now = self._now()
        if not 0 <= now - self._looked_at < _LOOK_S or self._accepted > _LOOK_OCTETS:
            self._look(now)
        return self._room

    def has_reserve(self) -> bool:
        """Whether room is not tight, as of the last look."""
        self.room()
        return self._spare_octets >= self._reserve_octets

    def _look(self, now: float) -> None:
        """Say once that a floor has been reached, and once that it is well below."""
        settings = self._settings
        try:
            room = self._files.room(self._folder)
        except OSError as error:
            # Nobody can say that there is room, so that there is none.
            self.log.error("cannot tell what is free: {error}", error=error)
            room = Room(0, 0)
        self._room = room
        self._looked_at = now
        self._accepted = 0
        has_inodes = room.free_inodes >= settings.free_inodes
        self._spare_octets = room.free_octets - settings.free_octets if has_inodes else -1
        if room.free_octets < settings.free_octets or room.free_inodes < settings.free_inodes:
            self._alarm()
        elif room.free_octets >= settings.free_octets + _LOOK_OCTETS and self._is_short:
            self._is_short = False
            self.log.warn("there is room again, mail is accepted")
        if self._spare_octets < self._reserve_octets:
            self._tight()

    def _alarm(self) -> None:
        if self._is_short:
            return
        self._is_short = True
        self.log.critical(
            "mail is refused while so little is free: {octets} octets, {inodes} inodes; "
            "the floors are {free_octets} and {free_inodes}",
            octets=self._room.free_octets,
            inodes=self._room.free_inodes,
            free_octets=self._settings.free_octets,
            free_inodes=self._settings.free_inodes,
        )

    def check(self, octets: int) -> None:
        """:raise SpoolFull: so much more would cross a floor."""
        now = self._now()
        if not 0 <= now - self._looked_at < _LOOK_S or self._accepted > _LOOK_OCTETS:
            self._look(now)
        if self._accepted + octets > self._spare_octets:
            self._refuse(octets)

    def _refuse(self, octets: int) -> None:
        room = self._room
        free = room.free_octets - self._accepted - octets
        if free < self._settings.free_octets:
            if octets <= _LOOK_OCTETS:  # else it may be the message that is too big
                self._alarm()
            raise SpoolFull(f"{free} octets would be free, below free_octets")
        raise SpoolFull(f"{room.free_inodes} inodes are free, below free_inodes")

    def accept(self, octets: int) -> None:
        """So much more has been taken."""
        self._accepted += octets
