"""Short lives of a spool, in which a crash may come anywhere."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from protege_mta.spool.disk import DiskSpool
from protege_mta.testing.crashfs import CrashFiles

from .recording import Found, Recording, sealed

Life = Callable[[Recording], None]
"""What a spool goes through."""


def one_message(run: Recording) -> None:
    """Taken in, deferred, delivered."""
    one = run.append(100)
    run.update(one)
    run.end(one)


def several_messages(run: Recording) -> None:
    """Recipients with different fates, and a bounce that takes its parent's place."""
    one, two = run.append(300, 3), run.append(50, 2)
    run.update(one, (1,))
    run.end(one, recipients=(0,))
    bounce = run.append(80, ends=[two])
    run.end(one, recipients=(1, 2))
    run.end(bounce)


def long_events(run: Recording) -> None:
    """Events that a commit record's own sector does not hold."""
    one = run.append(100, event_octets=1500)
    run.append(30, ends=[one], event_octets=700)


def groups(run: Recording) -> None:
    """Many batches in one sync, each all or nothing, and none acknowledged before it."""
    run.held.is_holding = True
    ids = [run.append(120 * number) for number in range(1, 6)]
    run.held.release()
    run.held.is_holding = True
    run.update(ids[0])
    run.end(ids[1], ids[2])
    run.append(700, 2, ends=ids[3:4])
    run.end(ids[4], is_lazy=True)
    run.end(ids[0])
    run.held.release()


def lazy_ends(run: Recording) -> None:
    """Ends that wait for another's sync, or for 50 ms."""
    one, two, three = run.append(100), run.append(100), run.append(100, 2)
    run.end(one, is_lazy=True)
    run.end(three, recipients=(0,), is_lazy=True)
    run.update(three, (1,))
    run.end(two, is_lazy=True)
    run.idle()
    run.end(three, is_lazy=True)


def segment_switch(run: Recording) -> None:
    """One segment after another is filled."""
    ids = [run.append(800) for _ in range(4)]
    run.update(ids[0])
    ids.append(run.append(800))
    run.append(800, ends=ids[1:2])
    run.end(ids[0], ids[4])
    run.append(300)


def bigger_than_a_segment(run: Recording) -> None:
    """A batch for which no ordinary segment is big enough."""
    one = run.append(200)
    ids = run.append_all(850, 850, 850, 850, 850)
    run.end(one, ids[0])
    run.append(60)


def big_files(run: Recording) -> None:
    """Content with a file of its own, which is written while the log goes on."""
    one = run.append(100)
    run.held.is_holding = True
    first, second = run.spool.receive(), run.spool.receive()
    first.write(b"1" * 1000)
    second.write(b"2" * 1000)
    run.held.work(1)
    run.update(one)
    first.write(b"1" * 500)
    arrived = first.sealed()
    run.held.turn()
    run.held.work(2)
    second.discard()
    run.held.release()
    big = run.append(b"1" * 1500, arrived=sealed(arrived))
    run.end(one)
    run.end(big, is_lazy=True)
    run.end(run.append(950))


def close_and_reopen(run: Recording) -> None:
    """Stopped and started again, with something lazy in line."""
    one, two = run.append(100), run.append(1000)
    run.end(one, is_lazy=True)
    run.restart()
    run.end(two)
    run.append(100)
    run.close()


def idle(run: Recording) -> None:
    """Nothing happens; the very first start, and another one."""
    run.restart()
    run.close()


def reclaiming(run: Recording) -> None:
    """The few that live are carried out of segments, which then go."""
    live = list(run.states[0])
    run.sync_journal()
    run.end(*(id for at, id in enumerate(live) if at % 6), recipients=(0,))
    run.update(live[0])
    run.sync_journal()
    run.end(live[6], is_lazy=True)
    run.append(30)
    run.end(live[0])


