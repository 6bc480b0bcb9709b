"""What every :class:`~protege_mta.model.ports.Spool` keeps, whatever it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ..model.address import Address
from ..model.batch import Append, Batch, End, Update
from ..model.envelope import Envelope, Message, Notify, Origin, Recipient
from ..model.ids import IdSource, QueueId
from ..model.ports import (
    Damaged,
    NoSuchMessage,
    Position,
    Recovered,
    Spool,
    SpoolFailed,
    SpoolFull,
    SpoolLocked,
)
from ..model.status import RecipientStatus

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase as _TestCase
else:
    _TestCase = object

DUE: Final = RecipientStatus(due_at=1300.0)
"""The first status of every message here."""

DEFERRED: Final = RecipientStatus("deferred", 1, 1900.0, 2, False, "421 4.3.2 not now")

_ids = IdSource(lambda: 1000.0, lambda octets: b"\x01" * octets)


def message(
    content: bytes = b"Subject: hi\r\n\r\nthere\r\n", recipients: int = 1, id: QueueId | None = None
) -> Message:
    """An ordinary message, every field of it set to something that is not its default."""
    return Message(
        id=id or _ids(),
        envelope=Envelope(
            Address("sender@example.test"),
            tuple(
                Recipient(
                    Address(f"r{n}@example.test"), Notify.FAILURE | Notify.DELAY, f"rfc822;r{n}"
                )
                for n in range(recipients)
            ),
            body="8BITMIME",
            is_smtputf8=True,
            ret="HDRS",
            envid="id+2B1",
            hold_until=1234.5,
            future_release="until;1970-01-01T00:20:34.5Z",
            requires_tls=True,
        ),
        origin=Origin("submission", "account", "192.0.2.7", True, "tenant", "campaign"),
        arrived_at=1000.25,
        size_octets=len(content),
        header_message_id="<one@example.test>",
        subject="h\xed",
        is_eight_bit=True,
        is_urgent=True,
    )


def append(
    content: bytes = b"Subject: hi\r\n\r\nthere\r\n", recipients: int = 1, id: QueueId | None = None
) -> Append:
    """The ordinary message's way into a batch, in two pieces."""
    pieces = (content[:9], content[9:])
    return Append(message(content, recipients, id), pieces, DUE)


class Lines:
    """A :class:`~protege_mta.model.ports.Journal` that remembers.

    :ivar told: lines and position of each call.
    :ivar is_synced: whether it says that what it was told is on stable storage.
    """

    def __init__(self) -> None:
        self.told: list[tuple[tuple[bytes, ...], Position]] = []
        self.is_synced = True
        self.cursor: Position = (0, 0)

    @property
    def lines(self) -> list[bytes]:
        return [line for lines, _ in self.told for line in lines]

    def publish(self, lines: Sequence[bytes], position: Position) -> None:
        self.told.append((tuple(lines), position))
        if self.is_synced:
            self.cursor = position

    def synced(self) -> Position:
        return self.cursor


