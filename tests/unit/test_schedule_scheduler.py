"""The scheduler on a virtual clock: who is started when, and who waits for what."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.hop import NextHop, Site
from protege_mta.model.ids import QueueId
from protege_mta.model.outcome import PermanentFailure, Scope, TransientFailure
from protege_mta.model.reply import Reply
from protege_mta.schedule.backoff import Backoff
from protege_mta.schedule.entry import DONE, Entry, Health, Report
from protege_mta.schedule.scheduler import Scheduler
from protege_mta.schedule.settings import SchedulerSettings
from protege_mta.schedule.sitequeue import Location
from protege_mta.schedule.standing import Depth, SiteSummary
from protege_mta.schedule.window import WindowSettings
from protege_mta.testing.workers import START, Workshop, site

SERVFAIL = TransientFailure(Scope.SITE, Reply(451, "4.4.3", ("name server failed",)))
NXDOMAIN = PermanentFailure(Scope.SITE, Reply(550, "5.1.2", ("no such domain",)))


def settings(
    initial: int = 5, maximum: int = 20, concurrency: int = 500, first_s: float = 30.0
) -> SchedulerSettings:
    """Without jitter, so that times are whole."""
    return SchedulerSettings(
        concurrency=concurrency,
        windows={"mx": WindowSettings(initial, maximum)},
        backoff=Backoff(first_s=first_s, jitter=0.0),
    )


def numbered(count: int, prefix: str = "m") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


class StartTests(SynchronousTestCase):
    """From due to started."""

    def test_due_mail_starts_at_once(self) -> None:
        """``add`` itself starts what is due, and asks for the site once."""
        shop = Workshop(settings())
        for name in ("one", "two", "three"):
            shop.add(name)
        self.assertEqual(shop.names(), ["one", "two", "three"])
        self.assertEqual(shop.looked_up, ["a.test"])
        self.assertEqual(set(shop.at_work.values()), {"a.test"})

    def test_a_time_to_come_is_waited_for(self) -> None:
        """Never before its time, and at most a quarter of a second after it."""
        shop = Workshop(settings())
        shop.scheduler.add(shop.entry("m", due_in_s=100.1))
        shop.clock.advance(100.0)
        self.assertEqual(shop.started, [])
        shop.clock.advance(0.25)
        self.assertEqual(shop.started, [(100.25, "m")])

    def test_long_waits_are_coarser(self) -> None:
        """A wait of hours ends at most four seconds late."""
        shop = Workshop(settings())
        shop.scheduler.add(shop.entry("m", due_in_s=14_401.0))
        shop.clock.advance(14_400.75)
        self.assertEqual(shop.started, [])
        shop.pass_s(4.25, 0.25)
        self.assertEqual(shop.names(), ["m"])

    def test_retried_when_it_says(self) -> None:
        """What remains after an attempt is tried again at the report's time, with its count."""
        shop = Workshop(settings())
        entry = shop.add("m")
        shop.end("m", Report(Health.GOOD, (3, 4), 1, START + 300.0))
        self.assertEqual((entry.state, entry.recipients), ("deferred", (3, 4)))
        shop.clock.advance(299.75)
        self.assertEqual(len(shop.started), 1)
        shop.clock.advance(0.25)
        self.assertEqual(shop.started, [(0.0, "m"), (300.0, "m")])

    def test_done_is_gone(self) -> None:
        shop = Workshop(settings())
        entry = shop.add("m")
        shop.end("m")
        self.assertEqual(entry.state, "gone")
        self.assertEqual(shop.scheduler.entries(QueueId("m")), ())
        with self.assertRaises(RuntimeError):
            shop.scheduler.finished(entry, DONE)

    def test_a_clock_set_forward_is_noticed(self) -> None:
        """The wall clock jumps an hour ahead of the timers: what is due starts within 30 s."""
        shop = Workshop(settings())
        ahead = [0.0]
        started = list[str]()
        scheduler = Scheduler(
            clock=shop.clock,
            now=lambda: shop.clock.seconds() + ahead[0],
            rng=shop.scheduler._rng,
            locate=shop._locate,
            start=lambda entry, at: started.append(entry.id),
            unlocated=lambda entry, failure: None,
            expired=lambda entry: None,
            late=lambda entry: None,
        )
        scheduler.add(shop.entry("m", due_in_s=3600.0))
        ahead[0] = 3600.0
        shop.clock.advance(30.0)
        self.assertEqual(started, ["m"])

    def test_a_worker_that_answers_at_once_does_not_deepen_the_stack(self) -> None:
        """5,000 entries that are done inside ``start``, all waiting for one lookup."""
        shop = Workshop(settings())
        lookup: Deferred[Location] = Deferred()
        done = list[str]()

        def start(entry: Entry, at: Site) -> None:
            done.append(entry.id)
            scheduler.finished(entry, DONE)

        scheduler = Scheduler(
            clock=shop.clock,
            now=shop.clock.seconds,
            rng=shop.scheduler._rng,
            locate=lambda hop: lookup,
            start=start,
            unlocated=lambda entry, failure: None,
            expired=lambda entry: None,
            late=lambda entry: None,
        )
        names = numbered(5000)
        for name in names:
            scheduler.add(shop.entry(name))
        lookup.callback(site("mx.test"))
        self.assertEqual(len(done), 100)  # a slice, then the reactor's turn
        shop.clock.advance(0)
        self.assertEqual(done, names)
        self.assertEqual(scheduler.depth().active, 0)

    def test_a_worker_that_stumbles(self) -> None:
        """An attempt that could not be started is made a minute later, and frees its slot."""
        shop = Workshop(settings())
        stumble = [True]
        started = list[float]()

        def start(entry: Entry, at: Site) -> None:
            if stumble.pop():
                stumble.append(False)
                raise OSError("too many open files")
            started.append(shop.elapsed)

        scheduler = Scheduler(
            clock=shop.clock,
            now=shop.clock.seconds,
            rng=shop.scheduler._rng,
            locate=shop._locate,
            start=start,
            unlocated=lambda entry, failure: None,
            expired=lambda entry: None,
            late=lambda entry: None,
        )
        scheduler.add(shop.entry("m"))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(scheduler.depth().active, 0)
        shop.clock.advance(60.0)
        self.assertEqual(started, [60.0])


