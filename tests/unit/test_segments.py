"""Tests of the journal's segments: cursors over any of them, what is kept, and who reads."""

from __future__ import annotations

import errno
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.ports import CursorGone
from protege_mta.observe.journal import FileJournal
from protege_mta.observe.segments import SegmentReader, Segments

NOON = 1_800_000_000.0


def line(name: str) -> bytes:
    return f'{{"event":"received","id":"{name}"}}\n'.encode()


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.now = NOON
        self.failures = 0
        self.reader = SegmentReader(self.folder / "journal")

    def journal(self, *, keep_octets: int = 1_000_000, keep_s: float = 1e6) -> FileJournal:
        self.segments = Segments(
            self.folder / "journal",
            now=lambda: self.now,
            failed=self.failed,
            keep_octets=keep_octets,
            keep_s=keep_s,
            segment_octets=60,
        )
        journal = FileJournal(
            self.folder / "events.jsonl", failed=self.failed, segments=self.segments
        )
        journal.open()
        self.addCleanup(self.segments.close)
        self.addCleanup(journal._file.close)
        return journal

    def failed(self) -> None:
        self.failures += 1

    def publish(self, journal: FileJournal, *names: str) -> None:
        for number, name in enumerate(names):
            self.now += 1
            journal.publish([line(name)], (1, int(self.now) + number))
            journal.sync()

    def ids(self, cursor: str = "") -> list[str]:
        found = []
        while True:
            page = self.reader.read(cursor, 10)
            found += [text.decode().split('"')[7] for text in page.lines]
            cursor = page.cursor
            if page.is_end:
                return found

    def names(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "journal").iterdir())


class ReadingTests(Case):
    def test_nothing_yet(self) -> None:
        """The first cursor is empty, and what comes is behind it."""
        page = self.reader.read("", 10)
        self.assertEqual((page.lines, page.cursor, page.is_end), ((), "", True))
        self.assertEqual(self.reader.end(), "")
        self.publish(self.journal(), "a")
        self.assertEqual(self.ids(""), ["a"])

    def test_from_any_event_on(self) -> None:
        """Each event's cursor is behind it, whatever segment it is in."""
        self.publish(self.journal(), *"abcdefg")
        self.assertEqual(self.names()[:2], ["01800000001000.jsonl", "01800000003000.jsonl"])
        cursor, found = "", []
        for rest in ("bcdefg", "cdefg", "defg", "efg", "fg", "g", ""):
            page = self.reader.read(cursor, 1)
            [cursor] = page.ends
            found.append(cursor)
            self.assertEqual("".join(self.ids(cursor)), rest)
        self.assertEqual(found, sorted(found))
        self.assertEqual(self.reader.end(), found[-1])

    def test_a_line_that_is_not_whole(self) -> None:
        """Half a line is nobody's yet."""
        self.publish(self.journal(), "a")
        path = self.folder / "journal" / self.names()[0]
        whole = path.read_bytes()
        path.write_bytes(whole + line("b")[:9])
        self.assertEqual(self.ids(), ["a"])
        self.assertEqual(self.reader.end(), self.reader.read("", 9).cursor)
        path.write_bytes(whole + line("b"))
        self.assertEqual(self.ids(), ["a", "b"])

    def test_long_lines(self) -> None:
        """A line longer than what is read at once."""
        long = b'{"event":"received","id":"long","subject":"' + b"x" * 3_000_000 + b'"}\n'
        journal = self.journal()
        journal.publish([line("a"), long, line("b")], (1, 1))
        self.assertEqual(self.ids(), ["a", "long", "b"])
        self.assertEqual(self.reader.count(""), (3, self.reader.end()))

    def test_cursors_that_are_none(self) -> None:
        self.publish(self.journal(), "a", "b")
        oldest = "01800000001000-0000000000"
        for cursor in (
            "x",
            "1-1",
            "00000000000001-0000000000",
            "-" * 25,
            "٠1800000001000-0000000000",
        ):
            gone = self.assertRaises(CursorGone, self.reader.read, cursor, 1)
            self.assertEqual(gone.oldest, oldest, cursor)

    def test_within_an_event(self) -> None:
        """A cursor that is made up, or whose line a disk has spoilt, has the one behind it."""
        journal = self.journal()
        journal.publish([line("a"), line("b")], (1, 1))
        journal.sync()
        self.publish(journal, "c")
        first, second = (name.removesuffix(".jsonl") for name in self.names())
        size = len(line("a"))
        for offset, there in ((3, f"{first}-{size:010d}"), (size + 1, f"{first}-{2 * size:010d}")):
            cursor = f"{first}-{offset:010d}"
            gone = self.assertRaises(CursorGone, self.reader.read, cursor, 1)
            self.assertEqual(gone.oldest, there)
        path = self.folder / "journal" / f"{first}.jsonl"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        cursor = f"{first}-{2 * size:010d}"
        gone = self.assertRaises(CursorGone, self.reader.read, cursor, 1)
        self.assertEqual(gone.oldest, f"{second}-0000000000")
        self.assertEqual(self.ids(gone.oldest), ["c"])

    def test_counts(self) -> None:
        self.publish(self.journal(), *"abcde")
        [first, *_] = self.reader.read("", 1).ends
        self.assertEqual(self.reader.count(first), (4, self.reader.end()))
        self.assertEqual(self.reader.count(self.reader.end()), (0, self.reader.end()))