class SpoolContract(_TestCase):
    """Mix into a ``SynchronousTestCase``.

    The spools are to answer at once: :class:`~protege_mta.spool.disk.DiskSpool` with a direct line.
    """

    def make(self, journal: Lines) -> Spool:
        """A spool that has not been acquired; each on what the one before it has left."""
        raise NotImplementedError

    def fill(self, spool: Spool) -> None:
        """Let the disk be full."""
        raise NotImplementedError

    def fail_disk(self, spool: Spool) -> None:
        """Let the disk break its promises from now on."""
        raise NotImplementedError

    def damage(self, spool: Spool, id: QueueId) -> None:
        """Change the octets of a message behind the spool's back."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.journal = Lines()
        self.spool = self.make(self.journal)
        self.spool.acquire()
        self.found = list(self.spool.recover())

    def restart(self) -> list[Recovered]:
        self.successResultOf(self.spool.close())
        self.spool = self.make(self.journal)
        self.spool.acquire()
        return list(self.spool.recover())

    def commit(self, *operations: Append | Update | End, events: tuple[bytes, ...] = ()) -> None:
        self.assertIsNone(self.successResultOf(self.spool.commit(Batch(operations, events))))

    def octets_of(self, id: QueueId) -> bytes:
        content = self.successResultOf(self.spool.open(id))
        try:
            return content.read()
        finally:
            content.close()

    def standing_of(self, id: QueueId) -> tuple[RecipientStatus | None, ...]:
        return self.successResultOf(self.spool.statuses(id)).statuses

    # --- promises --------------------------------------------------------------------------------

    def test_new_is_empty(self) -> None:
        self.assertEqual(self.found, [])
        self.assertEqual(list(self.spool.ids()), [])
        self.assertEqual(self.spool.stats().messages, 0)

    def test_append(self) -> None:
        """What was committed can be read, in pieces too."""
        one = append(b"0123456789abcdef")
        self.commit(one)
        self.assertEqual(list(self.spool.ids()), [one.message.id])
        content = self.successResultOf(self.spool.open(one.message.id))
        self.assertEqual(content.message, one.message)
        self.assertEqual(content.size_octets, 16)
        self.assertEqual(content.read(), b"0123456789abcdef")
        self.assertEqual(content.read(4, 6), b"456789")
        self.assertEqual(content.read(12), b"cdef")
        self.assertEqual(content.read(16, 5), b"")
        content.close()
        content.close()

    def test_restart(self) -> None:
        """Every field of a message comes back, and its octets, oldest first."""
        one, two = append(b"one" * 100), append(b"two" * 100, recipients=3)
        self.commit(one)
        self.commit(two)
        found = self.restart()
        self.assertEqual(
            found, [Recovered(one.message, (DUE,)), Recovered(two.message, (DUE, DUE, DUE))]
        )
        self.assertEqual(self.octets_of(one.message.id), b"one" * 100)
        self.assertEqual(self.octets_of(two.message.id), b"two" * 100)

    def test_updates_and_ends(self) -> None:
        """Each recipient's standing is its own, before and after a restart."""
        one = append(recipients=4)
        id = one.message.id
        held = RecipientStatus("held", 2, 2000.0, 5, True, "")
        self.commit(one)
        self.commit(Update(id, (0, 2), DEFERRED))
        self.commit(End(id, (1,), "delivered"), Update(id, (2,), held))
        self.assertEqual(self.standing_of(id), (DEFERRED, None, held, DUE))
        self.assertEqual(self.restart(), [Recovered(one.message, (DEFERRED, None, held, DUE))])
        self.assertEqual(self.standing_of(id), (DEFERRED, None, held, DUE))

    def test_a_fate_is_final(self) -> None:
        one = append(recipients=2)
        self.commit(one)
        self.commit(End(one.message.id, (0,), "bounced"))
        self.commit(Update(one.message.id, (0, 1), DEFERRED))
        self.assertEqual(self.standing_of(one.message.id), (None, DEFERRED))
        self.assertEqual([it.statuses for it in self.restart()], [(None, DEFERRED)])

    def test_last_end(self) -> None:
        """With its last recipient a message is gone, for good."""
        one, two = append(recipients=2), append()
        self.commit(one, two)
        self.commit(End(one.message.id, (1,), "delivered"))
        self.commit(End(one.message.id, (0,), "expired"))
        self.assertEqual(list(self.spool.ids()), [two.message.id])
        self.failureResultOf(self.spool.open(one.message.id), NoSuchMessage)
        self.failureResultOf(self.spool.statuses(one.message.id), NoSuchMessage)
        self.assertEqual([it.message.id for it in self.restart()], [two.message.id])
        self.failureResultOf(self.spool.open(one.message.id), NoSuchMessage)

    def test_one_batch(self) -> None:
        """A bounce and its parent's end share a batch."""
        parent = append()
        self.commit(parent)
        bounce = append(b"bounce")
        self.commit(bounce, End(parent.message.id, (0,), "bounced"))
        self.assertEqual([it.message.id for it in self.restart()], [bounce.message.id])

    def test_unknown_ids(self) -> None:
        """Ends and updates of messages that are gone are passed over."""
        gone = append()
        self.commit(gone)
        self.commit(End(gone.message.id, (0,), "delivered"))
        self.commit(End(gone.message.id, (0,), "delivered"), Update(gone.message.id, (0,), DUE))
        self.assertEqual(list(self.spool.ids()), [])
        self.assertEqual(self.restart(), [])

    def test_order(self) -> None:
        """Answers come in the order of the calls."""
        order: list[int] = []

        def answered(_: None, number: int) -> None:
            order.append(number)

        for number in range(5):
            self.spool.commit(Batch((append(),))).addCallback(answered, number)
        self.assertEqual(order, [0, 1, 2, 3, 4])

    def test_lazy(self) -> None:
        """A lazy end is answered and believed at once, and durable after the next batch."""
        one, two = append(), append()
        self.commit(one)
        lazy = Batch((End(one.message.id, (0,), "delivered"),), (b"{}\n",), is_lazy=True)
        self.successResultOf(self.spool.commit(lazy))
        self.failureResultOf(self.spool.open(one.message.id), NoSuchMessage)
        self.assertEqual(list(self.spool.ids()), [])
        self.commit(two)
        self.assertEqual(self.journal.lines, [b"{}\n"])
        self.assertEqual([it.message.id for it in self.restart()], [two.message.id])

    def test_note(self) -> None:
        """A lazy end is noted without a Deferred, and otherwise as if it was committed."""
        one, two = append(), append()
        self.commit(one)
        end = End(one.message.id, (0,), "delivered")
        self.assertIsNone(self.spool.note(Batch((end,), (b"{}\n",), is_lazy=True)))
        self.failureResultOf(self.spool.open(one.message.id), NoSuchMessage)
        self.assertEqual(list(self.spool.ids()), [])
        self.commit(two)
        self.assertEqual(self.journal.lines, [b"{}\n"])
        self.assertEqual([it.message.id for it in self.restart()], [two.message.id])

    def test_note_of_what_is_gone(self) -> None:
        """What cannot be lazy is committed."""
        one = append()
        self.commit(one)
        end = Batch((End(one.message.id, (0,), "delivered"),), is_lazy=True)
        self.assertIsNone(self.spool.note(end))
        again = self.spool.note(end)
        if again is not None:
            self.successResultOf(again)

    def test_note_fails(self) -> None:
        """After a broken promise no end can be noted."""
        one = append()
        self.commit(one)
        self.fail_disk(self.spool)
        self.failureResultOf(self.spool.commit(Batch((append(),))), SpoolFailed)
        refused = self.spool.note(Batch((End(one.message.id, (0,), "delivered"),), is_lazy=True))
        if refused is None:
            self.fail("the end was noted")
        self.failureResultOf(refused, SpoolFailed)
        self.assertEqual(list(self.spool.ids()), [one.message.id])

    def test_close_syncs_what_is_lazy(self) -> None:
        one = append()
        self.commit(one)
        self.spool.commit(Batch((End(one.message.id, (0,), "delivered"),), is_lazy=True))
        self.assertEqual(self.restart(), [])

    def test_events(self) -> None:
        """Published once, in order, and told again from any position on."""
        one = append()
        self.commit(one, events=(b"received\n", b"scheduled\n"))
        self.commit(Update(one.message.id, (0,), DEFERRED))
        self.commit(End(one.message.id, (0,), "delivered"), events=(b"delivered\n",))
        self.assertEqual(self.journal.lines, [b"received\n", b"scheduled\n", b"delivered\n"])
        (_, first), (_, second) = self.journal.told
        self.assertLess(first, second)
        self.journal.cursor = (0, 0)
        self.restart()
        again = [(tuple(lines), at) for lines, at in self.spool.recover_events((0, 0))]
        self.assertEqual(again, self.journal.told)
        again = [(tuple(lines), at) for lines, at in self.spool.recover_events(first)]
        self.assertEqual(again, [((b"delivered\n",), second)])
        self.assertEqual(list(self.spool.recover_events(second)), [])

    def test_incoming(self) -> None:
        incoming = self.spool.receive()
        self.assertIsNone(incoming.write(b"Subject: x\r\n"))
        self.assertIsNone(incoming.write(b"\r\n"))
        self.assertEqual(incoming.size_octets, 14)
        content = self.successResultOf(incoming.sealed())
        one = Append(message(b"Subject: x\r\n\r\n"), content, DUE)
        self.commit(one)
        self.assertEqual(self.octets_of(one.message.id), b"Subject: x\r\n\r\n")

    def test_at_hand(self) -> None:
        """What is had without waiting is what waiting would bring; after the end there is none."""
        incoming = self.spool.receive()
        incoming.write(b"Subject: x\r\n\r\n")
        content = incoming.at_hand()
        if content is None:
            self.fail("so little content is in memory")
        self.assertEqual(content, (b"Subject: x\r\n\r\n",))
        one = Append(message(b"Subject: x\r\n\r\n"), content, DUE)
        self.commit(one)
        found = self.spool.at_hand(one.message.id)
        if found is not None:
            self.assertEqual(found.read(), b"Subject: x\r\n\r\n")
        self.commit(End(one.message.id, (0,), "delivered"))
        self.assertIsNone(self.spool.at_hand(one.message.id))

    def test_discarded(self) -> None:
        incoming = self.spool.receive()
        incoming.write(b"x" * 100)
        incoming.discard()
        self.assertEqual(self.spool.stats().messages, 0)

    def test_full(self) -> None:
        """A full disk takes no content, but every end."""
        one = append()
        self.commit(one)
        self.fill(self.spool)
        self.assertRaises(SpoolFull, self.spool.check_room, 1)
        self.failureResultOf(self.spool.commit(Batch((append(),))), SpoolFull)
        self.commit(Update(one.message.id, (0,), DEFERRED))
        self.commit(End(one.message.id, (0,), "removed"))
        self.assertEqual(self.restart(), [])

    def test_failed(self) -> None:
        """After a broken promise nothing more is accepted; what is there can be read."""
        one = append()
        self.commit(one)
        self.fail_disk(self.spool)
        self.failureResultOf(self.spool.commit(Batch((append(),))), SpoolFailed)
        end = Batch((End(one.message.id, (0,), "removed"),))
        self.failureResultOf(self.spool.commit(end), SpoolFailed)
        lazy = Batch(end.operations, is_lazy=True)
        self.failureResultOf(self.spool.commit(lazy), SpoolFailed)
        self.assertRaises(SpoolFailed, self.spool.check_room, 1)
        self.assertTrue(self.spool.stats().is_failed)
        self.assertEqual(list(self.spool.ids()), [one.message.id])
        self.assertEqual(self.octets_of(one.message.id), b"Subject: hi\r\n\r\nthere\r\n")
        self.flushLoggedErrors()

    def test_damaged(self) -> None:
        """Damaged content is kept, counted and shown, and never offered again; it stops nobody."""
        one, two = append(), append()
        self.commit(one)
        self.commit(two)
        self.damage(self.spool, one.message.id)
        self.failureResultOf(self.spool.open(one.message.id), Damaged)
        self.failureResultOf(self.spool.open(one.message.id), Damaged)
        self.assertEqual(list(self.spool.corrupt_ids()), [one.message.id])
        self.assertEqual(list(self.spool.ids()), [one.message.id, two.message.id])
        self.assertEqual(self.spool.stats().corrupt, 1)
        self.assertEqual(self.standing_of(one.message.id), (DUE,))
        self.assertEqual([it.message.id for it in self.restart()], [two.message.id])
        self.assertEqual(list(self.spool.corrupt_ids()), [one.message.id])
        self.commit(End(one.message.id, (0,), "removed"))
        self.assertEqual(list(self.spool.corrupt_ids()), [])
        self.assertEqual(list(self.spool.ids()), [two.message.id])

    def test_lease(self) -> None:
        """One owner at a time."""
        other = self.make(self.journal)
        self.assertRaises(SpoolLocked, other.acquire)
        self.successResultOf(self.spool.close())
        other.acquire()
        self.successResultOf(other.close())

    def test_stats(self) -> None:
        one = append(b"x" * 1000)
        self.commit(one)
        self.commit(Update(one.message.id, (0,), DEFERRED))
        stats = self.spool.stats()
        self.assertEqual(
            (stats.messages, stats.commits, stats.operations, stats.corrupt), (1, 2, 2, 0)
        )
        self.assertGreaterEqual(stats.content_octets, 1000)
