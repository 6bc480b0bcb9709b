"""The relaxed forms, by the examples and rules of RFC 6376, 3.4."""

from __future__ import annotations

import hashlib

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.dkim.canonical import BodyHash, body_hash, relaxed_body, relaxed_fields


class RelaxedBodyTests(SynchronousTestCase):
    """RFC 6376, 3.4.4."""

    def test_example(self) -> None:
        """RFC 6376, 3.4.5."""
        self.assertEqual(relaxed_body(b" C \r\nD \t E\r\n\r\n\r\n"), b" C\r\nD E\r\n")

    def test_ends(self) -> None:
        for body, relaxed in (
            (b"", b""),
            (b"\r\n", b""),
            (b" \t\r\n\r\n \r\n", b""),
            (b" ", b""),
            (b"a", b"a\r\n"),
            (b"a \t", b"a\r\n"),
            (b"a\r\n", b"a\r\n"),
            (b"a\r\n \r\n\t", b"a\r\n"),
            (b"\r\n\r\na\r\n\r\nb\r\n", b"\r\n\r\na\r\n\r\nb\r\n"),
            (b"a\r", b"a\r\r\n"),
            (b"a\n\r\n", b"a\n\r\n"),
        ):
            self.assertEqual(relaxed_body(body), relaxed, body)

    def test_hash_of_nothing(self) -> None:
        """The literal of RFC 6376, 3.4.4, for an empty body."""
        self.assertEqual(body_hash(b"\r\n\r\n"), hashlib.sha256().digest())

    def test_many_blank_lines(self) -> None:
        self.assertEqual(relaxed_body(b"a" + b"\r\n" * 100_001), b"a\r\n")
        self.assertEqual(relaxed_body(b" " * 100_000 + b"a"), b" a\r\n")


class BodyHashTests(SynchronousTestCase):
    """The hash of a body in pieces."""

    def test_one_octet_at_a_time(self) -> None:
        for body in (
            b"",
            b" \r\n",
            b" C \r\nD \t E\r\n\r\n\r\n",
            b"a \r \r\r\n\n \t",
            b"\r",
            b" \r",
        ):
            pieces = BodyHash()
            for at in range(len(body)):
                pieces.update(body[at : at + 1])
            self.assertEqual(pieces.digest(), body_hash(body), body)

    def test_blank_lines_cost_no_memory_of_their_own(self) -> None:
        """Held back as a count, and spent when text follows."""
        pieces = BodyHash()
        for chunk in (b"a\r\n", *[b"\r\n" * 1000] * 3, b"b"):
            pieces.update(chunk)
        self.assertEqual(pieces.digest(), body_hash(b"a\r\n" + b"\r\n" * 3000 + b"b"))


class RelaxedFieldsTests(SynchronousTestCase):
    """RFC 6376, 3.4.2."""

    def test_example(self) -> None:
        """RFC 6376, 3.4.5."""
        self.assertEqual(
            relaxed_fields(b"A: X\r\nB : Y\t\r\n\tZ  \r\n\r\n", {b"a", b"b"}),
            {b"a": [b"a:X\r\n"], b"b": [b"b:Y Z\r\n"]},
        )

    def test_only_what_is_wanted_in_the_order_of_the_header(self) -> None:
        header = b"To: 1\r\nX: 2\r\nTO:\r\n \r\n 3 :\r\nto\r\nTo:\r\n\r\n"
        self.assertEqual(
            relaxed_fields(header, {b"to"}), {b"to": [b"to:1\r\n", b"to:3 :\r\n", b"to:\r\n"]}
        )
