"""What strangers say to our SMTP server."""

from __future__ import annotations

import re
from typing import Final

import attrs

from protege_mta.model.address import (
    Address,
    domain_of,
    is_ascii,
    literal_of,
    local_part_of,
    parse,
)
from protege_mta.model.envelope import Envelope, Recipient
from protege_mta.model.outcome import Contact
from protege_mta.model.ports import MailCommand
from protege_mta.model.reply import TABLE, Reply
from protege_mta.testing.doors import FakeDoor, FakeIntake
from protege_mta.testing.smtp_dialog import Client, reply_codes
from protege_mta.wire.abilities import Abilities
from protege_mta.wire.settings import ServerSettings
from protege_mta.wire.transaction import Transaction

from .target import Target, chunks, has_bare_line_end, nothing_logged

SETTINGS: Final = ServerSettings(
    "mx.test",
    message_octets=200,
    recipients=2,
    bad_commands=6,
    mechanisms=("SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"),
)
KEPT: Final = Reply(250, "2.0.0", ("kept it",))
ABLE: Final = Abilities(
    has_pipelining=True,
    size_octets=0,
    has_8bitmime=True,
    has_smtputf8=True,
    has_dsn=True,
)

EHLO: Final = b"EHLO c.example\r\n"
MAIL: Final = b"MAIL FROM:<a@b.example>\r\n"
RCPT: Final = b"RCPT TO:<c@d.example>\r\n"
START: Final = EHLO + MAIL + RCPT
WORDS: Final = (
    b"\r\n", b"\r", b"\n", b".", b"\r\n.\r\n", b"\n.\n", b"\r\n.\n", b"\0", b"\xff", b"\xc3\xb6",
    EHLO, b"HELO c\r\n", MAIL, RCPT, b"RCPT TO:<c@refused.example>\r\n", b"DATA\r\n", b"BDAT ",
    b" LAST\r\n", b"RSET\r\n", b"NOOP\r\n", b"QUIT\r\n", b"STARTTLS\r\n", b"VRFY a\r\n", b"HELP\r\n",
    b" SIZE=", b" BODY=8BITMIME", b" SMTPUTF8", b" NOTIFY=", b"NEVER", b"SUCCESS,DELAY,FAILURE",
    b" ORCPT=rfc822;", b"utf-8;", b"\\x{F6}", b" RET=HDRS", b" ENVID=", b"+2B", b"<>", b"<", b">", b"@",
    b'"', b"\\", b"[IPv6:::1]", b"[192.0.2.1]", b"<@x.example:a@b.example>", b"postmaster", b"x" * 300,
    b"AUTH PLAIN", b" AHVzZXIAcGVuY2ls", b"AUTH LOGIN\r\n", b"dXNlcg==\r\n", b"cGVuY2ls\r\n", b"*\r\n",
    b"AUTH CRAM-MD5\r\n", b"AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9eA==\r\n", b" AUTH=<>",
)  # fmt: skip


