"""Trace fields say who, how and when, and hold nothing that a peer could abuse."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.loop import is_delivered_before
from protege_mta.message.trace import date, delivered_to, protocol, received, return_path
from protege_mta.model.address import NULL, Address
from protege_mta.model.ids import QueueId
from protege_mta.model.outcome import TlsFacts

ID = QueueId("01hf7yat00abcdefghjkmnpqrs")
AT = 1_700_000_000.9


class DateTests(SynchronousTestCase):
    """RFC 5322, 3.3."""

    def test_literals(self) -> None:
        self.assertEqual(date(0), "Thu, 01 Jan 1970 00:00:00 +0000")
        self.assertEqual(date(1_700_000_000), "Tue, 14 Nov 2023 22:13:20 +0000")
        self.assertEqual(date(4_102_444_799), "Thu, 31 Dec 2099 23:59:59 +0000")

    def test_read_back(self) -> None:
        for at in range(0, 2_000_000_000, 33_333_333):
            self.assertEqual(parsedate_to_datetime(date(at)).timestamp(), at)


class ProtocolTests(SynchronousTestCase):
    """The WITH keywords of RFC 3848 and RFC 6531, 4.3."""

    def test_keywords(self) -> None:
        self.assertEqual(protocol(is_esmtp=False), "SMTP")
        self.assertEqual(protocol(is_esmtp=True), "ESMTP")
        self.assertEqual(protocol(is_esmtp=True, is_encrypted=True), "ESMTPS")
        self.assertEqual(protocol(is_esmtp=True, is_authenticated=True), "ESMTPA")
        self.assertEqual(
            protocol(is_esmtp=True, is_encrypted=True, is_authenticated=True), "ESMTPSA"
        )
        self.assertEqual(
            protocol(is_esmtp=True, is_encrypted=True, is_authenticated=True, is_smtputf8=True),
            "UTF8SMTPSA",
        )


class ReceivedTests(SynchronousTestCase):
    """RFC 5321, 4.4."""

    def test_everything(self) -> None:
        octets = received(
            hostname="mx.local.test",
            id=ID,
            at=AT,
            protocol="ESMTPS",
            helo="client.example",
            peer_address="192.0.2.1",
            tls=TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
            recipient=Address("bo@local.test"),
        )
        self.assertEqual(
            octets,
            b"Received: from client.example ([192.0.2.1])\r\n"
            b"\tby mx.local.test with ESMTPS id 01hf7yat00abcdefghjkmnpqrs\r\n"
            b"\t(TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n"
            b"\tfor <bo@local.test>;\r\n"
            b"\tTue, 14 Nov 2023 22:13:20 +0000\r\n",
        )

    def test_local_door(self) -> None:
        octets = received(hostname="mx.test", id=ID, at=AT, protocol="HTTP")
        self.assertEqual(
            octets,
            b"Received: by mx.test with HTTP id 01hf7yat00abcdefghjkmnpqrs;\r\n"
            b"\tTue, 14 Nov 2023 22:13:20 +0000\r\n",
        )

    def test_hidden_client(self) -> None:
        """Whose address is nobody's business: the FROM clause, which has to be there, says less."""
        octets = received(hostname="mx.test", id=ID, at=AT, protocol="ESMTPSA", helo="mx.test")
        self.assertEqual(
            octets,
            b"Received: from mx.test\r\n"
            b"\tby mx.test with ESMTPSA id 01hf7yat00abcdefghjkmnpqrs;\r\n"
            b"\tTue, 14 Nov 2023 22:13:20 +0000\r\n",
        )

    def first_line(self, helo: str, peer_address: str) -> bytes:
        octets = received(
            hostname="mx.test", id=ID, at=AT, protocol="SMTP", helo=helo, peer_address=peer_address
        )
        self.assertEqual(octets.count(b"\r\n"), 3)
        return octets.partition(b"\r\n")[0]

    def test_ipv6(self) -> None:
        self.assertEqual(
            self.first_line("[IPv6:2001:db8::1]", "2001:db8::1"),
            b"Received: from [IPv6:2001:db8::1] ([IPv6:2001:db8::1])",
        )

    def test_unfit_helo_is_left_out(self) -> None:
        """Syntax is checked at the door; this field does not rely on it."""
        for helo in ("", "a b", "a\r\nX: y", "a(b", "ä.test", "-", "[1", "a\0", "x" * 256):
            self.assertEqual(
                self.first_line(helo, "192.0.2.1"),
                b"Received: from [192.0.2.1] ([192.0.2.1])",
                helo,
            )

    def test_recipient_beyond_ascii_is_left_out(self) -> None:
        octets = received(
            hostname="mx.test", id=ID, at=AT, protocol="UTF8SMTP", recipient=Address("ü@x.test")
        )
        self.assertTrue(octets.isascii())
        self.assertNotIn(b"for", octets)


class DeliveryFieldsTests(SynchronousTestCase):
    """What final delivery adds."""

    def test_return_path(self) -> None:
        self.assertEqual(return_path(NULL), b"Return-Path: <>\r\n")
        self.assertEqual(return_path(Address('"a b"@x.test')), b'Return-Path: <"a b"@x.test>\r\n')

    def test_delivered_to(self) -> None:
        self.assertEqual(delivered_to(Address("ü@x.test")), "Delivered-To: ü@x.test\r\n".encode())

    def test_loop_is_seen(self) -> None:
        """A message that we delivered to this mailbox once does not go round."""
        recipient = Address("Agent+ü@Local.test")
        header = b"Subject: x\r\n" + delivered_to(recipient) + b"\r\n"
        self.assertTrue(is_delivered_before(header, Address("agent+Ü@local.test")))
        self.assertTrue(is_delivered_before(header.upper(), recipient))
        self.assertFalse(is_delivered_before(header, Address("other@local.test")))
        self.assertFalse(is_delivered_before(b"To: agent@local.test\r\n\r\n", recipient))
