"""The scheduler against a random world: what must hold whatever fails, and whoever meddles."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.hop import NextHop
from protege_mta.model.ids import QueueId
from protege_mta.model.outcome import PermanentFailure, Scope, TransientFailure
from protege_mta.model.reply import Reply
from protege_mta.schedule.backoff import Backoff
from protege_mta.schedule.entry import Entry, Health, Report
from protege_mta.schedule.settings import SchedulerSettings
from protege_mta.schedule.window import WindowSettings
from protege_mta.testing.workers import Workshop, site

LONG_S = 100_000.0
"""An age that no test comes to the end of: such mail has to be delivered when all is well again."""

DOMAINS = st.sampled_from(["a.test", "b.test", "c.test"])
LOCATIONS = st.sampled_from(
    [
        site("mx1.test"),
        site("mx2.test"),
        TransientFailure(Scope.SITE, Reply(451, "4.4.3", ("name server failed",))),
        PermanentFailure(Scope.SITE, Reply(550, "5.1.2", ("no such domain",))),
        TransientFailure(Scope.ABSENT, Reply(451, "4.4.1", ("nobody is there",))),
    ]
)
HEALTH = st.sampled_from(
    [
        Health.GOOD,
        Health.GOOD,
        Health.HOST_TROUBLE,
        Health.DEAD,
        Health.ABSENT,
        Health.UNKNOWN,
    ]
)
SECONDS = st.floats(0.0, 200.0)
SOON = st.floats(-10.0, 300.0)


class Shop(Workshop):
    """A workshop that checks each start as it happens.

    :ivar releases: when what its sender has put off may be started; without what a person wants
        now.
    """

    releases: dict[Entry, float]

    @property
    def put_off(self) -> set[Entry]:
        now = self.clock.seconds()
        return {entry for entry, at in self.releases.items() if at > now}

    def _start(self, entry: Entry, at: object) -> None:
        assert entry not in self.at_work, "started twice at once"
        assert entry.state == "active"
        assert entry.due_at <= self.clock.seconds(), "started before its time"
        assert entry not in self.put_off, "started before its release"
        super()._start(entry, at)  # type: ignore[arg-type]
        (summary,) = (one for one in self.scheduler.sites() if one.key == self.at_work[entry])
        assert summary.active <= summary.window, "more than the window allows"
        assert not summary.paused_until, "started while its site backs off"
        assert len(self.at_work) <= self.settings.concurrency, "more than all sites together may"


class SchedulerMachine(RuleBasedStateMachine):
    """Sites fail and recover, people hold, release, retry and remove, time passes."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.shop = Shop(
            SchedulerSettings(
                concurrency=4,
                windows={"mx": WindowSettings(2, 4)},
                backoff=Backoff(first_s=20.0, max_interval_s=200.0, jitter=0.2),
            )
        )
        self.shop.releases = {}
        self.scheduler = self.shop.scheduler
        self.entries: list[Entry] = []
        self.removed: set[Entry] = set()
        self.done: set[Entry] = set()
        self.held: set[Entry] = set()
        self.count = 0

    # --- what happens ---

    @rule(
        target=ids,
        domains=st.lists(DOMAINS, min_size=1, max_size=3, unique=True),
        due_in_s=SOON,
        age_s=st.floats(301.0, 900.0) | st.just(LONG_S),
        tenant=st.sampled_from(["", "t"]),
        is_urgent=st.booleans(),
        is_recovered=st.booleans(),
        is_put_off=st.booleans(),
    )
    def add(
        self,
        domains: list[str],
        due_in_s: float,
        age_s: float,
        tenant: str,
        is_urgent: bool,
        is_recovered: bool,
        is_put_off: bool,
    ) -> QueueId:
        self.count += 1
        for domain in domains:
            entry = self.shop.entry(
                f"m{self.count}",
                domain,
                due_in_s=due_in_s,
                expires_in_s=age_s,
                warn_in_s=age_s / 2,
                tenant=tenant,
                is_urgent=is_urgent,
            )
            self.entries.append(entry)
            if is_put_off and due_in_s > 0:
                entry.arrived_at = entry.due_at
                self.shop.releases[entry] = entry.due_at
            if is_recovered:
                self.scheduler.add_recovered(entry)
            else:
                self.scheduler.add(entry)
        return QueueId(f"m{self.count}")

    @rule(domain=DOMAINS, location=LOCATIONS)
    def relocate(self, domain: str, location: object) -> None:
        self.shop.locations[domain] = location  # type: ignore[assignment]

    @rule(domain=DOMAINS)
    def change(self, domain: str) -> None:
        """Whoever is behind it has come or gone."""
        self.scheduler.changed(NextHop("mx", domain))

    @precondition(lambda self: self.shop.at_work)
    @rule(which=st.integers(0, 5), health=HEALTH, remains=st.booleans(), due_in_s=SOON)
    def report(self, which: int, health: Health, remains: bool, due_in_s: float) -> None:
        entry = list(self.shop.at_work)[which % len(self.shop.at_work)]
        del self.shop.at_work[entry]
        self._finish(entry, health, remains, due_in_s)

    @precondition(lambda self: self.shop.unlocated)
    @rule(remains=st.booleans(), due_in_s=SOON)
    def record_unlocated(self, remains: bool, due_in_s: float) -> None:
        entry, _ = self.shop.unlocated.pop(0)
        self._finish(entry, Health.UNKNOWN, remains, due_in_s)

    def _finish(self, entry: Entry, health: Health, remains: bool, due_in_s: float) -> None:
        order = self.scheduler.order(entry)
        if not remains or order == "remove":
            self.done.add(entry)
        elif order == "hold":
            self.held.add(entry)
        due_at = min(self.shop.clock.seconds() + due_in_s, entry.expires_at)
        recipients = (0,) if remains else ()
        self.scheduler.finished(entry, Report(health, recipients, entry.attempts + 1, due_at, "?"))

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.shop.clock.advance(seconds)

    @rule(id=ids)
    def hold(self, id: QueueId) -> None:
        self.held.update(self.scheduler.hold(id))

    @rule(id=ids)
    def release(self, id: QueueId) -> None:
        # The set is told first: released entries may be started before the call returns.
        self.held.difference_update(self.scheduler.entries(id))
        self.scheduler.release(id)

    @rule(id=ids)
    def retry(self, id: QueueId) -> None:
        for entry in self.scheduler.entries(id):
            self.shop.releases.pop(entry, None)
        self.scheduler.retry(id)

    @rule(id=ids)
    def retry_released(self, id: QueueId) -> None:
        self.scheduler.retry_released(id)

    @rule(id=ids)
    def remove(self, id: QueueId) -> None:
        self.removed.update(self.scheduler.remove(id))

    # --- what must hold ---

    @invariant()
    def nothing_is_lost(self) -> None:
        """An entry is known until it is done, removed or expired, and is in one place."""
        expired = {name for _, name in self.shop.expired}
        in_hand = {*self.shop.at_work, *(entry for entry, _ in self.shop.unlocated)}
        for entry in self.entries:
            known = self.scheduler.entries(entry.id)
            if entry.state == "gone":
                assert entry not in known
                assert entry in self.done or entry in self.removed or entry.id in expired
            else:
                assert known.count(entry) == 1
                assert (entry.state == "active") == (entry in in_hand)
                assert entry not in self.done | self.removed
                # Whoever is not in somebody's hands will be woken by the wheel.
                assert entry.state == "active" or entry.bucket is not None

    @invariant()
    def held_is_held(self) -> None:
        for entry in self.held:
            assert entry.state in ("held", "gone")

    @invariant()
    def nobody_outlives_his_age(self) -> None:
        now = self.shop.clock.seconds()
        for entry in self.entries:
            if entry.state not in ("gone", "active"):
                assert now < entry.expires_at + 4.25
                assert not 0.0 < entry.warn_at < now - 4.25

    @invariant()
    def figures_agree(self) -> None:
        depth = self.scheduler.depth()
        states = [entry.state for entry in self.entries]
        assert depth.scheduled == states.count("scheduled")
        assert depth.deferred == states.count("deferred")
        assert depth.active == states.count("active")
        assert depth.held == states.count("held")

    @invariant()
    def one_timer(self) -> None:
        assert len(self.shop.clock.getDelayedCalls()) <= 1

    def teardown(self) -> None:
        """The world recovers: all that is not held is delivered or expires, nothing hangs."""
        for domain in ("a.test", "b.test", "c.test"):
            self.shop.locations[domain] = site("mx1.test")
        for _ in range(400):
            for entry in list(self.shop.at_work):
                del self.shop.at_work[entry]
                self._finish(entry, Health.GOOD, False, 0.0)
            while self.shop.unlocated:
                self.record_unlocated(True, 10.0)
            self.shop.clock.advance(5.0)
        assert {entry.state for entry in self.entries} <= {"gone", "held"}
        long = {
            entry for entry in self.entries if entry.expires_at - entry.arrived_at >= LONG_S - 300
        }
        assert long <= self.done | self.removed | self.held
        self.nothing_is_lost()
        stopped = self.scheduler.stop()
        assert stopped.called


class SchedulerMachineTests(SynchronousTestCase):
    """The promises of the class above."""

    def test_nothing_lost_started_twice_or_early(self) -> None:
        run_state_machine_as_test(
            SchedulerMachine,
            settings=settings(max_examples=120, stateful_step_count=40, deadline=None),
        )
