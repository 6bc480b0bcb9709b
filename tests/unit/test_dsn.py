"""Delivery status notifications, read back with Python's email package."""

from __future__ import annotations

import email.policy
from base64 import b64decode
from email import message_from_bytes
from email.message import EmailMessage
from email.message import Message as Part
from typing import Literal

import attrs
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.downgrade import Recoded, for_hop
from protege_mta.message.dsn import (
    FULL_OCTETS,
    Kind,
    Report,
    compose,
    is_due,
    status_of,
    wanted_octets,
    wants,
)
from protege_mta.model.address import NULL, Address
from protege_mta.model.envelope import Envelope, Message, Notify, Origin, Recipient
from protege_mta.model.ids import QueueId
from protege_mta.model.ports import HopAbilities
from protege_mta.model.reply import Reply
from tests.corpora import message

AT = 1_700_000_000.0
ID = QueueId("01hf7yat00bbbbbbbbbbbbbbbb")
NO_SUCH_USER = Reply(550, "5.1.1", ("no such", "user here"))
ADA = Address("ada@example.org")
BO = Recipient(Address("bo@example.net"), orcpt="rfc822;Bo+2Bx@example.net")


Ret = Literal["", "FULL", "HDRS"]


def queued(
    recipients: tuple[Recipient, ...] = (BO,),
    octets: bytes = b"",
    *,
    sender: Address = ADA,
    ret: Ret = "",
    envid: str = "QQ+2B1",
    subject: str = "The minutes of Monday",
) -> Message:
    return Message(
        QueueId("01hf7yat00aaaaaaaaaaaaaaaa"),
        Envelope(sender, recipients, ret=ret, envid=envid),
        Origin("smtp"),
        AT,
        len(octets),
        header_message_id="<ordinary@example.org>",
        subject=subject,
    )


def failure(
    octets: bytes = b"Subject: x\r\n\r\nbody\r\n",
    reply: Reply = NO_SUCH_USER,
    *,
    ret: Ret = "",
    subject: str = "The minutes of Monday",
) -> bytes:
    """A DSN about Bo."""
    about = queued(octets=octets, ret=ret, subject=subject)
    report = Report(BO, "failed", reply, "mx.example.net", last_attempt_at=AT + 5)
    return composed("failure", about, octets, report)


def composed(kind: Kind, about: Message, octets: bytes, *reports: Report) -> bytes:
    return compose(
        kind=kind,
        message=about,
        reports=reports,
        original=octets[: wanted_octets(about, kind)],
        hostname="mx.local.test",
        at=AT + 10,
        id=ID,
    )


def parsed(octets: bytes) -> tuple[EmailMessage, list[Part]]:
    """The report and its three parts, free of what the parser would complain of."""
    report = message_from_bytes(octets, EmailMessage, policy=email.policy.SMTP)
    for part in report.walk():
        assert not part.defects, part.defects
    return report, subparts(report)


def subparts(part: Part) -> list[Part]:
    payload = part.get_payload()
    assert isinstance(payload, list)
    found = [one for one in payload if isinstance(one, Part)]
    assert len(found) == len(payload)
    return found


def text(part: Part) -> str:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content.decode(part.get_content_charset("us-ascii"))


def groups(part: Part) -> list[list[tuple[str, str]]]:
    """The groups of fields of a message/delivery-status part."""
    return [[(name, str(value)) for name, value in group.items()] for group in subparts(part)]


