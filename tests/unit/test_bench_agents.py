"""The benchmark's agents: their WebSocket, their names, and what is read of what they tell."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bench.agents import BINARY, PING, TEXT, Frames, frame, identity
from bench.tunnel_servers import Told, identities
from protege_mta.config.toml import load_identities


def of_server(opcode: int, payload: bytes) -> bytes:
    """A frame without a mask (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        length = bytes([size])
    elif size < 65536:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    return bytes([0x80 | opcode]) + length + payload


class FrameTests(SynchronousTestCase):
    def test_frame_of_a_client_is_masked(self) -> None:
        self.assertEqual(frame(TEXT, b"abc"), b"\x81\x83\0\0\0\0abc")
        long = b"x" * 300
        self.assertEqual(frame(BINARY, long), b"\x82\xfe\x01\x2c\0\0\0\0" + long)

    @given(st.integers(1, 9), st.integers(0, 200))
    def test_pieces_of_a_stream_do_not_show(self, piece: int, size: int) -> None:
        sent = [(TEXT, b"a" * size), (PING, b""), (BINARY, b"b" * 70_000), (BINARY, b"c" * 126)]
        octets = b"".join(of_server(*one) for one in sent)
        frames = Frames()
        step = piece * 1_000
        found = [
            one for at in range(0, len(octets), step) for one in frames.feed(octets[at : at + step])
        ]
        self.assertEqual(found, sent)

    def test_octet_by_octet(self) -> None:
        octets = of_server(TEXT, b"hello") + of_server(BINARY, b"x" * 130)
        frames = Frames()
        found = [one for at in range(len(octets)) for one in frames.feed(octets[at : at + 1])]
        self.assertEqual(found, [(TEXT, b"hello"), (BINARY, b"x" * 130)])


class NameTests(SynchronousTestCase):
    def test_numbers_are_spread_evenly(self) -> None:
        """Those of smtp-source from 1 on, and those of the paced load from 0 on."""
        path = Path(self.mktemp())
        path.write_text(identities(3, 7))
        agents = load_identities(path)
        self.assertEqual([one.identity for one in agents], [identity(n) for n in range(3)])
        self.assertEqual(agents[0].aliases, ("0r", "p0", "3r", "p3", "6r", "p6"))
        self.assertEqual(agents[1].aliases, ("1r", "p1", "4r", "p4", "7r", "p7"))


class ToldTests(SynchronousTestCase):
    def test_first_moment_counts_and_what_comes_again_is_counted(self) -> None:
        told = Told()
        told.read(["1.000000 login 0", "2.500000 mail 3r", "3.000000 mail 4r", "3.500000 mail 3r"])
        self.assertEqual(told, Told({"0": 1.0}, {"3r": 2.5, "4r": 3.0}, 1))
