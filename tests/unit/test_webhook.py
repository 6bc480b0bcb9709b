"""Tests of one webhook's consumer, on a clock that we move: in order, each until it is taken."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import standardwebhooks
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.ports import StateFailed
from protege_mta.model.webhook import secrets_of
from protege_mta.observe.segments import SegmentReader, Segments, StoredJournal
from protege_mta.state.hooks import HookStore
from protege_mta.transport.poster import Answered, Unanswered
from protege_mta.webhook.consumer import BACKOFF, Consumer, Wanted
from protege_mta.wire.webhook import signed

NOON = 1_800_000_000.0


def line(number: int, event: str = "delivered", tenant: str = "") -> bytes:
    told = {"event": event, "id": f"m{number}.0.1", "at": "2027-01-15T08:00:00.000Z"}
    return json.dumps(told | ({"tenant": tenant} if tenant else {})).encode() + b"\n"


class NoJitter(random.Random):
    def random(self) -> float:
        return 0.0


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.clock = Clock()
        self.segments = Segments(
            self.folder / "journal",
            now=lambda: NOON + self.clock.seconds(),
            failed=self.fail,
            keep_octets=1_000_000,
            keep_s=1e6,
            segment_octets=100,
        )
        self.segments.open(0)
        self.addCleanup(self.segments.close)
        self.store = HookStore(self.folder)
        self.addCleanup(self.store.close)
        self.store.begin("app", "")
        self.posts: list[tuple[str, bytes]] = []
        self.answers: list[Answered | Unanswered | Deferred[Answered | Unanswered]] = []

    def write(self, *lines: bytes) -> None:
        self.segments.add(lines, sum(map(len, lines)))
        self.segments.write()
        if self.segments.turn():
            self.segments.close()

    def post(self, id: str, body: bytes) -> Deferred[Answered | Unanswered]:
        self.posts.append((id, body))
        answer = self.answers.pop(0) if self.answers else Answered(204)
        return answer if isinstance(answer, Deferred) else execute(lambda: answer)

    def begin(self, wanted: Wanted = Wanted()) -> Consumer:  # noqa: B008
        journal = StoredJournal(self.folder / "journal", execute)
        consumer = Consumer(
            "app",
            wanted,
            journal=journal,
            count=journal.count,
            store=self.store,
            post=self.post,
            clock=self.clock,
            now=lambda: NOON + self.clock.seconds(),
            rng=NoJitter(),
        )
        consumer.start()
        self.addCleanup(lambda: self.successResultOf(consumer.stop()))
        return consumer

    @property
    def ids(self) -> list[str]:
        return [id for id, _ in self.posts]


class ConsumerTests(Case):
    def test_in_order_and_once(self) -> None:
        """Over segments, and as events come."""
        self.write(line(1), line(2))
        self.write(line(3))
        self.begin()
        self.assertEqual(self.ids, ["m1.0.1", "m2.0.1", "m3.0.1"])
        self.write(line(4))
        self.clock.advance(1)
        self.assertEqual(self.ids[3:], ["m4.0.1"])
        self.assertEqual(self.posts[0][1], line(1).strip())

    def test_goes_on_where_it_was(self) -> None:
        """Another process takes up what this one has not delivered, with the same id."""
        self.write(line(1), line(2))
        self.answers = [Answered(204), Deferred()]
        first = self.begin()
        stopped = first.stop()
        self.assertNoResult(stopped)
        stopped.cancel()  # killed
        self.successResultOf(stopped)
        self.begin()
        self.assertEqual(self.ids, ["m1.0.1", "m2.0.1", "m2.0.1"])

    def test_waits_grow(self) -> None:
        """The same request again, at 1, 2, 4 ... seconds; what is behind it waits."""
        self.write(line(1), line(2))
        self.answers = [Unanswered("refused"), Answered(500), Answered(503)]
        consumer = self.begin()
        tried_at = [0.0]
        for _ in range(80):
            before = len(self.posts)
            self.clock.advance(0.125)
            tried_at += [self.clock.seconds()] * (len(self.posts) - before)
        self.assertEqual(self.ids, ["m1.0.1"] * 4 + ["m2.0.1"])
        self.assertEqual(tried_at, [0.0, 1.0, 3.0, 7.0, 7.0])
        self.assertEqual(consumer.figures().failed, 3)
        self.assertEqual(consumer.figures().state, "ok")

    def test_longest_wait(self) -> None:
        """An endpoint that is away for days is asked once an hour, and loses nothing."""
        self.write(line(1))
        self.answers = [Unanswered("refused")] * 200
        consumer = self.begin()
        for _ in range(3 * 24 * 60):
            self.clock.advance(60)
        self.assertEqual(consumer.figures().state, "down")
        self.assertEqual(consumer.figures().dead, 0)
        self.assertTrue(70 < len(self.posts) <= 84, len(self.posts))
        self.answers = []
        self.clock.advance(3600)
        self.assertEqual(consumer.figures().state, "ok")
        self.assertEqual(consumer.figures().delivered, 1)

    def test_retry_after(self) -> None:
        """What the endpoint asks for is done, up to an hour."""
        self.write(line(1))
        self.answers = [Answered(429, "30"), Answered(503, "999999")]
        self.begin()
        self.clock.advance(29.9)
        self.assertEqual(len(self.posts), 1)
        self.clock.advance(0.2)
        self.assertEqual(len(self.posts), 2)
        self.clock.advance(3599)
        self.assertEqual(len(self.posts), 2)
        self.clock.advance(2)
        self.assertEqual(len(self.posts), 3)

    def test_gone(self) -> None:
        """410: nothing is posted any more, and nothing is given up (Standard Webhooks 1.0)."""
        self.write(line(1), line(2))
        self.answers = [Answered(410)]
        consumer = self.begin()
        for _ in range(48):
            self.clock.advance(3600)
        self.assertEqual(self.ids, ["m1.0.1"])
        figures = consumer.figures()
        self.assertEqual((figures.state, figures.dead, figures.next_try_at), ("gone", 0, None))
        self.successResultOf(consumer.stop())
        self.begin()
        self.assertEqual(self.ids, ["m1.0.1", "m1.0.1", "m2.0.1"])

    def test_gone_and_asked_again(self) -> None:
        """A person's replay wakes it."""
        self.write(line(1))
        self.answers = [Answered(410)]
        consumer = self.begin()
        other = HookStore(self.folder)
        self.addCleanup(other.close)
        other.move("app", "")
        consumer.look()
        self.assertEqual((self.ids, consumer.figures().state), (["m1.0.1"] * 2, "ok"))

    def test_refused_for_good(self) -> None:
        """Five times 4xx, and the next one is tried."""
        self.write(line(1), line(2))
        self.answers = [Answered(400)] * 5
        self.begin()
        for _ in range(40):
            self.clock.advance(1)
        self.assertEqual(self.ids, ["m1.0.1"] * 5 + ["m2.0.1"])
        self.assertEqual([one.tries for one in self.store.letters("app")], [5])

    def test_away_and_then_refusing(self) -> None:
        """What an endpoint refuses when it comes back is tried as often as ever."""
        self.write(line(1))
        self.answers = [*[Unanswered("refused")] * 60, Answered(503), Answered(404)]
        consumer = self.begin()
        for _ in range(60 * 60):
            self.clock.advance(60)
        self.assertEqual(consumer.figures().dead, 0)
        self.assertEqual(consumer.figures().delivered, 1)

    def test_a_disk_that_refuses(self) -> None:
        """What can be neither delivered nor kept as dead is tried again, and not passed over."""
        self.write(line(1), line(2))
        self.answers = [Answered(400)] * 6
        with mock.patch.object(self.store, "bury", side_effect=StateFailed("full")):
            self.begin()
            for _ in range(20):
                self.clock.advance(1)
        self.assertEqual(self.ids, ["m1.0.1"] * 6)
        for _ in range(60):
            self.clock.advance(1)
        self.assertEqual(self.ids, ["m1.0.1"] * 7 + ["m2.0.1"])

    def test_a_place_that_cannot_be_stored(self) -> None:
        """A full disk has nothing passed over and nothing given up; a start after it sends again
        what has no place behind it."""
        self.write(line(1), line(2), line(3))
        with mock.patch.object(self.store, "advance", side_effect=StateFailed("full")):
            first = self.begin()
            for _ in range(30):
                self.clock.advance(1)
            self.assertEqual(self.ids[:3], ["m1.0.1", "m2.0.1", "m3.0.1"])
            self.successResultOf(first.stop())
        self.posts.clear()
        second = self.begin()
        self.assertEqual(self.ids, ["m1.0.1", "m2.0.1", "m3.0.1"])
        self.assertEqual((second.figures().delivered, second.figures().dead), (3, 0))

    def test_an_event_that_breaks_the_endpoint(self) -> None:
        """A day of 500 for one event, and the next one is tried."""
        self.write(line(1), line(2))
        self.answers = [Answered(500)] * 50
        self.begin()
        for _ in range(26 * 60):
            if self.store.dead("app"):
                self.answers = []
            self.clock.advance(60)
        self.assertEqual(self.ids[-1], "m2.0.1")
        self.assertEqual(self.ids.count("m2.0.1"), 1)

    def test_batches(self) -> None:
        """An array, with an id that its events make."""
        self.write(*map(line, range(5)))
        self.begin(Wanted(batch=3))
        self.assertEqual(self.ids, ["m0.0.1+3", "m3.0.1+2"])
        body = json.loads(self.posts[1][1])
        self.assertEqual([one["id"] for one in body], ["m3.0.1", "m4.0.1"])

    def test_filters(self) -> None:
        self.write(line(1, "received", "a"), line(2, "bounced", "b"), b"# spoilt\n", line(3))
        self.write(line(4, "bounced", "a"))
        consumer = self.begin(Wanted(events=frozenset({"bounced"}), tenant="a"))
        self.assertEqual(self.ids, ["m4.0.1"])
        self.assertEqual(consumer.figures().delivered, 1)

    def test_what_nobody_wants_is_passed(self) -> None:
        """The place moves on over it, so that it is not read at each start."""
        self.write(line(1), line(2))
        self.begin(Wanted(events=frozenset({"bounced"})))
        self.clock.advance(2)
        self.write(line(3))
        self.clock.advance(2)
        standing = self.store.standing("app")
        assert standing is not None
        self.assertEqual(standing.cursor, SegmentReader(self.folder / "journal").end())

    def test_no_longer_kept(self) -> None:
        """Where events are gone that is counted, the endpoint is told so first, whatever it wants
        to know of, and it goes on with the oldest."""
        cursor = "00000000000001-0000000000"
        self.store.move("app", cursor)
        self.write(line(1))
        oldest = SegmentReader(self.folder / "journal").oldest()
        consumer = self.begin(Wanted(events=frozenset({"delivered"})))
        self.clock.advance(1)
        id = f"lost.{cursor}.{oldest}"
        self.assertEqual(self.ids, [id, "m1.0.1"])
        told = json.loads(self.posts[0][1])
        self.assertEqual(
            told,
            {
                "event": "lost",
                "id": id,
                "at": "2027-01-15T08:00:00.000Z",
                "after": cursor,
                "next": oldest,
            },
        )
        self.assertEqual((consumer.figures().lost, consumer.figures().dead), (1, 0))

    def test_lost_while_the_endpoint_is_away(self) -> None:
        """The word about it waits, over a restart too, and comes before what comes after."""
        self.store.move("app", "00000000000001-0000000000")
        self.write(line(1))
        self.answers = [Unanswered("refused")] * 3
        first = self.begin()
        self.clock.advance(1)
        self.assertEqual(first.figures().lost, 1)
        self.successResultOf(first.stop())
        self.answers = []
        second = self.begin()
        self.assertEqual([id[:4] for id in self.ids], ["lost", "lost", "lost", "m1.0"])
        self.assertEqual(second.figures().lost, 1)

    def test_spoilt_events(self) -> None:
        """What a disk has spoilt in the middle is counted and passed, octets that are no text
        included; what is behind it comes."""
        broken = line(2).replace(b"delivered", b"deli\x00ered")
        no_text = line(3).replace(b"2027", b"20\xff7")
        self.write(line(1), broken, no_text, line(4))
        consumer = self.begin()
        self.assertEqual(self.ids, ["m1.0.1", "m4.0.1"])
        self.assertEqual(consumer.figures().lost, 2)

    def test_spoilt_events_that_cannot_be_counted(self) -> None:
        """Cost none of those beside them, however full the disk is."""
        self.write(line(1), b"x\n", line(2))
        with mock.patch.object(self.store, "advance", side_effect=StateFailed("full")):
            consumer = self.begin(Wanted(batch=2))
            for _ in range(20):
                self.clock.advance(1)
        for _ in range(20):
            self.clock.advance(1)
        self.assertEqual(self.ids[0], "m1.0.1+2")
        self.assertGreaterEqual(consumer.figures().lost, 1)

    def test_a_spoilt_line_before_the_cursor(self) -> None:
        """Does not bring back what was delivered long ago: it goes on with the next line."""
        self.write(line(1), line(2), line(3))
        [path] = (self.folder / "journal").iterdir()
        octets = path.read_bytes()
        [number] = [path.stem]
        self.store.move("app", f"{number}-{2 * len(line(1)):010d}")
        path.write_bytes(octets[: 2 * len(line(1)) - 1] + b"x" + octets[2 * len(line(1)) :])
        self.write(line(4))
        consumer = self.begin()
        self.clock.advance(1)
        self.assertEqual([id[:4] for id in self.ids], ["lost", "m4.0"])
        self.assertEqual(consumer.figures().lost, 1)

    def test_lag(self) -> None:
        self.write(*map(line, range(5)))
        self.answers = [Answered(204), Unanswered("refused")]
        consumer = self.begin()
        self.successResultOf(Deferred.fromCoroutine(consumer.count()))
        figures = consumer.figures()
        self.assertEqual(figures.lag_events, 4)
        self.assertEqual(figures.last_error, "refused")
        self.assertEqual(figures.next_try_at, NOON + 1)
        self.clock.advance(1)
        self.successResultOf(Deferred.fromCoroutine(consumer.count()))
        self.assertEqual(consumer.figures().lag_events, 0)
        self.write(line(6))
        self.successResultOf(Deferred.fromCoroutine(consumer.count()))
        self.assertEqual(consumer.figures().lag_events, 1)