class FailureTests(SynchronousTestCase):
    """A bounce (RFC 3464)."""

    def test_header(self) -> None:
        report, _ = parsed(failure())
        self.assertEqual(
            [(name, str(value)) for name, value in report.items()],
            [
                ("From", "Mail Delivery System <MAILER-DAEMON@mx.local.test>"),
                ("To", "ada@example.org"),
                ("Subject", "Undelivered Mail Returned to Sender"),
                ("Date", "Tue, 14 Nov 2023 22:13:30 +0000"),
                ("Message-ID", "<01hf7yat00bbbbbbbbbbbbbbbb@mx.local.test>"),
                ("In-Reply-To", "<ordinary@example.org>"),
                ("References", "<ordinary@example.org>"),
                ("Auto-Submitted", "auto-replied"),
                ("MIME-Version", "1.0"),
                (
                    "Content-Type",
                    'multipart/report; report-type="delivery-status";'
                    ' boundary="=_01hf7yat00bbbbbbbbbbbbbbbb"',
                ),
            ],
        )

    def test_status(self) -> None:
        _, (_, status, _) = parsed(failure())
        self.assertEqual(status.get_content_type(), "message/delivery-status")
        self.assertEqual(
            groups(status),
            [
                [
                    ("Original-Envelope-Id", "QQ+1"),
                    ("Reporting-MTA", "dns; mx.local.test"),
                    ("Arrival-Date", "Tue, 14 Nov 2023 22:13:20 +0000"),
                ],
                [
                    ("Original-Recipient", "rfc822; Bo+x@example.net"),
                    ("Final-Recipient", "rfc822; bo@example.net"),
                    ("Action", "failed"),
                    ("Status", "5.1.1"),
                    ("Remote-MTA", "dns; mx.example.net"),
                    ("Diagnostic-Code", "smtp; 550 5.1.1 no such user here"),
                    ("Last-Attempt-Date", "Tue, 14 Nov 2023 22:13:25 +0000"),
                ],
            ],
        )

    def test_future_release(self) -> None:
        """The sender's own words (RFC 4865)."""
        about = queued()
        envelope = attrs.evolve(about.envelope, future_release="until;2030-01-01T00:00:00Z")
        about = attrs.evolve(about, envelope=envelope)
        octets = composed("failure", about, b"", Report(BO, "failed", NO_SUCH_USER))
        _, (_, status, _) = parsed(octets)
        self.assertEqual(
            dict(groups(status)[0])["Future-Release-Request"], "until;2030-01-01T00:00:00Z"
        )

    def test_explanation(self) -> None:
        _, (explanation, _, _) = parsed(failure())
        self.assertEqual(
            text(explanation),
            "This is the mail system at mx.local.test.\r\n"
            "\r\n"
            "Your message could not be delivered to the address below. We have given\r\n"
            "up: it will not arrive there.\r\n"
            "\r\n"
            "  bo@example.net\r\n"
            "    mx.example.net said: 550 5.1.1 no such user here\r\n"
            "    There is no such mailbox. Please check the address for typing\r\n"
            "    errors.\r\n"
            "\r\n"
            "The message arrived here at Tue, 14 Nov 2023 22:13:20 +0000.\r\n"
            "Its subject: The minutes of Monday\r\n"
            "Its Message-ID: <ordinary@example.org>\r\n"
            "Our name for it: 01hf7yat00aaaaaaaaaaaaaaaa\r\n",
        )

    def test_our_own_words(self) -> None:
        """Where no peer spoke there is no Remote-MTA, and the diagnostic is not called SMTP's."""
        bo = Recipient(BO.address)
        expired = Report(bo, "failed", Reply(451, "4.4.1", ("no answer",)), status="4.4.7")
        about = queued((bo,), envid="")
        _, (explanation, status, _) = parsed(composed("failure", about, b"", expired))
        self.assertEqual(
            groups(status)[1],
            [
                ("Final-Recipient", "rfc822; bo@example.net"),
                ("Action", "failed"),
                ("Status", "4.4.7"),
                ("Diagnostic-Code", "X-Protege-MTA; 451 4.4.1 no answer"),
            ],
        )
        self.assertNotIn("Original-Envelope-Id", dict(groups(status)[0]))
        self.assertIn("could not be reached for too long", " ".join(text(explanation).split()))

    def test_several_recipients(self) -> None:
        recipients = (BO, Recipient(Address('"odd  one"@example.net')))
        reports = [Report(one, "failed", NO_SUCH_USER, "mx") for one in recipients]
        _, (_, status, _) = parsed(composed("failure", queued(recipients), b"", *reports))
        self.assertEqual(
            [dict(group)["Final-Recipient"] for group in groups(status)[1:]],
            ["rfc822; bo@example.net", 'rfc822; "odd  one"@example.net'],
        )

    def test_made_again_it_is_the_same(self) -> None:
        self.assertEqual(failure(), failure())

    def test_boundary_is_nowhere_in_the_original(self) -> None:
        octets = b"Subject: x\r\n\r\n--=_01hf7yat00bbbbbbbbbbbbbbbb\r\n\r\nfoul\r\n"
        report, parts = parsed(failure(octets, ret="FULL"))
        self.assertEqual(report.get_boundary(), "=_01hf7yat00bbbbbbbbbbbbbbbb_")
        self.assertEqual(parts[2].get_content_type(), "message/rfc822")

    def test_original_without_a_decent_message_id(self) -> None:
        for bad in ("", "none", "<a b>", "<a>\r\nBcc: x", "<ä@x>", "<" + "x" * 990 + ">"):
            about = attrs.evolve(queued(), header_message_id=bad)
            octets = composed("failure", about, b"", Report(BO, "failed", NO_SUCH_USER))
            report, _ = parsed(octets)
            self.assertIsNone(report["In-Reply-To"], bad)
            self.assertIsNone(report["Bcc"], bad)


