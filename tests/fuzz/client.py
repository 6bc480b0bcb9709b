"""What hostile servers say to our SMTP client."""

from __future__ import annotations

from typing import Final

from protege_mta.model.outcome import Delivered, Outcome
from protege_mta.model.tally import Tally
from protege_mta.testing.attempts import make_attempt
from protege_mta.testing.hosts import HANG_UP, HostNet, Script
from protege_mta.transport.client_settings import ClientSettings
from protege_mta.transport.relay import SmtpTransport

from .target import Target, nothing_logged

VERBS: Final = ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", ".", "RSET", "QUIT", "HELO")
CONTENT: Final = b".x\r\n" * 10
STUFFED: Final = b"..x\r\n" * 10
NEXT_VERB: Final = b"\x1e"
NEXT_TIME: Final = b"\x1f"


def replies(data: bytes) -> None:
    """One octet for how replies are cut, one for the envelope; then what is said to each verb.

    Verbs are apart by one octet, and what is said when it comes again by another.
    """
    if len(data) < 2:
        return
    recipients, messages = 1 + (data[1] & 3), 1 + (data[1] >> 2 & 1)
    answers: dict[str, bytes | list[bytes]] = {}
    for verb, said in zip(VERBS, data[2:].split(NEXT_VERB), strict=False):
        if said:
            answers[verb] = said.split(NEXT_TIME)
    net, tally = HostNet(data[0] % 50), Tally()
    script = net.serve("192.0.2.1", Script(answers=answers))
    with nothing_logged():
        transport = SmtpTransport(
            net,
            ClientSettings("me.test", tls="none"),
            clock=net,
            tally=tally,
            is_prohibited=lambda address, port: False,
        )
        for _ in range(messages):
            _one(net, script, transport, recipients)
        closed = transport.close()
        for _ in range(10):
            net.settle()
            net.pump([1])
    assert closed.called, "close does not end"
    assert tally.connections_out_open == 0, "a connection is left open"
    for octets in script.contents:
        assert octets in (STUFFED, b""), "the content was changed"
    for line in script.commands:
        assert line.isascii(), line
        assert line.isprintable(), line


def _one(net: HostNet, script: Script, transport: SmtpTransport, recipients: int) -> None:
    before = len(script.contents)
    attempt = make_attempt(
        ("mx1", ["192.0.2.1"]),
        recipients=[f"{n}@b.test" for n in range(recipients)],
        content=CONTENT,
    )
    results: list[tuple[int, Outcome]] = []
    transport.deliver(attempt).addCallback(results.extend)
    for _ in range(60):
        net.settle()
        if results:
            break
        net.pump([100, 1, 1])
    assert sorted(index for index, _ in results) == list(range(recipients)), results
    for _, outcome in results:
        reply = outcome.reply if isinstance(outcome, Delivered) else outcome.cause
        assert 200 <= reply.code <= 599, reply
        assert reply.text.isascii(), reply
        assert reply.text.isprintable(), reply
        if isinstance(outcome, Delivered):
            assert len(script.contents) > before, "delivered, and nothing was sent"
            assert reply.code // 100 == 2, reply


REPLIES: Final = Target(
    "client_replies",
    replies,
    [
        b"\0\1220 hi\r\n\x1e250-a\r\n250-PIPELINING\r\n250 SIZE 9\r\n",
        b"\3\2\x1e500 what\r\n\x1e\x1e250 ok\r\n\x1f450 4.2.0 later\r\n",
        b"\1\7\x1e250-a\r\n250-DSN\r\n250 SMTPUTF8\r\n\x1e250 ok\r\n\x1f421 bye\r\n" + HANG_UP,
        b"\0\3\x1e\x1e\x1e452 4.5.3 too many\r\n\x1e354 go\r\n\x1e250-a\r\n250 b\r\n\x1f" + HANG_UP,
        b"\2\0\x1e\x1e\x1e\x1e354 go\r\n\x1e550-5.7.1 spam\r\n550 5.7.1 no\r\n\x1e250 ok\r\n",
    ],
    (
        b"250", b"250-", b"250 ok\r\n", b"354 go\r\n", b"421 bye\r\n", b"450 4.2.0 no\r\n", b"550-5.1.1 ",
        b"452 4.5.3 \r\n", b"\r\n", b"\r", b"\n", b"\0", b"\xff", b"-", b" ", HANG_UP, NEXT_VERB, NEXT_TIME,
        b"250-PIPELINING\r\n", b"250 SIZE 5\r\n", b"250-STARTTLS\r\n", b"250-AUTH PLAIN\r\n", b"y" * 700,
    ),
)  # fmt: skip