class ReplayTests(Case):
    def other(self) -> HookStore:
        """The command line's."""
        store = HookStore(self.folder)
        self.addCleanup(store.close)
        return store

    def test_from_a_cursor(self) -> None:
        """Also while it waits for an endpoint that is down."""
        self.write(line(1), line(2))
        self.answers = [Answered(204), *[Unanswered("refused")] * 20]
        consumer = self.begin()
        for _ in range(600):
            self.clock.advance(1)
        self.answers = []
        self.posts.clear()
        self.other().move("app", "")
        consumer.look()
        self.assertEqual(self.ids, ["m1.0.1", "m2.0.1"])

    def test_moved_while_a_request_is_under_way(self) -> None:
        """What comes of it does not take the cursor back."""
        self.write(line(1), line(2))
        slow: Deferred[Answered | Unanswered] = Deferred()
        self.answers = [Answered(204), slow]
        self.begin()
        self.other().move("app", "")
        slow.callback(Answered(204))
        self.assertEqual(self.ids, ["m1.0.1", "m2.0.1", "m1.0.1", "m2.0.1"])

    def test_dead_letters(self) -> None:
        """They go out with the ids they had; what is refused again is dead again."""
        self.write(line(1), line(2), line(3))
        self.answers = [Answered(400)] * 10
        consumer = self.begin()
        for _ in range(3000):
            self.clock.advance(1)
        self.assertEqual(self.ids, ["m1.0.1"] * 5 + ["m2.0.1"] * 5 + ["m3.0.1"])
        self.posts.clear()
        self.answers = [Answered(400)] * 5
        self.assertEqual(self.other().want("app"), 2)
        consumer.look()
        for _ in range(60):
            self.clock.advance(1)
        self.assertEqual(self.ids, ["m1.0.1"] * 5 + ["m2.0.1"])
        self.assertEqual(
            [(one.id, one.tries) for one in self.store.letters("app")], [("m1.0.1", 10)]
        )
        self.assertEqual(consumer.figures().delivered, 2)
        self.clock.advance(10)
        self.assertEqual(len(self.posts), 6)


