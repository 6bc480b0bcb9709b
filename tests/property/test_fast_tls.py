"""How a TLS stream is cut does not show, and our TLS and Twisted's cannot be told apart."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ..unit.test_fast_tls import TLS_1_2, TLS_1_3, Ends

SIZES = st.lists(st.sampled_from([1, 6, 30, 500, 4096, 16383, 16384]), min_size=1, max_size=6)
LEAVES = st.sampled_from(["stays", "takes leave", "is gone"])
VERSIONS = st.sampled_from([TLS_1_2, TLS_1_3])


def talk(
    ends: Ends, sizes: list[int], cuts: list[int], is_answering: bool, leaves: str
) -> tuple[bytes, bytes, bool, str]:
    """What each end has heard, whether the server hung up, and what it heard of the end."""
    ends.shake_hands()
    if is_answering:
        ends.listener.then = lambda: ends.tls.write(b"250 ok\r\n")
    octets = ends.said(*(bytes([65 + number]) * size for number, size in enumerate(sizes)))
    if leaves == "takes leave":
        ends.client.shutdown()
        octets += ends.said()
    edges = sorted({0, len(octets), *(cut % len(octets) for cut in cuts)})
    for begin, end in itertools.pairwise(edges):
        ends.receive(octets[begin:end])
        ends.end_turn()
    answered = ends.answered()
    reason = str(ends.lose()) if leaves != "stays" else ""
    return ends.heard, answered, ends.tcp.is_ended, reason


class CutTests(SynchronousTestCase):
    @settings(max_examples=60, deadline=None)
    @given(
        sizes=SIZES,
        cuts=st.lists(st.integers(0, 1 << 17), max_size=20),
        is_answering=st.booleans(),
        leaves=LEAVES,
        version=VERSIONS,
    )
    def test_cuts(
        self, sizes: list[int], cuts: list[int], is_answering: bool, leaves: str, version: int
    ) -> None:
        ours, stock = (
            talk(Ends(is_lean=is_lean, version=version), sizes, cuts, is_answering, leaves)
            for is_lean in (True, False)
        )
        self.assertEqual(ours, stock)
        said = b"".join(bytes([65 + number]) * size for number, size in enumerate(sizes))
        self.assertTrue(ours[0] == said)