class Door(FakeDoor):
    """A door whose 250 for a message is told apart from all others.

    :ivar mails: what was asked of it.
    :ivar paths: likewise, the recipients.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mails: list[MailCommand] = []
        self.paths: list[Recipient] = []
        judge = self.on_recipient
        self.on_receive = _kept

        def sender(mail: MailCommand) -> Reply:
            self.mails.append(mail)
            return TABLE["sender-ok"]

        def recipient(path: Recipient) -> Reply:
            self.paths.append(path)
            answer = judge(path)
            assert isinstance(answer, Reply)
            return answer

        self.on_sender, self.on_recipient = sender, recipient


def _kept(envelope: Envelope) -> FakeIntake:
    intake = FakeIntake(envelope)
    intake.fate.result = KEPT
    return intake


_UNSTUFFED: Final = re.compile(rb"\r\n\.(?!\r\n)")

# --- whole streams -------------------------------------------------------------------------------


def stream(data: bytes) -> None:
    """The first octet says how the rest is cut, and whether a transaction is open before it."""
    if not data:
        return
    octets = (START if data[0] & 1 else b"") + data[1:]
    with nothing_logged():
        said, door = _played([octets])
        pieces = chunks(octets, 1 + (data[0] >> 1) % 41)
        said_in_pieces, other = _played(pieces)
    assert said_in_pieces == said, "chunks are seen in the replies"
    assert _fates(other) == _fates(door), "chunks are seen in the messages"
    assert other.proofs == door.proofs, "chunks are seen in the logins"
    assert (b"\r\n235 " in said) == bool(door.peers[0].identity), "an identity without 235"
    codes = reply_codes(said)
    assert 451 not in codes, "trouble where there is none"
    assert 421 not in codes[:-1], "something was said after 421"
    assert said.count(KEPT.octets()) == len(door.messages), "250 is not said once a message"
    for message in door.messages:
        content = message.content
        assert not has_bare_line_end(content), "a bare line end got in"
        assert content.endswith(b"\r\n") or not content, "the last line has no end"
        assert len(content) <= SETTINGS.message_octets + 2, "a message is too big"
        if b"BDAT" not in octets.upper():
            assert b"\r\n%b.\r\n" % content in _UNSTUFFED.sub(b"\r\n", octets), "nobody sent that"
    for intake in door.intakes:
        assert 1 <= len(intake.envelope.recipients) <= SETTINGS.recipients
        for one in (intake.envelope.sender, *(it.address for it in intake.envelope.recipients)):
            assert not one or parse(one, is_smtputf8=True) == one


def _played(pieces: list[bytes]) -> tuple[bytes, Door]:
    door = Door()
    client = Client(door, SETTINGS)
    return client.hear() + b"".join(map(client.say, pieces)), door


def _fates(door: Door) -> list[tuple[str, bytes, Envelope]]:
    return [
        (one.ended, one.content if one.ended == "finished" else b"", one.envelope)
        for one in door.intakes
    ]


# --- command lines -------------------------------------------------------------------------------

_BEFORE: Final = (b"", EHLO, EHLO + MAIL, START, EHLO + MAIL.replace(b"\r", b" SMTPUTF8\r"))


def command(data: bytes) -> None:
    """The first octet says what went before; the rest is one line."""
    if not data or b"\r\n" in data or data.endswith(b"\r"):
        return
    line = data[1:]
    with nothing_logged():
        door = Door()
        client = Client(door, ServerSettings("mx.test"))
        client.say(_BEFORE[data[0] % len(_BEFORE)])
        asked = len(door.mails), len(door.paths)
        said = client.say(line + b"\r\n")
    if line[:4].upper() != b"BDAT":
        assert len(reply_codes(said)) == 1, "not one reply to one command"
    known = {KEPT.octets(), *(reply.octets() for reply in TABLE.values())}
    if line.strip()[:4].upper() not in (b"EHLO", b"HELO"):
        assert said in known or not said, "a reply that is not in the table"
    assert said.isascii(), "a reply beyond US-ASCII"
    for mail in door.mails[asked[0] :]:
        resent(mail.envelope, Recipient(Address("c@d.example")))
    for path in door.paths[asked[1] :]:
        assert parse(path.address, is_smtputf8=True) == path.address
        resent(door.mails[-1].envelope, path)


def resent(envelope: Envelope, path: Recipient) -> None:
    """What we let in, we can say ourselves, and it is understood as what it was."""
    whole = attrs.evolve(envelope, recipients=(path,))
    octets = Transaction(
        whole, (0,), ABLE, 1, Contact("x"), is_eight_bit=envelope.body == "8BITMIME"
    ).begin()
    assert isinstance(octets, bytes), octets
    door = Door()
    client = Client(door, ServerSettings("mx.test"))
    client.say(EHLO)
    codes = client.codes(octets)
    is_refused = domain_of(path.address) == "refused.example"
    assert codes == ([250, 550, 554] if is_refused else [250, 250, 354]), (octets, codes)
    said = door.mails[0].envelope
    # SMTPUTF8 is said where an address of either side needs it.
    needs = not (is_ascii(envelope.sender) and is_ascii(path.address))
    wanted = attrs.evolve(envelope, recipients=(), is_smtputf8=envelope.is_smtputf8 or needs)
    assert said == wanted, octets
    assert door.paths == [path], octets


# --- chunks --------------------------------------------------------------------------------------


def bdat(data: bytes) -> None:
    """A message in chunks: of each octet that says a size, so many octets follow it.

    The lowest bit of the first octet says whether ``LAST`` comes with the last chunk or with an
    empty one of its own; what the server makes of it is compared with what it should.
    """
    if not data:
        return
    content: list[bytes] = []
    at = 1
    while at < len(data):
        size = data[at] % 64
        content.append(data[at + 1 : at + 1 + size])
        at += 1 + size
    sent = b"".join(content)
    is_alone = data[0] & 1 or not content
    parts = [*content, b""] if is_alone else content
    octets = b"".join(
        b"BDAT %d%b\r\n%b" % (len(part), b" LAST" if n == len(parts) - 1 else b"", part)
        for n, part in enumerate(parts)
    )
    with nothing_logged():
        door = Door()
        client = Client(door, SETTINGS)
        client.hear()
        pieces = chunks(START + octets + b"NOOP\r\n", 1 + (data[0] >> 1) % 61)
        codes = reply_codes(b"".join(map(client.say, pieces)))
    assert codes[:3] == [250] * 3, codes
    assert codes[-1] in (250, 421), codes
    found = [one.content for one in door.messages]
    if len(sent) > SETTINGS.message_octets:
        assert not found, "a message is too big"
        assert 552 in codes, codes
    elif has_bare_line_end(sent):
        assert not found, "a bare line end got in"
        assert 550 in codes, codes
    else:
        complete = sent if not sent or sent.endswith(b"\r\n") else sent + b"\r\n"
        assert found == [complete], (found, complete)
        assert codes == [250] * (len(parts) + 4), codes


# --- addresses -----------------------------------------------------------------------------------


def address(data: bytes) -> None:
    """A mailbox in UTF-8, lone surrogates for what is none."""
    text = data.decode("utf-8", "surrogateescape")
    plain, wide = parse(text), parse(text, is_smtputf8=True)
    assert plain is None or wide == plain == text, "what is right without SMTPUTF8 is so with it"
    assert (plain is None) == (wide is None) or not text.isascii(), "ASCII needs no SMTPUTF8"
    if wide is None:
        return
    assert wide == text
    octets = wide.encode("utf-8")
    assert len(octets) + 2 <= 256, "longer than a path may be"
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in wide), "controls"
    local, domain = local_part_of(wide), domain_of(wide)
    assert domain == domain.lower(), domain
    assert wide.lower().endswith("@" + domain), (wide, domain)
    assert not set(domain) & set('<>@", \\'), domain
    if not domain.startswith("["):
        assert all(domain.split(".")), "an empty label"
        assert not set(domain) & set("[]:"), domain
    else:
        assert literal_of(domain) is not None, "a literal of no address"
    if not wide.startswith('"'):
        assert local == wide[: wide.rfind("@")]
        assert not set(local) & set('<>@", \\()[]:;'), local
    resent(Envelope(wide, ()), Recipient(wide))


STREAM: Final = Target(
    "server_stream",
    stream,
    [
        b"\x01DATA\r\nSubject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n",
        b"\x0fBDAT 5\r\nabcdeBDAT 4 LAST\r\nfgh\n",
        b"\x00" + START + b"DATA\r\nx\r\n.\r\n" + MAIL + RCPT + b"BDAT 3 LAST\r\na\r\nNOOP\r\n",
        b"\x41DATA\r\na\n.\nMAIL FROM:<x@y.example>\r\n.\r\n",
        b"\x02HELO c\r\nSTARTTLS\r\nVRFY x\r\n\r\n",
        b"\x06" + EHLO + b"AUTH LOGIN\r\ndXNlcg==\r\ncGVuY2ls\r\n" + MAIL + RCPT,
        b"\x06" + EHLO + b"AUTH PLAIN\r\n*\r\nAUTH PLAIN AHVzZXIAcGVuY2ls\r\n" + MAIL,
    ],
    WORDS,
)
COMMAND: Final = Target(
    "server_command",
    command,
    [
        b"\x01MAIL FROM:<a@b.example> SIZE=10 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb",
        b"\x01MAIL FROM:<@x.example,@y.example:a@b.example>",
        b"\x02RCPT TO:<a@b.example> NOTIFY=success,Delay,FAILURE ORCPT=rfc822;a+2Bb@b.example",
        b"\x02RCPT TO:<postmaster> NOTIFY=NEVER",
        b"\x04RCPT TO:<j\xc3\xb6rg@b.example> ORCPT=utf-8;j\xc3\xb6rg@b.example",
        b'\x01MAIL FROM:<"a>b\\"c@"@[IPv6:2001:db8::1]> ret=full',
        b"\x00EHLO [192.0.2.1]",
        b"\x03BDAT 0 LAST",
        b"\x03NOOP x",
    ],
    WORDS,
)
BDAT: Final = Target(
    "server_bdat",
    bdat,
    [
        b"\x00\x05abc\r\n\x01x\x02\r\n",
        b"\x07\x03a\r\n\x00\x0b.\r\nQUIT\r\n.\r",
        b"\x23" + b"\x3fBDAT 3 LAST\r\n" * 9,
    ],
    WORDS,
)
ADDRESS: Final = Target(
    "address",
    address,
    [
        b"a.b+c@d-e.example",
        b'"a b\\"@"@b.example',
        b"a@[IPv6:2001:db8::1]",
        b"a@[192.0.2.1]",
        "jörg@bücher.example".encode(),
    ],
    WORDS,
)
