"""Keeps the TLS contexts of our listeners as their files are.

Whoever renews a certificate need not tell us: the files are looked at again and again, in a thread,
since a disk may hang.  What cannot be used, as a pair of which one half is written, changes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Final

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.ports import InThread
from .tls_server import ServerContexts, ShownCertificate, TlsFiles, server_contexts

LOOK_S: Final = 10.0
TICKETS_S: Final = 43_200.0
"""The keys of session tickets go with their context, and so no context lives longer; a ticket is
good for two hours."""

DAY_S: Final = 86_400.0
SOON_S: Final = 14 * DAY_S
"""A certificate that ends so soon should have been renewed."""

Source = Callable[[], TlsFiles]
"""Names the files, and may have to make them first: it blocks.  Raises OSError where it cannot."""

Marks = tuple[tuple[int, int, int] | None, ...]
"""What of each file tells that it is another one: inode, size, mtime in ns; None: not there."""


@attrs.frozen(eq=False)
class Loaded:
    """What was made of files, and as what they were found."""

    files: TlsFiles
    marks: Marks
    contexts: ServerContexts


@attrs.frozen
class _Trouble:
    """Why files cannot be used as they are."""

    marks: Marks
    text: str


def load(source: Source) -> Loaded:
    """Read the files and build contexts of them.  Blocks.

    :raise ValueError, OSError: they cannot be used; the text names one.
    """
    files = source()
    before = _marks(files)
    contexts = server_contexts(files)
    if _marks(files) != before:
        raise ValueError(f"{files.paths[0]}: it, or what belongs to it, is being replaced just now")
    return Loaded(files, before, contexts)


class Certificates:
    """The contexts in force; one owner for all listeners.

    :param put: takes contexts into use; None where there is no TLS any more.
    :param now: POSIX seconds, for what certificates say.
    :param in_thread: runs what blocks.
    """

    log = Logger()

    def __init__(
        self,
        put: Callable[[ServerContexts | None], None],
        *,
        clock: IReactorTime,
        now: Callable[[], float],
        in_thread: InThread,
    ) -> None:
        self._put = put
        self._clock = clock
        self._now = now
        self._in_thread = in_thread
        self._source: Source | None = None
        self._loaded: Loaded | None = None
        self._loaded_at = 0.0
        self._told_at = 0.0
        self._told: _Trouble | None = None
        self._call = LoopingCall(self._look)
        self._call.clock = clock

    def use(self, source: Source | None, loaded: Loaded | None) -> None:
        """Put into force what :func:`load` has made of the source, and look after it from now on."""
        self._source = source
        self._change_to(loaded)
        self._tell(self._shown())

    def start(self) -> None:
        """Look after the files."""
        self._call.start(LOOK_S, now=False).addErrback(self._failed)

    def stop(self) -> None:
        if self._call.running:
            self._call.stop()

    def ends(self) -> Mapping[tuple[str, str], float]:
        """When certificates expire, POSIX seconds: by name and algorithm, the first to end of
        those that have both in common."""
        found: dict[tuple[str, str], float] = {}
        for one in self._shown():
            at = found.setdefault((one.name, one.algorithm), one.expires_at)
            found[one.name, one.algorithm] = min(at, one.expires_at)
        return found

    def _shown(self) -> tuple[ShownCertificate, ...]:
        return self._loaded.contexts.certificates if self._loaded is not None else ()

    # --- looking ---------------------------------------------------------------------------------

    def _look(self) -> Deferred[None] | None:
        source, loaded, now = self._source, self._loaded, self._clock.seconds()
        if source is None or loaded is None:
            return None
        if now - self._told_at >= DAY_S:
            self._tell([one for one in self._shown() if one.expires_at - self._now() < SOON_S])
        is_old = now - self._loaded_at >= TICKETS_S
        looking = self._in_thread(partial(_look_again, source, loaded, is_old=is_old))
        return looking.addCallbacks(partial(self._found, loaded), self._failed)

    def _found(self, before: Loaded, found: Loaded | _Trouble | None) -> None:
        if before is not self._loaded or not self._call.running:
            return  # the configuration has been read meanwhile, or it is over
        if isinstance(found, _Trouble):
            if found != self._told:
                self.log.error(
                    "certificates have changed but cannot be used: {text}", text=found.text
                )
            self._told = found
            return
        self._told = None
        if found is not None:
            self._change_to(found)
            if found.marks != before.marks:
                self._tell(self._shown())

    def _failed(self, failure: Failure) -> None:
        self.log.failure("bug in the look at certificates", failure=failure)

    def _change_to(self, loaded: Loaded | None) -> None:
        self._loaded, self._loaded_at, self._told = loaded, self._clock.seconds(), None
        self._put(loaded.contexts if loaded is not None else None)

    def _tell(self, certificates: Iterable[ShownCertificate]) -> None:
        """Say how long they are good for, and loudly where that is not long."""
        self._told_at, now = self._clock.seconds(), self._now()
        for one in certificates:
            expires_on = datetime.fromtimestamp(one.expires_at, UTC).date().isoformat()
            if one.expires_at <= now:
                write, said = self.log.error, "has expired on"
            elif one.expires_at - now < SOON_S:
                write, said = self.log.warn, "is not renewed and expires on"
            else:
                write, said = self.log.info, "is good until"
            write(
                "TLS certificate of {name} ({kind}, {path}) {said} {expires_on}",
                name=one.name,
                kind=f"self-signed, {one.algorithm}" if one.is_self_signed else one.algorithm,
                path=str(one.pair.certificate),
                said=said,
                expires_on=expires_on,
            )


def _look_again(source: Source, loaded: Loaded, *, is_old: bool) -> Loaded | _Trouble | None:
    """In a thread: what the files are now; None where there is nothing new.

    :param is_old: whether there have to be new contexts even so.
    """
    marks = _marks(loaded.files)
    if marks == loaded.marks and not is_old:
        return None
    try:
        return load(source)
    except (ValueError, OSError) as error:
        return _Trouble(marks, str(error))


def _marks(files: TlsFiles) -> Marks:
    found: list[tuple[int, int, int] | None] = []
    for path in files.paths:
        try:
            status = path.stat()  # of what a link leads to, as certbot has them
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)
