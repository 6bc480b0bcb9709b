"""What vendors write, as it is read."""

from __future__ import annotations

from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.config.bounce_rules import classifier
from protege_mta.message.report import Complaint, Notification, read
from protege_mta.model.address import Address

from ..corpora import reports

READER: Final = Address("reader@example.net")
PATH: Final = Address("b+x@ours.test")

NOTIFIED: Final = {
    "postfix": [("gone@example.net", "failed", "550 5.1.1", "InvalidRecipient")],
    "exchange": [("gone@example.net", "failed", "550 5.1.10", "InvalidRecipient")],
    "gmail": [("full@example.net", "failed", "552 5.2.2", "AmbiguousRefusal")],
    "exim": [("gone@example.net", "failed", "550 5.1.1", "InvalidRecipient")],
    "qmail": [
        ("gone@example.net", "failed", "550 5.1.1", "InvalidRecipient"),
        ("other@example.net", "failed", "554 5.7.1", "SpamBlock"),
    ],
    "sendmail": [
        ("gone@example.net", "failed", "550 5.1.2", "BadDomain"),
        ("late@example.net", "delayed", "450 4.4.1", "NoAnswerFromHost"),
    ],
    "delivered": [("inner@mail.example.net", "delivered", "250 2.0.0", "Uncategorized")],
    "global": [("jörg@example.net", "failed", "550 5.2.1", "InactiveMailbox")],
    "status-as-text": [("gone@example.net", "failed", "550 5.0.0", "InvalidRecipient")],
}


class NotificationTests(SynchronousTestCase):
    def test_vendors(self) -> None:
        classify = classifier([])
        found = {
            name: [
                (
                    one.recipient,
                    one.action,
                    f"{one.reply.code} {one.reply.enhanced}",
                    classify(one.reply).name,
                )
                for one in report.statuses
            ]
            for name, octets in reports().items()
            if isinstance(report := read(octets), Notification)
        }
        self.maxDiff = None
        self.assertEqual(found, NOTIFIED)

    def test_line_ends_do_not_matter(self) -> None:
        for octets in reports().values():
            self.assertEqual(read(octets), read(octets.replace(b"\n", b"\r\n")))

    def test_who_reports(self) -> None:
        report = read(reports()["postfix"])
        assert isinstance(report, Notification)
        self.assertEqual(report.reporting_mta, "mail.example.net")

    def test_as_we_wrote_it(self) -> None:
        report = read(reports()["delivered"])
        assert isinstance(report, Notification)
        self.assertEqual(report.statuses[0].original, "here@example.net")

    def test_other_mail_is_no_report(self) -> None:
        self.assertIsNone(read(reports()["vacation"]))
        self.assertIsNone(read(b""))


class ComplaintTests(SynchronousTestCase):
    def complaint(self, name: str) -> Complaint:
        octets = reports()[name].replace(b"<PATH>", b"<b+x@ours.test>")
        report = read(octets)
        assert isinstance(report, Complaint)
        return report

    def test_in_full(self) -> None:
        self.assertEqual(
            self.complaint("arf-yahoo"),
            Complaint("abuse", "Yahoo!-Mail-Feedback/2.0", (READER,), (PATH,)),
        )

    def test_without_the_recipient(self) -> None:
        report = self.complaint("arf-redacted")
        self.assertEqual((report.kind, report.recipients), ("abuse", ()))
        self.assertEqual(report.return_paths, ("b+x@ours.test",))

    def test_no_complaint(self) -> None:
        report = self.complaint("arf-not-spam")
        self.assertEqual((report.kind, report.recipients), ("not-spam", ("reader@example.net",)))
