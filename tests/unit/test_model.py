"""Addresses, ids and replies."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model import ids
from protege_mta.model.address import Address, domain_of, literal_of, local_part_of, parse
from protege_mta.model.envelope import Recipient
from protege_mta.model.ids import IdSource, QueueId, derived
from protege_mta.model.reply import TABLE, Reply

LABEL = "a" * 63


class AddressTests(SynchronousTestCase):
    """The mailbox grammar of RFC 5321, 4.1.2, and of RFC 6531, 3.3."""

    def test_accepted(self) -> None:
        for text in (
            "a@b",
            "first.last+tag@sub.example.test",
            "!#$%&'*+-/=?^_`{|}~@b.test",
            '"two words"@b.test',
            r'"a\"b"@b.test',
            '""@b.test',
            "a@[192.0.2.1]",
            "a@[IPv6:2001:db8::1]",
            f"{'a' * 64}@b.test",
            f"a@{LABEL}.test",
            "user%elsewhere@b.test",
        ):
            self.assertEqual(parse(text), text)

    def test_refused(self) -> None:
        for text in (
            "",
            "a",
            "@b.test",
            "a@",
            "a@b@c",
            ".a@b.test",
            "a.@b.test",
            "a..b@c.test",
            "a b@c.test",
            "a@-b.test",
            "a@b-.test",
            "a@b..test",
            "a@.b",
            "a@b.test.",
            "a@b_c.test",
            "a\x00@b.test",
            "a\r\n@b.test",
            "<a@b.test>",
            '"a@b.test',
            '"a\x7f"@b.test',
            "a@[300.1.1.1]",
            "a@[IPv6:fe80::1%eth0]",
            "a@[tag:content]",
            f"{'a' * 65}@b.test",
            f"a@{LABEL}a.test",
            "a@" + ".".join([LABEL] * 4),
            "grün@b.test",
            "a@grün.test",
        ):
            self.assertIsNone(parse(text), text)

    def test_smtputf8(self) -> None:
        """U-labels and UTF-8 local-parts need the extension, controls stay out with it too."""
        self.assertEqual(parse("grün@bäume.test", is_smtputf8=True), "grün@bäume.test")
        self.assertIsNone(parse("a\x85@b.test", is_smtputf8=True))
        self.assertIsNone(parse("\ud800@b.test", is_smtputf8=True))
        self.assertIsNone(parse("ü" * 33 + "@b.test", is_smtputf8=True))

    def test_parts(self) -> None:
        """An @ in a quoted local-part is not the one that counts."""
        address = Address(r'"a@x\"y"@B.Test')
        self.assertEqual((local_part_of(address), domain_of(address)), ('a@x"y', "b.test"))
        self.assertEqual(domain_of(Address("")), "")

    def test_literals(self) -> None:
        self.assertEqual(str(literal_of("[192.0.2.1]")), "192.0.2.1")
        self.assertEqual(str(literal_of("[IPv6:2001:DB8::1]")), "2001:db8::1")
        self.assertIsNone(literal_of("192.0.2.1"))


class IdTests(SynchronousTestCase):
    """Names of messages."""

    def source(self, now: float = 1_700_000_000.0, octet: bytes = b"\x00") -> IdSource:
        return IdSource(lambda: now, lambda count: octet * count)

    def test_shape(self) -> None:
        """Milliseconds, the process, a count; each in base 32."""
        new_id = self.source()
        self.assertEqual(new_id(), "01hf7yat00" + "0000000000" + "000001")
        self.assertEqual(new_id(), "01hf7yat00" + "0000000000" + "000002")

    def test_one_source_follows_the_clock(self) -> None:
        times = iter([1_700_000_000.0, 1_700_000_000.001, 1_700_001_048.576, 1_700_000_000.0])
        new_id = IdSource(lambda: next(times), lambda count: b"\x00" * count)
        self.assertEqual(
            [new_id()[:10] for _ in range(4)],
            ["01hf7yat00", "01hf7yat01", "01hf7zat00", "01hf7yat00"],
        )

    def test_later_ones_sort_behind(self) -> None:
        self.assertLess(self.source(1.0, b"\xff")(), self.source(2.0, b"\x00")())

    def test_starts_differ(self) -> None:
        self.assertNotEqual(self.source(octet=b"\x01")(), self.source(octet=b"\x02")())

    def test_typed(self) -> None:
        id = self.source()()
        self.assertEqual(ids.parse(f" {id.upper()} "), id)
        self.assertIsNone(ids.parse(id[:-1]))
        self.assertIsNone(ids.parse(id[:-1] + "u"))

    def test_derived(self) -> None:
        """A bounce made again has the same name; another transition's has another."""
        parent = self.source()()
        self.assertEqual(derived(parent, "failure 1 [0]"), derived(parent, "failure 1 [0]"))
        self.assertNotEqual(derived(parent, "failure 1 [0]"), derived(parent, "failure 2 [0]"))
        self.assertEqual(ids.parse(derived(parent, "x")), derived(parent, "x"))
        self.assertEqual(derived(QueueId(parent), "x")[:10], parent[:10])


class ReplyTests(SynchronousTestCase):
    """The table as a whole obeys the RFCs."""

    def test_every_entry(self) -> None:
        """Classes agree (RFC 2034, section 4), texts fit a line (RFC 5321, 4.5.3.1.5)."""
        for name, reply in TABLE.items():
            if reply.enhanced:
                self.assertEqual(str(reply.code)[0], reply.enhanced[0], name)
            for line in reply.octets().split(b"\r\n"):
                self.assertLess(len(line), 510, name)

    def test_one_text_for_each_meaning(self) -> None:
        said = [(reply.code, reply.enhanced, reply.lines) for reply in TABLE.values()]
        self.assertEqual(len(said), len(set(said)))

    def test_multiline(self) -> None:
        octets = Reply(250, "", ("mx.test", "PIPELINING")).octets()
        self.assertEqual(octets, b"250-mx.test\r\n250 PIPELINING\r\n")

    def test_in_words(self) -> None:
        self.assertEqual(str(Reply(550, "5.1.1", ("no", "such"))), "550 5.1.1 no such")
        self.assertEqual(str(Reply(550, "", ("no",))), "550 no")


class ValueTests(SynchronousTestCase):
    """What :func:`~protege_mta.model.value.value` makes."""

    def test_equal_by_fields(self) -> None:
        one, other = Recipient(Address("a@b.test")), Recipient(Address("a@b.test"))
        self.assertEqual({one: 1}[other], 1)
        self.assertNotEqual(one, Recipient(Address("c@b.test")))

    def test_frozen_to_mypy(self) -> None:
        """An assignment is an error of types: without one, the comment below would be."""
        recipient = Recipient(Address("a@b.test"))
        recipient.orcpt = "rfc822;a@b.test"  # type: ignore[misc]
        self.assertEqual(recipient, Recipient(Address("a@b.test"), orcpt="rfc822;a@b.test"))

    def test_no_other_field(self) -> None:
        self.assertFalse(hasattr(Recipient(Address("a@b.test")), "__dict__"))