class WindowTests(SynchronousTestCase):
    """How many attempts a site gets."""

    def test_grows_with_success(self) -> None:
        """Each good attempt makes room for itself and one more, up to the maximum."""
        shop = Workshop(settings(initial=2, maximum=4))
        for name in numbered(20):
            shop.add(name)
        sizes = [len(shop.at_work)]
        for name in numbered(4):
            shop.end(name)
            sizes.append(len(shop.at_work))
        self.assertEqual(sizes, [2, 3, 4, 4, 4])

    def test_trouble_halves_it(self) -> None:
        shop = Workshop(settings(initial=8))
        for name in numbered(20):
            shop.add(name)
        shop.fail("m0", Health.HOST_TROUBLE)
        (summary,) = shop.scheduler.sites()
        self.assertEqual((summary.window, summary.active, summary.failures), (4, 7, 0))

    def test_trouble_with_a_single_connection_is_a_back_off(self) -> None:
        shop = Workshop(settings(initial=1))
        shop.add("m0")
        shop.add("m1")
        shop.fail("m0", Health.HOST_TROUBLE)
        self.assertEqual(shop.working(), [])
        shop.clock.advance(30.0)
        self.assertEqual(shop.working(), ["m1"])

    def test_our_own_trouble_teaches_nothing(self) -> None:
        shop = Workshop(settings(initial=3))
        shop.add("m0")
        shop.fail("m0", Health.UNKNOWN, attempts=0)
        (summary,) = shop.scheduler.sites()
        self.assertEqual((summary.window, summary.failures, summary.cause), (3, 0, ""))

    def test_all_sites_together(self) -> None:
        """The overall cap holds, and a slot that frees goes to the sites in turn."""
        shop = Workshop(settings(initial=5, concurrency=4))
        for name in numbered(5, "a"):
            shop.add(name, "a.test")
        for name in numbered(5, "b"):
            shop.add(name, "b.test")
        self.assertEqual(shop.working(), ["a0", "a1", "a2", "a3"])
        for name in numbered(4, "a"):
            shop.end(name)
        self.assertEqual(shop.working(), ["a4", "b0", "b1", "b2"])

    def test_domains_of_the_same_hosts_share_one(self) -> None:
        shop = Workshop(settings(initial=2), {name: site("mx.test") for name in ("a", "b")})
        shop.add("a0", "a")
        shop.add("b0", "b")
        shop.add("b1", "b")
        self.assertEqual(shop.working(), ["a0", "b0"])
        self.assertEqual([summary.key for summary in shop.scheduler.sites()], ["mx.test"])


