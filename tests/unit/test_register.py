"""Tests of what the register gives out: places among the requests of an address."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta import register
from protege_mta.config.model import Settings
from protege_mta.model.ports import Events, Peer
from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.tally import Tally
from protege_mta.testing.states import HeldDatabase


class Told:
    def __init__(self) -> None:
        self.rejections: list[tuple[str, str, Reply]] = []

    def rejected(self, peer: Peer, sender: str | None, recipient: str, reply: Reply) -> None:
        self.rejections.append((peer.address, peer.identity, reply))


class PlaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        clock = self.clock = Clock()
        clock.advance(1_000_020)
        cast(Any, clock).callFromThread = lambda call, *args: call(*args)
        seconds = SimpleNamespace(time=clock.seconds, monotonic=clock.seconds)
        self.patch(register, "time", seconds)
        self.told = Told()
        self.register = register.Register(
            clock,
            HeldDatabase(Path(self.mktemp())),
            cast(Events, self.told),
            Tally(),
            Settings(),
            changed=lambda: None,
            new_session_id=lambda: "s",
        )

    def ask(self, address: str = "192.0.2.1", per_hour: int = 2) -> bool:
        return self.register.place_s(address, "key:bot", per_hour) == 0

    def test_so_many_an_hour(self) -> None:
        self.assertEqual([self.ask() for _ in range(3)], [True, True, False])
        self.assertTrue(self.ask("192.0.2.2"))
        self.assertTrue(all(self.ask(per_hour=0) for _ in range(100)))

    def test_one_refusal_a_minute_is_told(self) -> None:
        """A broken client does not fill the journal."""
        for _ in range(100):
            self.ask()
        event = ("192.0.2.1", "key:bot", TABLE["rate-limited"])
        self.assertEqual(self.told.rejections, [event])
        for _ in range(3):
            self.ask("192.0.2.2")
        self.assertEqual(len(self.told.rejections), 2)
        self.clock.advance(60)
        self.ask()
        self.assertEqual(self.told.rejections[2:], [event])
