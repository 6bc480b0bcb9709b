"""Writing through, on the real disk: what a system may answer to ``RWF_DSYNC``."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.spool.files import Files

PIECES = [b"one ", b"two ", b"three"]


class WriteThroughTests(SynchronousTestCase):
    """:ivar calls: those that put something on the disk, in their order."""

    def setUp(self) -> None:
        self.files = Files()
        self.path = Path(self.mktemp())
        self.fd = self.files.create(self.path)
        self.addCleanup(self.files.close, self.fd)
        self.calls: list[str] = []
        self._pwritev, self._fdatasync = os.pwritev, os.fdatasync
        self.patch(os, "pwritev", self.pwritev)
        self.patch(os, "fdatasync", self.fdatasync)
        self.most: int | None = None

    def pwritev(self, fd: int, pieces: Sequence[bytes], offset: int, flags: int = 0) -> int:
        self.calls.append("through" if flags & os.RWF_DSYNC else "write")
        return self._pwritev(fd, [b"".join(pieces)[: self.most]], offset, flags)

    def fdatasync(self, fd: int) -> None:
        self.calls.append("sync")
        self._fdatasync(fd)

    def test_one_call(self) -> None:
        self.files.write_through(self.fd, PIECES, 3)
        self.assertEqual(self.path.read_bytes(), b"\0\0\0one two three")
        self.assertEqual(self.calls, ["through"])

    def test_a_part_of_it(self) -> None:
        """What comes after a write that was cut short is synced as well."""
        self.most = 5
        self.files.write_through(self.fd, PIECES, 0)
        self.assertEqual(self.path.read_bytes(), b"one two three")
        self.assertEqual(self.calls, ["through", "write", "sync"])

    def test_many_pieces(self) -> None:
        """More than go into one call are synced by one all the same."""
        self.files.write_through(self.fd, [b"%04d" % number for number in range(3000)], 0)
        self.assertEqual(self.path.read_bytes(), b"".join(b"%04d" % n for n in range(3000)))
        self.assertEqual(self.calls, ["write", "write", "write", "sync"])

    def test_a_system_without(self) -> None:
        for number in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            self.calls.clear()

            def refuse(
                fd: int, pieces: Sequence[bytes], offset: int, flags: int = 0, number: int = number
            ) -> int:
                if flags:
                    raise OSError(number, os.strerror(number))
                return self.pwritev(fd, pieces, offset)

            with mock.patch("os.pwritev", refuse):
                self.files.write_through(self.fd, PIECES, 0)
            self.assertEqual(self.calls, ["write", "sync"])

    def test_a_bad_disk(self) -> None:
        """An error of the disk's is not tried around."""
        with mock.patch("os.pwritev", side_effect=OSError(errno.EIO, "Input/output error")):
            error = self.assertRaises(OSError, self.files.write_through, self.fd, PIECES, 0)
        self.assertEqual((error.errno, self.calls), (errno.EIO, []))
