"""What a process holds, looked at every few seconds, and whether it comes to more over time."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import attrs

from bench.processes import tree

TOLERANCE: Final = 0.05
QUANTUM: Final = {"descriptors": 2.0, "threads": 1.0}
"""What one connection more or less at the moment of a look makes of such small figures."""


@attrs.frozen
class Sample:
    """One look at a service, its delivery process included.

    :ivar at_s: since the start of the run.
    :ivar rss_octets: resident memory; :ivar pss_octets: with shared pages divided by their users.
    :ivar queued: messages in the queue.
    :ivar disk_octets: of the spool.
    """

    at_s: float
    rss_octets: float
    pss_octets: float
    descriptors: float
    threads: float
    queued: float
    disk_octets: float


FIGURES: Final = tuple(field.name for field in attrs.fields(Sample) if field.name != "at_s")
JUDGED: Final = ("rss_octets", "pss_octets", "descriptors", "threads")


def look(pid: int, control: Path, at_s: float) -> Sample | None:
    """None where the process is gone, or not up."""
    try:
        status = _status(control)
        folders = [Path(f"/proc/{one}") for one in tree([pid])]
        memory = [_fields((folder / "smaps_rollup").read_text()) for folder in folders]
        return Sample(
            at_s,
            sum(one["Rss"] for one in memory) * 1024.0,
            sum(one["Pss"] for one in memory) * 1024.0,
            sum(len(list((folder / "fd").iterdir())) for folder in folders),
            sum(_fields((folder / "status").read_text())["Threads"] for folder in folders),
            status["queue"]["messages"],
            status["spool"]["disk_octets"],
        )
    except (OSError, KeyError, ValueError):
        return None


def _fields(text: str) -> dict[str, int]:
    """``Name:   1234 kB`` of each line that has a number."""
    words = [line.split() for line in text.splitlines()]
    return {
        line[0].removesuffix(":"): int(line[1])
        for line in words
        if len(line) > 1 and line[1].isdigit()
    }


def _status(control: Path) -> Any:
    """The service's own answer, without the price of a command's start."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(10)
        channel.connect(str(control))
        channel.sendall(b'{"command":"status","arguments":{}}\n')
        said = b""
        while not said.count(b"\n"):
            got = channel.recv(65536)
            if not got:
                raise ValueError("the service hung up")
            said += got
    return json.loads(said.splitlines()[0])["row"]


@attrs.frozen
class Change:
    """One figure's medians in the second and in the last quarter of a run."""

    figure: str
    second: float
    last: float

    @property
    def share(self) -> float:
        return (self.last - self.second) / self.second if self.second else 0.0

    @property
    def is_steady(self) -> bool:
        """Within 5 %, or by no more than one look's chance."""
        return abs(self.share) <= TOLERANCE or (
            abs(self.last - self.second) <= QUANTUM.get(self.figure, 0.0)
        )


def changes(samples: Sequence[Sample], length_s: float) -> list[Change]:
    """Of every figure, whether it is judged or only shown; none where a quarter has no sample."""
    second = [one for one in samples if length_s / 4 <= one.at_s < length_s / 2]
    last = [one for one in samples if length_s * 3 / 4 <= one.at_s]
    if not second or not last:
        return []
    return [
        Change(
            name,
            median(getattr(one, name) for one in second),
            median(getattr(one, name) for one in last),
        )
        for name in FIGURES
    ]
