"""Whatever a message is made of, other readers find it again."""

from __future__ import annotations

import email.policy
from email import message_from_bytes
from email.headerregistry import AddressHeader
from email.message import EmailMessage
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message import headers
from protege_mta.message.compose import Attachment, Draft, Mailbox, composed, flaw_of_field
from protege_mta.model.address import Address

CHARACTERS = st.characters(
    exclude_categories=("Cs", "Cc", "Zl", "Zp", "Zs", "Cn", "Co"), include_characters=" "
)
TEXTS = st.text(CHARACTERS, max_size=200)
NAMES = st.text(CHARACTERS, max_size=60)
BODIES = st.text(max_size=2000)
ADDRESSES = st.sampled_from(("a@example.org", "jo.doe+x@mail.example.org", '"a b"@example.org'))
MAILBOXES = st.builds(Mailbox, ADDRESSES.map(Address), NAMES)
FILES = st.builds(
    Attachment,
    content=st.binary(max_size=300),
    filename=st.text(CHARACTERS, min_size=1, max_size=90),
    content_type=st.sampled_from(("text/plain; charset=utf-8", "image/png", "nonsense", "a/b;c")),
    content_id=st.sampled_from(("", "logo@x")),
)
FIELDS = st.lists(
    st.tuples(st.sampled_from(("X-A", "X-Long-Name-Of-A-Field", "Comments")), TEXTS).filter(
        lambda field: not flaw_of_field(*field)
    ),
    max_size=2,
    unique_by=lambda field: field[0],
)
DRAFTS = st.builds(
    Draft,
    author=MAILBOXES,
    to=st.lists(MAILBOXES, max_size=8).map(tuple),
    cc=st.lists(MAILBOXES, max_size=2).map(tuple),
    reply_to=st.lists(MAILBOXES, max_size=2).map(tuple),
    subject=TEXTS,
    text=st.none() | BODIES,
    html=st.none() | BODIES,
    attachments=st.lists(FILES, max_size=3).map(tuple),
    fields=FIELDS.map(tuple),
    date=st.just("Thu, 26 Nov 2026 06:00:00 +0000"),
    message_id=st.just("<1@example.org>"),
    seed=st.just("seed"),
)


def plain(text: str) -> str:
    """A text as it is after unfolding, which keeps no white space at its ends."""
    return text.strip(" ")


def body(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.endswith("\n") else text + "\n"


def parsed(octets: bytes) -> EmailMessage:
    return message_from_bytes(octets, policy=email.policy.default)


class ComposeTests(SynchronousTestCase):
    @given(DRAFTS)
    @settings(max_examples=60, deadline=None)
    def test_form(self, draft: Draft) -> None:
        """US-ASCII, CRLF alone, lines that fit, a header section that all read alike."""
        octets = composed(draft)
        self.assertTrue(octets.isascii())
        self.assertEqual(octets.count(b"\r"), octets.count(b"\r\n"))
        self.assertEqual(octets.count(b"\n"), octets.count(b"\r\n"))
        self.assertTrue(octets.endswith(b"\r\n"))
        self.assertLessEqual(max(map(len, octets.split(b"\r\n"))), 998)
        head = octets[: headers.header_end(octets)]
        self.assertTrue(headers.is_well_formed(head))
        self.assertLessEqual(max(map(len, head.split(b"\r\n"))), 500)
        self.assertNotIn(b"\r\n \r\n", head)

    @given(DRAFTS)
    @settings(max_examples=60, deadline=None)
    def test_header_is_found_again(self, draft: Draft) -> None:
        octets = composed(draft)
        head = octets[: headers.header_end(octets)]
        self.assertEqual(
            headers.decoded(headers.values(head, b"subject")[0]), plain(draft.subject)[:2000]
        )
        for name, value in draft.fields:
            found = headers.values(head, name.lower().encode("ascii"))
            self.assertEqual([headers.decoded(one) for one in found], [plain(value)])

    @given(DRAFTS)
    @settings(max_examples=60, deadline=None)
    def test_mailboxes_are_found_again(self, draft: Draft) -> None:
        message = parsed(composed(draft))
        for name, mailboxes in (("From", (draft.author,)), ("To", draft.to), ("Cc", draft.cc)):
            field = cast(AddressHeader | None, message[name])
            addresses = [] if field is None else [one.addr_spec for one in field.addresses]
            self.assertEqual(addresses, [one.address for one in mailboxes])

    @given(DRAFTS)
    @settings(max_examples=60, deadline=None)
    def test_bodies_are_found_again(self, draft: Draft) -> None:
        message = parsed(composed(draft))
        self.assertEqual([str(one) for part in message.walk() for one in part.defects], [])
        for kind, text in (("plain", draft.text), ("html", draft.html)):
            part = message.get_body((kind,))
            if text is not None:
                assert part is not None
                # The last line's end is the delimiter's (RFC 2046, 5.1.1).
                found = part.get_content().replace("\r\n", "\n").removesuffix("\n")
                self.assertEqual(found, body(text).removesuffix("\n"))
        files = [
            part.get_payload(decode=True)
            for part in message.walk()
            if part.get_content_disposition() in ("attachment", "inline")
        ]
        inline = [one for one in draft.attachments if one.content_id and draft.html is not None]
        attached = [one for one in draft.attachments if one not in inline]
        self.assertEqual(files, [one.content for one in (*inline, *attached)])