class KeepingTests(Case):
    def test_octets(self) -> None:
        """The oldest segments go when there is too much, and their cursors with them."""
        journal = self.journal(keep_octets=200)
        self.publish(journal, *"abcd")
        [cursor] = self.reader.read("", 1).ends
        self.publish(journal, *"efghijklmn")
        self.assertEqual("".join(self.ids()), "ijklmn")
        gone = self.assertRaises(CursorGone, self.reader.read, cursor, 1)
        self.assertEqual("".join(self.ids(gone.oldest)), "ijklmn")

    def test_age(self) -> None:
        """A segment goes once all that it tells is too old."""
        journal = self.journal(keep_s=100)
        self.publish(journal, *"abcd")
        self.now += 99
        self.publish(journal, *"ef")
        self.now += 3
        self.publish(journal, *"gh")
        self.assertEqual("".join(self.ids()), "cdefgh")

    def test_who_has_all_misses_nothing(self) -> None:
        """A reader at the end, while what it has read goes."""
        journal = self.journal(keep_s=100)
        self.publish(journal, *"abc")
        end = self.reader.end()
        self.now += 1000
        self.publish(journal, *"d")
        self.assertEqual(self.ids(end), ["d"])

    def test_who_had_all_of_what_went(self) -> None:
        """Comes back when that is gone, and has missed nothing; whoever has missed a line has."""
        journal = self.journal(keep_octets=200)
        self.publish(journal, *"abcd")
        [had_half, _] = self.reader.read("", 10).ends
        [had_most, had_all] = self.reader.read(self.reader.read("", 10).cursor, 10).ends
        for names, kept in (("efghij", "efghij"), ("klmn", "ijklmn")):
            self.publish(journal, *names)
            self.assertEqual("".join(self.ids()), kept)
            is_next = kept[0] == "e"
            for cursor in (had_half, had_most):
                self.assertRaises(CursorGone, self.reader.read, cursor, 1)
                self.assertRaises(CursorGone, self.reader.count, cursor)
                self.assertFalse(self.reader.keeps(cursor))
            self.assertEqual(self.reader.keeps(had_all), is_next)
            if is_next:
                self.assertEqual("".join(self.ids(had_all)), kept)
                self.assertEqual(self.reader.count(had_all), (6, self.reader.end()))
            else:
                self.assertRaises(CursorGone, self.reader.read, had_all, 1)

    def test_few_events(self) -> None:
        """A segment is let go of by age too, so that its events do not stay for ever."""
        journal = self.journal(keep_s=1000)
        self.publish(journal, "a")
        self.now += 300
        self.publish(journal, "b", "c")
        self.assertEqual(len(self.names()), 2)

    def test_a_reload(self) -> None:
        journal = self.journal()
        self.publish(journal, *"abcdefgh")
        journal.keep(100, 1e6)
        self.publish(journal, *"ij")
        self.assertEqual("".join(self.ids()), "ij")


class FaultTests(Case):
    def test_no_new_segment(self) -> None:
        """What the folder has no room for waits, and the log goes on."""
        journal = self.journal()
        journal.publish([line("a")], (1, 10))
        with mock.patch(
            "protege_mta.observe.segments.open_at_end", side_effect=OSError(errno.ENOSPC, "full")
        ):
            journal.sync()
            self.segments.close()
            journal.publish([line("b")], (1, 20))
            journal.sync()
        self.assertEqual((self.folder / "events.jsonl").read_bytes(), line("a") + line("b"))
        self.assertEqual(journal.synced(), (1, 10))
        self.assertEqual(self.ids(), ["a"])
        journal.sync()
        self.assertEqual(self.ids(), ["a", "b"])
        self.assertEqual(journal.synced(), (1, 20))

    def test_no_log(self) -> None:
        """A log that cannot be written keeps nothing from programs; the spool remembers for it."""
        journal = self.journal()
        with mock.patch.object(journal._file, "write", return_value=0):
            journal.publish([line("a")], (1, 10))
            journal.sync()
        self.assertEqual(self.ids(), ["a"])
        self.assertEqual(journal.synced(), (0, 0))
        self.segments.close()  # killed
        self.journal().recover([((line("a"),), (1, 10))])
        self.assertEqual(self.ids(), ["a"])
        self.assertEqual((self.folder / "events.jsonl").read_bytes(), line("a"))

    def test_an_upgrade(self) -> None:
        """A cursor from before there were segments."""
        (self.folder / "events.jsonl").write_bytes(line("a"))
        inode = (self.folder / "events.jsonl").stat().st_ino
        (self.folder / "events.jsonl.cursor").write_text(
            f'{{"position":[1,10],"inode":{inode},"offset":{len(line("a"))}}}'
        )
        self.journal().recover([((line("b"),), (1, 20))])
        self.assertEqual(self.ids(), ["b"])
        self.assertEqual((self.folder / "events.jsonl").read_bytes(), line("a") + line("b"))
