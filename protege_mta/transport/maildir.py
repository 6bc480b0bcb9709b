"""Final delivery into Maildirs: written under ``tmp``, synced, renamed into ``new``.

A file's name derives from the message's id and the recipient, so that a delivery made again after a
crash overwrites itself.  Where a reader has moved the first one on to ``cur`` by then, there is
nothing to do; only messages from before our start, and those whose delivery ended in doubt, are
looked for there.

Lines end in LF, as Maildir readers expect on UNIX.  The message is stored as it came, with
Return-Path and Delivered-To put first (RFC 5321, 4.4; RFC 9228).  What goes wrong here is never the
sender's fault, so it is tried again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..message.headers import header_end
from ..message.loop import is_delivered_before
from ..message.trace import delivered_to, return_path
from ..model.address import Address, local_part_of
from ..model.envelope import Message
from ..model.outcome import (
    Contact,
    Delivered,
    Outcome,
    PermanentFailure,
    Scope,
    TransientFailure,
)
from ..model.ports import Attempt, Content
from ..model.reply import TABLE

NAME_OCTETS: Final = 200
_CHUNK_OCTETS: Final = 256 * 1024
_HEADER_OCTETS: Final = 256 * 1024  # as much of a header as is searched for a loop

_ENCODED: Final = re.compile(rb"^\.|[^a-z0-9_+.-]")

Outcomes = Sequence[tuple[int, Outcome]]
InThread = Callable[[Callable[[], Outcomes]], "Deferred[Outcomes]"]


def folder_name(text: str) -> str:
    """A local-part or domain as one path component, never ``.``, ``..``, empty or hidden.

    Different texts in lower case have different names: octets outside ``a-z0-9_+-.`` and a leading
    dot are percent-encoded, and what is over 200 octets then is a SHA-256 behind ``%sha256-``,
    which no encoding begins with.
    """
    octets = text.lower().encode("utf-8", "surrogatepass")
    name = _ENCODED.sub(lambda match: b"%%%02X" % match[0][0], octets).decode("ascii")
    if len(name) > NAME_OCTETS:
        return "%sha256-" + hashlib.sha256(octets).hexdigest()
    return name or "%"


def resolver(
    templates: Mapping[str, str], mailboxes: Mapping[tuple[str, str], str] | None = None
) -> Callable[[str, str], Path]:
    """Where a mailbox is, given its domain and local-part.

    :param templates: absolute paths by lower-case domain, with ``{domain}`` and ``{local_part}``.
    :param mailboxes: paths of those that are elsewhere, by domain and local-part in lower case.
    """

    def resolve(domain: str, local_part: str) -> Path:
        elsewhere = (mailboxes or {}).get((domain.lower(), local_part.lower()))
        if elsewhere is not None:
            return Path(elsewhere)
        path = templates[domain.lower()]
        path = path.replace("{domain}", folder_name(domain))
        return Path(path.replace("{local_part}", folder_name(local_part)))

    return resolve


class MaildirTransport:
    """:class:`~..model.ports.Transport` for sites of the kind ``maildir``.

    :param resolve: the Maildir of a domain and local-part; made on demand.
    :param in_thread: runs what blocks; deliveries may run side by side.
    :param hostname: ours, a part of the files' names.
    :param started_at: when this process began, POSIX seconds: older messages may have been
        delivered by the one before.
    """

    log = Logger()

    def __init__(
        self,
        resolve: Callable[[str, str], Path],
        *,
        in_thread: InThread,
        hostname: str,
        started_at: float,
    ) -> None:
        self._resolve = resolve
        self._in_thread = in_thread
        self._hostname = hostname.replace("/", "\\057").replace(":", "\\072")
        self._started_at = started_at
        self._in_doubt: set[str] = set()  # renamed, but not known to be durable
        self._at_work = 0
        self._closing: Deferred[None] | None = None

    def deliver(self, attempt: Attempt) -> Deferred[Outcomes]:
        """Deliver to each recipient's Maildir, one after the other, in a thread."""
        self._at_work += 1

        def failed(failure: Failure) -> Outcomes:
            self.log.failure(
                "delivery of {id} failed", failure=failure, id=attempt.content.message.id
            )
            outcome = TransientFailure(Scope.RECIPIENT, TABLE["local-error"])
            return [(recipient, outcome) for recipient in attempt.recipients]

        def ended(outcomes: Outcomes) -> Outcomes:
            self._at_work -= 1
            if self._closing is not None and not self._at_work:
                self._closing.callback(None)
            return outcomes

        return self._in_thread(lambda: self._deliver(attempt)).addErrback(failed).addCallback(ended)

    def close(self) -> Deferred[None]:
        """Resolves once what is at work has ended; no :meth:`deliver` after it."""
        if not self._at_work:
            return succeed(None)
        self._closing = Deferred()
        return self._closing

    def _deliver(self, attempt: Attempt) -> Outcomes:
        content = attempt.content
        envelope = content.message.envelope
        start = content.read(0, _HEADER_OCTETS)
        header = start[: header_end(start)]
        outcomes: list[tuple[int, Outcome]] = []
        for recipient in attempt.recipients:
            address = envelope.recipients[recipient].address
            folder = self._resolve(attempt.domain, local_part_of(address))
            contact = Contact(str(folder))
            outcome: Outcome
            if is_delivered_before(header, address):
                outcome = PermanentFailure(Scope.RECIPIENT, TABLE["delivery-loop"], contact)
            else:
                try:
                    self._store(folder, content, recipient, address)
                    outcome = Delivered(contact, TABLE["delivered"], is_final=True)
                except OSError as error:
                    self.log.warn(
                        "cannot deliver {id} to {folder}: {error}",
                        id=content.message.id,
                        folder=contact.host,
                        error=error,
                    )
                    outcome = _failure(error, contact)
            outcomes.append((recipient, outcome))
        return outcomes

    def _store(self, folder: Path, content: Content, recipient: int, address: Address) -> None:
        message = content.message
        name = self._name(message, recipient)
        is_doubtful = name in self._in_doubt
        if (message.arrived_at < self._started_at or is_doubtful) and _was_read(folder, name):
            self._in_doubt.discard(name)
            return
        _make(folder)
        temporary = folder / "tmp" / name
        try:
            fd = os.open(
                temporary,
                os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
            )
            with open(fd, "wb", buffering=0) as file:
                fields = return_path(message.envelope.sender) + delivered_to(address)
                _write(fd, fields.replace(b"\r\n", b"\n"))
                for octets in _pieces(content):
                    _write(fd, octets)
                os.fdatasync(file.fileno())
            self._in_doubt.add(name)
            os.rename(temporary, folder / "new" / name)
        except OSError:
            _remove(temporary)
            raise
        _sync_folder(folder / "new")
        self._in_doubt.discard(name)

    def _name(self, message: Message, recipient: int) -> str:
        return f"{int(message.arrived_at)}.{message.id}R{recipient}.{self._hostname}"


