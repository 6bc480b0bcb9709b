"""Single members of a request, by themselves: what each is taken for, and where it says that it is
refused."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.http.filling import checked_template, filled
from protege_mta.http.members import (
    address_of,
    attachments_of,
    decoded,
    fields_of,
    mailbox_of,
    tags_of,
    time_of,
)
from protege_mta.http.new_message import NewAttachment
from protege_mta.http.outgoing import MessageLimits, envelope_of
from protege_mta.http.reading import Refused
from protege_mta.message.compose import Mailbox
from protege_mta.model.address import Address

LIMITS = MessageLimits(
    recipients=10, message_octets=10_000, attachment_octets=8, future_release_s=3600
)


class MemberTests(SynchronousTestCase):
    def refused(self, kind: str, member: str, call: object, *args: object) -> None:
        assert callable(call)
        flaw = self.assertRaises(Refused, lambda: list(call(*args) or ())).flaw
        self.assertEqual((flaw.kind, flaw.member), (kind, member))

    def test_a_mailbox_may_have_its_name_in_front(self) -> None:
        for text in ("Ann B <ann@b.example>", '"Ann B" <ann@b.example>'):
            self.assertEqual(mailbox_of(text, "/to/0"), Mailbox(Address("ann@b.example"), "Ann B"))

    def test_labels_become_what_every_server_takes(self) -> None:
        self.assertEqual(address_of("ann@bücher.example", "/to"), "ann@xn--bcher-kva.example")

    def test_no_address_is_refused_by_its_member(self) -> None:
        self.refused("bad-address", "/to/3", address_of, "ann", "/to/3")

    def test_a_field_twice_is_refused_whatever_its_case(self) -> None:
        given = {"X-A": "1", "x-a": "2"}
        self.refused("bad-header", "/headers/x-a", fields_of, given, "/headers")

    def test_tags_come_once_each(self) -> None:
        self.assertEqual(tags_of(["b", "a", "b"], ""), ("b", "a"))
        self.refused("bad-member", "/tags/1", tags_of, ["b", "a b"], "")

    def test_attachments_are_limited_together(self) -> None:
        half = NewAttachment(filename="a", content_b64="AAAAAAA=")  # 5 octets
        self.assertEqual(attachments_of([half], "/attachments", LIMITS)[0].content, bytes(5))
        self.refused(
            *("attachments-too-large", "/attachments/1"),
            *(attachments_of, [half, half], "/attachments", LIMITS),
        )

    def test_what_is_no_base64_is_not_guessed_at(self) -> None:
        self.assertEqual(decoded("AA\r\nAA"), bytes(3))
        self.assertEqual(decoded(""), b"")
        self.assertIsNone(decoded("AA*AA"))
        self.assertIsNone(decoded("AAA"))

    def test_a_time_without_its_zone_is_none(self) -> None:
        self.assertEqual(time_of("1970-01-01T00:01:00Z"), 60.0)
        self.assertIsNone(time_of("1970-01-01T00:01:00"))

    def test_a_template_is_refused_by_its_member(self) -> None:
        self.assertEqual(filled("Dear {{ name }}", {"name": "Ann"}, "/text"), "Dear Ann")
        self.refused("bad-template", "/text", filled, "Dear {{ name }}", {}, "/text")
        self.refused("bad-template", "/text", checked_template, "Dear {{ name", "/text")

    def test_a_release_stands_in_the_envelope_as_by_smtp(self) -> None:
        envelope = envelope_of(Address("a@b.example"), [Address("ü@b.example")], 60.5)
        self.assertEqual(envelope.future_release, "until;1970-01-01T00:01:00Z")
        self.assertEqual(envelope.hold_until, 60.5)
        self.assertTrue(envelope.is_smtputf8)
