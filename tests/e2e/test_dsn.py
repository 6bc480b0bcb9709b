"""What senders are told, and what they asked to be told (RFC 3461, RFC 3464).

client  -->  protege-mta  -->  Maildirs of local.test: recipients, and senders with their DSNs
                  |-- LMTP -->  smtp-sink that says 450 to all: slow.test
                  |-- smarthost -->  smtp-sink that says 500 to all
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import ClassVar, Final

from protege_mta.testing.peers import SmtpSink

from . import dsns
from .service import Event, ServiceTestCase, send

TABLES: Final = """
[domains."slow.test"]
deliver = "lmtp"
lmtp = "127.0.0.1:SLOW"

[outbound]
route = "smarthost"
smarthost = { host = "127.0.0.1", port = HARD, tls = "none" }

[retry]
first_s = 0.5
max_interval_s = 1
delay_warning_s = 1.5
max_age_s = 4
bounce_max_age_s = 2
jitter = 0
"""


class DsnTestCase(ServiceTestCase):
    def sent(
        self,
        sender: str,
        recipient: str,
        *,
        mail: str = "",
        rcpt: str = "",
        body: str = "hello\r\n",
    ) -> None:
        """Send a message whose Message-ID is the sender.

        :param mail: parameters of MAIL; ``rcpt`` of RCPT.
        """
        content = f"Message-ID: <{sender or 'null@local.test'}>\r\nSubject: s\r\n\r\n{body}"
        port = self.service.port("relay")
        send(
            port,
            sender,
            recipient,
            content.encode(),
            mail_options=mail.split(),
            rcpt_options=rcpt.split(),
        )

    def dsn(self, local_part: str, number: int = 0) -> dsns.Dsn:
        """The DSN that came to a sender, as the so-manyth message."""
        return dsns.read(self.service.wait_for_mail(local_part, number + 1)[number])

    def no_dsn(self, event: Event, local_part: str) -> None:
        """Nothing has come, and nothing is on its way: the event would have said so."""
        self.assertNotIn(event.get("dsn", ""), [e["message_id"] for e in self.service.told()])
        self.assertEqual(self.service.maildir("local.test", local_part), [])
        received = [e for e in self.service.told() if e["event"] == "received"]
        self.assertNotIn(f"{local_part}@local.test", [e["recipient"] for e in received])


class DsnTests(DsnTestCase):
    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        slow = SmtpSink("-L", "-r", "RCPT")
        stack.callback(slow.stop)
        hard = SmtpSink("-f", "RCPT")
        stack.callback(hard.stop)
        tables = TABLES.replace("SLOW", str(slow.port)).replace("HARD", str(hard.port))
        cls.service = cls.started(stack, tables)

    def test_success(self) -> None:
        """Told only to who asks, of the mailbox's name that the sender knows."""
        self.sent(
            "success@local.test",
            "agent@local.test",
            mail="RET=HDRS ENVID=QQ+2B314",
            rcpt="NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Alias+2B@old.test",
        )
        event = self.service.event("delivered", sender="success@local.test")
        report = self.dsn("success")
        self.assertEqual((report.action, report.status[0]), ("delivered", "2"))
        self.assertEqual(report.message_fields["Original-Envelope-Id"], "QQ+314")
        fields = report.recipients[0]
        self.assertEqual(fields["Original-Recipient"], "rfc822; Alias+@old.test")
        self.assertEqual(fields["Final-Recipient"], "rfc822; agent@local.test")
        self.assertEqual(report.returned_type, "text/rfc822-headers")
        self.assertEqual(event["dsn"], report.header["Message-ID"][1:-1].split("@")[0])
        self.sent("plain@local.test", "agent@local.test")
        self.no_dsn(self.service.event("delivered", sender="plain@local.test"), "plain")

    def test_failure(self) -> None:
        """By default, with the header alone; with RET=FULL the whole message."""
        for sender, mail, kind in (
            ("short", "", "text/rfc822-headers"),
            ("hdrs", "RET=HDRS", "text/rfc822-headers"),
            ("full", "RET=FULL", "message/rfc822"),
        ):
            self.sent(f"{sender}@local.test", "b@far.test", mail=mail, body="the body\r\n")
            report = self.dsn(sender)
            self.assertEqual((report.action, report.status), ("failed", "5.3.0"))
            self.assertEqual(report.returned_type, kind)
            self.assertEqual("the body" in report.returned, kind == "message/rfc822")
            self.assertIn(f"Message-ID: <{sender}@local.test>", report.returned)
            self.assertEqual(report.header["Auto-Submitted"], "auto-replied")

    def test_never(self) -> None:
        self.sent("never@local.test", "b@far.test", rcpt="NOTIFY=NEVER")
        event = self.service.event("bounced", sender="never@local.test")
        self.assertEqual(event["dsn"], "none")
        self.no_dsn(event, "never")

    def test_only_success_wanted(self) -> None:
        self.sent("lucky@local.test", "b@far.test", rcpt="NOTIFY=SUCCESS")
        event = self.service.event("bounced", sender="lucky@local.test")
        self.assertEqual(event["dsn"], "none")
        self.no_dsn(event, "lucky")

    def test_no_bounce_of_a_bounce(self) -> None:
        """A null reverse-path ends in the event, refused or too old."""
        self.sent("", "b@far.test")
        event = self.service.event("bounced", recipient="b@far.test", sender="")
        self.assertEqual(event["dsn"], "none")
        self.sent("", "null@slow.test")
        event = self.service.event("expired", recipient="null@slow.test", sender="")
        self.assertEqual(event["dsn"], "none")
        self.assertLess(event["queued_s"], 4)
        internal = [e for e in self.service.told() if e["source"] == "internal"]
        self.assertNotIn("", [e["recipient"] for e in internal])

    def test_a_forged_bounce_goes_nowhere(self) -> None:
        """Our own DSN that nobody takes has its one fate and makes no second one."""
        self.sent("b@far.test", "b@far.test")
        event = self.service.event("bounced", sender="b@far.test")
        end = self.service.event("bounced", message_id=event["dsn"])
        self.assertEqual((end["source"], end["sender"], end["dsn"]), ("internal", "", "none"))

    def test_delay_and_expiry(self) -> None:
        """The sender hears of the delay once, and of the end, from the last failure's words."""
        self.sent("late@local.test", "b@slow.test", mail="ENVID=late")
        event = self.service.event("delayed", recipient="b@slow.test", sender="late@local.test")
        warning = self.dsn("late")
        self.assertEqual((warning.action, warning.status[0]), ("delayed", "4"))
        self.assertIn("Will-Retry-Until", warning.recipients[0])
        self.assertEqual(event["dsn"], warning.header["Message-ID"][1:-1].split("@")[0])
        event = self.service.event("expired", sender="late@local.test")
        self.assertGreaterEqual(event["queued_s"], 4)
        [first, second] = self.service.wait_for_mail("late", 2)
        reports = {dsns.read(octets).action: dsns.read(octets) for octets in (first, second)}
        self.assertEqual(set(reports), {"delayed", "failed"})
        end = reports["failed"]
        self.assertIn("450 4.3.0 Error: command failed", end.recipients[0]["Diagnostic-Code"])
        self.assertEqual(end.message_fields["Original-Envelope-Id"], "late")
        events = [e["event"] for e in self.service.told() if e["sender"] == "late@local.test"]
        self.assertEqual(events.count("delayed"), 1)
        self.assertEqual((events[0], events[-1]), ("received", "expired"))

    def test_no_warning_unless_wanted(self) -> None:
        self.sent("patient@local.test", "b@slow.test", rcpt="NOTIFY=FAILURE")
        self.service.event("expired", sender="patient@local.test")
        report = self.dsn("patient")
        self.assertEqual(report.action, "failed")
        self.assertEqual(len(self.service.maildir("local.test", "patient")), 1)


