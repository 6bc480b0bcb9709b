"""The kernel's ring itself, and a spool that writes through it."""

from __future__ import annotations

import errno
import os
import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from protege_mta.model.batch import Batch
from protege_mta.spool.disk import DiskSpool
from protege_mta.spool.ring import Ring
from protege_mta.spool.ring_line import maker
from protege_mta.spool.settings import SpoolSettings
from protege_mta.testing.contracts import append
from protege_mta.testing.rings import ScriptedRing

WAIT_S = 10.0

if TYPE_CHECKING:
    _Case = SynchronousTestCase
else:
    _Case = object


def real_ring() -> Ring:
    try:
        return Ring()
    except OSError as error:
        raise SkipTest(f"the system has no io_uring for us: {error}") from error


class RingContract(_Case):
    """What the spool relies on."""

    ring: Ring | ScriptedRing

    def settle(self) -> int | None:
        """Wait for the write's end."""
        raise NotImplementedError

    def file(self) -> int:
        fd = os.open(self.mktemp(), os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, fd)
        return fd

    def test_written(self) -> None:
        """Each write lies where it should, and is told of once."""
        fd = self.file()
        self.assertIsNone(self.ring.result())
        for number in range(5):
            self.ring.write(fd, b"%d" % number * 50_000, number * 50_000)
            self.assertEqual(self.settle(), 50_000)
            self.assertIsNone(self.ring.result())
        self.assertEqual(os.pread(fd, 2, 149_999), b"23")

    def test_refused(self) -> None:
        """An error is a number below zero, and the next write is none the worse for it."""
        closed = os.open(self.mktemp(), os.O_RDWR | os.O_CREAT)
        os.close(closed)
        self.ring.write(closed, b"x", 0)
        self.assertEqual(self.settle(), -errno.EBADF)
        self.ring.write(self.file(), b"x", 0)
        self.assertEqual(self.settle(), 1)


class RealRingTests(RingContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.ring: Ring = real_ring()
        self.addCleanup(self.ring.close)
        self.poll = select.epoll()
        self.addCleanup(self.poll.close)
        self.poll.register(self.ring.fd, select.EPOLLIN)

    def settle(self) -> int | None:
        self.assertEqual(self.poll.poll(WAIT_S), [(self.ring.fd, select.EPOLLIN)])
        found = self.ring.result()
        self.assertEqual(self.poll.poll(0), [])
        return found

    def test_descriptors(self) -> None:
        """One, where Python can do without two more; none once the ring is closed and gone."""
        before = len(os.listdir("/proc/self/fd"))
        ring = real_ring()
        opened = len(os.listdir("/proc/self/fd")) - before
        self.assertEqual(opened, 1 if sys.version_info >= (3, 13) else 3)
        ring.close()
        del ring
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


class ScriptedRingTests(RingContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.ring: ScriptedRing = ScriptedRing()

    def settle(self) -> int | None:
        self.ring.finish()
        return self.ring.result()


class SpoolTests(TestCase):
    """In the reactor that there is."""

    def spool(self, folder: Path) -> DiskSpool:
        spool = DiskSpool(
            folder,
            SpoolSettings(segment_octets=2**20, free_octets=0, free_inodes=0),
            now=lambda: 0.0,
            in_reactor=reactor.callFromThread,  # type: ignore[attr-defined]
            in_thread=deferToThread,
            line=maker(reactor),
        )
        spool.acquire()
        return spool

    async def test_across_segments(self) -> None:
        """All that was answered for is there after a start."""
        real_ring().close()
        folder = Path(self.mktemp())
        spool = self.spool(folder)
        list(spool.recover())
        kept: list[Deferred[None]] = []
        for _ in range(10):
            kept += [spool.commit(Batch((append(b"x" * 8000),))) for _ in range(40)]
            await kept[-1]
        for one in kept:
            await one
        await spool.close()
        again = self.spool(folder)
        self.assertEqual(len(list(again.recover())), 400)
        await again.close()
