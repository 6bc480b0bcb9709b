"""SMTP replies: their shape, and every one that we send (RFC 5321, 4.2; RFC 3463; RFC 5248)."""

from __future__ import annotations

from typing import Final

from .value import value


@value
class Reply:
    """One SMTP reply, ours or a peer's.

    :ivar code: three digits; the first one is the severity (RFC 5321, 4.2.1).
    :ivar enhanced: ``class.subject.detail`` (RFC 3463); empty where there is none: the greeting,
        354, replies to HELO and EHLO (RFC 2034, section 4), and peers without the extension.
    :ivar lines: texts, at least one; printable US-ASCII in ours.
    """

    code: int
    enhanced: str
    lines: tuple[str, ...]

    def octets(self) -> bytes:
        """Render for the wire, the last line marked by a space after its code."""
        prefix = f"{self.enhanced} " if self.enhanced else ""
        if len(self.lines) == 1:
            return f"{self.code} {prefix}{self.lines[0]}\r\n".encode("ascii")
        marks = "-" * (len(self.lines) - 1) + " "
        return "".join(
            f"{self.code}{mark}{prefix}{text}\r\n"
            for mark, text in zip(marks, self.lines, strict=True)
        ).encode("ascii")

    @property
    def text(self) -> str:
        """The lines as one, for logs and DSNs."""
        return " ".join(self.lines)

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.code), self.enhanced, self.text)))


def _reply(code: int, enhanced: str, *lines: str) -> Reply:
    return Reply(code, enhanced, lines)


