"""An ESMTP session, the server's side, as a sans-IO machine.

RFC 5321 with 1870 (SIZE), 2034 (ENHANCEDSTATUSCODES), 2920 (PIPELINING), 3030 (CHUNKING), 3207
(STARTTLS), 3461 (DSN), 4865 (FUTURERELEASE), 4954 (AUTH), 6152 (8BITMIME), 6531 (SMTPUTF8) and 8689
(REQUIRETLS).

The shell feeds octets and calls :meth:`ServerMachine.run`, which uses them up and asks the
:class:`~.shell.Shell` for what it cannot do itself.  Replies gather in ``out``, in order, to be
written together.  Most questions are answered where they are asked, by a call that returns a reply;
one that is not suspends the machine until :meth:`ServerMachine.answer`, so that a slow answer can
never reorder a pipelined group.  The replies, and the content that comes out, are functions of the
octet stream alone, however it was cut.

A bare CR or LF ends nothing: in a command it is a syntax error, in content it is refused at the
content's true end (RFC 5321, 2.3.8).

AUTH ends a group, for its client has to wait for challenges.  One that does not is still understood
by the stream alone: while an exchange is open the next line is its response, and once it has ended,
well or badly, the next line is a command.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Literal

import attrs

from ..model.address import NULL
from ..model.envelope import Envelope, Recipient
from ..model.outcome import TlsFacts
from ..model.ports import MailCommand, Peer
from ..model.reply import TABLE, Reply
from ..model.tally import Tally
from . import commands, offers
from .bdat import ChunkJoiner
from .dotstuff import Unstuffer
from .grants import granted
from .lines import TOO_LONG, LineReader, Oversize, has_bare_ends
from .login import Login, Step, mechanisms
from .sasl import RESPONSE_LINE_OCTETS
from .settings import ServerSettings
from .shell import Shell

BLOCK_OCTETS: Final = 8192
"""So much content is a step forward; less of it, however often, does not move the deadline."""

REPLIES: Final = 100
"""So many are put together before they are written: a client that sends commands and does not read
is found out by then, however much it has sent."""

Phase = Literal["connected", "clear", "greeted", "mail", "rcpt", "chunks", "failed"]
"""How far the transaction has come: ``clear`` is greeted on a channel that has to be encrypted
first, ``rcpt`` has an accepted recipient, ``chunks`` a first BDAT, ``failed`` a refused one, after
which only RSET helps (RFC 3030, 2)."""

Mode = Literal["command", "data", "chunk", "ended", "login", "handshake", "closing", "closed"]
"""What comes next: a command line, content, octets of a chunk; the answer to complete content; a
response of AUTH; a TLS handshake; the order to close the channel; nothing more."""


@attrs.frozen
class Rule:
    """A verb: what it does, what may follow it, and when it is in sequence.

    :ivar run: receives the machine and the argument, without the white space at its end.
    :ivar takes: ``nothing``, at most one ``string``, or an ``argument`` that ``run`` looks at.
        Looked at before the sequence is.
    """

    run: Callable[[ServerMachine, bytes], None]
    takes: Literal["nothing", "string", "argument"] = "argument"
    allowed_in: frozenset[Phase] = frozenset(
        {"connected", "clear", "greeted", "mail", "rcpt", "chunks", "failed"}
    )


class ServerMachine:
    """One client's conversation.

    :param shell: asked while the machine runs.
    :param peer: what is learnt of the client is written here.
    :param has_tls: whether STARTTLS may be offered.
    :ivar feed: takes the next octets off the wire, cut anywhere.
    :ivar out: replies not yet written.
    :ivar progress: grows with every step forward of the client: a line, a block of content, an
        end of content.  Time-outs go by it.
    """

    __slots__ = (
        "_bad_commands",
        "_block",
        "_chunk_left",
        "_flaw",
        "_has_intake",
        "_has_tls",
        "_is_bare",
        "_is_last_chunk",
        "_is_shutting_down",
        "_is_waiting",
        "_joiner",
        "_lines",
        "_login",
        "_mail",
        "_mode",
        "_phase",
        "_recipients",
        "_refusal",
        "_settings",
        "_settle",
        "_shell",
        "_size",
        "_tally",
        "_unstuffer",
        "_was_refused",
        "feed",
        "out",
        "peer",
        "progress",
    )

    def __init__(
        self, shell: Shell, settings: ServerSettings, peer: Peer, tally: Tally, *, has_tls: bool
    ) -> None:
        self.out: list[bytes] = []
        self.peer = peer
        self.progress = 0
        self._shell = shell
        self._settings = settings
        self._tally = tally
        self._has_tls = has_tls
        self._read_from(LineReader())
        self._mode: Mode = "command"
        self._is_waiting = False  # for an answer, or for the intake
        self._settle: Callable[[Reply], None] | None = None  # what to do with the answer
        self._has_intake = False
        self._is_shutting_down = False
        self._bad_commands = 0
        self._login: Login | None = None  # from the first AUTH on
        self._begin("connected")

    def _read_from(self, lines: LineReader) -> None:
        self._lines = lines
        self.feed = lines.feed

    def _begin(self, phase: Phase) -> None:
        """Forget the transaction, if there was one."""
        self._phase: Phase = phase
        self._mail = _NO_MAIL
        self._recipients: list[Recipient] = []
        self._was_refused = False
        self._size = 0
        self._block = 0
        self._is_bare = False
        self._flaw: Reply | None = None

    # --- what the shell calls --------------------------------------------------------------------

    def greet(self) -> None:
        """Say 220."""
        self._tally.replies_in[2] += 1
        self.out.append(offers.greeting(self._settings.hostname))

    def refuse(self, reply: Reply) -> None:
        """Say ``reply``, and have the channel closed behind it."""
        self.say(reply)
        self._is_waiting = False
        self._settle = None
        self._mode = "closing"

    def run(self) -> None:
        """Go on until everything fed is used up, an answer has to be waited for, or the client does
        not take what is said."""
        lines, out = self._lines, self.out
        while not self._is_waiting:
            mode = self._mode
            if mode == "command":
                if self._is_shutting_down and self._phase in _IDLE:
                    self.say(TABLE["shutting-down"])
                    continue
                if lines.is_empty:
                    return
                line = lines.line()
                if line is None:
                    return
                self.progress += 1
                self._command(line)
                if len(out) >= REPLIES and not self._shell.say_now():
                    return
            elif mode == "data":
                octets = lines.take()
                if not octets:
                    return
                self._data(octets)
            elif mode == "chunk":
                octets = lines.take(self._chunk_left)
                if octets:
                    self._chunk(octets)
                elif self._chunk_left:
                    return
                else:
                    self._end_chunk()
            elif mode == "ended":
                self._end_content()
            elif mode == "login":
                response = lines.line(RESPONSE_LINE_OCTETS)
                if response is None:
                    return
                self.progress += 1
                self._login_line(response)
            elif mode == "closing":
                self._mode = "closed"
                self._shell.close()
            else:
                return

    def answer(self, reply: Reply) -> None:
        """Settle the question that was to be answered later; ``run()`` is due then."""
        settle, self._settle = self._settle, None
        if settle is None:
            raise RuntimeError("no question is open")
        self._is_waiting = False
        settle(reply)

    def written(self) -> None:
        """The intake can take more; ``run()`` is due now."""
        self._is_waiting = False

    def spoil(self, reply: Reply) -> None:
        """The intake broke and is gone: read the content to its end, then say ``reply``."""
        self._has_intake = False
        self._flaw = reply

    def encrypted(self, facts: TlsFacts) -> None:
        """The handshake is done: forget everything learnt in plaintext (RFC 3207, 4.2)."""
        peer = self.peer
        peer.tls, peer.helo, peer.is_esmtp, peer.identity = facts, "", False, ""
        self._read_from(LineReader())
        self._mode = "command"
        self._begin("connected")

    def end(self) -> None:
        """The channel is gone.  Once; the shell is let go, lest the two hold each other for the
        garbage collector."""
        self._mode = "closed"
        self._login = None
        del self._shell

    def shut_down(self) -> None:
        """Say 421 as soon as no transaction is under way; ``run()`` is due now."""
        self._is_shutting_down = True

    @property
    def has_heard(self) -> bool:
        """Whether there is something of the client's that was not looked at."""
        return not self._lines.is_empty

    @property
    def is_in_content(self) -> bool:
        """Whether the client owes content, not a command."""
        return self._mode == "data" or self._mode == "chunk"

    def say(self, reply: Reply) -> None:
        """Put a reply in line; behind 421 the channel closes (RFC 5321, 3.8)."""
        self._tally.replies_in[reply.code // 100] += 1
        self.out.append(_RENDERED.get(id(reply)) or reply.octets())
        if reply.code == 421:
            self._mode = "closing"

    # --- commands --------------------------------------------------------------------------------

    def _command(self, line: bytes | Oversize) -> None:
        if line is TOO_LONG:
            return self._bad(TABLE["line-too-long"])
        if len(line.translate(None, commands.CONTROLS)) != len(line):
            return self._bad(TABLE["bad-argument"])
        # White space before the CRLF is to be tolerated (RFC 5321, 4.1.1).
        verb, space, argument = line.rstrip(b" ").partition(b" ")
        rule = VERBS.get(verb) or VERBS.get(verb.upper())
        if rule is None:
            return self._bad(TABLE["bad-syntax"])
        if space and (
            rule.takes == "nothing"
            or (rule.takes == "string" and not commands.STRING.match(argument))
        ):
            return self._bad(TABLE["bad-argument"])
        if self._phase not in rule.allowed_in:
            # RFC 3207, 4; out of the way of who is in sequence.
            self.say(TABLE["tls-required" if self._phase == "clear" else "bad-sequence"])
            return
        rule.run(self, argument)

    def _bad(self, reply: Reply) -> None:
        """Refuse what no sane client sends, and lose patience at some time."""
        self._bad_commands += 1
        if self._bad_commands > self._settings.bad_commands:
            self.peer.offence = "too-many-errors"
            reply = TABLE["too-many-errors"]
        self.say(reply)

    def _wait(self, settle: Callable[[Reply], None]) -> None:
        self._is_waiting = True
        self._settle = settle

    def _drop_intake(self) -> None:
        if self._has_intake:
            self._has_intake = False
            self._shell.abort()

    def _ehlo(self, argument: bytes) -> None:
        if not self._greeted(argument, is_esmtp=True):
            return self._bad(TABLE["bad-argument"])
        settings = self._settings
        self._tally.replies_in[2] += 1
        is_encrypted = self.peer.tls is not None
        offered: tuple[str, ...] = ()
        if settings.mechanisms:
            offered = mechanisms(settings, self._shell, is_encrypted=is_encrypted)
        # What was offered in clear proves nothing, so that REQUIRETLS is not (RFC 8689, 2).
        more: tuple[str, ...] = ("REQUIRETLS",) if is_encrypted else ()
        if settings.may_hold:
            more += (offers.future_release(settings.future_release_s, self._shell.now()),)
        self.out.append(
            offers.abilities(
                settings.hostname,
                settings.message_octets,
                self._has_tls and not is_encrypted,
                offered,
                more,
            )
        )
        self._drop_intake()

    def _helo(self, argument: bytes) -> None:
        if not self._greeted(argument, is_esmtp=False):
            return self._bad(TABLE["bad-argument"])
        self._tally.replies_in[2] += 1
        self.out.append(offers.hello(self._settings.hostname))
        self._drop_intake()

    def _greeted(self, argument: bytes, *, is_esmtp: bool) -> bool:
        name = commands.helo_name(argument)
        if name is None:
            return False
        self.peer.helo, self.peer.is_esmtp = name, is_esmtp
        is_clear = self._settings.is_submission and self.peer.tls is None
        self._begin("clear" if is_clear else "greeted")
        return True

    def _starttls(self, argument: bytes) -> None:
        if not self._has_tls:
            return self._bad(TABLE["not-implemented"])
        if self.peer.tls is not None or not self.peer.is_esmtp:
            self.say(TABLE["bad-sequence"])
            return
        if not self._lines.is_empty:
            # They would be taken for what the encrypted channel said (RFC 3207, 6).
            self.peer.offence = "octets-behind-starttls"
            self.say(TABLE["octets-behind-starttls"])
            return
        self.say(TABLE["start-tls"])
        self._mode = "handshake"
        self._shell.start_tls()

    def _auth(self, argument: bytes) -> None:
        settings, peer = self._settings, self.peer
        if not settings.mechanisms:
            return self._bad(TABLE["not-implemented"])
        parts = commands.auth(argument)
        if parts is None:
            return self._bad(TABLE["bad-argument"])
        if not peer.is_esmtp or peer.identity:
            return self.say(TABLE["bad-sequence"])
        if self._phase == "clear":
            return self.say(TABLE["tls-before-login"])
        if self._login is None:
            self._login = Login(self._shell, settings, peer)
        elif self._login.is_spent:
            return self.say(TABLE["too-many-errors"])
        mechanism, initial = parts
        offered = mechanisms(settings, self._shell, is_encrypted=peer.tls is not None)
        if mechanism not in offered:
            return self._bad(TABLE["unknown-mechanism"])
        self._mode = "login"
        self._login_step(self._login.begin(mechanism, initial, offered))

    def _login_line(self, line: bytes | Oversize) -> None:
        if self._login is None:
            raise RuntimeError("a response, and no exchange is open")
        self._login_step(self._login.respond(line))

    def _login_judged(self, reply: Reply) -> None:
        if self._login is None:
            raise RuntimeError("a proof was judged, and no exchange is open")
        self._login_step(self._login.judged(reply))

    def _login_step(self, step: Step) -> None:
        if step is None:
            self._wait(self._login_judged)
        elif isinstance(step, bytes):
            self._tally.replies_in[3] += 1
            self.out.append(step)
        else:
            self._mode = "command"
            self.say(step)

    def _mail_from(self, argument: bytes) -> None:
        mail = commands.mail(argument)
        if isinstance(mail, Reply):
            return self._bad(mail)
        envelope = mail.envelope
        if envelope.future_release or envelope.requires_tls:
            terms = granted(
                envelope,
                self._settings,
                has_tls=self._has_tls,
                is_encrypted=self.peer.tls is not None,
                now=self._shell.now,
            )
            if isinstance(terms, Reply):
                return self._bad(terms)
            mail = MailCommand(terms, mail.size_octets)
        if mail.size_octets > self._settings.message_octets:
            return self.say(TABLE["message-too-big"])
        reply = self._shell.ask_sender(mail)
        if reply is None:
            self._wait(partial(self._judge_sender, mail))
        else:
            self._judge_sender(mail, reply)

    def _judge_sender(self, mail: MailCommand, reply: Reply) -> None:
        if 200 <= reply.code <= 299:
            self._mail = mail
            self._phase = "mail"
        self.say(reply)

    def _rcpt_to(self, argument: bytes) -> None:
        recipient = commands.rcpt(
            argument,
            is_smtputf8=self._mail.envelope.is_smtputf8,
            hostname=self._settings.hostname,
        )
        reply: Reply | None
        if isinstance(recipient, Reply):
            # Not counted as bad: a long list may hold any number of broken addresses.
            reply = recipient
        elif len(self._recipients) >= self._settings.recipients:
            reply = TABLE["too-many-recipients"]
        else:
            reply = self._shell.ask_recipient(self._mail, recipient)
            if reply is None:
                self._wait(partial(self._judge_recipient, recipient))
            else:
                self._judge_recipient(recipient, reply)
            return
        self._was_refused = True
        self.say(reply)

    def _judge_recipient(self, recipient: Recipient, reply: Reply) -> None:
        if 200 <= reply.code <= 299:
            self._recipients.append(recipient)
            self._phase = "rcpt"
        else:
            self._was_refused = True
        self.say(reply)

    def _open_intake(self) -> Reply | None:
        """:return: None once there is one, or the refusal."""
        envelope = self._mail.envelope
        refusal = self._shell.open_intake(
            Envelope(
                envelope.sender,
                tuple(self._recipients),
                envelope.body,
                envelope.is_smtputf8,
                envelope.ret,
                envelope.envid,
                envelope.hold_until,
                envelope.future_release,
                envelope.requires_tls,
            )
        )
        self._has_intake = refusal is None
        return refusal

    def _data_command(self, argument: bytes) -> None:
        if self._phase != "rcpt":
            return self.say(TABLE["no-recipients" if self._was_refused else "bad-sequence"])
        refusal = self._open_intake()
        if refusal is None:
            self._mode = "data"
            self._unstuffer = Unstuffer()
        self.say(refusal or TABLE["send-message"])

    def _rset(self, argument: bytes) -> None:
        self._begin(self._phase if self._phase in _IDLE else "greeted")
        self.say(TABLE["ok"])
        self._drop_intake()

    def _noop(self, argument: bytes) -> None:
        self.say(TABLE["ok"])

    def _help(self, argument: bytes) -> None:
        self.say(TABLE["help"])

    def _vrfy(self, argument: bytes) -> None:
        if not argument or argument.startswith(b" "):
            return self._bad(TABLE["bad-argument"])
        self.say(TABLE["cannot-verify"])

    def _expn(self, argument: bytes) -> None:
        return self._bad(TABLE["not-implemented"])

    def _quit(self, argument: bytes) -> None:
        self.refuse(TABLE["bye"])
        self._drop_intake()

    # --- content ---------------------------------------------------------------------------------

    def _data(self, octets: bytes) -> None:
        unstuffer = self._unstuffer
        content = unstuffer.feed(octets)
        if unstuffer.rest is None:
            self._step_forward(len(octets))
        else:
            self._lines.feed(unstuffer.rest)
            self._mode = "ended"
            self.progress += 1
        self._size += len(content)
        self._content(content)

    def _content(self, content: bytes) -> None:
        if not self._is_bare and has_bare_ends(content):
            self._is_bare = True
        if self._is_bare or self._size > self._settings.message_octets:
            self._drop_intake()
        elif self._has_intake and content and not self._shell.write(content):
            self._is_waiting = True

    def _end_content(self) -> None:
        reply: Reply | None
        if self._has_intake:
            self._has_intake = False
            reply = self._shell.finish()
            if reply is None:
                return self._wait(self._end_message)
        # Looked at again, so that the reply does not depend on which flaw was met first.
        elif self._size > self._settings.message_octets:
            reply = TABLE["message-too-big"]
        elif self._is_bare:
            reply = TABLE["line-endings"]
        else:
            reply = self._flaw or TABLE["local-error"]
        self._end_message(reply)

    def _end_message(self, reply: Reply) -> None:
        if 200 <= reply.code <= 299:
            self._bad_commands = 0
        self._mode = "command"
        self._begin("greeted")
        self.say(reply)

    def _bdat(self, argument: bytes) -> None:
        chunk = commands.chunk(argument)
        if chunk is None:
            return self._bad(TABLE["bad-argument"])
        self._chunk_left, self._is_last_chunk = chunk
        self._refusal: Reply | None = None
        self._mode = "chunk"
        if self._phase == "mail":
            self._refuse_chunk(TABLE["no-recipients" if self._was_refused else "bad-sequence"])
        elif self._phase != "rcpt" and self._phase != "chunks":
            self._refusal = TABLE["bad-sequence"]
        elif self._size + self._chunk_left > self._settings.message_octets:
            self._refuse_chunk(TABLE["message-too-big"])
            self._drop_intake()
        else:
            self._size += self._chunk_left
            if self._phase == "rcpt":
                self._open_chunks()

    def _open_chunks(self) -> None:
        refusal = self._open_intake()
        if refusal is None:
            self._phase = "chunks"
            self._joiner = ChunkJoiner()
        else:
            # To be said behind the chunk's octets.
            self._refuse_chunk(refusal)

    def _refuse_chunk(self, reply: Reply) -> None:
        self._refusal = reply
        self._phase = "failed"

    def _chunk(self, octets: bytes) -> None:
        self._chunk_left -= len(octets)
        self._step_forward(len(octets))
        if self._has_intake:
            self._content(self._joiner.feed(octets))

    def _end_chunk(self) -> None:
        self.progress += 1
        self._mode = "command"
        if self._refusal is not None:
            self.say(self._refusal)
            if self._is_last_chunk and self._phase == "failed":
                self._begin("greeted")
        elif not self._is_last_chunk:
            self.say(TABLE["chunk-ok"])
        else:
            self._mode = "ended"
            if self._has_intake:
                self._content(self._joiner.finish())

    def _step_forward(self, octets: int) -> None:
        self._block += octets
        if self._block >= BLOCK_OCTETS:
            self._block = 0
            self.progress += 1


_NO_MAIL: Final = MailCommand(Envelope(NULL, ()))
_IDLE: Final = frozenset({"connected", "clear", "greeted"})
_GREETED: Final[frozenset[Phase]] = frozenset({"greeted"})
_BEFORE_MAIL: Final[frozenset[Phase]] = frozenset({"clear", "greeted"})
_IN_MAIL: Final[frozenset[Phase]] = frozenset({"mail", "rcpt"})

VERBS: Final[Mapping[bytes, Rule]] = {
    b"EHLO": Rule(ServerMachine._ehlo),
    b"HELO": Rule(ServerMachine._helo),
    b"STARTTLS": Rule(ServerMachine._starttls, "nothing", _BEFORE_MAIL),
    b"AUTH": Rule(ServerMachine._auth, allowed_in=_BEFORE_MAIL),
    b"MAIL": Rule(ServerMachine._mail_from, allowed_in=_GREETED),
    b"RCPT": Rule(ServerMachine._rcpt_to, allowed_in=_IN_MAIL),
    b"DATA": Rule(ServerMachine._data_command, "nothing", _IN_MAIL),
    b"BDAT": Rule(ServerMachine._bdat),
    b"RSET": Rule(ServerMachine._rset, "nothing"),
    b"NOOP": Rule(ServerMachine._noop, "string"),
    b"HELP": Rule(ServerMachine._help, "string"),
    b"VRFY": Rule(ServerMachine._vrfy),
    b"EXPN": Rule(ServerMachine._expn),
    b"QUIT": Rule(ServerMachine._quit, "nothing"),
}

# The replies of the table live as long as the program, so their ids name them for good; hashing
# one by value would cost as much as rendering it.
_RENDERED: Final = {id(reply): reply.octets() for reply in TABLE.values()}
