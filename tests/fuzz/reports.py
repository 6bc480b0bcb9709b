"""What comes back: reports of other systems, return paths, links."""

from __future__ import annotations

from typing import Final

from protege_mta.message.report import read
from protege_mta.model.address import Address
from protege_mta.model.return_path import ReturnPaths, UnsubscribeLinks

from ..corpora import reports
from ..property.test_report import is_sound
from .target import Target

WORDS: Final = (
    b"\r\n", b"\n", b"\r\n\r\n", b"\r\n ", b"--b", b"--", b"Content-Type: ", b"multipart/report", b"; boundary=b",
    b"message/delivery-status", b"message/feedback-report", b"message/rfc822", b"text/plain", b"base64",
    b"Content-Transfer-Encoding: ", b"quoted-printable", b"Final-Recipient: rfc822; a@b.test", b"Action: failed",
    b"Original-Recipient: ", b"Status: 5.1.1", b"Diagnostic-Code: smtp; 550 5.1.1 x", b"X-Failed-Recipients: a@b.test",
    b"Feedback-Type: abuse", b"Original-Rcpt-To: a@b.test", b"qmail-send program", b"<a@b.test>:", b"\xff", b"\0",
)  # fmt: skip


def report(data: bytes) -> None:
    """Any octets read as a report."""
    is_sound(read(data))


def token(data: bytes) -> None:
    """No text is a return path or a link of ours."""
    text = data.decode("utf-8", "surrogateescape")
    assert ReturnPaths(b"secret").read(Address(text), None) is None
    assert UnsubscribeLinks(b"secret").read(text) is None


REPORT: Final = Target("report", report, seeds=sorted(reports().values()), words=WORDS)
TOKEN: Final = Target("token", token, seeds=[b"b+" + b"0" * 50 + b"@ours.test", b"AAAA"])