def taking_turns(run: Recording) -> None:
    """What is carried out of a segment changes just before, and ends just behind its copy."""
    live = list(run.states[0])
    run.sync_journal()
    run.held.is_holding = True
    run.end(*(id for at, id in enumerate(live) if at % 6), recipients=(0,))
    while run.spool.stats().segments > 9:
        run.held.turn(1)
    run.update(live[0])
    run.held.turn(2)
    run.end(live[0], is_lazy=True)
    run.held.release()
    run.append(30)
    run.sync_journal()
    run.append(30)


def emptied(run: Recording) -> None:
    """Everything ends, nothing comes back: not from a segment that is gone later than what says so
    of some in it."""
    live = list(run.states[0])
    run.sync_journal()
    run.end(*live[:18], live[30])
    run.sync_journal()
    run.end(*live[18:30], *live[31:])
    run.sync_journal()
    run.append(30)
    run.sync_journal()
    run.append(30)


def recycled(run: Recording) -> None:
    """Segments are written once more, over the records of those who are dead."""
    live = list(run.states[0])
    run.sync_journal()
    run.end(*live[:8])
    run.sync_journal()
    one = run.append_all(800, 800, 800)[0]
    run.append_all(800, 800)
    run.append(100)
    run.held.is_holding = True
    run.append_all(500, 30, 500)
    run.held.turn()
    run.end(one)
    run.held.turn()
    run.held.release()
    run.append(300)


def after_a_crash(run: Recording) -> None:
    """Ordinary work on what a crash has left."""
    live = list(run.states[0])
    one = run.append(100)
    for id in live[:1]:
        run.update(id)
        run.end(id)
    run.end(one, is_lazy=True)
    run.append(1000)


def at_random(run: Recording) -> None:
    """Sixty batches of all sorts; the oldest messages stay for long, as deferred ones do."""
    rng = random.Random(run.seed)
    for _ in range(60):
        live = list(run.states[-1])
        chance = rng.random()
        if chance < 0.35 or not live:
            ends = live[:1] if rng.random() < 0.2 else []
            run.append(rng.choice((30, 200, 600, 1500)), rng.choice((1, 1, 3)), ends=ends)
        elif chance < 0.6:
            id = rng.choice(live)
            run.update(id, (rng.randrange(len(run.states[-1][id])),))
        else:
            recipients = (0, 1, 2) if rng.random() < 0.7 else (rng.randrange(3),)
            run.end(rng.choice(live[3:] or live), recipients=recipients, is_lazy=rng.random() < 0.5)
        chance = rng.random()
        if chance < 0.2:
            run.sync_journal()
        elif chance < 0.25:
            run.restart()
        elif chance < 0.4:
            run.held.is_holding = True
        elif chance < 0.7:
            run.held.release()
    run.close()


NEW: Final[Sequence[Life]] = (
    one_message,
    several_messages,
    long_events,
    groups,
    lazy_ends,
    segment_switch,
    bigger_than_a_segment,
    big_files,
    close_and_reopen,
    idle,
)
"""Lives of a spool from the very first start on."""

OLD: Final[Sequence[Life]] = (reclaiming, emptied, recycled, taking_turns)
"""Lives of a spool that has many segments already."""


@attrs.frozen
class Workshop:
    """Makes spools: sound ones, or such as a test has to find out."""

    disk: type[CrashFiles] = CrashFiles
    spool: type[DiskSpool] = DiskSpool
    has_ring: bool = False

    def live(self, life: Life, seed: int = 1) -> Recording:
        """A run: that life on a new spool, or on an old one if it needs that."""
        run = self.ready(life, seed)
        life(run)
        return run

    def ready(self, life: Life, seed: int = 1) -> Recording:
        """The spool that a life begins with."""
        if life in OLD:
            return self._old()
        return Recording(self.disk(), self.spool, self.has_ring, seed=seed)

    def _old(self) -> Recording:
        before = Recording(self.disk(), self.spool, self.has_ring)
        for _ in range(48):
            before.append(350)
        before.sync_journal()
        before.close()
        found = Found(before.states[-1], {}, [])
        return before.after(found, self.disk(before.disk.tree()), before.journal.cursor)