TABLE: Final[dict[str, Reply]] = {
    # session
    "start-tls": _reply(220, "2.0.0", "ready to start TLS"),
    "bye": _reply(221, "2.0.0", "closing channel"),
    "shutting-down": _reply(421, "4.3.2", "service shutting down, come back later"),
    "idle-too-long": _reply(421, "4.4.2", "idle for too long, closing channel"),
    "too-many-errors": _reply(421, "4.7.0", "too many errors, closing channel"),
    "too-many-connections": _reply(421, "4.7.0", "too many connections, try later"),
    "connecting-too-often": _reply(421, "4.7.0", "connecting too often, try later"),
    "shut-out": _reply(421, "4.7.0", "too many errors from your address, try later"),
    "talked-early": _reply(554, "5.5.1", "client spoke before the greeting, closing channel"),
    "internal-error": _reply(421, "4.3.0", "local error, closing channel"),
    "octets-behind-starttls": _reply(421, "4.7.0", "octets behind STARTTLS, closing channel"),
    "tls-unavailable": _reply(454, "4.7.0", "TLS not available for a local reason"),
    # commands
    "ok": _reply(250, "2.0.0", "ok"),
    "help": _reply(214, "2.0.0", "commands: EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY QUIT"),
    "cannot-verify": _reply(252, "2.5.1", "cannot verify, will take the message and try"),
    "bad-syntax": _reply(500, "5.5.2", "command not recognized"),
    "not-implemented": _reply(502, "5.5.1", "command not implemented"),
    "line-too-long": _reply(500, "5.5.6", "line too long"),
    "bad-argument": _reply(501, "5.5.4", "syntax error in argument"),
    "bad-sender": _reply(501, "5.1.7", "syntax error in the reverse-path"),
    "bad-recipient": _reply(501, "5.1.3", "syntax error in the forward-path"),
    "needs-smtputf8": _reply(553, "5.6.7", "address needs the SMTPUTF8 parameter"),
    "bad-sequence": _reply(503, "5.5.1", "bad sequence of commands"),
    "unknown-parameter": _reply(555, "5.5.4", "parameter not recognized or not supported"),
    "release-too-late": _reply(554, "5.5.4", "release is further off than we hold messages"),
    "release-passed": _reply(501, "5.5.4", "the time of release has passed"),
    "requiretls-in-clear": _reply(530, "5.7.10", "REQUIRETLS needs encryption, say STARTTLS first"),
    # AUTH (RFC 4954, sections 4 and 6)
    "logged-in": _reply(235, "2.7.0", "authentication succeeded"),
    "login-failed": _reply(535, "5.7.8", "authentication credentials invalid"),
    "login-later": _reply(454, "4.7.0", "cannot check credentials now, try again later"),
    "login-locked": _reply(454, "4.7.0", "too many failed attempts, try again later"),
    "login-cancelled": _reply(501, "5.7.0", "authentication cancelled"),
    "login-too-long": _reply(500, "5.5.6", "authentication exchange line is too long"),
    "login-malformed": _reply(501, "5.5.2", "cannot decode the response"),
    "server-speaks-first": _reply(501, "5.7.0", "this mechanism begins with a challenge"),
    "unknown-mechanism": _reply(504, "5.5.4", "authentication mechanism not supported"),
    "weak-mechanism": _reply(534, "5.7.9", "authentication mechanism is too weak for this account"),
    "tls-before-login": _reply(538, "5.7.11", "encryption required, say STARTTLS first"),
    "tls-required": _reply(530, "5.7.0", "encryption required, say STARTTLS first"),
    # HTTP, in events alone: clients hear of them as problems
    "key-required": _reply(530, "5.7.0", "a request without credentials"),
    "key-refused": _reply(535, "5.7.8", "the API key is not known or not valid"),
    "login-required": _reply(530, "5.7.0", "authentication required"),
    # transaction
    "sender-ok": _reply(250, "2.1.0", "sender ok"),
    "recipient-ok": _reply(250, "2.1.5", "recipient ok"),
    "chunk-ok": _reply(250, "2.0.0", "chunk ok"),
    "send-message": _reply(354, "", "end with <CRLF>.<CRLF>"),
    "no-recipients": _reply(554, "5.5.1", "no valid recipients"),
    "too-many-recipients": _reply(452, "4.5.3", "too many recipients"),
    "message-too-big": _reply(552, "5.3.4", "message exceeds the maximum size"),
    "line-endings": _reply(550, "5.6.11", "bare CR or LF in the message"),
    "header-too-long": _reply(554, "5.6.0", "header section is too long"),
    "no-author": _reply(554, "5.6.0", "no From field, and no sender to make one from"),
    "bad-author": _reply(550, "5.6.0", "message needs one From field, with an address in it"),
    "routing-loop": _reply(554, "5.4.6", "routing loop detected, too many Received fields"),
    "local-error": _reply(451, "4.3.0", "local error, try again later"),
    "spool-failed": _reply(451, "4.3.0", "cannot store the message, try again later"),
    "spool-full": _reply(452, "4.3.1", "no room to store the message, try again later"),
    "request-busy": _reply(451, "4.3.0", "this message is being handed in, try again later"),
    "rate-limited": _reply(450, "4.7.1", "too many messages, try again later"),
    "recipients-limited": _reply(450, "4.7.1", "too many recipients, try again in a minute"),
    # policy
    "no-relaying": _reply(550, "5.7.1", "relaying denied"),
    "sender-not-allowed": _reply(550, "5.7.1", "this account may not send from this address"),
    "from-not-allowed": _reply(550, "5.7.1", "this account may not send with this From address"),
    "recipient-not-allowed": _reply(550, "5.7.1", "this account may not send to this address"),
    "scope-missing": _reply(550, "5.7.1", "the API key has no scope for this"),
    "bcc-not-allowed": _reply(
        550, "5.7.1", "this account may not hide a recipient, name each in To or Cc"
    ),
    "first-time-limit": _reply(
        450, "4.7.1", "too many recipients that this account has not written to before, try later"
    ),
    "cannot-wait": _reply(
        550, "5.7.1", "mail for this agent is never kept, and so cannot wait for a person's word"
    ),
    "not-kept": _reply(
        550, "5.7.1", "mail for this agent is never kept, and so cannot be taken by HTTP"
    ),
    "suppressed-hard_bounce": _reply(550, "5.7.1", "suppressed: mail to this address has bounced"),
    "suppressed-complaint": _reply(550, "5.7.1", "suppressed: the recipient has complained"),
    "suppressed-unsubscribe": _reply(550, "5.7.1", "suppressed: the recipient has unsubscribed"),
    "suppressed-manual": _reply(550, "5.7.1", "suppressed: the address is on the suppression list"),
    "suppressed-policy": _reply(550, "5.7.1", "suppressed: a policy forbids mail to this address"),
    "no-such-user": _reply(550, "5.1.1", "no such mailbox here"),
    "agent-away": _reply(
        450, "4.2.1", "relay_rejected_recipient_not_connected: agent is away, try again later"
    ),
    "comes-by-itself": _reply(
        452, "4.5.3", "mail for this recipient is handled in another way, send it separately"
    ),
    "too-many-unknown": _reply(421, "4.7.0", "too many unknown recipients, closing channel"),
    "helo-too-short": _reply(550, "5.7.1", "HELO wants a full host name or an address literal"),
    "helo-unknown": _reply(450, "4.7.1", "the host name in HELO is not in the DNS"),
    "dmarc-failed": _reply(550, "5.7.1", "message fails DMARC, and its author's domain rejects it"),
    "greylisted": _reply(450, "4.7.1", "not seen before, try again in a few minutes"),
    # routing
    "no-such-domain": _reply(550, "5.1.2", "no such domain"),
    "null-mx": _reply(556, "5.1.10", "the domain accepts no mail (null MX)"),
    "no-mail-host": _reply(550, "5.4.4", "no mail host of the domain has an address"),
    "prohibited-address": _reply(550, "5.4.4", "no mail host has an address that may be used"),
    "loops-back": _reply(554, "5.4.6", "mail for the domain loops back to this server"),
    "dns-failed": _reply(451, "4.4.3", "name lookup failed, try again later"),
    "no-smarthost": _reply(451, "4.4.4", "the smarthost has no address, try again later"),
    "own-smarthost": _reply(451, "4.4.6", "the smarthost is this server itself"),
    # tunnels
    "relay-away": _reply(451, "4.4.1", "the relay server is not connected"),
    "not-attested": _reply(451, "4.7.5", "no trusted relay has vouched for the sender"),
    "forged-attestation": _reply(550, "5.7.7", "the word about the sender is forged or altered"),
    "session-lost": _reply(451, "4.4.2", "tunnel session ended, try again later"),
    "no-answer": _reply(451, "4.4.1", "no answer through the tunnel, try again later"),
    "begun-elsewhere": _reply(451, "4.4.2", "stream was begun again in another session"),
    "stream-stalled": _reply(451, "4.4.2", "nothing more came of the stream, try again later"),
    "too-many-streams": _reply(452, "4.3.2", "too many streams at a time, try again later"),
    "stream-damaged": _reply(451, "4.3.0", "content is not what was announced, try again later"),
    "no-request-id": _reply(501, "5.5.4", "stream without a request id"),
    "cannot-be-sent": _reply(554, "5.6.0", "message cannot be put into the tunnel's form"),
    # agents
    "agent-not-connected": _reply(451, "4.4.1", "the agent is not connected"),
    "tunnel-requiretls": _reply(
        550, "5.7.30", "REQUIRETLS support required: an agent's tunnel does not offer it"
    ),
    "pass-through-full": _reply(452, "4.3.1", "no room to pass the message on, try again later"),
    "not-passed-on": _reply(
        451,
        "4.4.1",
        "relay_rejected_no_deliverable_recipients: an agent has not got it, try again later",
    ),
    # webhooks
    "webhook-gone": _reply(550, "5.1.1", "the endpoint takes no mail for this recipient any more"),
    "webhook-requiretls": _reply(
        550, "5.7.30", "REQUIRETLS support required: the endpoint's channel is not encrypted"
    ),
    # local delivery
    "delivered": _reply(250, "2.0.0", "delivered to the mailbox"),
    "mailbox-full": _reply(452, "4.2.2", "mailbox full"),
    "delivery-loop": _reply(554, "5.4.6", "delivered to this mailbox before, mail loop"),
    "no-local-delivery": _reply(451, "4.3.5", "no delivery is configured for this domain"),
}
"""One text for each meaning; constant, telling no secrets and never the peer's own octets.  Texts
that carry our name or an id (greeting, EHLO, the final 250) are built where they are sent."""

_NAMES: Final = {reply: name for name, reply in TABLE.items()}


def name_of(reply: Reply) -> str:
    """Its name in :data:`TABLE`; ``other`` for what was built elsewhere."""
    return _NAMES.get(reply, "other")
