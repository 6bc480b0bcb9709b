"""A ring whose writes end when the test says so."""

from __future__ import annotations

import os


class ScriptedRing:
    """Stands in for :class:`~..spool.ring.Ring`.

    :ivar refusal: what :meth:`write` raises, if anything.
    """

    def __init__(self) -> None:
        self.fd = -1
        self.refusal: OSError | None = None
        self.is_closed = False
        self._begun: tuple[int, bytes, int] | None = None
        self._result: int | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a write is under way."""
        return self._begun is not None

    def write(self, fd: int, octets: bytes, offset: int) -> None:
        if self.refusal is not None:
            raise self.refusal
        if self._begun is not None:
            raise RuntimeError("a write is under way")
        self._begun = (fd, octets, offset)

    def finish(self, result: int | None = None) -> None:
        """End the write.

        :param result: what comes of it; None for all that was asked for, which is done then.
        """
        if self._begun is None:
            raise RuntimeError("no write is under way")
        (fd, octets, offset), self._begun = self._begun, None
        if result is None:
            try:
                result = os.pwrite(fd, octets, offset)
            except OSError as error:
                result = -(error.errno or 0)
        self._result = result

    def result(self) -> int | None:
        found, self._result = self._result, None
        return found

    def close(self) -> None:
        self.is_closed = True
