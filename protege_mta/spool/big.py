"""Content on its way in: in memory while it is small, else in a file of its own.

A file is written in a thread, a chunk at a time, while the next chunk gathers; whoever writes
faster than the disk is told to wait.  File and folder are synced before :meth:`DiskIncoming.sealed`
resolves, so that a record never names what is not there.  What no record names is an orphan, and
goes at the next start.
"""

from __future__ import annotations

import errno
from functools import partial
from pathlib import Path
from typing import Final
from zlib import crc32

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.batch import BigFile
from ..model.ports import Held, InThread, SpoolFailed, SpoolFull
from .content import BigOctets, MemoryOctets
from .files import Files
from .quota import Quota
from .settings import SpoolSettings

_CHUNK_OCTETS: Final = 256 * 1024


class BigStore:
    """The folder of big files, and the memory of everything that is coming in.

    Owned by the reactor's thread.
    """

    log = Logger()

    def __init__(
        self,
        files: Files,
        folder: Path,
        settings: SpoolSettings,
        *,
        boot: str,
        quota: Quota,
        in_thread: InThread,
    ) -> None:
        self.files = files
        self.folder = folder
        self.settings = settings
        self.quota = quota
        self.in_thread = in_thread
        self.memory_octets = 0
        self._boot = boot
        self._count = 0

    def receive(self) -> DiskIncoming:
        return DiskIncoming(self)

    def new_name(self) -> str:
        """A name that no file has had."""
        self._count += 1
        return f"{self._boot}-{self._count:06d}"

    def unlink(self, name: str) -> None:
        """Remove a file soon; one that cannot be removed is an orphan, which the next start tries
        again."""
        self.in_thread(partial(self.files.unlink, self.folder / name)).addErrback(
            lambda failure: self.log.failure("cannot remove big/{name}", failure, name=name)
        )