RELAYED_TABLES: Final = """
[outbound]
route = "smarthost"
smarthost = { host = "127.0.0.1", port = PORT, tls = "none" }
"""


class HandedOnTests(DsnTestCase):
    """A next hop that takes over the duty, and one that cannot."""

    sink: ClassVar[SmtpSink]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.sink = SmtpSink(keeps=True)
        stack.callback(cls.sink.stop)
        cls.service = cls.started(stack, RELAYED_TABLES.replace("PORT", str(cls.sink.port)))

    def test_to_a_hop_with_the_extension(self) -> None:
        """Gets the parameters as they came, and reports in our stead."""
        self.sent(
            "asker@local.test",
            "b@far.test",
            mail="RET=FULL ENVID=QQ+2B314",
            rcpt="NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2B@old.test",
        )
        event = self.service.event("relayed", recipient="b@far.test")
        self.no_dsn(event, "asker")
        [octets] = self.sink.captured()
        self.assertIn(b"X-Mail-Args: <asker@local.test> RET=FULL ENVID=QQ+2B314\n", octets)
        self.assertIn(
            b"X-Rcpt-Args: <b@far.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2B@old.test\n", octets
        )


class HandedOutTests(DsnTestCase):
    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        sink = SmtpSink("-N")
        stack.callback(sink.stop)
        cls.service = cls.started(stack, RELAYED_TABLES.replace("PORT", str(sink.port)))

    def test_to_a_hop_without_it(self) -> None:
        """RFC 3461, 5.2.2: the sender is told that the trail ends there."""
        self.sent("asker@local.test", "b@far.test", rcpt="NOTIFY=SUCCESS")
        self.service.event("delivered", recipient="b@far.test")
        report = self.dsn("asker")
        self.assertEqual((report.action, report.status[0]), ("relayed", "2"))
