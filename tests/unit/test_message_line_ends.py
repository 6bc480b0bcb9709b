"""Line ends of content that comes through a tunnel."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.line_ends import LineEnds


def fixed(content: bytes, size: int, *, is_cr_an_end: bool = False) -> tuple[bytes, bool]:
    """The content, fed in pieces of that size, and whether it has a bare CR."""
    lines = LineEnds(is_cr_an_end=is_cr_an_end)
    pieces = [lines.feed(content[at : at + size]) for at in range(0, len(content), size)]
    return b"".join([*pieces, lines.end()]), lines.has_bare_cr


class LineEndsTests(SynchronousTestCase):
    def test_any_chunking(self) -> None:
        for content, wanted in {
            b"": b"",
            b"a": b"a\r\n",
            b"a\n": b"a\r\n",
            b"a\r\n": b"a\r\n",
            b"a\nb\r\nc\n\nd": b"a\r\nb\r\nc\r\n\r\nd\r\n",
            b"\n": b"\r\n",
            b"\n\r\n\n": b"\r\n\r\n\r\n",
            b".\n.\n": b".\r\n.\r\n",
        }.items():
            for size in range(1, len(content) + 1):
                self.assertEqual(fixed(content, size), (wanted, False), (content, size))
        self.assertEqual(fixed(b"", 1), (b"", False))

    def test_bare_cr(self) -> None:
        for content in (b"a\rb\r\n", b"\r", b"a\r", b"\r\r\n", b"a\r\n\r", b"\n\r\n\rx"):
            for size in range(1, len(content) + 1):
                self.assertTrue(fixed(content, size)[1], (content, size))

    def test_bare_cr_as_an_end(self) -> None:
        for content, wanted in {
            b"a\rb\r\n": b"a\r\nb\r\n",
            b"\r": b"\r\n",
            b"a\r": b"a\r\n",
            b"\r\r\n": b"\r\n\r\n",
            b"\n\r\n\rx\ny": b"\r\n\r\n\r\nx\r\ny\r\n",
        }.items():
            for size in range(1, len(content) + 1):
                self.assertEqual(fixed(content, size, is_cr_an_end=True), (wanted, False))
