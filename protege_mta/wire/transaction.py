"""One mail transaction as its client sees it (RFC 5321, 3.3; RFC 2920; RFC 2033; RFC 8689).

A sans-IO machine: :meth:`Transaction.begin` and :meth:`Transaction.reply` give octets to send, or
say that it is the content's turn, or that it is over.  Each recipient comes out exactly once: with
an outcome, or :attr:`Transaction.left_over` for the next transaction, or
:attr:`Transaction.unsettled` for the next host.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

import attrs

from ..model.envelope import Envelope, Notify, Recipient
from ..model.outcome import (
    Contact,
    Delivered,
    Outcome,
    PermanentFailure,
    Scope,
    TransientFailure,
)
from ..model.reply import Reply
from .abilities import Abilities
from .client import Awaited, our_reply, unmet

GROUP: Final = 100
"""Most commands of one pipelined write."""

EMPTY: Final = b".\r\n"


class Turn(enum.Enum):
    """What a :class:`Transaction` comes to, other than octets to send."""

    WAIT = enum.auto()
    CONTENT = enum.auto()  # send the content and its final dot, then call content_sent()
    END = enum.auto()


Step = bytes | Turn

# By a name of their own, for looking a member up in its Enum costs as much as all else about it.
WAIT: Final = Turn.WAIT
CONTENT: Final = Turn.CONTENT
END: Final = Turn.END
_RSET: Final = Awaited.RSET
_MAIL: Final = Awaited.MAIL
_RCPT: Final = Awaited.RCPT
_DATA: Final = Awaited.DATA
_BLOCK: Final = Awaited.BLOCK
_DOT: Final = Awaited.DOT
_EMPTY_DOT: Final = Awaited.EMPTY_DOT


def judged(reply: Reply, scope: Scope, contact: Contact | None) -> Outcome:
    """What a 4yz or 5yz reply comes to."""
    failure = PermanentFailure if reply.code >= 500 else TransientFailure
    return failure(scope, reply, contact)


@attrs.define(eq=False)
class Transaction:
    """A message for recipients at one host.

    :ivar recipients: indexes into the envelope's recipients, each once.
    :ivar size_octets: of what will be sent, before dot-stuffing.
    :ivar is_eight_bit: whether BODY=8BITMIME has to be said.
    :ivar needs_reset: begin with RSET; and at the end, whether the next one has to.
    :ivar outcomes: of the recipients that are settled.
    :ivar left_over: recipients above what the server takes at a time, with what it said; only
        where the others' message got through.
    :ivar unsettled: recipients to try at the next host, after :attr:`cause` ended this one.
    :ivar is_answered: whether the server has shown itself alive in this transaction.
    """

    envelope: Envelope
    recipients: Sequence[int]
    abilities: Abilities
    size_octets: int
    contact: Contact
    is_eight_bit: bool = False
    is_lmtp: bool = False
    needs_reset: bool = False
    outcomes: list[tuple[int, Outcome]] = attrs.field(factory=list, init=False)
    left_over: list[tuple[int, Reply]] = attrs.field(factory=list, init=False)
    unsettled: list[int] = attrs.field(factory=list, init=False)
    cause: Reply | None = attrs.field(default=None, init=False)
    is_answered: bool = attrs.field(default=False, init=False)
    # What is said in turn, and how much of it has been asked and answered.
    _script: list[tuple[Awaited, int]] = attrs.field(factory=list, init=False)
    _asked: int = attrs.field(default=0, init=False)
    _heard: int = attrs.field(default=0, init=False)
    _accepted: list[int] = attrs.field(factory=list, init=False)
    _too_many: list[tuple[int, Reply]] = attrs.field(factory=list, init=False)
    _is_sender_ok: bool = attrs.field(default=False, init=False)
    _is_sending: bool = attrs.field(default=False, init=False)
    _is_sent: bool = attrs.field(default=False, init=False)

    @property
    def awaited(self) -> Awaited:
        """What the next reply answers; BLOCK while the content is on its way."""
        return self._script[self._heard][0] if self._heard < self._asked else _BLOCK

    def begin(self) -> Step:
        """The first octets to send; END where the hop's abilities settle everything already."""
        recipients = self.recipients
        refusal = self._unsendable()
        if refusal is not None:
            failure = PermanentFailure(Scope.MESSAGE, refusal, self.contact)
            self.outcomes.extend((index, failure) for index in recipients)
            return END
        if not self.abilities.has_smtputf8:
            recipients = [index for index in recipients if self._is_sendable(index)]
            if not recipients:
                return END
        script = self._script
        if self.needs_reset:
            script.append((_RSET, -1))
        script.append((_MAIL, -1))
        script += [(_RCPT, index) for index in recipients]
        script.append((_DATA, -1))
        return self._more()

    def reply(self, reply: Reply) -> Step:
        """Take the next reply."""
        heard = self._heard
        if heard == self._asked:
            return self._interrupted(reply)
        awaited, index = self._script[heard]
        self._heard = heard + 1
        code = reply.code
        if code == 421:
            return self._closing(awaited, index, reply)
        self.is_answered = True
        kind = code // 100
        if awaited is _RCPT:
            if kind == 2:
                self._accepted.append(index)
            elif kind == 3:
                return self._out_of_step(reply)
            elif self._is_sender_ok:
                self._refused(index, reply)
        elif awaited is _MAIL:
            if kind == 2:
                self._is_sender_ok = True
            elif kind == 3:
                return self._out_of_step(reply)
            else:
                del self._script[self._asked :]
                self._settle(self.recipients, judged(reply, Scope.SENDER, self.contact))
        elif awaited is _DATA:
            return self._answered_data(reply, kind)
        elif awaited is _DOT:
            if kind == 3:
                return self._out_of_step(reply)
            self._answered_dot(index, reply, kind)
        elif awaited is _RSET:
            if kind != 2:
                return self._out_of_step(reply)
            self.needs_reset = False
        return self._next()

    def content_sent(self) -> None:
        """The final dot is on its way: from here on, silence is ambiguous."""
        self._is_sending, self._is_sent = False, True
        if self.is_lmtp:  # RFC 2033, 4.2
            self._script += [(_DOT, index) for index in self._accepted]
        else:
            self._script.append((_DOT, -1))
        self._asked = len(self._script)

    def content_failed(self, cause: Reply) -> None:
        """The content cannot be read, which no other host would change; the dot is never sent."""
        self.cause = cause
        self._settle(self.recipients, TransientFailure(Scope.MESSAGE, cause, self.contact))

    def broken(self, cause: Reply) -> None:
        """The channel is lost, or the server out of step."""
        self.cause = cause
        if self._is_sent:
            # RFC 5321, 4.5.3.2.6 and 6.1: it may have the message; twice is better than never.
            self._settle(self._accepted, TransientFailure(Scope.HOST, cause, self.contact))
            self._put_off()
        else:
            self._too_many.clear()
            settled = {index for index, _ in self.outcomes}
            self.unsettled = [index for index in self.recipients if index not in settled]

    # --- what is sent ---------------------------------------------------------------------------

    def _unsendable(self) -> Reply | None:
        limit = self.abilities.size_octets
        if limit and self.size_octets > limit:  # RFC 1870, 6.1
            return Reply(552, "5.3.4", ("message exceeds the size limit of the next hop",))
        if not self.abilities.has_smtputf8 and not self.envelope.sender.isascii():
            return Reply(553, "5.6.7", ("the next hop does not take SMTPUTF8 addresses",))
        if self.envelope.requires_tls and not (self.is_lmtp or self.abilities.has_requiretls):
            return unmet("the next hop does not offer it")
        return None

    def _is_sendable(self, index: int) -> bool:
        if self.envelope.recipients[index].address.isascii():
            return True
        reply = Reply(553, "5.6.7", ("the next hop does not take SMTPUTF8 addresses",))
        self.outcomes.append((index, PermanentFailure(Scope.RECIPIENT, reply, self.contact)))
        return False

    def _more(self) -> bytes:
        """The next group: one command where the server does not pipeline (RFC 2920, 3.1)."""
        asked = self._asked
        group = self._script[asked : asked + (GROUP if self.abilities.has_pipelining else 1)]
        self._asked = asked + len(group)
        text = ""
        for awaited, index in group:
            if awaited is _RCPT:
                text += self._rcpt(self.envelope.recipients[index])
            elif awaited is _MAIL:
                text += self._mail()
            else:
                text += "DATA\r\n" if awaited is _DATA else "RSET\r\n"
        if text.count("\n") != len(group) or text.count("\r") != len(group):
            raise RuntimeError("an envelope with a line end inside")
        return text.encode("utf-8")

    def _mail(self) -> str:
        envelope, abilities = self.envelope, self.abilities
        line = f"MAIL FROM:<{envelope.sender}>"
        if abilities.size_octets is not None:
            line += f" SIZE={self.size_octets}"
        if self.is_eight_bit and abilities.has_8bitmime:
            line += " BODY=8BITMIME"
        if abilities.has_smtputf8 and (envelope.is_smtputf8 or not self._is_plain()):
            line += " SMTPUTF8"
        if abilities.has_dsn:
            if envelope.ret:
                line += f" RET={envelope.ret}"
            if envelope.envid:
                line += f" ENVID={envelope.envid}"
        if envelope.requires_tls and abilities.has_requiretls:
            line += " REQUIRETLS"
        return line + "\r\n"

    def _is_plain(self) -> bool:
        recipients = self.envelope.recipients
        return self.envelope.sender.isascii() and all(
            recipients[index].address.isascii() for index in self.recipients
        )

    def _rcpt(self, recipient: Recipient) -> str:
        line = f"RCPT TO:<{recipient.address}>"
        if self.abilities.has_dsn:
            if recipient.notify:
                line += f" NOTIFY={notify_words(recipient.notify)}"
            if recipient.orcpt:
                line += f" ORCPT={self._orcpt(recipient.orcpt)}"
        return line + "\r\n"

    def _orcpt(self, orcpt: str) -> str:
        if orcpt.isascii() or self.abilities.has_smtputf8:
            return orcpt
        # RFC 6533, 3: utf-8-addr-unitext becomes utf-8-addr-xtext for such a hop.
        return "".join(
            letter if letter.isascii() else f"\\x{{{ord(letter):X}}}" for letter in orcpt
        )

    # --- what is said ---------------------------------------------------------------------------

    def _next(self) -> Step:
        asked = self._asked
        if self._heard < asked:
            return WAIT
        if asked == len(self._script):
            self._put_off()
            return END
        if self._script[asked][0] is _DATA and not self._accepted:
            self.needs_reset = True
            return END
        return self._more()

    def _refused(self, index: int, reply: Reply) -> None:
        """A recipient: for itself, or for being one too many (RFC 5321, 4.5.3.1.10)."""
        is_limit = reply.code in (452, 552) and reply.enhanced in ("", "4.5.3", "5.5.3")
        if is_limit and self._accepted:
            self._too_many.append((index, reply))
        else:
            self.outcomes.append((index, judged(reply, Scope.RECIPIENT, self.contact)))

    def _answered_data(self, reply: Reply, kind: int) -> Step:
        if kind == 2 or (kind == 3 and not self._is_sender_ok and self._accepted):
            return self._out_of_step(reply)
        if kind == 3 and self._accepted:
            self._is_sending = True
            return CONTENT
        if kind == 3:
            if self.is_lmtp:
                return self._out_of_step(reply)  # nobody would answer the dot
            self._script.append((_EMPTY_DOT, -1))
            self._asked += 1
            return EMPTY  # RFC 2920, 3.1
        # With nobody accepted this is what it has to say; the recipients have their outcomes.
        self.needs_reset = self._is_sender_ok
        self._settle(self._accepted, judged(reply, Scope.MESSAGE, self.contact))
        self._put_off()
        return END

    def _answered_dot(self, index: int, reply: Reply, kind: int) -> None:
        self.needs_reset = False
        indexes = self._accepted if index < 0 else [index]
        if kind != 2:
            scope = Scope.MESSAGE if index < 0 else Scope.RECIPIENT
            self._settle(indexes, judged(reply, scope, self.contact))
            return
        delivered = Delivered(self.contact, reply, is_final=self.is_lmtp)
        has_dsn, recipients = self.abilities.has_dsn, self.envelope.recipients
        for each in indexes:
            outcome = delivered
            notify = recipients[each].notify
            if notify and has_dsn and Notify.SUCCESS in notify:
                outcome = attrs.evolve(delivered, is_relayed=True)
            self.outcomes.append((each, outcome))
        if self._too_many:
            self.left_over, self._too_many = self._too_many, []

    def _closing(self, awaited: Awaited, index: int, reply: Reply) -> Step:
        """421: the server closes the channel, whatever it was asked (RFC 5321, 3.8)."""
        if awaited is _DOT and index >= 0:
            self._settle([index], TransientFailure(Scope.HOST, reply, self.contact))
        elif awaited is _DOT:
            self._is_sent = False  # a plain no: nothing ambiguous about it
        self.broken(reply)
        return END

    def _interrupted(self, reply: Reply) -> Step:
        """A reply while the content is on its way, from a server that has heard enough."""
        if self._is_sending and reply.code >= 400 and reply.code != 421:
            self.cause = reply
            self._settle(self._accepted, judged(reply, Scope.MESSAGE, self.contact))
            self._put_off()
            return END
        if reply.code == 421:
            self.broken(reply)
            return END
        return self._out_of_step(reply)

    def _out_of_step(self, reply: Reply) -> Step:
        self.broken(our_reply("4.5.0", f"the server is out of step: it said {reply.code}"))
        return END

    def _settle(self, indexes: Sequence[int], outcome: Outcome) -> None:
        if self.outcomes:
            settled = {index for index, _ in self.outcomes}
            indexes = [index for index in indexes if index not in settled]
        self.outcomes.extend((index, outcome) for index in indexes)

    def _put_off(self) -> None:
        """The recipients beyond the server's limit, where there is nothing to go on with."""
        for index, reply in self._too_many:
            failure = TransientFailure(Scope.RECIPIENT, reply, self.contact)
            self.outcomes.append((index, failure))
        self._too_many.clear()


def notify_words(notify: Notify) -> str:
    """The NOTIFY parameter's value (RFC 3461, 4.1)."""
    return ",".join(flag.name for flag in Notify if flag in notify and flag.name)
