"""Judging a message by its header before anything of it is passed on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..message.headers import glance
from ..message.repair import HeaderReader
from ..model.ports import About, Intake
from ..model.reply import TABLE, Reply

HEADER_OCTETS: Final = 262_144
"""The longest header section that is held back."""


def about(fields: bytes, tenant: str = "") -> About:
    """What a header section says of a message that is refused."""
    seen = glance(fields)
    return About(tenant=tenant, header_message_id=seen.message_id, subject=seen.subject)


class HeaderFirst:
    """An :class:`~..model.ports.Intake` in front of another one.

    The header section is held back until it is whole, and looked at; the body streams behind it as
    it comes.  A message that is refused for its header is read to its end, and nothing of it kept.

    :param look: given the fields, gives those to pass on, or the reply that refuses the message.
    :param ended: told how it ended, once: the reply, or None where there was nobody to reply to; and
        the fields as they came, empty where they were not whole.
    """

    log = Logger()

    __slots__ = ("_ended", "_fields", "_flaw", "_intake", "_look", "_reader")

    def __init__(
        self,
        intake: Intake,
        look: Callable[[bytes], bytes | Reply],
        ended: Callable[[Reply | None, bytes], None] = lambda reply, fields: None,
    ) -> None:
        self._intake = intake
        self._look = look
        self._ended = ended
        self._reader: HeaderReader | None = HeaderReader(HEADER_OCTETS)
        self._flaw: Reply | None = None
        self._fields = b""

    def write(self, octets: bytes) -> Deferred[None] | None:
        reader = self._reader
        if reader is None:
            return None if self._flaw is not None else self._intake.write(octets)
        parts = reader.feed(octets)
        if parts is not None:
            return self._pass_on(*parts)
        if reader.is_too_long:
            self._refuse(TABLE["header-too-long"])
        return None

    def finish(self) -> Deferred[Reply]:
        waiting = None if self._reader is None else self._pass_on(*self._reader.end())
        if self._flaw is not None:
            fate = succeed(self._flaw)
        elif waiting is None:
            fate = self._intake.finish()
        else:
            fate = waiting.addCallback(lambda _: self._intake.finish())
        return fate.addCallbacks(self._tell, self._fail)

    def abort(self) -> None:
        if self._flaw is None:
            self._intake.abort()
        self._ended(None, self._fields)

    def _pass_on(self, fields: bytes, body: bytes) -> Deferred[None] | None:
        self._reader = None
        self._fields = fields
        try:
            looked_at = self._look(fields)
        except Exception:
            # In finish() nobody else would end the other intake.
            self.log.failure("a header section could not be looked at")
            looked_at = TABLE["local-error"]
        if isinstance(looked_at, Reply):
            self._refuse(looked_at)
            return None
        return self._intake.write(b"%b\r\n%b" % (looked_at, body))

    def _refuse(self, reply: Reply) -> None:
        self._reader = None
        self._flaw = reply
        self._intake.abort()

    def _tell(self, reply: Reply) -> Reply:
        self._ended(reply, self._fields)
        return reply

    def _fail(self, failure: Failure) -> Failure:
        self._ended(None, self._fields)
        return failure
