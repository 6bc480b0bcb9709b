"""What holds for any message as JSON: it comes to an end, is bounded, and the parts are those sent."""

from __future__ import annotations

import base64
import json
from email.message import EmailMessage
from email.policy import SMTP

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.html_text import as_text
from protege_mta.message.inbound_json import ALL_INLINE_OCTETS, TEXT_OCTETS, compose, reply_text

from ..corpora import messages
from ..unit.test_inbound_json import InMemory, message_of, read

PIECES = st.sampled_from(
    [
        b"\r\n", b"\r\n\r\n", b"--b", b"--b--", b"--", b"Content-Type: ", b"multipart/mixed; boundary=b",
        b"text/html", b"text/plain; charset=utf-7", b"message/rfc822", b"Content-Transfer-Encoding: base64",
        b"quoted-printable", b"=", b"=\r\n", b"QUJD", b"filename*0*=utf-8''%ff", b'"', b"(", b"\\", b"From: ",
        b"<a@b>", b",", b";", b":", b"\xff", b"=?utf-8?q?=ff?=", b"<div style='display:none'>", b"</div>", b"<!--",
        b"Content-Disposition: attachment; ", b"Date: Thu, 99 Jan 99999", b"References: <", b">", b"\0",
    ]
)  # fmt: skip


def check(octets: bytes) -> None:
    """Any octets become JSON of a bounded size."""
    made = json.loads(compose(InMemory(octets), message_of(octets))(0))
    for name in ("text", "html"):
        assert len(made[name]) <= TEXT_OCTETS + 500, name
    inline = [one["content_base64"] for one in made["attachments"] if "content_base64" in one]
    assert sum(len(base64.b64decode(one)) for one in inline) <= ALL_INLINE_OCTETS


class JsonTests(SynchronousTestCase):
    @given(st.lists(PIECES | st.binary(max_size=6), max_size=60).map(b"".join))
    def test_any_octets(self, octets: bytes) -> None:
        check(octets)

    def test_corpus(self) -> None:
        for octets in messages().values():
            check(octets)

    @given(
        st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=200),
        st.lists(st.binary(max_size=300), max_size=4),
    )
    def test_another_librarys_messages(self, text: str, files: list[bytes]) -> None:
        """Parts made by the standard library come back as they were."""
        made = EmailMessage(policy=SMTP)
        made["Subject"] = "x"
        made.set_content(text + "\n")
        for number, one in enumerate(files):
            made.add_attachment(one, "application", "x-test", filename=f"f{number}")
        found = read(made.as_bytes())
        assert found["text"].rstrip("\n") == text.rstrip("\n"), (found["text"], text)
        assert [base64.b64decode(one["content_base64"]) for one in found["attachments"]] == files

    @given(st.text())
    def test_any_html(self, html: str) -> None:
        as_text(html)

    @given(st.lists(st.sampled_from(["> x", "", "y", "On Monday, A wrote:", "-- "])).map("\n".join))
    def test_replies_keep_what_is_new(self, text: str) -> None:
        """Every line that is neither quoted nor says who is quoted stays."""
        kept = reply_text(text).split("\n")
        assert kept.count("y") == text.split("\n").count("y")
