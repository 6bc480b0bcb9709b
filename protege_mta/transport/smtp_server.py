"""The Twisted shell around :class:`~..wire.server.ServerMachine`.

It owns the transport and nothing else: framing, sequence and replies are the machine's, decisions
are the door's, storage is the intake's.  While a question is open, what comes in is read once and
no more: that is the back-pressure, and an ordinary client, which waits for its reply, costs no
system call by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IPushProducer,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..model.account import ScramVerifier
from ..model.envelope import Envelope, Recipient
from ..model.ports import Intake, LoggedIn, MailCommand, Peer, Proof
from ..model.reply import TABLE, Reply
from ..wire.server import ServerMachine
from .channel_binding import channel_binding
from .sweep import NEVER
from .tls_server import facts

if TYPE_CHECKING:
    from .smtp_factory import SmtpServerFactory


class Channel(Protocol):
    """The part of a Twisted TCP transport that an SMTP server uses."""

    def write(self, data: bytes) -> None: ...
    def loseConnection(self) -> None: ...
    def abortConnection(self) -> None: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...
    def startTLS(self, contextFactory: IOpenSSLServerConnectionCreator) -> None: ...
    def getHandle(self) -> SSL.Connection: ...


@implementer(IProtocol, IHandshakeListener, IPushProducer)
class SmtpConnection:
    """Serve one SMTP client; the machine's :class:`~..wire.shell.Shell`.

    Its time-outs go by the machine's progress, so that dribbled octets keep no connection open.
    """

    log = Logger()

    __slots__ = (
        "__weakref__",
        "_door",
        "_early",
        "_factory",
        "_intake",
        "_is_closing",
        "_is_finishing",
        "_is_handshaking",
        "_is_open",
        "_is_paused",
        "_is_running",
        "_is_stuck",
        "_machine",
        "_peer",
        "_progress",
        "_settings",
        "_since",
        "_tls",
        "_waiting",
        "transport",
    )

    def __init__(self, factory: SmtpServerFactory, peer: Peer) -> None:
        self.transport: Channel
        self._factory = factory
        self._door = factory.door
        self._settings = factory.settings
        self._tls = factory.tls
        self._peer = peer
        self._machine = ServerMachine(
            self, factory.settings, peer, factory.tally, has_tls=self._tls is not None
        )
        self._progress = -1  # at the last look
        self._since = factory.sweep.now  # when it was seen to change
        self._intake: Intake | None = None
        self._waiting: Deferred[Any] | None = None
        self._early: Reply | None = None  # an answer by a Deferred that had fired already
        self._is_open = False  # the door knows of us
        self._is_handshaking = False
        self._is_running = False
        self._is_finishing = False  # the message is complete, its fate is open
        self._is_paused = False  # we read no more for now
        self._is_stuck = False  # the client does not read its replies
        self._is_closing = False

    # --- what Twisted calls ----------------------------------------------------------------------

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = cast(Channel, transport)
        self.connectionMade()

    def connectionMade(self) -> None:
        factory, machine = self._factory, self._machine
        factory.joined(self)
        self.transport.registerProducer(self, True)
        refusal = TABLE["shutting-down"] if factory.is_draining else self._knock()
        if refusal is not None:
            factory.tally.connections_refused += 1
            machine.refuse(refusal)
        if not factory.is_tls_first:
            if refusal is None:
                if factory.greet_delay_s:
                    return self._greet_later()
                machine.greet()
            self._run()
        elif refusal is None:
            self.start_tls()
        else:
            self.close()

    def dataReceived(self, data: bytes) -> None:
        if self._is_closing:
            return
        self._machine.feed(data)
        if self._waiting is None and not self._is_stuck:
            self._run()
        elif not self._is_paused:
            self._is_paused = True
            self.transport.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_closing = True
        if self._is_handshaking:
            self._factory.tally.tls_failures_in += 1
            self.log.info(
                "TLS handshake failed session_id={session_id} peer={peer}: {reason}",
                session_id=self._peer.session_id,
                peer=self._peer.address,
                reason=reason.getErrorMessage(),
            )
        # A message that is complete goes its way, though nobody will hear of it (RFC 1047).
        if self._waiting is not None and not self._is_finishing:
            self._waiting.cancel()
        self.abort()
        if self._is_open:
            self._is_open = False
            try:
                self._door.closed(self._peer)
            except Exception:
                self._complain("the door could not take leave")
        self._machine.end()
        self._factory.left(self)

    def handshakeCompleted(self) -> None:
        self._is_handshaking = False
        self._factory.tally.tls_in += 1
        is_first = self._peer.tls is None and not self._peer.helo
        self._machine.encrypted(facts(self.transport.getHandle()))
        if is_first and self._factory.is_tls_first:
            self._machine.greet()
        self._run()

    def pauseProducing(self) -> None:
        """The client does not read its replies: neither do we read what it sends."""
        self._is_stuck = True

    def resumeProducing(self) -> None:
        self._is_stuck = False
        if self._waiting is None and not self._is_closing:
            self._go_on()

    def stopProducing(self) -> None:
        """``connectionLost`` follows, and does what is to be done."""

    # --- what the sweep and the factory call -----------------------------------------------------

    @property
    def deadline(self) -> float:
        """Worked out when the sweep asks, so that a read costs nothing for it.

        The time runs from the first look that sees the latest progress: never too short.
        """
        machine, settings = self._machine, self._settings
        # While a question is open, the time it takes is ours.
        if machine.progress != self._progress or self._waiting is not None:
            self._progress = machine.progress
            self._since = self._factory.sweep.now
            return NEVER
        if self._is_handshaking:
            return self._since + settings.handshake_s
        if self._is_closing:
            return self._since + settings.close_s
        return self._since + (settings.block_s if machine.is_in_content else settings.command_s)

    def expired(self) -> None:
        if self._is_handshaking or self._is_closing or self._is_stuck:
            self.transport.abortConnection()
        else:
            self._machine.say(TABLE["idle-too-long"])
            self._run()

    def _start_stage(self) -> None:
        """Let the time for what comes now begin anew."""
        self._progress = -1

    def drain(self) -> None:
        """End as soon as no transaction is under way."""
        if self._is_handshaking:
            self._is_handshaking = False
            self.transport.abortConnection()
        elif not self._is_closing:
            self._machine.shut_down()
            if self._waiting is None:
                self._run()

    def _knock(self) -> Reply | None:
        try:
            refusal = self._door.opened(self._peer)
        except Exception:
            self._complain("the door could not be asked for a connection")
            return TABLE["internal-error"]
        self._is_open = refusal is None
        return refusal

    def _greet_later(self) -> None:
        """See whether the client can wait, as SMTP wants it; what it sends meanwhile is kept as
        while a question is open."""
        factory = self._factory
        self._waiting = wait = deferLater(factory.clock, factory.greet_delay_s, lambda: None)
        wait.addCallbacks(self._greet, lambda failure: failure.trap(CancelledError))

    def _greet(self, result: object) -> None:
        self._waiting = None
        self._start_stage()
        machine = self._machine
        if machine.has_heard:
            self._peer.offence = "talked-early"
            machine.refuse(TABLE["talked-early"])
        elif self._factory.is_draining:
            machine.refuse(TABLE["shutting-down"])
        else:
            machine.greet()
        self._run()

    def _run(self) -> None:
        """Let the machine go on with what is there, and write what it says."""
        if self._is_running:
            return
        self._is_running = True
        machine = self._machine
        try:
            machine.run()
        except Exception:
            self._complain("a session broke")
            machine.refuse(TABLE["internal-error"])
            self.close()
        finally:
            self._is_running = False
        # As _write_out() does, without the call: this is the end of every read.
        out = machine.out
        if out:
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()

    def _write_out(self) -> None:
        out = self._machine.out
        if out:
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()

    # --- what the machine asks -------------------------------------------------------------------

    def now(self) -> float:
        return self._factory.now()

    def nonce(self) -> str:
        return self._factory.new_nonce()

    def scram(self, name: str) -> ScramVerifier | None:
        try:
            return self._door.scram(self._peer, name)
        except Exception:
            self._complain("the door had nothing to check a login by")
            return None

    def channel_binding(self, kind: str) -> bytes | None:
        if self._peer.tls is None:
            return None
        return channel_binding(self.transport.getHandle(), kind)

    def ask_login(self, proof: Proof) -> LoggedIn | Reply | None:
        try:
            answer = self._door.login(self._peer, proof)
        except Exception:
            self._complain("the door could not check a login")
            return TABLE["login-later"]
        if isinstance(answer, LoggedIn | Reply):
            return answer
        return self._later(answer.addErrback(self._unchecked))

    def _unchecked(self, failure: Failure) -> Reply:
        if not self._is_cancelled(failure):
            self._complain("the door could not check a login", failure)
        return TABLE["login-later"]

    def ask_sender(self, mail: MailCommand) -> Reply | None:
        try:
            answer = self._door.sender(self._peer, mail)
        except Exception:
            return self._no_answer()
        return answer if isinstance(answer, Reply) else self._later(answer)

    def ask_recipient(self, mail: MailCommand, recipient: Recipient) -> Reply | None:
        try:
            answer = self._door.recipient(self._peer, mail, recipient)
        except Exception:
            return self._no_answer()
        return answer if isinstance(answer, Reply) else self._later(answer)

    def _no_answer(self) -> Reply:
        self._complain("the door could not answer")
        return TABLE["local-error"]

    def open_intake(self, envelope: Envelope) -> Reply | None:
        try:
            intake = self._door.receive(self._peer, envelope)
        except Exception:
            return self._no_answer()
        if isinstance(intake, Reply):
            return intake
        self._intake = intake
        return None

    def write(self, octets: bytes) -> bool:
        intake = cast(Intake, self._intake)
        try:
            pause = intake.write(octets)
        except Exception:
            self._complain("content could not be handed on")
            self._spoil()
            return True
        if pause is None:
            return True
        self._waiting = pause
        pause.addCallbacks(self._written, self._unwritten)
        return self._waiting is None

    def finish(self) -> Reply | None:
        intake, self._intake = cast(Intake, self._intake), None
        self._is_finishing = True
        try:
            fate = intake.finish()
        except Exception:
            self._complain("a message could not be finished")
            self._is_finishing = False
            return TABLE["local-error"]
        return self._later(fate)

    def abort(self) -> None:
        intake, self._intake = self._intake, None
        if intake is not None:
            try:
                intake.abort()
            except Exception:
                self._complain("an intake could not be aborted")

    def _spoil(self) -> None:
        self.abort()
        self._machine.spoil(TABLE["local-error"])

    def say_now(self) -> bool:
        self._write_out()
        return not self._is_stuck

    def start_tls(self) -> None:
        self._write_out()
        self._is_handshaking = True
        self._start_stage()
        self.transport.startTLS(cast(IOpenSSLServerConnectionCreator, self._tls))

    def close(self) -> None:
        self._is_closing = True
        self._start_stage()
        self.abort()
        self._write_out()
        # A channel with a producer would wait for it.
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    # --- waiting ---------------------------------------------------------------------------------

    def _later(self, answer: Deferred[Reply]) -> Reply | None:
        """Have the machine wait, unless ``answer`` has fired already: that is as good as a reply,
        and no number of them deepens the stack."""
        self._waiting = answer
        answer.addCallbacks(self._answered, self._unanswered)
        is_early = self._waiting is None
        early, self._early = self._early, None
        if is_early and early is None:
            raise TypeError("a question was answered with nothing")
        return early

    def _answered(self, reply: Reply) -> None:
        self._waiting = None
        self._is_finishing = False
        self._start_stage()
        if self._is_running:
            self._early = reply
        elif not self._is_closing:
            try:
                self._machine.answer(reply)
            except Exception:
                self._complain("a session broke")
                self._machine.refuse(TABLE["internal-error"])
            self._go_on()

    def _unanswered(self, failure: Failure) -> None:
        if not self._is_cancelled(failure):
            self._complain("a question found no answer", failure)
        self._answered(TABLE["local-error"])

    def _written(self, result: object) -> None:
        self._waiting = None
        self._start_stage()
        if not self._is_running and not self._is_closing:
            self._machine.written()
            self._go_on()

    def _unwritten(self, failure: Failure) -> None:
        if not self._is_cancelled(failure):
            self._complain("content could not be handed on", failure)
        self._spoil()
        self._written(None)

    def _go_on(self) -> None:
        self._run()
        self._read_on()

    def _read_on(self) -> None:
        if self._is_paused and self._waiting is None and not self._is_stuck:
            self._is_paused = False
            self.transport.resumeProducing()

    def _is_cancelled(self, failure: Failure) -> bool:
        return self._is_closing and failure.check(CancelledError) is not None

    def _complain(self, what: str, failure: Failure | None = None) -> None:
        self.log.failure(
            "{what} session_id={session_id}",
            failure,
            what=what,
            session_id=self._peer.session_id,
        )
