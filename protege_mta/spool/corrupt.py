"""Damaged pieces, set aside in ``corrupt/`` for a person to see.  Nothing here is ever deleted."""

from __future__ import annotations

from pathlib import Path

from ..model.ids import QueueId, parse
from .files import Files


class Corrupt:
    """The folder.  A file is named after the message whose content it is, or after the segment and
    the offset where the octets were found.

    :ivar count: of the pieces.
    """

    def __init__(self, files: Files, folder: Path) -> None:
        self._files = files
        self._folder = folder
        files.make_folder(folder)
        names = files.names(folder)
        self.ids = {id for name in names if (id := parse(name)) is not None}
        self.count = len(names)

    def save(self, name: str, octets: bytes) -> bool:
        """Keep a piece durably.  May run in any thread.

        :return: False where there is one of that name already.  :raise OSError:
        """
        try:
            fd = self._files.create(self._folder / name)
        except FileExistsError:
            return False
        try:
            self._files.write(fd, [octets], 0)
            self._files.sync(fd)
        finally:
            self._files.close(fd)
        self._files.sync_folder(self._folder)
        return True

    def found(self, id: QueueId) -> None:
        """A message's content is damaged."""
        if id not in self.ids:
            self.ids.add(id)
            self.count += 1
