"""What is no WebSocket at all, to the gateway's socket."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.testing.strangers import KEY, ME
from protege_mta.testing.tunnels import Net, Watch
from protege_mta.tunnel.socket_client import Agent, AgentConnection
from protege_mta.tunnel.websocket import ClientSockets


class Transport(StringTransport):
    def abortConnection(self) -> None:
        self.aborting = True


class ClientTests(SynchronousTestCase):
    def test_answers_that_are_no_text(self) -> None:
        """End the attempt, and leave no traceback, for whoever answers can make as many as it likes."""
        for answer in (b"\x00\xff\r\n\r\n", b"HTTP/1.1 101 \xe4\r\nX: \xff\r\n\r\n"):
            net, watch = Net(), Watch()

            def connect(socket: Any, net: Net = net, watch: Watch = watch) -> AgentConnection:
                return AgentConnection(socket, net.agents, Agent(ME, KEY.sign), watch)

            socket = ClientSockets(Clock(), "ws://relay.test/ws", connect).buildProtocol(None)
            transport = Transport()
            socket.makeConnection(transport)
            socket.dataReceived(answer)
            self.assertTrue(transport.aborting)
            socket.connectionLost()
            self.assertEqual(watch.ends[0][0], 1006)
            self.assertEqual(self.flushLoggedErrors(), [])
