"""Tests of the event journal's file: each event once, whatever dies when."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.observe.journal import FileJournal


def line(name: str) -> bytes:
    return f'{{"event":"received","id":"{name}"}}\n'.encode()


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.mkdir()
        self.path /= "events.jsonl"
        self.failures = 0

    def journal(self) -> FileJournal:
        """An opened one, as after a start; what came before is forgotten as by SIGKILL."""
        journal = FileJournal(self.path, failed=self.failed)
        journal.open()
        return journal

    def failed(self) -> None:
        self.failures += 1

    def ids(self) -> list[str]:
        return [text.split('"')[7] for text in self.path.read_text("utf-8").splitlines()]


class CrashTests(Case):
    """The file and the spool's memory of events make one whole."""

    def test_new(self) -> None:
        journal = self.journal()
        self.assertEqual(journal.synced(), (0, 0))
        journal.recover([])
        journal.publish([line("a"), line("b")], (1, 10))
        self.assertEqual(self.ids(), ["a", "b"])

    def test_cursor_moves_with_the_sync(self) -> None:
        """The spool may forget events only once they are on stable storage."""
        journal = self.journal()
        journal.publish([line("a")], (1, 10))
        self.assertEqual(journal.synced(), (0, 0))
        journal.sync()
        self.assertEqual(journal.synced(), (1, 10))
        self.assertEqual(self.journal().synced(), (1, 10))

    def test_written_but_not_synced(self) -> None:
        """What the spool tells again is not written again."""
        journal = self.journal()
        journal.publish([line("a")], (1, 10))
        journal.sync()
        journal.publish([line("b"), line("c")], (1, 20))
        again = self.journal()
        again.recover([((line("b"), line("c")), (1, 20)), ((line("d"),), (1, 30))])
        self.assertEqual(self.ids(), ["a", "b", "c", "d"])
        self.assertEqual(again.synced(), (1, 30))

    def test_torn_line(self) -> None:
        """Half a line is cut off and written whole."""
        journal = self.journal()
        journal.publish([line("a"), line("b")], (1, 10))
        os.truncate(self.path, len(line("a")) + 7)
        self.journal().recover([((line("a"), line("b")), (1, 10))])
        self.assertEqual(self.ids(), ["a", "b"])

    def test_every_cut(self) -> None:
        """Wherever the kernel stopped, a restart makes the same file."""
        whole = line("a") + line("b") + line("c")
        for size in range(len(whole) + 1):
            self.path.write_bytes(whole[:size])
            self.journal().recover(
                [((line("a"),), (1, 10)), ((line("b"),), (1, 20)), ((line("c"),), (1, 30))]
            )
            self.assertEqual(self.path.read_bytes(), whole)
            self.path.with_name("events.jsonl.cursor").unlink()

    def test_torn_line_longer_than_a_block(self) -> None:
        self.path.write_bytes(line("a") + b"x" * 200_000)
        self.journal()
        self.assertEqual(self.path.read_bytes(), line("a"))

    def test_damaged_cursor(self) -> None:
        """Without a cursor the whole file counts."""
        journal = self.journal()
        journal.publish([line("a")], (1, 10))
        journal.sync()
        inode = self.path.stat().st_ino
        for cursor in (b"", b'{"\xff', b'{"position":[1,10],"inode":%d,"offset":-1}' % inode):
            self.path.with_name("events.jsonl.cursor").write_bytes(cursor)
            again = self.journal()
            self.assertEqual(again.synced(), (0, 0))
            again.recover([((line("a"),), (1, 10)), ((line("b"),), (1, 20))])
            self.assertEqual(self.ids(), ["a", "b"])

    def test_a_persons_note(self) -> None:
        """A line that is no JSON stops nothing."""
        for note in (b"# looked at this\n", b'{"id":"\xff"}\n'):
            self.path.write_bytes(note + line("a"))
            self.journal().recover([((line("a"), line("b")), (1, 10))])
            self.assertEqual(self.path.read_bytes(), note + line("a") + line("b"))


class RotationTests(Case):
    """logrotate and the journal."""

    def setUp(self) -> None:
        super().setUp()
        self.open = self.journal()
        self.open.publish([line("a")], (1, 10))
        self.open.sync()
        self.open.publish([line("b")], (1, 20))
        self.moved = self.path.with_name("events.jsonl.1")

    def test_reopen(self) -> None:
        self.path.rename(self.moved)
        self.open.publish([line("c")], (1, 30))
        self.open.reopen()
        self.open.publish([line("d")], (1, 40))
        self.assertEqual(self.moved.read_bytes(), line("a") + line("b") + line("c"))
        self.assertEqual(self.ids(), ["d"])
        self.assertEqual(self.open.synced(), (1, 30))

    def test_killed_between_move_and_signal(self) -> None:
        """The moved file still says what has been written."""
        self.path.rename(self.moved)
        self.open.publish([line("c")], (1, 30))
        self.journal().recover([((line("b"),), (1, 20)), ((line("c"), line("d")), (1, 30))])
        self.assertEqual(self.ids(), ["d"])

    def test_copy_and_truncate(self) -> None:
        """Writing goes on at the file's new end."""
        os.truncate(self.path, 0)
        self.open.publish([line("c")], (1, 30))
        self.open.sync()
        self.assertEqual(self.ids(), ["c"])
        self.journal().recover([])
        self.assertEqual(self.ids(), ["c"])

    def test_no_new_file(self) -> None:
        """Where the new file cannot be made, the old one stays in use."""
        self.path.rename(self.moved)
        self.path.mkdir()
        self.open.reopen()
        self.open.publish([line("c")], (1, 30))
        self.assertEqual(self.moved.read_bytes(), line("a") + line("b") + line("c"))
        self.assertEqual(self.failures, 1)


