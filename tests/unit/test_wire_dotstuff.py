"""Transparency, sending and receiving (RFC 5321, 4.5.2)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.wire.dotstuff import Stuffer, Unstuffer


def stuffed(*pieces: bytes) -> bytes:
    stuffer = Stuffer()
    return b"".join(map(stuffer.feed, pieces)) + stuffer.finish()


def unstuffed(*pieces: bytes) -> tuple[bytes, bytes | None]:
    unstuffer = Unstuffer()
    return b"".join(map(unstuffer.feed, pieces)), unstuffer.rest


class StufferTests(SynchronousTestCase):
    def test_a_dot_at_a_line_start_is_doubled(self) -> None:
        self.assertEqual(stuffed(b".a\r\nb.\r\n..\r\n"), b"..a\r\nb.\r\n...\r\n.\r\n")

    def test_edges_between_pieces_are_seen(self) -> None:
        for pieces in (
            (b"a\r\n", b".b\r\n"),
            (b"a\r", b"\n.b\r\n"),
            (b"a", b"\r", b"\n", b".", b"b", b"\r", b"\n"),
            (b"a\r\n", b"", b".b\r\n"),
        ):
            self.assertEqual(stuffed(*pieces), b"a\r\n..b\r\n.\r\n")

    def test_a_missing_line_end_is_added(self) -> None:
        self.assertEqual(stuffed(b"a"), b"a\r\n.\r\n")
        self.assertEqual(stuffed(b"a\r"), b"a\r\n.\r\n")

    def test_no_content_is_a_dot_alone(self) -> None:
        self.assertEqual(stuffed(), b".\r\n")

    def test_ordinary_content_is_passed_on_uncopied(self) -> None:
        octets = b"Subject: x\r\n\r\nbody\r\n"
        self.assertIs(Stuffer().feed(octets), octets)


class UnstufferTests(SynchronousTestCase):
    def test_a_stuffed_dot_goes(self) -> None:
        self.assertEqual(unstuffed(b"..a\r\n.b\r\n...\r\n.\r\n"), (b".a\r\nb\r\n..\r\n", b""))

    def test_the_end_is_found_at_once_in_empty_data(self) -> None:
        self.assertEqual(unstuffed(b".\r\nQUIT\r\n"), (b"", b"QUIT\r\n"))

    def test_the_end_is_found_octet_by_octet(self) -> None:
        stream = b"a\r\n..\r\n.\r\n"
        pieces = [stream[at : at + 1] for at in range(len(stream))]
        self.assertEqual(unstuffed(*pieces), (b"a\r\n.\r\n", b""))

    def test_nothing_else_ends_the_data(self) -> None:
        """No sequence that some server takes for the end is one (SMTP smuggling)."""
        for fake in (
            b"\n.\n",
            b"\n.\r\n",
            b"\r.\r",
            b"\r.\r\n",
            b"\r\n.\n",
            b"\r\n.\r",
            b"\r\n.\0\r\n",
        ):
            _, rest = unstuffed(b"a" + fake + b"b\r\n")
            self.assertIsNone(rest, fake)

    def test_a_bare_cr_before_the_end_hides_it_not(self) -> None:
        self.assertEqual(unstuffed(b"a\r\r\n.\r\n"), (b"a\r\r\n", b""))