class BackoffTests(SynchronousTestCase):
    """A site that is dead."""

    def test_its_mail_waits_untouched(self) -> None:
        """Only what was tried is reported; the rest waits, and one probe is made a back-off."""
        shop = Workshop(settings(initial=2))
        waiting = [shop.add(name) for name in numbered(100)]
        shop.fail("m0", Health.DEAD, due_in_s=400_000.0)
        shop.fail("m1", Health.DEAD, due_in_s=400_000.0)
        self.assertEqual(shop.working(), [])
        for probe in range(2, 6):
            while not shop.at_work:
                shop.pass_s(1.0)
            shop.fail(f"m{probe}", Health.DEAD, due_in_s=400_000.0)
        self.assertEqual(
            shop.started,
            [(0.0, "m0"), (0.0, "m1"), (30.0, "m2"), (90.0, "m3"), (210.0, "m4"), (450.0, "m5")],
        )
        self.assertEqual({entry.attempts for entry in waiting[6:]}, {0})
        self.assertEqual({entry.due_at for entry in waiting[6:]}, {START})

    def test_recovery_drains_what_waits(self) -> None:
        """The probe succeeds, and the window grows until all is delivered."""
        shop = Workshop(settings(initial=5, maximum=8))
        for name in numbered(50):
            shop.add(name)
        for name in numbered(5):
            shop.fail(name, Health.DEAD, due_in_s=400_000.0)
        shop.clock.advance(30.0)
        sizes = []
        while shop.at_work:
            sizes.append(len(shop.at_work))
            for name in shop.working():
                shop.end(name)
        self.assertEqual(sizes[:5], [1, 2, 4, 8, 8])
        self.assertEqual(len(set(shop.names())), 50)
        self.assertEqual(shop.scheduler.sites()[0].failures, 0)

    def test_a_healthy_site_never_waits_behind_a_dead_one(self) -> None:
        shop = Workshop(settings(initial=1, concurrency=2))
        shop.add("dead", "dead.test")
        shop.fail("dead", Health.DEAD)
        for name in numbered(1000):
            shop.add(name, "dead.test")
        shop.add("well", "well.test")
        self.assertEqual(shop.working(), ["well"])

    def test_a_connection_that_survived_proves_life(self) -> None:
        """A success while the site backs off ends the back-off."""
        shop = Workshop(settings(initial=2))
        for name in numbered(4):
            shop.add(name)
        shop.fail("m0", Health.DEAD)
        shop.end("m1")
        self.assertEqual(shop.working(), ["m2", "m3"])

    def test_failures_fade(self) -> None:
        """A site that nobody asked for in a while starts anew."""
        shop = Workshop(settings(initial=5))
        shop.add("m0")
        shop.fail("m0", Health.DEAD, due_in_s=1000.0)
        shop.pass_s(999.0)
        self.assertEqual(shop.scheduler.sites(), [])
        shop.pass_s(1.0)
        (summary,) = shop.scheduler.sites()
        self.assertEqual((summary.window, summary.active), (5, 1))


