"""A message that has a name of its sender's is taken once, and answered each time."""

from __future__ import annotations

import attrs
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import Address
from protege_mta.model.batch import Append, Batch
from protege_mta.model.envelope import Envelope, Message, Origin, Recipient
from protege_mta.model.ids import IdSource, QueueId
from protege_mta.model.ports import Requests
from protege_mta.model.reply import TABLE, Reply
from protege_mta.observe.events import EventLines
from protege_mta.observe.metrics import Counts
from protege_mta.schedule.intake import Acceptance, Arriving
from protege_mta.spool.memory import MemorySpool
from protege_mta.testing.requests import MemoryRequests

NAMED = Origin("tunnel", "agent", request_id="one")
ENVELOPE = Envelope(Address("a@a.test"), (Recipient(Address("b@b.test")),))
CONTENT = b"Subject: hi\r\n\r\nthere\r\n"


class SlowSpool(MemorySpool):
    """:ivar waiting: what is to be committed by :meth:`turn`; None to commit at once."""

    waiting: list[tuple[Batch, Deferred[None]]] | None = None

    def commit(self, batch: Batch) -> Deferred[None]:
        if self.waiting is None:
            return super().commit(batch)
        done: Deferred[None] = Deferred()
        self.waiting.append((batch, done))
        return done

    def turn(self) -> None:
        waiting, self.waiting = self.waiting or [], None
        for batch, done in waiting:
            super().commit(batch).chainDeferred(done)


class NobodyAsks:
    """Fails whoever asks it."""

    def begin(self, origin: Origin) -> None:
        raise AssertionError(f"asked for {origin}")


class NamedMessageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.spool = SlowSpool()
        self.spool.acquire()
        self.assertEqual(list(self.spool.recover()), [])
        self.requests = MemoryRequests()
        self.scheduled: list[Message] = []
        self.acceptance = self.new_acceptance(self.requests)

    def new_acceptance(self, requests: Requests) -> Acceptance:
        return Acceptance(
            self.spool,
            EventLines(lambda: 1000.0, lambda line: None, Counts()),
            requests=requests,
            now=lambda: 1000.0,
            new_id=IdSource(lambda: 1000.0, lambda count: bytes(count)),
            first_s=lambda: 300.0,
            accepted=lambda message, status: self.scheduled.append(message),
            took=lambda seconds: None,
        )

    def begin(self, origin: Origin = NAMED) -> Arriving | Reply:
        return self.acceptance.begin(ENVELOPE, origin, lambda id, at: b"X: y\r\n")

    def arriving(self, origin: Origin = NAMED) -> Arriving:
        arriving = self.begin(origin)
        assert isinstance(arriving, Arriving), arriving
        return arriving

    def send(self, origin: Origin = NAMED) -> Reply:
        arriving = self.arriving(origin)
        arriving.write(CONTENT)
        return self.successResultOf(arriving.finish())

    def ids(self) -> list[QueueId]:
        """Of what was put into the spool."""
        return [
            one.message.id
            for batch in self.spool.batches
            for one in batch.operations
            if isinstance(one, Append)
        ]

    def test_again(self) -> None:
        """Answered as at first, without a look at its content, and stored once."""
        first = self.send()
        self.assertEqual(first.code, 250)
        self.assertEqual([self.begin(), self.begin()], [first, first])
        self.assertEqual(self.ids(), [one.id for one in self.scheduled])
        self.assertEqual(len(self.ids()), 1)

    def test_other_names(self) -> None:
        """Each is a message of its own, and so is each one without a name."""
        for origin in (
            NAMED,
            attrs.evolve(NAMED, request_id="two"),
            attrs.evolve(NAMED, source="http"),
            attrs.evolve(NAMED, identity="another"),
            attrs.evolve(NAMED, request_id=""),
            attrs.evolve(NAMED, request_id=""),
        ):
            self.assertEqual(self.send(origin).code, 250)
        self.assertEqual(len(set(self.ids())), 6)

    def test_without_a_name(self) -> None:
        """Nothing is asked, nothing is remembered."""
        self.acceptance = self.new_acceptance(NobodyAsks())
        self.assertEqual(self.send(Origin("smtp")).code, 250)

    def test_name_lies_with_the_message(self) -> None:
        """And so does the answer: where nothing else is left, they are in the spool."""
        origin = attrs.evolve(NAMED, answer='{"x":1}')
        self.send(origin)
        self.successResultOf(self.spool.close())
        self.spool.acquire()
        self.assertEqual([one.message.origin for one in self.spool.recover()], [origin])

    def test_aborted(self) -> None:
        """The next one is the first."""
        self.arriving().abort()
        self.assertEqual(self.requests.open, {})
        self.assertEqual(self.send().code, 250)

    def test_refused(self) -> None:
        """What was refused for good may be handed in again, and is judged again."""
        arriving = self.arriving()
        arriving.write(b"Received: x\r\n" * 101)
        self.assertEqual(self.successResultOf(arriving.finish()), TABLE["routing-loop"])
        self.assertEqual(self.send().code, 250)

    def test_no_room(self) -> None:
        """At the beginning or at the end: nothing is remembered."""
        arriving = self.arriving()
        arriving.write(CONTENT)
        self.spool.is_full = True
        self.assertEqual(self.successResultOf(arriving.finish()), TABLE["spool-full"])
        self.assertEqual(self.requests.open, {})
        self.assertEqual(self.begin(), TABLE["spool-full"])
        self.assertEqual(self.requests.open, {})
        self.spool.is_full = False
        self.assertEqual(self.send().code, 250)

    def test_known_though_there_is_no_room(self) -> None:
        first = self.send()
        self.spool.is_full = True
        self.assertEqual(self.begin(), first)

    def test_superseded(self) -> None:
        """Whoever comes last has it; what still comes of the one before passes by."""
        older = self.arriving()
        older.write(CONTENT)
        newer = self.arriving()
        self.assertEqual(self.acceptance.arriving, {newer})
        older.write(b"more\r\n")
        newer.write(CONTENT)
        self.assertEqual(self.successResultOf(older.finish()), TABLE["request-busy"])
        reply = self.successResultOf(newer.finish())
        self.assertEqual(reply.code, 250)
        older.abort()
        self.assertEqual(self.begin(), reply)
        self.assertEqual([len(self.ids()), len(self.scheduled)], [1, 1])

    def test_being_stored(self) -> None:
        """Neither stored twice nor promised before it is durable."""
        self.spool.waiting = []
        arriving = self.arriving()
        arriving.write(CONTENT)
        storing = arriving.finish()
        arriving.abort()
        self.assertEqual(self.begin(), TABLE["request-busy"])
        self.assertNoResult(storing)
        self.spool.turn()
        self.assertEqual(self.begin(), self.successResultOf(storing))
        self.assertEqual(len(self.ids()), 1)

    def test_not_scheduled_before_it_is_remembered(self) -> None:
        """It cannot be gone from the spool before its name is kept, nor is it stored again."""
        arriving = self.arriving()
        arriving.write(CONTENT)
        self.requests.is_failed = True
        self.assertEqual(self.successResultOf(arriving.finish()), TABLE["spool-failed"])
        self.assertEqual(self.scheduled, [])
        self.assertEqual(self.begin(), TABLE["request-busy"])
        self.requests.mend()
        self.assertEqual([one.id for one in self.scheduled], self.ids())
        reply = self.begin()
        assert isinstance(reply, Reply)
        self.assertIn(self.ids()[0], reply.lines[0])

    def test_no_memory(self) -> None:
        """What cannot be looked up is not taken; what has no name is."""
        self.requests.is_failed = True
        self.assertEqual(self.begin(), TABLE["local-error"])
        self.assertEqual(self.send(attrs.evolve(NAMED, request_id="")).code, 250)

    def test_a_bug_does_not_keep_the_name(self) -> None:
        arriving = self.arriving()
        arriving.write(CONTENT)
        del arriving._head
        self.assertRaises(AttributeError, arriving.finish)
        self.assertEqual(self.send().code, 250)
