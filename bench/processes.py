"""What processes cost, read from ``/proc``: CPU time and memory of whole trees."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

import attrs

from .figures import status_octets

TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


@attrs.frozen
class Memory:
    """Of a set of processes, in octets.

    :ivar rss: resident, pages that processes share counted for each.
    :ivar pss: shared pages counted once (proportional set size).
    """

    rss: int
    pss: int


def tree(roots: Iterable[int]) -> list[int]:
    """The processes and all that descend from them, as far as they are alive."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], list(roots)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def cpu_s(roots: Iterable[int]) -> float:
    """CPU seconds of the trees, their ended and reaped children included."""
    ticks = 0
    for pid in tree(roots):
        fields = _stat(pid)
        if fields:
            ticks += sum(map(int, fields[11:15]))
    return ticks / TICKS_A_SECOND


def own_cpu_s(pid: int) -> float:
    """CPU seconds of one process, those of its ended threads included; 0 for one that is gone."""
    fields = _stat(pid)
    return sum(map(int, fields[11:13])) / TICKS_A_SECOND if fields else 0.0


def memory(roots: Iterable[int]) -> Memory:
    """Of the trees, now."""
    rss = pss = 0
    for pid in tree(roots):
        text = _text(pid, "smaps_rollup")
        rss += status_octets(text, "Rss")
        pss += status_octets(text, "Pss")
    return Memory(rss, pss)


class Peak:
    """The greatest memory of trees while this is entered, looked at several times a second."""

    def __init__(self, roots: Iterable[int], every_s: float = 0.2) -> None:
        self._roots = list(roots)
        self._every_s = every_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.memory = Memory(0, 0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            now = memory(self._roots)
            self.memory = Memory(max(now.rss, self.memory.rss), max(now.pss, self.memory.pss))
            if self._is_over.wait(self._every_s):
                return


def _text(pid: int, name: str) -> str:
    """Of a file of a process; empty for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""


def _stat(pid: int) -> list[str]:
    """The fields behind the name, starting with the state; empty for a process that is gone."""
    text = _text(pid, "stat")
    return text[text.rindex(")") + 2 :].split() if text else []