class DiskIncoming:
    """:class:`~..model.ports.Incoming`.

    Its fields belong to the reactor's thread, but for descriptor, offset and checksum of the file,
    which belong to the one chunk that is being written, if there is one.
    """

    log = Logger()

    __slots__ = (
        "_checksum",
        "_error",
        "_fd",
        "_gathered",
        "_is_discarded",
        "_is_writing",
        "_name",
        "_offset",
        "_pieces",
        "_sealed",
        "_sealing",
        "_store",
        "_waiting",
        "size_octets",
    )

    def __init__(self, store: BigStore) -> None:
        self.size_octets = 0
        self._store = store
        self._pieces: list[bytes] = []
        self._gathered = 0  # octets of the pieces
        self._name = ""  # of the file, once there is to be one
        self._is_writing = False
        self._is_discarded = False
        self._error: Exception | None = None
        self._waiting: Deferred[None] | None = None
        self._sealing: Deferred[tuple[bytes, ...] | BigFile] | None = None
        self._sealed: BigFile | None = None

        self._fd = -1
        self._offset = 0
        self._checksum = 0

    def write(self, octets: bytes) -> Deferred[None] | None:
        self.size_octets += len(octets)
        if self._error is not None or self._is_discarded:
            return None
        self._pieces.append(octets)
        self._gathered += len(octets)
        store = self._store
        if not self._name:
            store.memory_octets += len(octets)
            if (
                self.size_octets <= store.settings.big_octets
                and store.memory_octets <= store.settings.incoming_octets
            ):
                return None
            self._name = store.new_name()
            store.memory_octets -= self._gathered
            self._start()
        elif self._gathered >= _CHUNK_OCTETS:
            if self._is_writing:
                if self._waiting is None:
                    self._waiting = Deferred()
                return self._waiting
            self._start()
        return None

    def look(self) -> Deferred[Held]:
        if not self._name:
            return defer.succeed(MemoryOctets(tuple(self._pieces)))
        store = self._store
        path = store.folder / self._name
        return self.sealed().addCallback(
            lambda _: store.in_thread(partial(BigOctets.open, store.files, path))
        )

    def at_hand(self) -> tuple[bytes, ...] | None:
        if self._name:
            return None
        self._store.memory_octets -= self._gathered
        self._gathered = 0
        return tuple(self._pieces)

    def sealed(self) -> Deferred[tuple[bytes, ...] | BigFile]:
        content = self.at_hand()
        if content is not None:
            return defer.succeed(content)
        if self._sealed is not None:
            return defer.succeed(self._sealed)
        sealing: Deferred[tuple[bytes, ...] | BigFile] = Deferred()
        self._sealing = sealing
        if not self._is_writing:
            self._finish()
        return sealing

    def discard(self) -> None:
        """Forget it; allowed even once it is sealed, where no batch is going to name it."""
        if self._is_discarded:
            return
        self._is_discarded = True
        if not self._name:
            self._store.memory_octets -= self._gathered
        self._pieces.clear()
        self._gathered = 0
        if self._name and not self._is_writing:
            self._remove()

    # --- the file --------------------------------------------------------------------------------

    def _start(self) -> None:
        """Have what has gathered written."""
        pieces, self._pieces, gathered, self._gathered = self._pieces, [], self._gathered, 0
        try:
            self._store.quota.check(gathered)
        except SpoolFull as error:
            self._stop(error)
            return
        self._store.quota.accept(gathered)
        self._is_writing = True
        work = self._store.in_thread(partial(self._write_chunk, pieces))
        work.addCallbacks(lambda _: None, self._refused)
        work.addCallback(self._written)
        work.addErrback(lambda failure: self.log.failure("bug", failure))

    def _write_chunk(self, pieces: list[bytes]) -> None:
        files = self._store.files
        if self._fd < 0:
            self._fd = files.create(self._store.folder / self._name)
        files.write(self._fd, pieces, self._offset)
        for piece in pieces:
            self._checksum = crc32(piece, self._checksum)
            self._offset += len(piece)

    def _refused(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            self._error = SpoolFull("no room for a big file")
        else:
            self.log.failure("cannot write big/{name}", failure, name=self._name)
            self._error = SpoolFailed("cannot write a big file")

    def _written(self, _: None) -> None:
        self._is_writing = False
        waiting, self._waiting = self._waiting, None
        if self._is_discarded:
            self._remove()
        elif self._error is not None:
            self._stop(self._error)
        elif self._sealing is not None:
            self._finish()
        elif self._gathered >= _CHUNK_OCTETS:
            self._start()
        if waiting is not None:
            waiting.callback(None)

    def _finish(self) -> None:
        if self._error is not None:
            self._stop(self._error)
        elif self._pieces:
            self._start()
        else:
            self._is_writing = True
            work = self._store.in_thread(self._sync)
            work.addCallbacks(lambda _: None, self._refused)
            work.addCallback(self._synced)
            work.addErrback(lambda failure: self.log.failure("bug", failure))

    def _sync(self) -> None:
        files, fd = self._store.files, self._fd
        files.sync(fd)
        self._fd = -1
        files.close(fd)
        files.sync_folder(self._store.folder)

    def _synced(self, _: None) -> None:
        self._is_writing = False
        if self._is_discarded:
            self._remove()
        elif self._error is not None:
            self._stop(self._error)
        elif self._sealing is not None:
            sealing, self._sealing = self._sealing, None
            self._sealed = BigFile(self._name, self.size_octets, self._checksum)
            sealing.callback(self._sealed)

    def _stop(self, error: Exception) -> None:
        """There will be no file; :meth:`sealed` says why."""
        self._error = error
        self._pieces.clear()
        self._gathered = 0
        if self._sealing is not None:
            sealing, self._sealing = self._sealing, None
            self._remove()
            sealing.errback(error)

    def _remove(self) -> None:
        self._store.in_thread(self._remove_file).addErrback(
            lambda failure: self.log.failure("cannot remove big/{name}", failure, name=self._name)
        )

    def _remove_file(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._store.files.close(fd)
        try:
            self._store.files.unlink(self._store.folder / self._name)
        except FileNotFoundError:
            return  # it never came into being
