"""Properties of the control and submission sockets: the stream counts, and nothing breaks them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.reply import TABLE, Reply
from protege_mta.transport.control import ControlFactory, ControlProtocol, Done, Row
from protege_mta.transport.submit import SubmitFactory, SubmitLimits, SubmitProtocol
from protege_mta.transport.unix import Credentials

CUTS = st.lists(st.integers(0, 200), max_size=5)
NOISE = st.binary(max_size=30)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["command", "arguments", "sender", "recipients", "size_octets", "x"]),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())


async def echo(arguments: Mapping[str, Any]) -> AsyncGenerator[Row | Done, None]:
    yield dict(arguments)


class House:
    """Takes in, and says what it got."""

    def __init__(self) -> None:
        self.octets = b""

    def write(self, octets: bytes) -> Deferred[None] | None:
        self.octets += octets
        return None

    def finish(self) -> Deferred[Reply]:
        return succeed(Reply(250, "2.0.0", (f"got {self.octets!r}",)))

    def abort(self) -> None: ...


class StreamTests(SynchronousTestCase):
    def play(
        self, protocol: ControlProtocol | SubmitProtocol, stream: bytes, cuts: list[int]
    ) -> list[Any]:
        wire = StringTransport()
        protocol.makeConnection(wire)
        edges = [0, *sorted(cut for cut in cuts if cut <= len(stream)), len(stream)]
        for start, stop in pairwise(edges):
            protocol.dataReceived(stream[start:stop])
        self.clock.pump([0] * 3)
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])
        return [json.loads(line) for line in wire.value().splitlines()]

    def control(self) -> ControlProtocol:
        self.clock = Clock()
        return ControlFactory({"echo": echo}, self.clock).buildProtocol(None)

    def submit(self) -> SubmitProtocol:
        self.clock = Clock()
        return SubmitFactory(
            lambda who, submission: House(),
            domain="mx.test",
            limits=SubmitLimits(message_octets=50),
            clock=self.clock,
            who=lambda transport: Credentials(1, 1, 1),
        ).buildProtocol(None)

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.one_of(
                NOISE, JSON, st.just(b'{"command":"echo","arguments":{"x":1}}'), st.just(b"{}")
            ),
            max_size=4,
        ),
        CUTS,
    )
    def test_control(self, lines: list[bytes], cuts: list[int]) -> None:
        """Whatever comes, every line has one end to its answer, however it is cut."""
        stream = b"".join(line + b"\n" for line in lines)
        whole = self.play(self.control(), stream, [])
        self.assertEqual(self.play(self.control(), stream, cuts), whole)
        ends = [answer for answer in whole if "row" not in answer]
        self.assertEqual(len(ends), stream.count(b"\n"))

    @settings(max_examples=150, deadline=None)
    @given(
        st.one_of(
            NOISE,
            JSON,
            st.integers(0, 60).map(
                lambda size: b'{"sender":"","recipients":["a@b"],"size_octets":%d}' % size
            ),
        ),
        st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"ab"]), max_size=30).map(b"".join),
        CUTS,
    )
    def test_submit(self, line: bytes, content: bytes, cuts: list[int]) -> None:
        """One answer at most, however it is cut; none only where octets are still to come."""
        stream = line + b"\n" + content
        whole = self.play(self.submit(), stream, [])
        self.assertEqual(self.play(self.submit(), stream, cuts), whole)
        self.assertLessEqual(len(whole), 1)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"ab"]), min_size=1, max_size=12), CUTS)
    def test_bare_line_ends(self, parts: list[bytes], cuts: list[int]) -> None:
        """A CR or LF that stands alone is refused, and nothing else is."""
        content = b"".join(parts)
        line = b'{"sender":"","recipients":["a@b"],"size_octets":%d}\n' % len(content)
        (answer,) = self.play(self.submit(), line + content, [cut + len(line) for cut in cuts])
        rest = content.replace(b"\r\n", b"")
        is_bare = b"\r" in rest or b"\n" in rest
        self.assertEqual(answer.get("code") == TABLE["line-endings"].code, is_bare)
