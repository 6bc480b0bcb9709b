"""What users of the machine hand us: requests on our sockets, text for ``sendmail``, settings."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from protege_mta.cli.sendmail_message import BadMessage, complete, recipients_in, with_crlf
from protege_mta.config.model import Settings
from protege_mta.config.toml import ConfigError, glimpse, load
from protege_mta.model.reply import TABLE, Reply
from protege_mta.transport.control import ControlFactory, ControlProtocol, Done, Row
from protege_mta.transport.submit import Submission, SubmitFactory, SubmitLimits, SubmitProtocol
from protege_mta.transport.unix import Credentials

from .server import resent
from .target import Target, chunks, has_bare_line_end, nothing_logged

# --- sockets -------------------------------------------------------------------------------------


async def _echo(arguments: Mapping[str, Any]) -> AsyncGenerator[Row | Done, None]:
    yield dict(arguments)


class House:
    """Takes a message in, and keeps it."""

    def __init__(self, submission: Submission) -> None:
        self.submission = submission
        self.octets = b""
        self.is_finished = False

    def write(self, octets: bytes) -> Deferred[None] | None:
        self.octets += octets
        return None

    def finish(self) -> Deferred[Reply]:
        self.is_finished = True
        return succeed(TABLE["ok"])

    def abort(self) -> None: ...


def _played(
    protocol: ControlProtocol | SubmitProtocol, clock: Clock, pieces: list[bytes]
) -> list[Any]:
    wire = StringTransport()
    protocol.makeConnection(wire)
    for piece in pieces:
        protocol.dataReceived(piece)
    clock.pump([0] * 3)
    protocol.connectionLost(Failure(ConnectionDone()))
    assert not clock.getDelayedCalls(), "a timer is left"
    said: bytes = wire.value()
    assert said.endswith(b"\n") or not said
    return [json.loads(line) for line in said.splitlines()]


def control(data: bytes) -> None:
    """The first octet cuts the rest into reads."""
    if not data:
        return

    def said(pieces: list[bytes]) -> list[Any]:
        clock = Clock()
        return _played(ControlFactory({"echo": _echo}, clock).buildProtocol(None), clock, pieces)

    with nothing_logged():
        whole = said([data[1:]])
        assert said(chunks(data[1:], 1 + data[0] % 50)) == whole, "chunks are seen"
    ends = [answer for answer in whole if "row" not in answer]
    assert len(ends) <= data[1:].count(b"\n") + 1, "more answers than requests"


def submit(data: bytes) -> None:
    """The first octet cuts the rest into reads: a request and content."""
    if not data:
        return
    houses: list[House] = []

    def said(pieces: list[bytes]) -> list[Any]:
        clock = Clock()
        houses.clear()

        def open_house(who: Credentials, submission: Submission) -> House:
            houses.append(House(submission))
            return houses[-1]

        factory = SubmitFactory(
            open_house,
            domain="mx.test",
            limits=SubmitLimits(message_octets=50),
            clock=clock,
            who=lambda transport: Credentials(1, 1, 1),
        )
        return _played(factory.buildProtocol(None), clock, pieces)

    with nothing_logged():
        whole = said([data[1:]])
        assert said(chunks(data[1:], 1 + data[0] % 50)) == whole, "chunks are seen"
    assert len(whole) <= 1, "more than one answer"
    for house in houses:
        envelope = house.submission.envelope
        for one in envelope.recipients:
            resent(envelope, one)
        if house.is_finished:
            assert not has_bare_line_end(house.octets), "a bare line end got in"


# --- sendmail ------------------------------------------------------------------------------------


def sendmail(data: bytes) -> None:
    """The lowest bit of the first octet is ``-i``; the rest is the text."""
    if not data:
        return
    try:
        message = with_crlf(data[1:], ends_at_dot=bool(data[0] & 1))
    except BadMessage as error:
        assert str(error)
        return
    assert not has_bare_line_end(message)
    try:
        found = recipients_in(message)
    except BadMessage as error:
        assert str(error)
    else:
        assert all(found), "a recipient without a name"
    first = complete(message, author=("", "a@b.test"), hostname="h.test", now=0.0)
    again = complete(first, author=("", "x@y.test"), hostname="g.test", now=9.0)
    assert again == first, "a second pass finds something to do"
    assert not has_bare_line_end(first)
    header = first.partition(b"\r\n\r\n")[0]
    assert not re.search(rb"^bcc[ \t]*:", header, re.IGNORECASE | re.MULTILINE), "Bcc is told"
    for name in (b"date", b"from", b"message-id"):
        assert re.search(rb"^%b[ \t]*:" % name, header, re.IGNORECASE | re.MULTILINE), name


# --- settings ------------------------------------------------------------------------------------

_FOLDER: Final = Path(__file__).parents[1] / "badconfig"


def config(data: bytes) -> None:
    """A configuration file."""
    if b"/dev" in data or b"/proc" in data:
        return  # what lies there is not the file's fault
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(data)
        file.flush()
        for read in (load, glimpse):
            try:
                assert isinstance(read(Path(file.name)), Settings)
            except ConfigError as error:
                assert error.complaints, "an error without a reason"
                for complaint in error.complaints:
                    assert len(str(complaint)) < 1000, "a complaint without end"
                    assert len(str(complaint).splitlines()) == 1, "a complaint of several lines"


REQUEST: Final = (
    b'{"sender":"a@b.test","recipients":["c","d@e.test"],"size_octets":%d,"notify":"%b"}\n'
)
CONTROL: Final = Target(
    "control_socket",
    control,
    [
        b'\3{"command":"echo","arguments":{"x":1}}\n{"command":"no"}\n',
        b'\0{"command":"echo","arguments":[]}\n\n[]\n{"command":1}\n',
    ],
    (b"\n", b'"', b"{", b"}", b"[", b"]", b":", b",", b"null", b"1e999", b"\\ud800", b"\\u0000", b"-1",
     b'"command":"echo"', b'"arguments":', b"\xff", b"9" * 30),
)  # fmt: skip
SUBMIT: Final = Target(
    "submit_socket",
    submit,
    [
        b"\3" + REQUEST % (4, b"") + b"a\r\nb",
        b"\0" + REQUEST % (0, b"success,delay"),
        b"\x05" + REQUEST % (2, b"never") + b"\r\n",
        b'\1{"sender":"","recipients":["a@b.test"],"size_octets":3,"ret":"HDRS","envid":"a+2Bb",'
        b'"body":"8BITMIME"}\n\r\n\r',
    ],
    (*CONTROL.words, b"\r\n", b"\r", b"\\n", b"\\r", b"=", b"+", b'"envid":"', b'"recipients":[', b"@",
     b"\xc3\xb6", b"NEVER", b"UNSET", b'"size_octets":'),
)  # fmt: skip
SENDMAIL: Final = Target(
    "sendmail_text",
    sendmail,
    [
        b"\1To: a@b.test\nBcc: c@d.test,\n e@f.test\nSubject: x\n\ntext\n.\nmore\n",
        b"\0From: x <a@b.test>\r\nDate:\r\nMessage-ID: <x>\r\n\r\ntext",
        b"\1no header\n",
        b"\0From x Thu\nCc: g: a@b.test, c@d.test;\n\n",
    ],
    (b"\n", b"\r\n", b"\r", b".", b".\n", b":", b"\xff", b"\0", b" ", b"\t", b"To: ", b"Bcc:", b"From: ",
     b"Date:", b"Message-ID: ", b"<", b">", b",", b";", b"(", b")", b'"', b"@", b"\xc3\xb6", b"\n\n"),
)  # fmt: skip
CONFIG: Final = Target(
    "config",
    config,
    [path.read_bytes() for path in sorted(_FOLDER.glob("*.toml"))]
    + [
        b'mode = "local"\nhostname = "mx.test"\n[[listener]]\nname = "a"\nkind = "smtp"\nport = 0\n'
        b'[domains."b.test"]\ndeliver = "maildir"\nmaildir = "m/{local_part}"\nrecipients = ["*"]\n'
    ],
    (b"\n", b'"', b"'", b"[", b"]", b"[[", b"]]", b"=", b".", b"{", b"}", b",", b"#", b"\\", b"nan", b"inf",
     b"true", b"1e999", b"0x", b"1979-05-27", b"9" * 400, b"-1", b'"\\u0000"', b"\xff", b"x" * 300,
     b"{local_part}", b"127.0.0.1", b"::1", b"unix:", b'"""', b"\r"),
)  # fmt: skip
