"""The queue while no service runs: its spool is opened here, under its lock."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Generator, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, execute
from twisted.python.failure import Failure

from .. import from_settings
from ..clerk import Clerk
from ..config.bounce_rules import classifier
from ..config.model import Settings
from ..event_feed import journal_of
from ..model.ports import SpoolLocked
from ..observe.events import EventLines
from ..observe.metrics import Counts
from ..schedule.bounces import Bounces
from ..schedule.desk import Desk
from ..schedule.ledger import Ledger
from ..spool.disk import DiskSpool, direct
from ..spool.lock import ForeignOwner, check_owner
from ..transport.control import ControlFault, Done
from ..tunnel.passports import Passports
from .faults import EXIT_CODES, Fault

_T = TypeVar("_T")


class OfflineDesk:
    """Commands on a spool that no service has open, in one thread and without a reactor."""

    is_running = False

    def __init__(self, spool: DiskSpool, events: EventLines, settings: Settings) -> None:
        bounces = Bounces(
            events,
            hostname=settings.hostname,
            now=time.time,
            first_s=lambda: 0.0,  # the service that starts next may try them at once
            reporter=partial(
                from_settings.reporter, settings, cache(partial(_passports, settings))
            ),
        )
        desk = Desk(spool, Ledger(spool, events, bounces), time.time, None)
        self._handlers = Clerk(
            desk, dict, _nothing_to_reload, _nobody_waits, told=_nobody_waits
        ).handlers()

    def request(
        self, command: str, **arguments: object
    ) -> Generator[dict[str, Any], None, dict[str, Any]]:
        """As a service would answer: rows, and a summary at the end.

        :raise Fault: it cannot be done.
        """
        answer = self._handlers[command]({k: v for k, v in arguments.items() if v is not None})
        summary: dict[str, Any] = {}
        try:
            while True:
                said = _result_of(anext(answer))
                if isinstance(said, Done):
                    summary = said.summary
                else:
                    yield said
        except StopAsyncIteration:
            return summary
        except ControlFault as fault:
            raise Fault(str(fault), EXIT_CODES[fault.kind]) from fault
        finally:
            _result_of(answer.aclose())


def _passports(settings: Settings) -> Passports:
    return from_settings.passport_files(settings).read() or Passports({})


@contextmanager
def offline_desk(settings: Settings) -> Iterator[OfflineDesk]:
    """Open the spool, with its lock, for commands while the service is down.

    :raise Fault: somebody else has it, or it belongs to another user.
    """
    folder = settings.state_dir / "spool"
    if not folder.is_dir():
        raise Fault(f"{folder}: there is no spool; has the service run yet?", os.EX_NOINPUT)
    journal = journal_of(settings, lambda: None)
    spool = DiskSpool(
        folder,
        from_settings.spool(settings),
        now=time.time,
        in_reactor=lambda call, *arguments: call(*arguments),
        in_thread=lambda work: execute(work),
        journal=journal,
        line=direct,
    )
    try:
        check_owner(folder)
        spool.acquire()
        journal.open()
    except SpoolLocked as error:
        raise Fault(f"the spool is in use: {error}", os.EX_TEMPFAIL) from error
    except (ForeignOwner, OSError) as error:
        raise Fault(str(error), os.EX_NOPERM) from error
    try:
        for _ in spool.recover():
            pass
        journal.recover(spool.recover_events(journal.synced()))
        events = EventLines(time.time, journal.append, Counts())
        events.classify = lambda reply: classifier(settings.bounces.rules)(reply)
        yield OfflineDesk(spool, events, settings)
    finally:
        _result_of(spool.close())
        journal.close()


async def _nobody_waits() -> None:
    """There is nobody else to have a turn, and events are written before a command ends."""


async def _nothing_to_reload() -> None:
    raise ControlFault("unavailable", "the service is not running")


def _result_of(work: Awaitable[_T]) -> _T:
    """What something has come to that waits for nothing outside this thread."""

    async def run() -> _T:
        return await work

    results: list[_T | Failure] = []
    Deferred.fromCoroutine(run()).addBoth(results.append)
    if not results:
        raise RuntimeError("an offline command waits for something")
    result = results[0]
    if isinstance(result, Failure):
        result.raiseException()
    return result
