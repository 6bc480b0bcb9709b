"""Tests of the control socket's protocol."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.transport.control import (
    CONNECTIONS,
    ControlFactory,
    ControlFault,
    ControlProtocol,
    Done,
    Row,
)

Answers = AsyncGenerator[Row | Done, None]


class ControlTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.gate: Deferred[None] = Deferred()
        self.closed: list[str] = []
        self.factory = ControlFactory(
            {
                "status": self.status,
                "count": self.count,
                "wait": self.wait,
                "no-such": self.no_such,
                "bug": self.bug,
            },
            self.clock,
        )
        self.protocol, self.wire = self.connect()

    def connect(self) -> tuple[ControlProtocol, StringTransport]:
        protocol, wire = self.factory.buildProtocol(None), StringTransport()
        protocol.makeConnection(wire)
        return protocol, wire

    async def status(self, arguments: Mapping[str, Any]) -> Answers:
        yield {"name": arguments.get("name", "mx")}

    async def count(self, arguments: Mapping[str, Any]) -> Answers:
        try:
            for number in range(arguments["to"]):
                yield {"number": number, "padding": "x" * 1000}
            yield Done({"count": arguments["to"]})
        finally:
            self.closed.append("count")

    async def wait(self, arguments: Mapping[str, Any]) -> Answers:
        try:
            yield {"before": True}
            await self.gate
            yield {"after": True}
        finally:
            self.closed.append("wait")

    async def no_such(self, arguments: Mapping[str, Any]) -> Answers:
        yield {"before": True}
        raise ControlFault("not-found", "no such message")

    async def bug(self, arguments: Mapping[str, Any]) -> Answers:
        yield {}
        raise KeyError("secret")

    def send(self, *lines: bytes) -> None:
        self.protocol.dataReceived(b"".join(line + b"\n" for line in lines))

    def said(self) -> list[Any]:
        lines = self.wire.value().decode("utf-8").splitlines()
        self.wire.clear()
        return [json.loads(line) for line in lines]

    def test_rows_and_done(self) -> None:
        self.send(b'{"command":"status","arguments":{"name":"x"}}')
        self.assertEqual(self.said(), [{"row": {"name": "x"}}, {"done": {}}])

    def test_summary(self) -> None:
        self.send(b'{"command":"count","arguments":{"to":2}}')
        self.assertEqual(self.said()[-1], {"done": {"count": 2}})

    def test_commands_in_order(self) -> None:
        """A command waits for the one before it."""
        self.send(b'{"command":"wait"}', b'{"command":"status"}')
        self.assertEqual(self.said(), [])
        self.gate.callback(None)
        self.assertEqual(
            self.said(),
            [
                {"row": {"before": True}},
                {"row": {"after": True}},
                {"done": {}},
                {"row": {"name": "mx"}},
                {"done": {}},
            ],
        )

    def test_mistakes(self) -> None:
        """A bad line is answered, and the connection lives."""
        for line, error in (
            (b"", "not a request: Input data was truncated"),
            (b"{", "not a request: Input data was truncated"),
            (b"[]", "not a request: Expected `object`, got `array`"),
            (b'{"command":1}', "not a request: Expected `str`, got `int` - at `$.command`"),
            (b"\xff", "not a request: JSON is malformed: invalid character (byte 0)"),
            (b'{"command":"no"}', "unknown command 'no'"),
        ):
            self.send(line)
            self.assertEqual(self.said(), [{"error": error, "kind": "usage"}])
        self.send(b'{"command":"status"}')
        self.assertEqual(len(self.said()), 2)

    def test_faults(self) -> None:
        """What cannot be done is said in words, after the rows there were."""
        self.send(b'{"command":"no-such"}')
        self.assertEqual(
            self.said(),
            [{"row": {"before": True}}, {"error": "no such message", "kind": "not-found"}],
        )

    def test_bug(self) -> None:
        """A bug is logged, and told without its details."""
        self.send(b'{"command":"bug"}', b'{"command":"count"}')
        self.assertEqual(
            [answer for answer in self.said() if "row" not in answer],
            [{"error": "internal error, see the service's log", "kind": "internal"}] * 2,
        )
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 2)

    def test_line_too_long(self) -> None:
        self.protocol.dataReceived(b"x" * 70_000)
        (answer,) = self.said()
        self.assertEqual(answer["kind"], "usage")
        self.assertTrue(self.wire.disconnecting)

    def test_long_answers_leave_turns(self) -> None:
        """A million rows do not keep the reactor: after some the others have a turn."""
        self.send(b'{"command":"count","arguments":{"to":100}}')
        self.assertLess(len(self.said()), 40)
        self.clock.pump([0] * 10)
        self.assertEqual(self.said()[-1], {"done": {"count": 100}})

    def test_slow_reader(self) -> None:
        """Rows are made as they are read."""
        self.send(b'{"command":"count","arguments":{"to":100}}')
        self.protocol.pauseProducing()
        self.said()
        self.clock.pump([0] * 10)
        self.assertEqual(self.said(), [])
        self.protocol.resumeProducing()
        self.clock.pump([0] * 10)
        self.assertEqual(self.said()[-1], {"done": {"count": 100}})

    def test_peer_goes_away(self) -> None:
        """A handler is closed, whatever it waits for, and nobody complains."""
        for command in (b'{"command":"wait"}', b'{"command":"count","arguments":{"to":100}}'):
            self.protocol, self.wire = self.connect()
            self.send(command)
            self.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.closed, ["wait", "count"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_paused_peer_goes_away(self) -> None:
        self.send(b'{"command":"count","arguments":{"to":100}}')
        self.protocol.pauseProducing()
        self.clock.advance(0)
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.closed, ["count"])

    def test_shutdown(self) -> None:
        """Closing says so to everybody."""
        self.send(b'{"command":"wait"}')
        self.factory.close()
        self.assertEqual(
            self.said(),
            [
                {"row": {"before": True}},
                {"error": "the service is shutting down", "kind": "unavailable"},
            ],
        )
        self.assertTrue(self.wire.disconnecting)
        self.assertEqual(self.closed, ["wait"])
        self.send(b'{"command":"status"}')
        self.assertEqual(self.said(), [])

    def test_too_many_connections(self) -> None:
        for _ in range(CONNECTIONS - 1):
            self.connect()
        self.protocol, self.wire = self.connect()
        self.assertEqual(self.said(), [{"error": "too many connections", "kind": "unavailable"}])
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(self.factory.connections), CONNECTIONS)

    def test_too_many_commands(self) -> None:
        self.send(b'{"command":"wait"}', *[b'{"command":"status"}'] * 17)
        self.assertEqual(self.said()[-1], {"error": "too many commands at once", "kind": "usage"})
        self.assertTrue(self.wire.disconnecting)
