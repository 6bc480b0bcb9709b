"""Writes that the kernel carries out by itself: io_uring(7), as much of it as the spool has use for.

A thread that writes and syncs has to ask for the interpreter twice a group, and each time the
reactor's thread, which has it, stands still until it has it back.  The kernel's own threads need no
interpreter.

The numbers and shapes are those of ``linux/io_uring.h``, the same on every architecture with 64 bits.
No other thread of ours touches the shared memory, and the kernel reads what we write there in our own
calls; so what it takes to order such things between processors is done by those.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
from ctypes import c_char_p, c_int32, c_long, c_uint8, c_uint16, c_uint32, c_uint64
from typing import Final

_SETUP: Final = 425
_ENTER: Final = 426
_OFF_SQES: Final = 0x10000000
_FEAT_SINGLE_MMAP: Final = 1
_OP_WRITE: Final = 23
_ASYNC: Final = 1 << 4  # IOSQE_ASYNC: not even tried in our own thread
_ENTRIES: Final = 1

_DSYNC: Final[int] = getattr(os, "RWF_DSYNC", 0)  # Linux alone

_MAPPING: Final = {"trackfd": False} if sys.version_info >= (3, 13) else {}
"""Before, Python keeps a descriptor of its own of each mapping, which nobody needs."""


class _Submissions(ctypes.Structure):
    """struct io_sqring_offsets"""

    _fields_ = [
        *[(name, c_uint32) for name in ("head", "tail", "ring_mask", "ring_entries")],
        *[(name, c_uint32) for name in ("flags", "dropped", "array", "resv1")],
        ("user_addr", c_uint64),
    ]


class _Completions(ctypes.Structure):
    """struct io_cqring_offsets"""

    _fields_ = [
        *[(name, c_uint32) for name in ("head", "tail", "ring_mask", "ring_entries")],
        *[(name, c_uint32) for name in ("overflow", "cqes", "flags", "resv1")],
        ("user_addr", c_uint64),
    ]


class _Parameters(ctypes.Structure):
    """struct io_uring_params"""

    _fields_ = [
        *[(name, c_uint32) for name in ("sq_entries", "cq_entries", "flags", "sq_thread_cpu")],
        *[(name, c_uint32) for name in ("sq_thread_idle", "features", "wq_fd")],
        *[(name, c_uint32) for name in ("resv1", "resv2", "resv3")],
        ("sq_off", _Submissions),
        ("cq_off", _Completions),
    ]


class _Entry(ctypes.Structure):
    """struct io_uring_sqe"""

    _fields_ = [
        ("opcode", c_uint8),
        ("flags", c_uint8),
        ("ioprio", c_uint16),
        ("fd", c_int32),
        ("off", c_uint64),
        ("addr", c_char_p),
        ("len", c_uint32),
        ("rw_flags", c_uint32),
        ("user_data", c_uint64),
        ("rest", c_uint64 * 3),
    ]


class _Completion(ctypes.Structure):
    """struct io_uring_cqe"""

    _fields_ = [("user_data", c_uint64), ("res", c_int32), ("flags", c_uint32)]


def _call(number: int, *arguments: object) -> int:
    called: int = _syscall(c_long(number), *arguments)
    if called < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return called


class Ring:
    """Has one write at a time under way.  :raise OSError: the system does not let us have one.

    :ivar fd: readable once the write has ended.
    """

    def __init__(self) -> None:
        if not _DSYNC or ctypes.sizeof(c_char_p) != 8:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        parameters = _Parameters()
        self.fd = fd = _call(_SETUP, c_long(_ENTRIES), ctypes.byref(parameters))
        try:
            if not parameters.features & _FEAT_SINGLE_MMAP:
                raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
            sent, done = parameters.sq_off, parameters.cq_off
            octets = max(
                sent.array + 4 * parameters.sq_entries,
                done.cqes + ctypes.sizeof(_Completion) * parameters.cq_entries,
            )
            rings = mmap.mmap(fd, octets, **_MAPPING)
            entries = mmap.mmap(fd, ctypes.sizeof(_Entry) * _ENTRIES, offset=_OFF_SQES, **_MAPPING)
        except OSError:
            os.close(fd)
            raise
        self._entry = _Entry.from_buffer(entries)
        self._entry.opcode, self._entry.flags = _OP_WRITE, _ASYNC
        self._entry.rw_flags = _DSYNC
        # With room for one entry, it is the first one every time.
        c_uint32.from_buffer(rings, sent.array).value = 0
        self._sent = c_uint32.from_buffer(rings, sent.tail)
        self._taken = c_uint32.from_buffer(rings, done.head)
        self._done = c_uint32.from_buffer(rings, done.tail)
        self._completions = (_Completion * parameters.cq_entries).from_buffer(rings, done.cqes)
        self._octets = b""

    def write(self, fd: int, octets: bytes, offset: int) -> None:
        """Begin to write octets through to stable storage, once the last write has ended.

        :raise OSError: nothing has been begun, and nothing more can be.
        """
        entry = self._entry
        entry.fd, entry.off, entry.addr, entry.len = fd, offset, octets, len(octets)
        self._octets = octets  # which the kernel reads while it is about it
        self._sent.value += 1
        try:
            _call(_ENTER, c_long(self.fd), c_long(1), c_long(0), c_long(0), None, c_long(0))
        except OSError:
            self._sent.value -= 1
            raise

    def result(self) -> int | None:
        """What has come of the write: how many octets were written, or the number of an error, below
        0.  None while it is under way."""
        taken = self._taken.value
        if taken == self._done.value:
            return None
        found: int = self._completions[taken % len(self._completions)].res
        self._taken.value = taken + 1
        self._octets = b""
        return found

    def close(self) -> None:
        """Let go of it; no write may be under way."""
        os.close(self.fd)


_syscall: Final = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = c_long