class OtherKindsTests(SynchronousTestCase):
    """Delays and successes."""

    def test_delay(self) -> None:
        reply = Reply(450, "4.2.0", ("greylisted",))
        report = Report(BO, "delayed", reply, "mx.example.net", "", AT + 5, AT + 432_000)
        _, (explanation, status, _) = parsed(composed("delay", queued(), b"", report))
        fields = dict(groups(status)[1])
        self.assertEqual((fields["Action"], fields["Status"]), ("delayed", "4.2.0"))
        self.assertEqual(fields["Will-Retry-Until"], "Sun, 19 Nov 2023 22:13:20 +0000")
        self.assertIn("We shall try until Sun, 19 Nov 2023", text(explanation))
        self.assertIn("You need not do anything", " ".join(text(explanation).split()))

    def test_success(self) -> None:
        ok = Reply(250, "2.0.0", ("ok",))
        reports = [Report(BO, "delivered", ok, "mx.example.net"), Report(BO, "relayed", ok, "mx")]
        report, (explanation, status, original) = parsed(
            composed("success", queued(ret="FULL"), b"Subject: x\r\n\r\nbody\r\n", *reports)
        )
        self.assertEqual(report["Subject"], "Successful Mail Delivery Report")
        self.assertEqual(
            [dict(group)["Action"] for group in groups(status)[1:]], ["delivered", "relayed"]
        )
        self.assertEqual(dict(groups(status)[1])["Status"], "2.0.0")
        self.assertIn("has been delivered to the mailbox.", text(explanation))
        self.assertIn("handed on to mx, which does not", " ".join(text(explanation).split()))
        # RFC 3461, 4.3: RET speaks of failures only.
        self.assertEqual(original.get_content_type(), "text/rfc822-headers")