class RetryAfterTests(SynchronousTestCase):
    def test_forms(self) -> None:
        """RFC 9110, 10.2.3: seconds or a date."""
        at = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT
        asked: Sequence[tuple[str | None, float]] = (
            (None, 0),
            ("", 0),
            ("120", 120),
            ("-1", 0),
            ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
            ("Sun, 06 Nov 1994 08:49:07 GMT", 0),
            ("soon", 0),
            ("9" * 40, 0),
        )
        for text, seconds in asked:
            self.assertEqual(Answered(503, text).retry_after_s(at), seconds, text)

    def test_back_off(self) -> None:
        waits = [BACKOFF.wait_s(n, NoJitter()) for n in (1, 2, 3, 12, 13, 50)]
        self.assertEqual(waits, [1, 2, 4, 2048, 3600, 3600])


class SignatureTests(SynchronousTestCase):
    def test_by_the_library(self) -> None:
        """standardwebhooks takes what either secret has signed, and nothing that was changed."""
        secrets = secrets_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\nwhsec_AAAAAAAA\n")
        fields = signed(secrets, "m1.0.1+2", int(time.time()), [b'[{"id":"m1.0.1"}]'])
        for secret in ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAAAAAAA"):
            webhook = standardwebhooks.Webhook(secret)
            self.assertEqual(webhook.verify(b'[{"id":"m1.0.1"}]', fields), [{"id": "m1.0.1"}])
            with self.assertRaises(standardwebhooks.WebhookVerificationError):
                webhook.verify(b'[{"id":"m2.0.1"}]', fields)

    def test_by_the_book(self) -> None:
        """The example of Standard Webhooks 1.0."""
        secrets = secrets_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
        body = b'{"test": 2432232314}'
        fields = signed(secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, [body])
        self.assertEqual(
            fields,
            {
                "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
                "webhook-timestamp": "1614265330",
                "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            },
        )

    def test_two_secrets(self) -> None:
        """While one is replaced, both sign."""
        secrets = secrets_of("# new\nwhsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n\nwhsec_AAAA\n")
        signature = signed(secrets, "a", 1, [b""])["webhook-signature"]
        self.assertEqual([one[:3] for one in signature.split(" ")], ["v1,", "v1,"])

    def test_no_secret(self) -> None:
        """A complaint tells nothing of what is there."""
        for text in ("", "# none\n", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_?!"):
            error = self.assertRaises(ValueError, secrets_of, text)
            self.assertNotIn("MfKQ", str(error))
