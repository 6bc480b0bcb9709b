"""Property of the event journal: whatever dies when, each event is there once, and who reads on from
a cursor sees each of them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.ports import Journal, Position
from protege_mta.observe.journal import FileJournal
from protege_mta.observe.segments import SegmentReader, Segments

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(0, 3)),
        st.tuples(st.just("sync"), st.just(0)),
        st.tuples(st.just("move"), st.just(0)),
        st.tuples(st.just("reopen"), st.just(0)),
        st.tuples(st.just("kill"), st.just(0)),
        st.tuples(st.just("power cut"), st.integers(0, 200)),
        st.tuples(st.just("read"), st.integers(1, 4)),
    ),
    max_size=25,
)


class JournalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())

    @settings(max_examples=150, deadline=None)
    @given(ACTIONS)
    def test_each_event_once(self, actions: list[tuple[str, int]]) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.path = self.folder / "events.jsonl"
        told: list[tuple[list[bytes], Position]] = []
        self.cursor = ""
        self.seen: list[str] = []
        count = moved = 0
        journal = self.start(told)
        for action, number in actions:
            if action == "publish":
                lines = [b'{"id":"%d"}\n' % n for n in range(count, count + number)]
                count += number
                told.append((lines, (1, len(told) + 1)))
                journal.publish(*told[-1])
            elif action == "sync":
                journal.sync()
            elif action == "move" and self.path.exists():
                moved += 1
                self.path.rename(self.folder / f"events.jsonl.{moved}")
            elif action == "reopen":
                journal.reopen()
            elif action == "read":
                self.read(number)
            elif action in ("kill", "power cut"):
                self.die(journal, number)
                journal = self.start(told)
        self.die(journal, 0)
        journal = self.start(told)
        port: Journal = journal
        self.assertEqual(port.synced(), told[-1][1] if told else (0, 0))
        everything = [str(n) for n in range(count)]
        self.assertEqual(sorted(self.ids(), key=int), everything)
        self.die(journal, 0)
        while self.read(3):
            pass
        self.assertEqual(sorted(set(self.seen), key=int), everything)
        first = sorted(self.seen.index(id) for id in everything)
        self.assertEqual([self.seen[index] for index in first], everything)
        self.cursor, self.seen = "", []
        while self.read(2):
            pass
        self.assertEqual(self.seen, everything)

    def read(self, most: int) -> bool:
        """Whether there was something behind the cursor, which is behind it now."""
        before = self.cursor
        page = SegmentReader(self.folder / "journal").read(before, most)
        self.assertLessEqual(len(page.lines), most)
        self.assertEqual(sorted(page.ends), list(page.ends))
        self.assertLessEqual(before, page.cursor)
        self.seen += [json.loads(line)["id"] for line in page.lines]
        self.cursor = page.cursor
        return not page.is_end

    def start(self, told: list[tuple[list[bytes], Position]]) -> FileJournal:
        self.segments = Segments(
            self.folder / "journal",
            now=lambda: 1_800_000_000.0,
            failed=self.failed,
            keep_octets=1_000_000,
            keep_s=1e9,
            segment_octets=40,
        )
        journal = FileJournal(self.path, failed=self.failed, segments=self.segments)
        journal.open()
        synced = journal.synced()
        journal.recover((lines, position) for lines, position in told if position > synced)
        return journal

    def failed(self) -> None:
        raise AssertionError("no disk fails here")

    def die(self, journal: FileJournal, octets: int) -> None:
        """End without a word; cut octets that no sync has confirmed off the file."""
        journal._file.close()
        self.segments.close()
        try:
            cursor: dict[str, Any] = json.loads(
                (self.folder / "events.jsonl.cursor").read_text("utf-8")
            )
        except FileNotFoundError:
            return
        for path in self.folder.glob("events.jsonl*"):
            found = path.stat()
            if found.st_ino == cursor["inode"]:
                os.truncate(path, max(cursor["offset"], found.st_size - octets))
        for path in (self.folder / "journal").iterdir():
            number, size = int(path.stem), path.stat().st_size
            if number >= cursor["segment"]:
                least = cursor["segment_offset"] if number == cursor["segment"] else 0
                os.truncate(path, max(least, size - octets))
                if number > cursor["segment"] and octets % 2:
                    path.unlink()

    def ids(self) -> list[str]:
        found = []
        for path in self.folder.glob("events.jsonl*"):
            if path.suffix != ".cursor":
                for line in path.read_bytes().split(b"\n"):
                    try:
                        found.append(json.loads(line)["id"])
                    except json.JSONDecodeError:
                        continue  # torn by the power cut, in a file that had been moved away
        return found