class ReturnedTests(SynchronousTestCase):
    """What of the original comes back (RFC 3461, 4.3)."""

    def returned(self, octets: bytes, ret: Ret = "") -> tuple[str, str, bytes]:
        whole = failure(octets, ret=ret)
        _, (_, _, part) = parsed(whole)
        # Its octets as they stand, not as the parser would write them again.
        raw = whole.rpartition(b"\r\n--=_" + ID.encode())[0].rpartition(ID.encode() + b"\r\n")[2]
        return (
            part.get_content_type(),
            part["content-transfer-encoding"],
            raw.partition(b"\r\n\r\n")[2],
        )

    def test_header_by_default(self) -> None:
        octets = message("ordinary")
        self.assertEqual(
            self.returned(octets),
            ("text/rfc822-headers", "7bit", octets[: octets.index(b"\r\n\r\n") + 2]),
        )
        self.assertEqual(self.returned(octets), self.returned(octets, ret="HDRS"))

    def test_whole_where_asked_for(self) -> None:
        octets = message("ordinary")
        self.assertEqual(self.returned(octets, ret="FULL"), ("message/rfc822", "7bit", octets))

    def test_never_whole_where_tls_is_required(self) -> None:
        """RFC 8689, 5."""
        octets = b"Subject: x\r\n\r\nsecret\r\n"
        about = queued(octets=octets, ret="FULL")
        about = attrs.evolve(about, envelope=attrs.evolve(about.envelope, requires_tls=True))
        report = Report(BO, "failed", NO_SUCH_USER)
        self.assertNotIn(b"secret", composed("failure", about, octets, report))
        self.assertIn(b"Subject: x", composed("failure", about, octets, report))

    def test_whole_with_eight_bits(self) -> None:
        octets = message("mixed-eight-bit").replace(b"\0", b"0")
        self.assertEqual(self.returned(octets, ret="FULL"), ("message/rfc822", "8bit", octets))
        self.assertIn(b"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n--", failure(octets, ret="FULL"))

    def test_too_big_to_come_back(self) -> None:
        octets = b"Subject: x\r\n\r\n" + b"x\r\n" * (FULL_OCTETS // 3)
        self.assertEqual(
            self.returned(octets, ret="FULL"), ("text/rfc822-headers", "7bit", b"Subject: x\r\n")
        )

    def test_whole_would_break_a_line_limit(self) -> None:
        for body in (b"x" * 999, b"\0"):
            octets = b"Subject: x\r\n\r\n" + body + b"\r\n"
            self.assertEqual(self.returned(octets, ret="FULL")[0], "text/rfc822-headers")

    def test_header_with_long_line_or_wild_octets(self) -> None:
        for value in (b"x" * 1500, b"\xff\xfe", b"\0"):
            kind, encoding, body = self.returned(b"Subject: " + value + b"\r\n\r\n")
            self.assertEqual((kind, encoding), ("text/rfc822-headers", "quoted-printable"))
            self.assertTrue(body.isascii())

    def test_utf8_header(self) -> None:
        """RFC 6533, section 5."""
        octets = message("raw-utf8-header")
        self.assertEqual(self.returned(octets)[:2], ("message/global-headers", "8bit"))
        self.assertEqual(self.returned(octets, ret="FULL")[:2], ("message/global", "8bit"))

    def test_endless_header(self) -> None:
        """The field that is cut in two is left out."""
        octets = b"X: y\r\n" * 20_000 + b"\r\nbody\r\n"
        _, _, body = self.returned(octets)
        self.assertEqual(body, b"X: y\r\n" * (65_536 // 6))

    def test_no_header_and_nothing_at_all(self) -> None:
        self.assertEqual(self.returned(b"\r\nbody\r\n")[2], b"\r\n")
        self.assertEqual(self.returned(b"")[2], b"\r\n")


class GlobalTests(SynchronousTestCase):
    """Addresses beyond US-ASCII (RFC 6533)."""

    def composed(self) -> bytes:
        wide = Recipient(Address("bö@exämple.net"), orcpt="utf-8;b\\x{F6}@ex\\x{E4}mple.net")
        about = queued((wide,), sender=Address("ädä@example.org"), subject="Grüße")
        return composed("failure", about, b"", Report(wide, "failed", NO_SUCH_USER, "mx"))

    def test_types_and_fields(self) -> None:
        octets = self.composed()
        report, (explanation, status, _) = parsed(octets)
        self.assertEqual(status.get_content_type(), "message/global-delivery-status")
        self.assertIn("\r\nFinal-Recipient: utf-8; bö@exämple.net\r\n".encode(), octets)
        self.assertIn(b"\r\nOriginal-Recipient: utf-8; b\\x{F6}@ex\\x{E4}mple.net\r\n", octets)
        self.assertIn("\r\nTo: <ädä@example.org>\r\n".encode(), octets)
        self.assertEqual(report["Content-Transfer-Encoding"], "8bit")
        self.assertIn("  bö@exämple.net\r\n", text(explanation))
        self.assertIn("Its subject: Grüße\r\n", text(explanation))

    def test_subject_alone_needs_no_8_bit_hop(self) -> None:
        self.assertTrue(failure(subject="Grüße").isascii())

    def test_seven_bit_hop(self) -> None:
        """To an ASCII sender it can be recoded like any other mail."""
        octets = self.composed().replace("ädä".encode(), b"ada")
        envelope = Envelope(NULL, (Recipient(Address("ada@example.org")),))
        form = for_hop(octets, envelope, [0], HopAbilities(False, False))
        assert isinstance(form, Recoded)
        head = b"message/global-delivery-status\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        encoded = form.octets.partition(head)[2].partition(b"\r\n--")[0]
        self.assertIn("Final-Recipient: utf-8; bö@exämple.net", b64decode(encoded).decode())


class HostileTests(SynchronousTestCase):
    """What strangers wrote stays in its line."""

    def test_reply(self) -> None:
        reply = Reply(550, "5.1.1", ("no\r\n\r\nAction: delivered\r\n\0\x1b[1mä", "x" * 5000))
        octets = failure(reply=reply)
        _, (_, status, _) = parsed(octets)
        self.assertEqual(len(groups(status)), 2)
        fields = groups(status)[1]
        self.assertEqual([value for name, value in fields if name == "Action"], ["failed"])
        diagnostic = dict(fields)["Diagnostic-Code"]
        self.assertTrue(diagnostic.startswith("smtp; 550 5.1.1 no Action: delivered [1m? xxx"))
        self.assertTrue(diagnostic.endswith("xxx..."))
        self.assertTrue(octets.isascii())
        self.assertLess(max(map(len, octets.split(b"\r\n"))), 998)

    def test_xtext_that_hides_a_line_end(self) -> None:
        """RFC 3461, 4.2 and 4.4: decoded only where the result is printable."""
        evil = attrs.evolve(BO, orcpt="rfc822;a+0D+0AAction:+20delivered")
        about = queued((evil,), envid="a+0D+0AX:+20y")
        _, (_, status, _) = parsed(
            composed("failure", about, b"", Report(evil, "failed", NO_SUCH_USER))
        )
        self.assertEqual(groups(status)[0][0], ("Original-Envelope-Id", "a+0D+0AX:+20y"))
        self.assertEqual(
            groups(status)[1][0], ("Original-Recipient", "rfc822; a+0D+0AAction:+20delivered")
        )

    def test_status_that_is_none(self) -> None:
        for enhanced in ("", "5.1", "5.1.1\r\n", "9.9.9", "5.1.1234"):
            report = Report(BO, "failed", Reply(554, enhanced, ("no",)))
            self.assertEqual(status_of(report), "5.0.0")


class NotifyTests(SynchronousTestCase):
    """Who is told what (RFC 3461, 4.1)."""

    def test_table(self) -> None:
        for notify, told in (
            (Notify.UNSET, ["failure", "delay"]),
            (Notify.NEVER, []),
            (Notify.FAILURE, ["failure"]),
            (Notify.DELAY, ["delay"]),
            (Notify.SUCCESS, ["success"]),
            (Notify.SUCCESS | Notify.FAILURE, ["failure", "success"]),
        ):
            kinds: tuple[Kind, ...] = ("failure", "delay", "success")
            self.assertEqual([kind for kind in kinds if wants(notify, kind)], told)

    def test_no_bounce_for_a_bounce(self) -> None:
        """RFC 5321, 6.1."""
        self.assertTrue(is_due(queued(), BO, "failure"))
        self.assertFalse(is_due(queued(sender=NULL), BO, "failure"))
        self.assertFalse(is_due(queued(), attrs.evolve(BO, notify=Notify.NEVER), "failure"))