class LocationTests(SynchronousTestCase):
    """Hops and their sites."""

    def test_waiters_share_a_lookup(self) -> None:
        lookup: Deferred[Location] = Deferred()
        shop = Workshop(settings(), {"a.test": lookup})
        shop.add("m0")
        shop.add("m1")
        self.assertEqual((shop.looked_up, shop.started), (["a.test"], []))
        lookup.callback(site("mx.test"))
        self.assertEqual(shop.working(), ["m0", "m1"])

    def test_asked_again_after_a_minute(self) -> None:
        shop = Workshop(settings())
        shop.add("m0")
        shop.pass_s(59.0)
        shop.add("m1")
        self.assertEqual(shop.looked_up, ["a.test"])
        shop.pass_s(1.0)
        shop.add("m2")
        self.assertEqual(shop.looked_up, ["a.test", "a.test"])

    def test_failure_for_now(self) -> None:
        """Those who wait are told; those who come later wait until the lookup is tried again."""
        shop = Workshop(settings(), {"a.test": SERVFAIL})
        first = shop.add("m0")
        self.assertEqual(shop.unlocated, [(first, SERVFAIL)])
        self.assertEqual(first.state, "active")
        later = shop.add("m1")
        shop.scheduler.finished(first, Report(Health.UNKNOWN, (0,), 0, START + 300.0))
        shop.pass_s(29.0)
        self.assertEqual(shop.looked_up, ["a.test"])
        shop.pass_s(1.0)
        self.assertEqual(shop.looked_up, ["a.test", "a.test"])
        self.assertEqual(shop.unlocated, [(first, SERVFAIL), (later, SERVFAIL)])

    def test_names_come_back(self) -> None:
        """What waited for a lookup is started by the first one that succeeds."""
        shop = Workshop(settings(), {"a.test": SERVFAIL})
        first = shop.add("m0")
        shop.scheduler.finished(first, Report(Health.UNKNOWN, (0,), 0, START + 300.0))
        shop.add("m1")
        shop.locations["a.test"] = site("mx.test")
        shop.pass_s(300.0)
        self.assertEqual(shop.started, [(30.0, "m1"), (300.0, "m0")])

    def test_failure_for_ever(self) -> None:
        shop = Workshop(settings(), {"a.test": NXDOMAIN})
        entries = [shop.add("m0"), shop.add("m1")]
        self.assertEqual(shop.unlocated, [(entries[0], NXDOMAIN), (entries[1], NXDOMAIN)])
        for entry in entries:
            shop.scheduler.finished(entry, Report(Health.UNKNOWN))
        self.assertEqual(shop.scheduler.depth().oldest_arrived_at, 0.0)

    def test_many_are_told_in_slices(self) -> None:
        """1,000 that wait for a name that fails are told 100 a turn of the reactor."""
        lookup: Deferred[Location] = Deferred()
        shop = Workshop(settings(concurrency=5000), {"a.test": lookup})
        for name in numbered(1000):
            shop.add(name)
        lookup.callback(SERVFAIL)
        counts = shop.counts(11, lambda: len(shop.unlocated))
        self.assertEqual(counts, [*range(200, 1001, 100), 1000, 1000])

    def test_no_more_are_told_than_can_be_in_work(self) -> None:
        """Whoever records failures is not given more at once than the overall cap."""
        lookup: Deferred[Location] = Deferred()
        shop = Workshop(settings(concurrency=10), {"a.test": lookup})
        for name in numbered(30):
            shop.add(name)
        lookup.callback(SERVFAIL)
        shop.pass_s(5.0)
        self.assertEqual(len(shop.unlocated), 10)
        for entry, _ in list(shop.unlocated[:7]):
            shop.scheduler.finished(entry, Report(Health.UNKNOWN, (0,), 0, START + 300.0))
        self.assertEqual(len(shop.unlocated), 17)

    def test_a_lookup_that_breaks(self) -> None:
        """A bug below is trouble for now, and never a bounce."""
        broken: Deferred[Location] = Deferred()
        shop = Workshop(settings(), {"a.test": broken})
        entry = shop.add("m0")
        broken.errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        ((told, failure),) = shop.unlocated
        self.assertIs(told, entry)
        self.assertIsInstance(failure, TransientFailure)

    def test_new_hosts_take_over_what_waits(self) -> None:
        """The MX of a dead site's domain changes: its waiting mail goes to the new hosts."""
        shop = Workshop(settings(initial=2), {"a.test": site("old.test")})
        for name in numbered(6):
            shop.add(name)
        shop.locations["a.test"] = site("new.test")
        for name in ("m0", "m1"):
            shop.fail(name, Health.DEAD, due_in_s=400_000.0)
        shop.pass_s(90.0)  # the first probe's location was still fresh
        shop.fail("m2", Health.DEAD, due_in_s=400_000.0)
        shop.pass_s(60.0)
        self.assertEqual(shop.looked_up, ["a.test", "a.test"])
        self.assertEqual(
            [(entry.id, key) for entry, key in shop.at_work.items()],
            [("m3", "new.test"), ("m4", "new.test")],
        )
        shop.end("m3")
        self.assertEqual(shop.at_work, dict.fromkeys(shop.at_work, "new.test"))
        self.assertEqual(shop.working(), ["m4", "m5"])
        self.assertEqual([summary.key for summary in shop.scheduler.sites()], ["new.test"])

    def test_new_hosts_take_over_behind_a_probe(self) -> None:
        """The lookup takes its time: the probe goes to the old hosts, the rest to the new."""
        shop = Workshop(settings(initial=2), {"a.test": site("old.test")})
        for name in numbered(5):
            shop.add(name)
        lookup: Deferred[Location] = Deferred()
        shop.locations["a.test"] = lookup
        shop.pass_s(60.0)
        for name in ("m0", "m1"):
            shop.fail(name, Health.DEAD, due_in_s=400_000.0)
        shop.pass_s(30.0)
        self.assertEqual(list(shop.at_work.values()), ["old.test"])
        lookup.callback(site("new.test"))
        self.assertEqual(
            [(entry.id, key) for entry, key in shop.at_work.items()],
            [("m2", "old.test"), ("m3", "new.test"), ("m4", "new.test")],
        )
        shop.end("m2")
        self.assertEqual([summary.key for summary in shop.scheduler.sites()], ["new.test"])

    def test_a_hop_is_forgotten_while_its_site_is_busy(self) -> None:
        """Ten thousand domains at one provider: those without mail take no memory, and mail of a
        forgotten one that still waits there goes on."""
        shop = Workshop(settings(initial=1), {name: site("mx.test") for name in ("a", "b")})
        shop.add("a0", "a")
        shop.add("b0", "b")
        shop.pass_s(300.0)
        shop.add("a1", "a")
        self.assertEqual([hop.name for hop in shop.scheduler._locator._hops], ["a"])
        shop.end("a0")
        self.assertEqual(shop.working(), ["b0", "a1"])
        self.assertEqual(shop.looked_up, ["a", "b", "a", "b"])

    def test_idle_hops_and_sites_are_forgotten(self) -> None:
        """Whatever domains the world has, only those in use take memory."""
        shop = Workshop(settings())
        for name in numbered(50):
            shop.add(name, f"{name}.test")
            shop.end(name)
        self.assertEqual(shop.scheduler.depth().sites, 50)
        shop.pass_s(121.0)
        self.assertEqual(shop.scheduler.depth().sites, 0)
        self.assertEqual(shop.scheduler._locator._hops, {})
        self.assertEqual(shop.clock.getDelayedCalls(), [])


