"""A DSN stays one, whatever the original, the peer and the envelope say."""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message as Part

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.dsn import Report, compose, wanted_octets
from protege_mta.model.address import Address
from protege_mta.model.envelope import Envelope, Message, Origin, Recipient
from protege_mta.model.ids import QueueId
from protege_mta.model.reply import Reply

ORIGINALS = st.lists(
    st.sampled_from(
        [b"Subject: x", b"Action: delivered", b"\r\n", b"\r\n\r\n", b"--=_" + b"0" * 26, b"--", b"\0",
         b"\xc3\xa4", b"\xff", b"x" * 999, b" "]
    ), max_size=20,
).map(b"".join)  # fmt: skip
NAMES = {
    "From", "To", "Subject", "Date", "Message-ID", "In-Reply-To", "References", "Auto-Submitted",
    "MIME-Version", "Content-Type", "Content-Transfer-Encoding",
}  # fmt: skip


def subparts(part: Part) -> list[Part]:
    payload = part.get_payload()
    assert isinstance(payload, list)
    found = [one for one in payload if isinstance(one, Part)]
    assert len(found) == len(payload)
    return found


class DsnTests(SynchronousTestCase):
    """A DSN around whatever there was."""

    @settings(max_examples=200, deadline=None)
    @given(
        octets=ORIGINALS,
        said=st.lists(st.text(max_size=30), min_size=1, max_size=3),
        enhanced=st.text(max_size=6),
        host=st.text(max_size=20),
        orcpt=st.text(max_size=20),
        envid=st.text(max_size=20),
        message_id=st.text(max_size=20),
        subject=st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20),
        local_part=st.sampled_from(["b", '"odd one"', '"a\\"@b"']),
    )
    def test_always_parses_and_nobody_adds_a_field(
        self,
        octets: bytes,
        said: list[str],
        enhanced: str,
        host: str,
        orcpt: str,
        envid: str,
        message_id: str,
        subject: str,
        local_part: str,
    ) -> None:
        recipient = Recipient(Address(f"{local_part}@y.test"), orcpt=orcpt)
        about = Message(
            QueueId("1" * 26),
            Envelope(Address("a@x.test"), (recipient,), ret="FULL", envid=envid),
            Origin("smtp"),
            0.0,
            len(octets),
            message_id,
            subject,
        )
        dsn = compose(
            kind="failure",
            message=about,
            reports=[Report(recipient, "failed", Reply(550, enhanced, tuple(said)), host)],
            original=octets[: wanted_octets(about, "failure")],
            hostname="mx.test",
            at=0.0,
            id=QueueId("0" * 26),
        )
        self.assertLessEqual(max(map(len, dsn.split(b"\r\n"))), 998)
        for part in dsn.split(b"--=_" + b"0" * 26)[:3]:  # all but the original's
            self.assertTrue(part.isascii())
            self.assertEqual(part.count(b"\n"), part.count(b"\r\n"))
        report = message_from_bytes(dsn)
        self.assertEqual(report.get_content_type(), "multipart/report")
        self.assertTrue(set(report.keys()) <= NAMES)
        self.assertEqual(len(subparts(report)), 3)
        _, recipient_group = subparts(subparts(report)[1])
        self.assertEqual(recipient_group.get_all("Action"), ["failed"])
        self.assertEqual(recipient_group["Final-Recipient"], f"rfc822; {local_part}@y.test")
