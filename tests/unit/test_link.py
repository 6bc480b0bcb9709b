"""Frames between two of our processes, over a pair of sockets of the kernel's."""

from __future__ import annotations

import socket
import struct
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.transport import fast
from protege_mta.transport.link import Link, pair


class _Reactor:
    """Knows who wants to read and to write."""

    def __init__(self) -> None:
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()
        self.addReader, self.removeReader = self.readers.add, self.readers.discard
        self.addWriter, self.removeWriter = self.writers.add, self.writers.discard


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.begin(pair())

    def begin(self, ends: tuple[socket.socket, socket.socket]) -> None:
        self.reactor = _Reactor()
        self.frames: list[bytes] = []
        self.losses = 0
        mine, self.other = ends
        self.other.setblocking(False)
        self.link = Link(cast(Any, self.reactor), mine, self.frames.append, self.lose)
        self.addCleanup(self.other.close)
        self.addCleanup(self.link.connectionLost, Failure(CONNECTION_DONE))

    def lose(self) -> None:
        self.losses += 1

    def wanting(self) -> set[Any]:
        """Who has something to write."""
        return self.reactor.writers

    def write(self) -> Any:
        """Let the link write once."""
        return self.link.doWrite()

    def drain(self) -> bytes:
        """Let the link write until it has no more to; what comes out."""
        came = b""
        while self.wanting():
            self.assertIsNone(self.write())
            came += self.taken()
        return came

    def taken(self) -> bytes:
        came = b""
        try:
            while octets := self.other.recv(1 << 16):
                came += octets
        except BlockingIOError:
            pass
        return came


class ReadTests(Case):
    @given(frames=st.lists(st.binary(max_size=40), max_size=8), cuts=st.sets(st.integers(1, 400)))
    def test_chunks_are_invisible(self, frames: list[bytes], cuts: set[int]) -> None:
        self.frames.clear()
        stream = b"".join(struct.pack("<I", len(frame)) + frame for frame in frames)
        start = 0
        for cut in sorted({cut for cut in cuts if cut < len(stream)} | {len(stream)}):
            self.other.sendall(stream[start:cut])
            if start < cut:
                self.assertIsNone(self.link.doRead())
            start = cut
        self.assertEqual(self.frames, frames)

    def test_reading_when_nothing_is_there(self) -> None:
        self.assertIsNone(self.link.doRead())


class LinkTests(Case):
    def test_a_frame_is_its_length_and_its_octets(self) -> None:
        self.link.send(b"one")
        self.link.send(b"")
        self.assertEqual(self.drain(), b"\x03\0\0\0one\0\0\0\0")
        self.assertEqual(self.wanting(), set())

    def test_frames_of_a_turn_leave_together(self) -> None:
        for _ in range(10):
            self.link.send(b"frame")
        self.write()
        self.assertEqual(self.taken(), b"\x05\0\0\0frame" * 10)

    def test_more_than_the_kernel_takes_at_once(self) -> None:
        """Whatever it takes at a time, all of it comes, and in order."""
        frames = [bytes([number % 256]) * size for number, size in enumerate([5, 3_000_000, 0, 9])]
        frames += [b"%d" % number for number in range(200)]
        for frame in frames:
            self.link.send(frame)
        wanted = b"".join(struct.pack("<I", len(frame)) + frame for frame in frames)
        self.assertTrue(self.drain() == wanted)

    def test_a_kernel_that_takes_nothing(self) -> None:
        self.link.send(b"x" * 10_000_000)
        for _ in range(20):
            self.assertIsNone(self.write())
        self.assertEqual(self.wanting(), {self.link})
        self.assertTrue(self.drain().endswith(b"x"))

    def test_the_other_end_is_gone(self) -> None:
        self.other.close()
        self.assertIs(self.link.doRead(), CONNECTION_DONE)
        self.link.send(b"frame")
        self.assertIs(self.write(), CONNECTION_LOST)
        self.link.connectionLost(Failure(CONNECTION_DONE))
        self.link.connectionLost(Failure(CONNECTION_DONE))
        self.assertEqual((self.losses, self.reactor.readers, self.wanting()), (1, set(), set()))
        self.link.send(b"frame")
        self.link.drop()
        self.assertEqual(self.wanting(), set())

    def test_dropped_once_all_has_left(self) -> None:
        self.link.send(b"last")
        self.link.drop()
        self.assertIs(self.write(), CONNECTION_DONE)
        self.assertEqual(self.taken(), b"\x04\0\0\0last")

    def test_dropped_with_nothing_to_say(self) -> None:
        self.link.drop()
        self.assertEqual(self.wanting(), {self.link})
        self.assertIs(self.write(), CONNECTION_DONE)


class WriteAtEndTests(LinkTests):
    """With a reactor whose turns have an end to write at."""

    def begin(self, ends: tuple[socket.socket, socket.socket]) -> None:
        super().begin(ends)
        self.due: list[Any] = []
        setattr(self.reactor, fast._DUE, self.due)

    def wanting(self) -> set[Any]:
        return {*self.due, *super().wanting()}

    def write(self) -> Any:
        if not self.due:
            return super().write()
        self.assertEqual(self.reactor.writers, set())
        self.due.clear()
        return self.link.write_now()

    def test_epoll_hears_of_what_the_kernel_did_not_take(self) -> None:
        self.link.send(b"small")
        self.write()
        self.assertEqual(self.reactor.writers, set())
        self.link.send(b"x" * 10_000_000)
        self.write()
        self.link.send(b"last")
        self.assertEqual((self.due, self.reactor.writers), ([], {self.link}))
        self.assertTrue(self.drain().endswith(b"x\x04\0\0\0last"))

    def test_dropped_twice(self) -> None:
        self.link.drop()
        self.link.drop()
        self.assertIs(self.link.write_now(), CONNECTION_DONE)
        self.link.connectionLost(Failure(CONNECTION_DONE))
        self.assertIsNone(self.link.write_now())
