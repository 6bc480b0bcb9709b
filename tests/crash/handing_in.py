"""Lives of a process that takes in messages with names, delivers them, and is killed.

    python -m tests.crash.handing_in FOLDER SEED ROUNDS

Each round has some new names, which are handed in in one life after the other, until a life is not
killed: that one acknowledges and delivers all.  ``FOLDER/log`` tells what happened, a JSON object a
line.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from protege_mta.model.address import Address
from protege_mta.model.batch import Batch, End
from protege_mta.model.envelope import Envelope, Message, Origin, Recipient
from protege_mta.model.ids import IdSource, QueueId
from protege_mta.model.reply import Reply
from protege_mta.observe.events import EventLines
from protege_mta.observe.metrics import Counts
from protege_mta.schedule.intake import Acceptance
from protege_mta.spool.disk import DiskSpool
from protege_mta.spool.settings import SpoolSettings
from protege_mta.state.database import Database
from protege_mta.state.requests import StoredRequests

NAMES: Final = 4
"""New ones in a round."""

LIVES: Final = 4
"""A round has so many that are killed."""

POINTS: Final = 40
"""A life is killed after so many points at most."""

SETTINGS: Final = SpoolSettings(segment_octets=65_536, big_octets=2000)
ENVELOPE: Final = Envelope(Address("a@a.test"), (Recipient(Address("b@b.test")),))
_T = TypeVar("_T")


class OneLife:
    """A process.

    :param points: it is killed at the one behind so many; None to let it live.
    """

    def __init__(self, folder: Path, names: list[str], points: int | None) -> None:
        from twisted.internet import reactor

        self.reactor = cast(Any, reactor)
        self.names = names
        self.points = points
        self.left = set(names)
        self.queued: set[QueueId] = set()
        self.log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        call = self.reactor.callFromThread
        self.database = Database(folder, in_reactor=call, monotonic=time.monotonic)
        self.spool = DiskSpool(
            folder / "spool", SETTINGS, now=time.time, in_reactor=call, in_thread=self.in_thread
        )
        self.requests = StoredRequests(
            self.database,
            clock=self.reactor,
            now=time.time,
            is_queued=self.queued.__contains__,
            kept_s=1e9,
        )
        self.acceptance = Acceptance(
            self.spool,
            EventLines(time.time, lambda line: None, Counts()),
            requests=self.requests,
            now=time.time,
            new_id=IdSource(time.time, os.urandom),
            first_s=lambda: 300.0,
            accepted=lambda message, status: self.accepted(message),
            took=lambda seconds: None,
        )
        self._watch(self.spool, "commit")
        self._watch(self.database, "write")
        self._watch(self.database, "write_now")

    def _watch(self, part: Any, name: str) -> None:
        """Points before and behind what it does, and where that is done."""
        real = getattr(part, name)

        def watched(*arguments: Any) -> Any:
            self.point()
            result = real(*arguments)
            self.point()
            if isinstance(result, Deferred):
                result.addCallback(self._passed)
            return result

        setattr(part, name, watched)

    def _passed(self, result: _T) -> _T:
        self.point()
        return result

    def point(self) -> None:
        """Here may be the end."""
        if self.points is not None:
            self.points -= 1
            if self.points < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def in_thread(self, work: Callable[[], _T]) -> Deferred[_T]:
        return deferToThreadPool(self.reactor, self.reactor.getThreadPool(), work)

    def tell(self, what: str, name: str, id: str) -> None:
        line = json.dumps({"what": what, "name": name, "id": id}) + "\n"
        os.write(self.log, line.encode())
        self.point()

    def run(self) -> None:
        self.spool.acquire()
        self.database.open()
        for found in self.requests.restore(self.spool.recover()):
            self.accepted(found.message)
        for name in self.names:
            self.reactor.callWhenRunning(self.hand_in, name)
        self.reactor.run()

    def accepted(self, message: Message) -> None:
        self.queued.add(message.id)
        self.tell("scheduled", message.origin.request_id, message.id)
        self.reactor.callLater(0, self.deliver, message)

    def deliver(self, message: Message) -> None:
        self.tell("delivered", message.origin.request_id, message.id)
        ending = self.spool.commit(Batch((End(message.id, (0,), "delivered"),)))
        ending.addCallback(self.ended, message.id)

    def ended(self, _: object, id: QueueId) -> None:
        self.queued.discard(id)
        self.leave()

    def hand_in(self, name: str) -> None:
        origin = Origin("tunnel", "agent", request_id=name)
        begun = self.acceptance.begin(ENVELOPE, origin, lambda id, at: b"X: y\r\n")
        self.point()
        if isinstance(begun, Reply):
            self.answered(begun, name)
            return
        begun.write(b"x" * (3000 if name.endswith("0") else 30))
        begun.finish().addCallback(self.answered, name)

    def answered(self, reply: Reply, name: str) -> None:
        self.point()
        if reply.code != 250:
            self.reactor.callLater(0.01, self.hand_in, name)
            return
        self.tell("acknowledged", name, reply.lines[0].rpartition(" ")[2])
        self.left.discard(name)
        self.leave()

    def leave(self) -> None:
        if not self.left and not self.queued:
            closing = self.spool.close().addCallback(lambda _: self.database.close())
            closing.addCallback(lambda _: self.reactor.stop())


def live(folder: Path, names: list[str], points: int | None, seconds: float | None) -> int:
    """One life in a child.  :param seconds: it is killed after these.  :return: how it ended."""
    pid = os.fork()
    if not pid:
        try:
            OneLife(folder, names, points).run()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def main(folder: Path, seed: int, rounds: int) -> int:
    rng = random.Random(seed)
    names: list[str] = []
    for number in range(rounds):
        names = [*names[-NAMES:], *(f"{number}-{n}" for n in range(NAMES))]
        for _ in range(LIVES):
            if rng.random() < 0.7:
                ended = live(folder, names, rng.randrange(POINTS), None)
            else:
                ended = live(folder, names, None, rng.uniform(0.0, 0.08))
            if ended not in (0, signal.SIGKILL):
                return 1
        if live(folder, names, None, None):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
