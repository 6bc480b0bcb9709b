"""What an ESMTP server's machine asks of the shell around it."""

from __future__ import annotations

from typing import Protocol

from ..model.account import ScramVerifier
from ..model.envelope import Envelope, Recipient
from ..model.ports import LoggedIn, MailCommand, Proof
from ..model.reply import Reply


class Shell(Protocol):
    """The machine's hands and ears, called while it runs.

    Nothing of the machine may be called from there but ``spoil()``.  A question is answered with a
    reply, or with None for "later": then the machine stands still until
    :meth:`~.server.ServerMachine.answer`.
    """

    def now(self) -> float:
        """POSIX seconds; asked for on submission listeners only, for a future release."""

    def nonce(self) -> str:
        """A text that nobody can foretell, another each time: letters, digits, ``-`` and ``_``."""

    def scram(self, name: str) -> ScramVerifier | None:
        """What to check a client's SCRAM proof by; never says whether there is such an account.

        :return: None where that cannot be told now.
        """

    def channel_binding(self, kind: str) -> bytes | None:
        """What both ends of the TLS channel know and nobody between them (RFC 5929; RFC 9266).

        :param kind: ``tls-exporter``, ``tls-unique`` or ``tls-server-end-point``.
        :return: None where there is none of that kind.
        """

    def ask_login(self, proof: Proof) -> LoggedIn | Reply | None:
        """Question: is the client who it says?"""

    def ask_sender(self, mail: MailCommand) -> Reply | None:
        """Question: may this sender send?"""

    def ask_recipient(self, mail: MailCommand, recipient: Recipient) -> Reply | None:
        """Question: do we take this recipient of ``mail``?"""

    def open_intake(self, envelope: Envelope) -> Reply | None:
        """Have a place to put the content; a reply refuses."""

    def write(self, octets: bytes) -> bool:
        """Hand content to the intake, in order.

        :return: whether there may be more at once; if not, the machine stands still until
            :meth:`~.server.ServerMachine.written`.
        """

    def finish(self) -> Reply | None:
        """Question: what becomes of the message, whose content is complete?  The intake is gone."""

    def abort(self) -> None:
        """The content will not be completed; the intake is gone."""

    def say_now(self) -> bool:
        """Write what is out.

        :return: whether the client takes it; if not, the machine stands still until the next
            :meth:`~.server.ServerMachine.run`.
        """

    def start_tls(self) -> None:
        """Write what is out, do the handshake, and tell ``encrypted()``."""

    def close(self) -> None:
        """Write what is out, then close the channel."""
