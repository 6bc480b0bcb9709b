"""Whose a From is: the same to all readers, or nobody's."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.mailboxes import OCTETS, mailboxes, names_somebody


class MailboxesTests(SynchronousTestCase):
    def test_the_ways_to_write_a_mailbox(self) -> None:
        for value in (
            b"ada@x.test",
            b"<ada@x.test>",
            b"Ada Lovelace <ada@x.test>",
            b"Ada<ada@x.test>",
            b'"Lovelace, Ada; (of x) ada@y.test" <ada@x.test>',
            b'"Ada \\"the first\\" \\\\" <ada@x.test>',
            b"A. Lovelace Jr. <ada@x.test>",
            b"=?utf-8?q?L=C3=B6velace=2C_Ada?= <ada@x.test>",
            b"=?iso-8859-1?B?TPZ2?= \t =?utf-8?q?b?= <ada@x.test>",
            b'"=?utf-8?q?L=C3=B6v?=" <ada@x.test>',
            "Löv ≈ <ada@x.test>".encode(),
            b"ada@x.test (Ada Lovelace)",
            b"Ada <ada@x.test> (+44 20)",
            b"Ada (of x) Lovelace (Countess) <ada@x.test>",
        ):
            self.assertEqual(mailboxes(value), ["ada@x.test"], value)

    def test_several(self) -> None:
        self.assertEqual(
            mailboxes(b'"a@z.test" <a@x.test>, b@y.test (B) ,<c@x.test>'),
            ["a@x.test", "b@y.test", "c@x.test"],
        )

    def test_quoted_local_part_and_u_labels(self) -> None:
        self.assertEqual(mailboxes(b'"ada b"@x.test'), ['"ada b"@x.test'])
        self.assertEqual(mailboxes("ädä@bücher.test".encode()), ["ädä@bücher.test"])

    def test_two_addresses_of_which_a_reader_may_see_the_other(self) -> None:
        for value in (
            b"a@x.test <b@y.test>",
            b"<a@x.test> <b@y.test>",
            b"<a@x.test> b@y.test",
            b"a@x.test\\, <b@y.test>",
            b"a@x.test(<b@y.test>)",
            b"a@x.test (b@y.test)",
            b"(x)a@x.test",
            b"a@x.test (b) c) d",
            b"a@x.test (b (c))",
            b"a@x.test (b\\) <c@y.test>)",
            b'"<b@y.test>" <a@x.test>',
            b'"b\\"" <b@y.test>, "c <a@x.test>',
            b'"a\\b" <a@x.test>',
            b"<@y.test:a@x.test>",
            b"<@y.test,@z.test:a@x.test>",
            b"a@x.test@y.test",
            b"a@x.test\0b@y.test",
            b"a@x.test b@y.test",
            b"a@x.test, ",
            b",a@x.test",
            b"a@x.test,,b@y.test",
            b"a@x.test; b@y.test",
            b'"b@y.test,"@x.test',
            b'"b@y.test> "@x.test',
            b"=?utf-8?q?=3Cb=40y.test=3E=2C?= <a@x.test>",
            b"=?utf-8?b?Yiwi?=@x.test",
            b"=?utf-8?b?YkB5LnRlc3Q=?= <a@x.test>",
            b'"=?utf-8?b?YkB5LnRlc3Q=?=" <a@x.test>',
            b"=?utf-8?q?b=00?= <a@x.test>",
            b"=?utf-8?q?b=0A?= <a@x.test>",
            b"=?utf-7?q?b+AEA-y.test?= <a@x.test>",
            b"=?utf-8?q?b?=40y.test?= <a@x.test>",
            "b\u2028From: b@y.test <a@x.test>".encode(),
            '"b\u2028From: b@y.test" <a@x.test>'.encode(),
        ):
            self.assertIsNone(mailboxes(value), value)

    def test_other_doubts(self) -> None:
        for value in (
            b"",
            b"Ada",
            b"<>",
            b"ada@",
            b"@x.test",
            b"< ada@x.test >",
            b"ada @ x.test",
            b"ada@[192.0.2.1]",
            b"board: a@x.test;",
            b"undisclosed-recipients:;",
            b"ada@x..test",
            b".ada@x.test",
            b'a"b"@x.test',
            b'"ada@x.test',
            b"L\xf6v <ada@x.test>",
            b"ada@x.test\x0b",
            b"x" * OCTETS + b" <ada@x.test>",
        ):
            self.assertIsNone(mailboxes(value), value)


class SomebodyTests(SynchronousTestCase):
    """What is refused from anybody: From without an author."""

    def test_somebody(self) -> None:
        for value in (
            b"ada@x.test",
            b'"Ada" <ada@x.test>, b@y.test',
            b'"ada b"@x.test',
            b"ada @ x.test (obsolete)",
            b"ada@[192.0.2.1]",
            b"\xe4d\xe4@\xe4.test",
            b"undisclosed-recipients:;",
            b"board: a@x.test;",
        ):
            self.assertTrue(names_somebody(value), value)

    def test_nobody(self) -> None:
        for value in (b"", b"Ada", b"<>", b"<ada>", b"ada@", b"@x.test", b"(a@b)", b'"ada@x.test"'):
            self.assertFalse(names_somebody(value), value)