class FairnessTests(SynchronousTestCase):
    """Whose turn it is."""

    def test_tenants_take_turns(self) -> None:
        """A tenant with 1,000 messages does not keep another's three behind them."""
        shop = Workshop(settings(initial=1, maximum=1))
        for name in numbered(1000, "big"):
            shop.add(name, tenant="big")
        for name in numbered(3, "small"):
            shop.add(name, tenant="small")
        for _ in range(7):
            shop.end(shop.working()[0])
        self.assertEqual(
            shop.names(),
            ["big0", "big1", "small0", "big2", "small1", "big3", "small2", "big4"],
        )

    def test_urgent_first_but_not_only(self) -> None:
        """Four urgent ones, then an ordinary one."""
        shop = Workshop(settings(initial=1, maximum=1))
        shop.add("first")
        for name in numbered(10, "slow"):
            shop.add(name)
        for name in numbered(10, "fast"):
            shop.scheduler.add(shop.entry(name, is_urgent=True))
        for _ in range(10):
            shop.end(shop.working()[0])
        self.assertEqual(
            shop.names(),
            ["first", *numbered(4, "fast"), "slow0", "fast4", "fast5", "fast6", "fast7", "slow1"],
        )


class ExpiryTests(SynchronousTestCase):
    """Age is looked at in every state."""

    def test_last_attempt_at_the_very_end(self) -> None:
        """Mail that is due when it expires gets that attempt, and is then returned."""
        shop = Workshop(settings())
        shop.scheduler.add(shop.entry("m", due_in_s=400.0, expires_in_s=400.0))
        shop.pass_s(400.0)
        self.assertEqual(shop.started, [(400.0, "m")])
        shop.fail("m", Health.GOOD)
        self.assertEqual(shop.expired, [(400.0, "m")])
        self.assertEqual(shop.scheduler.entries(QueueId("m")), ())

    def test_while_its_site_backs_off(self) -> None:
        shop = Workshop(settings(initial=1, first_s=7200.0))
        shop.add("m0")
        shop.scheduler.add(shop.entry("m1", expires_in_s=1000.0))
        shop.fail("m0", Health.DEAD, due_in_s=7200.0)
        shop.pass_s(999.0)
        self.assertEqual(shop.expired, [])
        shop.pass_s(1.0)
        self.assertEqual(shop.expired, [(1000.0, "m1")])
        self.assertEqual(shop.scheduler.sites()[0].waiting, 0)

    def test_while_held(self) -> None:
        shop = Workshop(settings())
        shop.scheduler.add(shop.entry("m", due_in_s=300.0, expires_in_s=1000.0, warn_in_s=500.0))
        shop.scheduler.hold(QueueId("m"))
        shop.pass_s(1000.0)
        self.assertEqual(shop.late, [(500.0, "m")])
        self.assertEqual(shop.expired, [(1000.0, "m")])

    def test_while_its_time_has_not_come(self) -> None:
        shop = Workshop(settings())
        shop.scheduler.add(shop.entry("m", due_in_s=2000.0, expires_in_s=1000.0))
        shop.pass_s(1000.0)
        self.assertEqual(shop.expired, [(1000.0, "m")])
        shop.pass_s(1500.0)
        self.assertEqual(shop.started, [])

    def test_while_it_waits_for_a_lookup(self) -> None:
        shop = Workshop(settings(), {"a.test": Deferred()})
        shop.scheduler.add(shop.entry("m", expires_in_s=100.0))
        shop.pass_s(100.0)
        self.assertEqual(shop.expired, [(100.0, "m")])

    def test_not_while_active(self) -> None:
        """The attempt ends first; if recipients remain, they have expired right then."""
        shop = Workshop(settings())
        shop.scheduler.add(shop.entry("m", expires_in_s=100.0, warn_in_s=50.0))
        shop.pass_s(150.0)
        self.assertEqual((shop.expired, shop.late), ([], []))
        shop.fail("m", Health.GOOD)
        self.assertEqual((shop.expired, shop.late), ([(150.0, "m")], []))

    def test_warned_once(self) -> None:
        """The delay is told once, and the entry goes on."""
        shop = Workshop(settings())
        entry = shop.entry("m", due_in_s=600.0, warn_in_s=400.0)
        shop.scheduler.add(entry)
        shop.pass_s(399.0)
        self.assertEqual(shop.late, [])
        shop.pass_s(201.0)
        self.assertEqual((shop.late, entry.warn_at), ([(400.0, "m")], 0.0))
        self.assertEqual(shop.names(), ["m"])

    def test_warned_when_it_comes_back(self) -> None:
        shop = Workshop(settings())
        shop.scheduler.add(shop.entry("m", warn_in_s=100.0))
        shop.pass_s(150.0)
        shop.fail("m", Health.GOOD)
        self.assertEqual(shop.late, [(150.0, "m")])

    def test_mass_expiry_in_slices(self) -> None:
        """1,000 that expire together are handed over 100 a turn."""
        shop = Workshop(settings())
        for name in numbered(1000):
            shop.scheduler.add(shop.entry(name, due_in_s=200.0, expires_in_s=100.0))
        shop.clock.rightNow += 100.0
        counts = shop.counts(10, lambda: len(shop.expired))
        self.assertEqual(counts, list(range(100, 1001, 100)))


