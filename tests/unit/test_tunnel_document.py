"""The session at the end of the protocol's reference page: both of our sides play it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.outcome import Delivered, Outcome
from protege_mta.model.reply import Reply
from protege_mta.model.stream import DeliveryState, Stream
from protege_mta.testing.strangers import Stranger
from protege_mta.testing.tunnels import Net, OctetsInMemory, StrangeSocket
from protege_mta.tunnel.limits import TunnelLimits

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "tunnel-protocol.md"
LIMITS: Final = TunnelLimits(window_octets=1_048_576, message_octets=52_428_800)


def lines() -> list[tuple[str, bytes, bool]]:
    """Who says what, and whether it is binary."""
    text = PAGE.read_text("utf-8").rsplit("```text\n", 1)[1].split("```")[0]
    found = []
    for line in text.splitlines():
        who, _, what = line.partition(" ")
        is_binary = not what.startswith("{")
        found.append((who, bytes.fromhex(what) if is_binary else what.encode(), is_binary))
    return found


def ids() -> Iterator[str]:
    yield "11111111-2222-4333-8444-555555555555"
    yield "66666666-7777-4888-9999-aaaaaaaaaaaa"
    while True:
        yield "bbbbbbbb-cccc-4ddd-8eee-ffffffffffff"


def said(socket: StrangeSocket) -> list[tuple[bytes, bool]]:
    found = [(what, kind == "binary") for kind, what in socket.said if isinstance(what, bytes)]
    socket.said = []
    return found


class DocumentTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.net = Net(limits=LIMITS)
        self.net.new_id = ids().__next__  # type: ignore[method-assign]
        self.net.clock.advance(1_790_000_000.0)
        self.net.relay.new_id = self.net.new_id

    def test_the_gateway(self) -> None:
        stranger = Stranger(self.net)
        stranger.meet_agent()
        outcome: Deferred[Outcome] | None = None
        for who, what, is_binary in lines():
            if who == "R":
                (stranger.binary if is_binary else stranger.text)(what)
                continue
            if is_binary and outcome is None:
                stream = Stream(
                    "agent@relay.test", "you@example.test", request_id="r-1", stream_id="s"
                )
                outcome = stranger.session.send(stream, OctetsInMemory(b"hello\r\n"))
                self.waiting = said(stranger.socket)
            if is_binary:
                self.assertEqual(self.waiting.pop(0), (what, True))
            else:
                self.assertEqual(said(stranger.socket), [(what, False)])
        assert outcome is not None
        self.assertIsInstance(self.successResultOf(outcome), Delivered)
        [state] = self.net.told
        self.assertEqual((state.request_id, state.state), ("r-1", "sent"))

    def test_the_relay(self) -> None:
        stranger = Stranger(self.net)
        stranger.meet_relay()
        house = self.net.relay_house
        keep = house.keep
        stored: Deferred[Reply] = Deferred()
        house.on_finish = lambda intake: stored.addCallback(lambda _: keep(intake))
        for who, what, is_binary in lines():
            if who == "G":
                (stranger.binary if is_binary else stranger.text)(what)
                continue
            if b"stream_result" in what:
                stored.callback(Reply(250, "2.0.0", ("ok",)))
            elif b"delivery_state" in what:
                stranger.session.tell(DeliveryState("r-1", "sent", "2.0.0", "250 2.0.0 ok"))
            self.assertEqual(said(stranger.socket), [(what, is_binary)])
        self.assertEqual([content for _, _, content in house.taken], [b"hello\r\n"])