def _failure(error: OSError, contact: Contact) -> TransientFailure:
    if error.errno == errno.EDQUOT:
        return TransientFailure(Scope.RECIPIENT, TABLE["mailbox-full"], contact)
    if error.errno == errno.ENOSPC:
        return TransientFailure(Scope.SITE, TABLE["spool-full"], contact)
    return TransientFailure(Scope.RECIPIENT, TABLE["local-error"], contact)


def _was_read(folder: Path, name: str) -> bool:
    """Whether a reader has taken the file from ``new``: it adds a suffix of flags."""
    try:
        with os.scandir(folder / "cur") as entries:
            return any(entry.name.partition(":")[0] == name for entry in entries)
    except FileNotFoundError:
        return False


def _make(folder: Path) -> None:
    """Make a Maildir and what lies above it, durably, for us alone."""
    for inner in ("tmp", "cur", "new"):
        path = folder / inner
        if not path.is_dir():
            _make_folder(path)


def _make_folder(path: Path) -> None:
    if not path.parent.is_dir():
        _make_folder(path.parent)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        # Another delivery was quicker; a file of that name shows when it is written to.
        return
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _pieces(content: Content) -> Iterator[bytes]:
    """The content with LF for CRLF, a piece at a time."""
    offset, held = 0, b""
    while offset < content.size_octets:
        octets = content.read(offset, _CHUNK_OCTETS)
        if not octets:
            raise OSError(errno.EIO, "content ends early")
        offset += len(octets)
        octets = held + octets
        held = b"\r" if octets.endswith(b"\r") else b""
        yield octets[: len(octets) - len(held)].replace(b"\r\n", b"\n")
    yield held


def _write(fd: int, octets: bytes) -> None:
    view = memoryview(octets)
    while view:
        view = view[os.write(fd, view) :]


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        MaildirTransport.log.warn("cannot remove {path}: {error}", path=str(path), error=error)