class PeopleTests(SynchronousTestCase):
    """What an operator does to the queue."""

    def test_held_mail_is_not_tried(self) -> None:
        shop = Workshop(settings())
        entry = shop.entry("m", due_in_s=100.0)
        shop.scheduler.add(entry)
        self.assertEqual(shop.scheduler.hold(QueueId("m")), [entry])
        self.assertEqual(shop.scheduler.hold(QueueId("m")), [])
        self.assertEqual(shop.scheduler.retry(QueueId("m")), [])
        shop.pass_s(200.0)
        self.assertEqual(shop.started, [])
        self.assertEqual(shop.scheduler.release(QueueId("m")), [entry])
        self.assertEqual(shop.started, [(200.0, "m")])

    def test_held_before_a_restart(self) -> None:
        shop = Workshop(settings())
        shop.scheduler.add_recovered(shop.entry("m", state="held"))
        shop.pass_s(100.0)
        self.assertEqual((shop.started, shop.scheduler.depth().held), ([], 1))

    def test_hold_while_active(self) -> None:
        """The worker is told what is wanted, and what remains is held."""
        shop = Workshop(settings())
        entry = shop.add("m")
        self.assertEqual(shop.scheduler.hold(QueueId("m")), [])
        self.assertTrue(shop.scheduler.is_active(QueueId("m")))
        self.assertEqual(shop.scheduler.order(entry), "hold")
        shop.fail("m", Health.GOOD, due_in_s=10.0)
        self.assertFalse(shop.scheduler.is_active(QueueId("m")))
        self.assertEqual(entry.state, "held")
        shop.pass_s(20.0)
        self.assertEqual(len(shop.started), 1)

    def test_a_hold_withdrawn_in_time(self) -> None:
        shop = Workshop(settings())
        entry = shop.add("m")
        shop.scheduler.hold(QueueId("m"))
        self.assertEqual(shop.scheduler.release(QueueId("m")), [])
        self.assertIsNone(shop.scheduler.order(entry))
        shop.fail("m", Health.GOOD, due_in_s=10.0)
        shop.pass_s(10.0)
        self.assertEqual(len(shop.started), 2)

    def test_remove(self) -> None:
        """Wherever it is, it is never tried again; from a worker's hands it does not come back."""
        shop = Workshop(settings(initial=1))
        active, waiting = shop.add("m0"), shop.add("m1")
        later = shop.entry("m2", due_in_s=100.0)
        shop.scheduler.add(later)
        self.assertEqual(shop.scheduler.remove(QueueId("m1")), [waiting])
        self.assertEqual(shop.scheduler.remove(QueueId("m2")), [later])
        self.assertEqual(shop.scheduler.remove(QueueId("m0")), [])
        self.assertEqual(shop.scheduler.order(active), "remove")
        shop.fail("m0", Health.GOOD)
        shop.pass_s(1000.0)
        self.assertEqual(shop.names(), ["m0"])
        self.assertEqual({active.state, waiting.state, later.state}, {"gone"})

    def test_retry_of_what_is_not_due(self) -> None:
        shop = Workshop(settings())
        shop.scheduler.add(shop.entry("m", due_in_s=1000.0))
        shop.pass_s(10.0)
        self.assertEqual([entry.id for entry in shop.scheduler.retry(QueueId("m"))], ["m"])
        self.assertEqual(shop.started, [(10.0, "m")])

    def test_what_waits_for_its_release(self) -> None:
        """It is tried before by who means it, and by nobody else."""
        shop = Workshop(settings())
        entry = shop.entry("m", due_in_s=600.0)
        entry.arrived_at = entry.due_at
        shop.scheduler.add(entry)
        self.assertEqual(shop.scheduler.retry_released(QueueId("m")), [])
        shop.scheduler.hold(QueueId("m"))
        shop.pass_s(10.0)
        self.assertEqual(shop.scheduler.release(QueueId("m")), [entry])
        shop.pass_s(589.0)
        self.assertEqual(shop.started, [])
        shop.pass_s(2.0)
        self.assertEqual(shop.names(), ["m"])
        later = shop.entry("n", due_in_s=600.0)
        later.arrived_at = later.due_at
        shop.scheduler.add(later)
        self.assertEqual(shop.scheduler.retry(QueueId("n")), [later])
        self.assertEqual(shop.names(), ["m", "n"])

    def test_retry_lifts_the_back_off(self) -> None:
        """The message asked for is the probe, whoever else waits."""
        shop = Workshop(settings(initial=1))
        for name in numbered(10):
            shop.add(name)
        shop.fail("m0", Health.DEAD)
        shop.scheduler.retry(QueueId("m7"))
        self.assertEqual(shop.working(), ["m7"])

    def test_retry_asks_for_the_name_again(self) -> None:
        shop = Workshop(settings(), {"a.test": SERVFAIL})
        entry = shop.add("m0")
        shop.scheduler.finished(entry, Report(Health.UNKNOWN, (0,), 0, START + 300.0))
        shop.locations["a.test"] = site("mx.test")
        shop.scheduler.retry(QueueId("m0"))
        self.assertEqual(shop.working(), ["m0"])

    def test_one_message_to_several_domains(self) -> None:
        """Each has an entry of its own; what is asked for concerns all of them."""
        shop = Workshop(settings())
        for domain in ("a.test", "b.test", "c.test"):
            shop.scheduler.add(shop.entry("m", domain, due_in_s=100.0))
        self.assertEqual(len(shop.scheduler.hold(QueueId("m"))), 3)
        self.assertEqual(len(shop.scheduler.release(QueueId("m"))), 3)
        self.assertEqual(sorted(shop.at_work.values()), ["a.test", "b.test", "c.test"])
        for entry in list(shop.at_work):
            shop.scheduler.finished(entry, DONE)
        self.assertEqual(shop.scheduler.entries(QueueId("m")), ())

    def test_why(self) -> None:
        """Each place that an entry can stand in has its sentence."""
        never: Deferred[Location] = Deferred()
        shop = Workshop(
            settings(initial=1, concurrency=3), {"slow.test": never, "servfail.test": SERVFAIL}
        )
        scheduler = shop.scheduler

        def why(name: str) -> str:
            (standing,) = scheduler.standing(QueueId(name))
            return standing.why

        shop.add("slow", "slow.test")
        self.assertEqual(why("slow"), "waits for the lookup of slow.test")
        shop.add("unlocated", "servfail.test")
        self.assertEqual(why("unlocated"), "being given up for now")
        shop.add("unnamed", "servfail.test")
        self.assertEqual(
            why("unnamed"),
            "servfail.test is looked up again at 2001-09-09 01:47:10Z: "
            "451 4.4.3 name server failed",
        )
        shop.add("probe", "dead.test")
        self.assertEqual(why("probe"), "being delivered to dead.test")
        shop.fail("probe", Health.DEAD, due_in_s=300.0)
        self.assertEqual(why("probe"), "next attempt at 2001-09-09 01:51:40Z")
        shop.add("behind", "dead.test")
        self.assertEqual(
            why("behind"),
            "dead.test backs off until 2001-09-09 01:47:10Z: connection refused",
        )
        shop.add("first", "a.test")
        shop.add("second", "a.test")
        self.assertEqual(why("second"), "waits for one of 1 connections to a.test, with 0 others")
        shop.add("third", "b.test")
        shop.add("fourth", "c.test")
        shop.add("fifth", "d.test")
        self.assertEqual(why("fifth"), "waits for one of 3 connections to all sites together")
        scheduler.hold(QueueId("first"))
        self.assertEqual(why("first"), "being delivered to a.test; what remains will be held")
        scheduler.remove(QueueId("first"))
        self.assertEqual(why("first"), "being delivered to a.test; what remains will be removed")
        scheduler.hold(QueueId("second"))
        self.assertEqual(why("second"), "held until it is released")

    def test_standing(self) -> None:
        shop = Workshop(settings())
        shop.scheduler.add(shop.entry("m", "b.test", due_in_s=60.0, attempts=3))
        (standing,) = shop.scheduler.standing(QueueId("m"))
        self.assertEqual(
            (standing.hop.name, standing.site, standing.state, standing.attempts),
            ("b.test", "", "deferred", 3),
        )
        self.assertEqual(standing.next_attempt_at, START + 60.0)

    def test_next_attempt(self) -> None:
        """A time only where time brings it; in the past where it is the turn that is waited for."""
        shop = Workshop(settings(initial=1), {"servfail.test": SERVFAIL})

        def at(name: str) -> float | None:
            (standing,) = shop.scheduler.standing(QueueId(name))
            (entry,) = shop.scheduler.entries(QueueId(name))
            self.assertEqual(shop.scheduler.next_attempt_at(entry), standing.next_attempt_at)
            return standing.next_attempt_at

        shop.add("active", "a.test")
        shop.add("waits", "a.test")
        self.assertEqual((at("active"), at("waits")), (None, START))
        shop.scheduler.hold(QueueId("waits"))
        self.assertEqual(at("waits"), None)
        shop.add("unlocated", "servfail.test")
        shop.add("unnamed", "servfail.test")
        self.assertEqual(at("unnamed"), None)
        shop.add("probe", "dead.test")
        shop.fail("probe", Health.DEAD, due_in_s=300.0)
        shop.add("behind", "dead.test")
        self.assertEqual((at("probe"), at("behind")), (START + 300.0, None))

    def test_figures(self) -> None:
        shop = Workshop(settings(initial=1))
        shop.add("m0")
        shop.add("m1")
        shop.pass_s(10.0)
        shop.scheduler.add(shop.entry("m2", due_in_s=100.0, attempts=1))
        shop.scheduler.add(shop.entry("m3", state="held"))
        shop.fail("m0", Health.DEAD, due_in_s=300.0)
        self.assertEqual(
            shop.scheduler.depth(),
            Depth(
                scheduled=1,
                deferred=2,
                active=0,
                held=1,
                oldest_arrived_at=START,
                sites=1,
                paused_sites=1,
            ),
        )
        self.assertEqual(
            shop.scheduler.sites(),
            [SiteSummary("a.test", "mx", 1, 0, 1, 1, START + 40.0, "connection refused")],
        )


