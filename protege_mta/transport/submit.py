"""``submit.sock``: messages of the machine's own users, from ``sendmail``.

In: one line of JSON, ``{"sender", "recipients": [], "size_octets", "notify", "ret", "envid",
"body"}``, then that many octets with CRLF line ends and no dot-stuffing.  Out: ``{"id"}`` once the
message is durable, or ``{"error", "code", "enhanced"}``, and the end of the connection.  Anybody on
the machine may connect; who it is the kernel says.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

import attrs
import msgspec
from msgspec import Meta
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocolFactory, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from ..model import ids
from ..model.address import NULL, Address, is_ascii, parse
from ..model.envelope import Envelope, Notify, Recipient
from ..model.ports import Intake
from ..model.reply import TABLE, Reply
from ..wire.commands import ENVID_CHARACTERS, XTEXT
from ..wire.lines import has_bare_ends
from .unix import Credentials, credentials

LINE_OCTETS: Final = 512 * 1024
"""Room for some thousand recipients."""


@attrs.frozen
class Submission:
    """One message that a user hands in.

    :ivar size_octets: what the user says that the content has.
    """

    envelope: Envelope
    size_octets: int


Receive = Callable[[Credentials, Submission], Intake | Reply]
"""Opens the way into the house for one message, or refuses it."""


@attrs.frozen
class SubmitLimits:
    """What users may take.

    :ivar message_octets: the largest message.
    :ivar idle_s: how long a connection may say nothing.
    """

    message_octets: int
    connections: int = 100
    connections_per_uid: int = 20
    idle_s: float = 60.0


class _Request(msgspec.Struct):
    """The line.

    :ivar notify: as in RFC 3461, 4.1: ``NEVER``, or some of ``SUCCESS,FAILURE,DELAY``.
    :ivar envid: in xtext (RFC 3461, 4.4).
    """

    sender: str
    recipients: Annotated[list[str], Meta(min_length=1)]
    size_octets: Annotated[int, Meta(ge=0)]
    notify: str = ""
    ret: Literal["", "FULL", "HDRS"] = ""
    envid: Annotated[str, Meta(max_length=ENVID_CHARACTERS)] = ""
    body: Literal["7BIT", "8BITMIME"] = "7BIT"


class _Refused(Exception):
    def __init__(self, reply: Reply, why: str = "") -> None:
        super().__init__(why or reply.text)
        self.reply = reply


class SubmitProtocol(LineReceiver, TimeoutMixin):
    """One connection, which is one message."""

    log = Logger()
    delimiter = b"\n"
    MAX_LENGTH = LINE_OCTETS
    transport: Any  # a UNIX stream

    def __init__(self, factory: SubmitFactory, who: Callable[[Any], Credentials]) -> None:
        self._submit = factory
        self._who = who
        self._credentials: Credentials | None = None
        self._intake: Intake | None = None
        self._refusal: _Refused | None = None
        self._missing_octets = 0
        self._held = b""  # a CR that may be half of a CRLF, so that none is ever torn
        self._last = b""
        self._waiting: Deferred[None] | None = None
        self._is_answered = False

    def connectionMade(self) -> None:
        self.setTimeout(self._submit.limits.idle_s)
        found = self._who(self.transport)
        if self._submit.admit(found):
            self._credentials = found
        else:
            self._answer(_Refused(TABLE["too-many-connections"]))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.setTimeout(None)
        self._is_answered = True
        if self._credentials is not None:
            self._submit.release(self._credentials)
        self._drop()

    def callLater(self, period: float, func: Callable[[], None]) -> IDelayedCall:
        return self._submit.clock.callLater(period, func)

    def timeoutConnection(self) -> None:
        self._answer(_Refused(TABLE["idle-too-long"]))

    def lineLengthExceeded(self, line: bytes) -> None:
        self._answer(_Refused(TABLE["line-too-long"]))

    def lineReceived(self, line: bytes) -> None:
        if self._is_answered or self._credentials is None:
            return
        self.resetTimeout()
        try:
            submission = _submission(line, self._submit.domain)
            if submission.size_octets > self._submit.limits.message_octets:
                raise _Refused(TABLE["message-too-big"])
            self._open(submission)
        except _Refused as refused:
            self._answer(refused)
            return
        self._missing_octets = submission.size_octets
        self.setRawMode()
        if not self._missing_octets:
            self._end()

    def rawDataReceived(self, data: bytes) -> None:
        if self._is_answered or not self._missing_octets:
            return  # more than was announced
        self.resetTimeout()
        data = data[: self._missing_octets]
        self._missing_octets -= len(data)
        data = self._held + data
        self._held = b"\r" if data.endswith(b"\r") and self._missing_octets else b""
        if self._held:
            data = data[:-1]
        self._take(data)
        if not self._missing_octets and self._waiting is None:
            self._end()

    # --- the message -----------------------------------------------------------------------------

    def _open(self, submission: Submission) -> None:
        assert self._credentials is not None
        try:
            opened = self._submit.receive(self._credentials, submission)
        except Exception:
            self.log.failure("cannot open a submission")
            opened = TABLE["local-error"]
        if isinstance(opened, Reply):
            # Read to the end before saying so: a client that is still writing does not listen.
            self._refusal = _Refused(opened)
        else:
            self._intake = opened

    def _take(self, octets: bytes) -> None:
        if octets and has_bare_ends(octets):
            self._drop()
            self._refusal = self._refusal or _Refused(TABLE["line-endings"])
        if octets:
            self._last = (self._last + octets)[-2:]
        if self._intake is None or not octets:
            return
        waiting = self._intake.write(octets)
        if waiting is None:
            return
        waiting.addErrback(self._broken)
        if not waiting.called:
            self._waiting = waiting
            self.transport.pauseProducing()
            self.setTimeout(None)
            waiting.addCallback(self._taken)

    def _taken(self, _: None) -> None:
        self._waiting = None
        if self._is_answered:
            return
        self.setTimeout(self._submit.limits.idle_s)
        if self._missing_octets:
            self.transport.resumeProducing()
        else:
            self._end()

    def _broken(self, failure: Failure) -> None:
        self.log.failure("cannot take a submission in", failure=failure)
        self._drop()
        self._refusal = _Refused(TABLE["local-error"])

    def _end(self) -> None:
        self.setTimeout(None)
        if self._refusal is not None:
            self._answer(self._refusal)
            return
        if self._last != b"\r\n":
            self._take(b"\r\n")  # content in this house ends in one
            if self._waiting is not None:
                return  # and comes back here
        assert self._intake is not None
        intake, self._intake = self._intake, None
        intake.finish().addCallbacks(self._finished, self._unfinished)

    def _finished(self, reply: Reply) -> None:
        if reply.code // 100 != 2:
            self._answer(_Refused(reply))
            return
        found = (ids.parse(word.strip("<>.,;")) for word in reply.text.split())
        self._say({"id": next((id for id in found if id is not None), "")})

    def _unfinished(self, failure: Failure) -> None:
        self.log.failure("cannot finish a submission", failure=failure)
        self._answer(_Refused(TABLE["local-error"]))

    def _drop(self) -> None:
        intake, self._intake = self._intake, None
        if intake is not None:
            intake.abort()

    # --- the answer ------------------------------------------------------------------------------

    def _answer(self, refused: _Refused) -> None:
        reply = refused.reply
        self._say({"error": str(refused), "code": reply.code, "enhanced": reply.enhanced})

    def _say(self, answer: dict[str, object]) -> None:
        if self._is_answered:
            return
        self._is_answered = True
        self.setTimeout(None)
        self._drop()
        self.transport.write(msgspec.json.encode(answer) + b"\n")
        self.transport.loseConnection()


@implementer(IProtocolFactory)
class SubmitFactory:
    """Serves ``submit.sock``.

    :param domain: what is put behind names without one, such as ``root``.
    :param who: tells who is at the other end of a transport.
    """

    def __init__(
        self,
        receive: Receive,
        *,
        domain: str,
        limits: SubmitLimits,
        clock: IReactorTime,
        who: Callable[[Any], Credentials] | None = None,
    ) -> None:
        self.receive = receive
        self.domain = domain
        self.limits = limits
        self.clock = clock
        self._who = who or _who
        self._uids: Counter[int] = Counter()

    def doStart(self) -> None:
        """Nothing to make ready."""

    def doStop(self) -> None:
        """Nothing to clear away."""

    def buildProtocol(self, addr: IAddress | None) -> SubmitProtocol:
        return SubmitProtocol(self, self._who)

    def admit(self, who: Credentials) -> bool:
        """Count a connection, unless it is one too many."""
        limits, uid = self.limits, who.uid
        if (
            self._uids.total() >= limits.connections
            or self._uids[uid] >= limits.connections_per_uid
        ):
            return False
        self._uids[uid] += 1
        return True

    def release(self, who: Credentials) -> None:
        """An admitted connection has ended."""
        self._uids[who.uid] -= 1
        if not self._uids[who.uid]:
            del self._uids[who.uid]


def _who(transport: Any) -> Credentials:
    channel: socket.socket = transport.getHandle()
    return credentials(channel)


def _submission(line: bytes, domain: str) -> Submission:
    try:
        request = msgspec.json.decode(line, type=_Request)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Refused(TABLE["bad-argument"], f"not a request: {error}") from None
    if request.envid and not XTEXT.match(request.envid):
        raise _Refused(TABLE["bad-argument"], "not a request: no xtext - at `$.envid`")
    sender = NULL if not request.sender else _address(request.sender, domain, "sender")
    notify = _notify(request.notify)
    recipients = tuple(
        Recipient(_address(text, domain, f"recipient {number}"), notify)
        for number, text in enumerate(request.recipients, 1)
    )
    envelope = Envelope(
        sender,
        recipients,
        body=request.body,
        is_smtputf8=not all(map(is_ascii, (sender, *(one.address for one in recipients)))),
        ret=request.ret,
        envid=request.envid,
    )
    return Submission(envelope, request.size_octets)


def _address(text: str, domain: str, which: str) -> Address:
    found = parse(text if "@" in text else f"{text}@{domain}", is_smtputf8=True)
    if found is None:
        raise _Refused(TABLE["bad-argument"], f"{which} is no address")
    return found


def _notify(text: str) -> Notify:
    if not text:
        return Notify.UNSET
    try:
        found = [Notify[word] for word in text.upper().split(",")]
    except KeyError:
        raise _Refused(TABLE["bad-argument"], "notify has an unknown word") from None
    notify = Notify.UNSET
    for one in found:
        notify |= one
    if Notify.UNSET in found or (Notify.NEVER in found and notify != Notify.NEVER):
        raise _Refused(TABLE["bad-argument"], "notify is never, or some of the others")
    return notify
