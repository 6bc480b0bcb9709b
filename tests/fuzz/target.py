"""What a fuzz target is, and what all of them use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import provider

CORPUS: Final = Path(__file__).parents[1] / "corpora" / "fuzz"
"""A folder a target: inputs that have broken a promise, by a name that says how."""


@attrs.frozen
class Target:
    """:ivar one_input: takes any octets; raises where a promise is broken, and for nothing else.
    :ivar seeds: good inputs, which runners change.
    :ivar words: octets that mean something.
    """

    name: str
    one_input: Callable[[bytes], None]
    seeds: Sequence[bytes]
    words: Sequence[bytes] = ()

    def findings(self) -> dict[str, bytes]:
        """The corpus of this target, by name."""
        return {path.name: path.read_bytes() for path in sorted((CORPUS / self.name).glob("*"))}


@contextmanager
def nothing_logged() -> Iterator[None]:
    """Within, a failure in the log is a failure of the target."""
    failures: list[str] = []

    @provider(ILogObserver)
    def note(event: LogEvent) -> None:
        if "log_failure" in event:
            failures.append(event["log_failure"].getTraceback())

    globalLogPublisher.addObserver(note)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(note)
    assert not failures, failures[0]


def chunks(octets: bytes, size: int) -> list[bytes]:
    return [octets[at : at + size] for at in range(0, len(octets), size)]


def has_bare_line_end(octets: bytes) -> bool:
    rest = octets.replace(b"\r\n", b"")
    return b"\r" in rest or b"\n" in rest
