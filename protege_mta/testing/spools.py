"""Spools without threads, for tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
from twisted.internet import defer
from twisted.internet.defer import Deferred

from ..model.ports import InThread
from ..spool.disk import DiskSpool, direct
from ..spool.files import Files
from ..spool.line import LineMaker
from ..spool.settings import SpoolSettings
from .contracts import Lines

FOLDER: Final = Path("/spool")


def at_once(work: Callable[[], Any], /) -> Deferred[Any]:
    """``in_thread`` without a thread."""
    return defer.execute(work)


def call(function: Callable[..., object], *arguments: object) -> None:
    """``in_reactor`` without a reactor."""
    function(*arguments)


_count = itertools.count(1)


def counted(wanted: int) -> bytes:
    """A source of octets that never repeat."""
    return next(_count).to_bytes(wanted, "big")


def disk_spool(
    files: Files,
    journal: Lines | None = None,
    folder: Path = FOLDER,
    now: Callable[[], float] = lambda: 1000.0,
    line: LineMaker = direct,
    in_thread: InThread = at_once,
    kind: type[DiskSpool] = DiskSpool,
    **settings: int,
) -> DiskSpool:
    """A spool without threads, whose segments are small."""
    return kind(
        folder,
        attrs.evolve(SpoolSettings(segment_octets=16384), **settings),
        now=now,
        in_reactor=call,
        in_thread=in_thread,
        journal=journal,
        files=files,
        line=line,
        random_octets=counted,
    )