class FaultTests(Case):
    """A disk that refuses."""

    def full_after(self, octets: int) -> mock._patch[object]:
        """A disk with room for so much more."""
        room = [octets]
        write = os.write

        def writing(fd: int, data: bytes) -> int:
            if not room[0]:
                raise OSError(errno.ENOSPC, "No space left on device")
            done = write(fd, data[: room[0]])
            room[0] -= done
            return done

        return mock.patch("os.write", writing)

    def test_full_disk(self) -> None:
        """Lines wait, whole ones only are in the file, and order is kept."""
        journal = self.journal()
        with self.full_after(len(line("a")) + 5):
            journal.publish([line("a"), line("b")], (1, 10))
            self.assertEqual(self.path.read_bytes(), line("a"))
            journal.sync()
            self.assertFalse(journal.flush())
            self.assertEqual(journal.synced(), (0, 0))
        journal.publish([line("c")], (1, 20))
        self.assertTrue(journal.flush())
        journal.sync()
        self.assertEqual(self.ids(), ["a", "b", "c"])
        self.assertEqual(journal.synced(), (1, 20))
        self.assertEqual(self.failures, 3)

    def test_memory_is_bounded(self) -> None:
        """What memory cannot hold waits in the spool, and comes at the next start."""
        journal = self.journal()
        long = b'{"id":"long","subject":"' + b"x" * 9_000_000 + b'"}\n'
        with self.full_after(0):
            journal.publish([long], (1, 10))
            journal.publish([long], (1, 20))
            journal.publish([line("c")], (1, 30))
        journal.publish([line("d")], (1, 40))
        journal.sync()
        self.assertEqual(self.ids(), ["c", "d"])
        self.assertFalse(journal.flush())  # it never will be, by this process
        self.assertEqual(journal.synced(), (0, 0))
        told = [((line(name),), (1, 10 * n)) for n, name in enumerate("abcd", 1)]
        again = self.journal()
        again.recover(told)
        self.assertEqual(sorted(self.ids()), ["a", "b", "c", "d"])
        self.assertEqual(again.synced(), (1, 40))

    def test_failed_sync_is_not_believed(self) -> None:
        """After a failed sync nothing is taken for durable until the next start."""
        journal = self.journal()
        journal.publish([line("a")], (1, 10))
        with mock.patch("os.fdatasync", side_effect=OSError(errno.EIO, "Input/output error")):
            journal.sync()
        journal.sync()
        self.assertEqual(journal.synced(), (0, 0))
        self.assertTrue(journal.flush())  # it is there to be read, for now
        self.assertEqual(self.failures, 1)

    def test_cursor_not_stored(self) -> None:
        journal = self.journal()
        journal.publish([line("a")], (1, 10))
        with mock.patch("os.replace", side_effect=OSError(errno.EACCES, "Permission denied")):
            journal.sync()
        self.assertEqual(journal.synced(), (0, 0))
        journal.sync()
        self.assertEqual(journal.synced(), (1, 10))


class ThreadTests(Case):
    """The journal's own thread writes and syncs."""

    def test_close(self) -> None:
        """Everything is on stable storage when close returns."""
        journal = self.journal()
        journal.start()
        journal.append(line("rejected"))
        journal.publish([line("a")], (1, 10))
        journal.close()
        self.assertEqual(self.ids(), ["rejected", "a"])
        self.assertEqual(self.journal().synced(), (1, 10))

    def test_written_shortly(self) -> None:
        """What is published is in the file after a tick, before anything is synced."""
        is_written = threading.Event()
        write = os.write

        def writing(fd: int, octets: bytes) -> int:
            done = write(fd, octets)
            if line("c") in octets:
                is_written.set()
            return done

        journal = FileJournal(self.path, failed=self.failed, sync_interval_s=3600)
        journal.open()
        self.addCleanup(journal.close)
        with mock.patch("os.write", writing):
            journal.start()
            journal.publish([line("a")], (1, 10))
            journal.publish([line("b")], (1, 20))
            journal.publish([line("c")], (1, 30))
            self.assertTrue(is_written.wait(10))
        self.assertEqual(self.ids(), ["a", "b", "c"])
        self.assertEqual(journal.synced(), (0, 0))

    def test_flush(self) -> None:
        """Who reads need not wait for the tick's end."""
        journal = self.journal()
        journal.start()
        self.addCleanup(journal.close)
        journal.publish([line("a")], (1, 10))
        for name in "bcd":
            journal.publish([line(name)], (1, 20))
        journal.append(line("e"))
        self.assertTrue(journal.flush())
        self.assertEqual(self.ids(), ["a", "b", "c", "d", "e"])

    def test_much_is_written_at_once(self) -> None:
        """What waits for a tick is bounded, whatever the journal's thread is doing."""
        journal = self.journal()
        journal.start()
        self.addCleanup(journal.close)
        many = [line("x" * 1000)] * 1100
        with journal._sync_lock:  # a disk that does not answer
            journal.publish(many, (1, 1))
            self.assertEqual(len(self.ids()), 1100)

    def test_syncs_unasked(self) -> None:
        is_synced = threading.Event()
        fdatasync = os.fdatasync

        def syncing(fd: int) -> None:
            fdatasync(fd)
            is_synced.set()

        journal = FileJournal(self.path, failed=self.failed, sync_interval_s=0.05)
        journal.open()
        self.addCleanup(journal.close)
        with mock.patch("os.fdatasync", syncing):
            journal.start()
            journal.append(line("a"))
            self.assertTrue(is_synced.wait(10))
        self.assertEqual(self.ids(), ["a"])