class RestartTests(SynchronousTestCase):
    """The first minutes and the last."""

    def test_due_mail_starts_in_a_ramp(self) -> None:
        """Nothing inside ``add_recovered``; after t seconds ten times t squared are started."""
        shop = Workshop(settings())
        for number in range(1000):
            shop.scheduler.add_recovered(shop.entry(f"m{number}", f"{number}.test", due_in_s=-50.0))
        counts = [len(shop.started)]
        for _ in range(10):
            shop.pass_s(1.0, 0.125)
            counts.append(len(shop.started))
        self.assertEqual(counts, [0, 10, 40, 90, 160, 250, 360, 490, 500, 500, 500])
        for entry in list(shop.at_work):
            del shop.at_work[entry]
            shop.scheduler.finished(entry, DONE)
        shop.pass_s(1.0, 0.125)
        self.assertEqual(len(shop.started), 1000)

    def test_mail_for_agents_is_due_at_once(self) -> None:
        """It waits for none of others', and others' for none of it."""
        shop = Workshop(settings())
        for number in range(490):
            entry = shop.entry(f"m{number}", f"{number}.test", due_in_s=-50.0)
            entry.hop = NextHop("agent", f"{number}")
            shop.scheduler.add_recovered(entry)
        shop.scheduler.add_recovered(shop.entry("other", due_in_s=-50.0))
        self.assertEqual(shop.started, [])
        shop.pass_s(1.0, 0.125)
        self.assertEqual(sorted(shop.names()), sorted([*numbered(490), "other"]))

    def test_what_is_not_due_keeps_its_time(self) -> None:
        shop = Workshop(settings())
        shop.scheduler.add_recovered(shop.entry("m", due_in_s=100.0))
        shop.pass_s(100.0)
        self.assertEqual(shop.started, [(100.0, "m")])

    def test_too_old_by_the_time_we_are_back(self) -> None:
        """One last attempt, and then it is returned."""
        shop = Workshop(settings())
        shop.scheduler.add_recovered(shop.entry("m", due_in_s=-500.0, expires_in_s=-100.0))
        shop.pass_s(1.0)
        self.assertEqual(shop.names(), ["m"])
        shop.fail("m", Health.GOOD)
        self.assertEqual(shop.expired, [(1.0, "m")])

    def test_stop_waits_for_the_active(self) -> None:
        """Nothing is started any more, and the end comes with the last report."""
        shop = Workshop(settings(initial=1))
        shop.add("m0")
        shop.add("m1")
        stopped = shop.scheduler.stop()
        shop.add("m2", "b.test")
        self.assertNoResult(stopped)
        shop.fail("m0", Health.GOOD, due_in_s=0.0)
        self.successResultOf(stopped)
        shop.pass_s(1000.0)
        self.assertEqual(shop.names(), ["m0"])
        self.assertEqual(shop.clock.getDelayedCalls(), [])

    def test_stop_ends_lookups(self) -> None:
        lookup: Deferred[Location] = Deferred()
        shop = Workshop(settings(), {"a.test": lookup})
        shop.add("m0")
        self.successResultOf(shop.scheduler.stop())
        self.assertTrue(lookup.called)
        self.assertEqual((shop.started, shop.unlocated), ([], []))

    def test_one_timer(self) -> None:
        """However many entries, sites and hops wait, the reactor has one timer."""
        shop = Workshop(settings(initial=1))
        for number in range(100):
            shop.add(f"d{number}", f"{number}.test")
            shop.fail(f"d{number}", Health.DEAD)
            shop.scheduler.add(shop.entry(f"m{number}", due_in_s=number))
        self.assertEqual(len(shop.clock.getDelayedCalls()), 1)
