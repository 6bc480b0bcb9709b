"""Whose a mailbox is at a relay server, who may log in, who has been there, and who is there now."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.config.toml import load_identities
from protege_mta.model.address import Address
from protege_mta.model.identity import Agent, Identity, identity_of
from protege_mta.model.ports import Agents, Sessions
from protege_mta.state.agents import StoredAgents, every
from protege_mta.testing.sessions import FakeSession
from protege_mta.testing.spools import at_once
from protege_mta.tunnel.identities import LOOK_S, Identities, IdentitiesFile, IdentitySettings
from protege_mta.tunnel.sessions import Registry

from .test_state import StateTestCase

ANN: Final = identity_of(b"\1" * 32)
BOB: Final = identity_of(b"\2" * 32)
EVE: Final = identity_of(b"\3" * 32)


class IdentitiesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.seen: set[Identity] = set()
        self.agents = Identities(
            self.seen, IdentitySettings(domains=("agents.test", "xn--bcher-kva.test"))
        )
        self.agents.use(
            [
                Agent(ANN, ("ann", "sales@agents.test", "info@else.test"), send_per_hour=7),
                Agent(BOB, ("bob",), is_revoked=True),
            ]
        )

    def at(self, address: str) -> Identity | None:
        return self.agents.at(Address(address))

    def any(self) -> None:
        self.agents.settings = IdentitySettings(
            takes_any=True, domains=("agents.test",), send_per_hour=60
        )

    def test_is_a_port(self) -> None:
        agents: Agents = self.agents
        self.assertIs(agents, self.agents)

    def test_mailboxes(self) -> None:
        for address in (
            f"{ANN}@agents.test",
            f"{ANN.upper()}@Agents.test",
            f'"{ANN}"@agents.test',
            f"{ANN}@xn--bcher-kva.test",
            f"{ANN}@bücher.test",
            "ann@agents.test",
            "ANN@agents.test",
            "ann@bücher.test",
            "sales@agents.test",
        ):
            self.assertEqual(self.at(address), ANN, address)

    def test_nobodys(self) -> None:
        wrong_end = ANN[:-1] + "b"  # another spelling of the same octets
        for address in (
            f"{ANN}@else.test",
            "info@else.test",  # an alias to send from, but no domain of ours
            "sales@xn--bcher-kva.test",
            f"{BOB}@agents.test",
            "bob@agents.test",
            f"{EVE}@agents.test",
            f"{wrong_end}@agents.test",
            f"{ANN}+tag@agents.test",
            f'" {ANN}"@agents.test',
            f"{ANN.replace('k', chr(0x212A))}x@agents.test",
            "\u212aann@agents.test",
            "postmaster@agents.test",
        ):
            self.assertIsNone(self.at(address), address)

    def test_kelvin_sign_is_no_k(self) -> None:
        for number in range(256):
            identity = identity_of(bytes([number]) * 32)
            if "k" in identity:
                break
        self.agents.use([Agent(identity)])
        self.assertEqual(self.at(f"{identity}@agents.test"), identity)
        self.assertIsNone(self.at(f"{identity.replace('k', chr(0x212A))}@agents.test"))

    def test_who_may_log_in(self) -> None:
        ann = self.agents.get(ANN)
        assert ann is not None
        self.assertEqual(ann.send_per_hour, 7)
        self.assertEqual([self.agents.get(BOB), self.agents.get(EVE)], [None, None])
        self.any()
        self.assertEqual(self.agents.get(EVE), Agent(EVE, send_per_hour=60))
        self.assertIsNone(self.agents.get(BOB))
        self.assertEqual(self.at(f"{EVE}@agents.test"), EVE)
        self.assertIsNone(self.at(f"{BOB}@agents.test"))

    def test_addresses(self) -> None:
        self.assertEqual(
            self.agents.addresses(ANN),
            (
                *(f"{ANN}@agents.test", f"{ANN}@xn--bcher-kva.test"),
                *("ann@agents.test", "ann@xn--bcher-kva.test"),
                *("sales@agents.test", "info@else.test"),
            ),
        )
        self.assertEqual(self.agents.addresses(BOB), ())

    def test_for_whom_mail_may_wait(self) -> None:
        """Who is listed, or has been here; never who is revoked, or may come no more."""
        self.assertTrue(self.agents.may_hold(ANN))
        self.seen |= {BOB, EVE}
        self.assertFalse(self.agents.may_hold(EVE))
        self.any()
        self.assertTrue(self.agents.may_hold(EVE))
        self.assertFalse(self.agents.may_hold(BOB))
        self.assertFalse(self.agents.may_hold(identity_of(b"\4" * 32)))


class FileTests(SynchronousTestCase):
    """``identities_file`` is followed."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.path = Path(self.mktemp())
        self.put: list[Sequence[Agent]] = []
        self.file = IdentitiesFile(
            load_identities, self.put.append, clock=self.clock, in_thread=at_once
        )
        self.addCleanup(self.file.stop)

    def write(self, *keys: str) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text("".join(f'[[identity]]\nkey = "{key}"\n' for key in keys))
        os.replace(fresh, self.path)

    def looks(self, count: int = 1) -> None:
        for _ in range(count):
            self.clock.advance(LOOK_S)

    def names(self) -> list[list[str]]:
        return [[agent.identity for agent in agents] for agents in self.put]

    def test_change_takes_effect_within_a_second(self) -> None:
        self.write(ANN)
        self.file.use(self.path)
        self.file.start()
        self.looks(5)
        self.write(ANN, BOB)
        self.clock.pump([0.1] * 9)
        self.assertEqual(self.names(), [[ANN], [ANN, BOB]])
        self.looks(5)
        self.assertEqual(len(self.put), 2)

    def test_file_that_is_not_there_yet(self) -> None:
        self.file.use(self.path)
        self.file.start()
        self.write(ANN)
        self.looks(2)
        self.assertEqual(self.names(), [[], [ANN]])

    def test_what_is_being_written_is_left_alone(self) -> None:
        self.write(ANN)
        self.file.use(self.path)
        self.file.start()
        for keys in ((), (BOB,), (BOB, EVE)):
            self.write(*keys)
            self.looks()
        self.assertEqual(self.names(), [[ANN]])
        self.looks()
        self.assertEqual(self.names(), [[ANN], [BOB, EVE]])

    def test_broken_or_gone(self) -> None:
        """Changes nothing, until it is whole again."""
        self.write(ANN)
        self.file.use(self.path)
        self.file.start()
        for change in (lambda: self.write("no-key"), self.path.unlink):
            change()
            self.looks(4)
            self.assertEqual(self.names(), [[ANN]])
        self.write(ANN, BOB)
        self.looks(2)
        self.assertEqual(self.names(), [[ANN], [ANN, BOB]])

    def test_broken_at_a_reload(self) -> None:
        self.write(ANN)
        self.file.use(self.path)
        broken = Path(self.mktemp())
        broken.write_text("identity = 3\n")
        with self.assertRaisesRegex(Exception, "wanted an array of tables"):
            self.file.use(broken)
        self.assertEqual(self.names(), [[ANN]])

    def test_no_file(self) -> None:
        """Nothing is looked at, before there is one and after."""
        self.file.start()
        self.looks(4)
        self.write(ANN)
        self.file.use(self.path)
        self.file.forget()
        self.write(BOB)
        self.looks(4)
        self.assertEqual(self.names(), [[ANN], []])

    def test_another_file(self) -> None:
        self.write(ANN)
        self.file.use(self.path)
        self.file.start()
        other = Path(self.mktemp())
        other.write_text(f'[[identity]]\nkey = "{BOB}"\n')
        self.file.use(other)
        self.write(EVE)
        self.looks(4)
        self.assertEqual(self.names(), [[ANN], [BOB]])


class RegistryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.registry = Registry()
        self.told: list[tuple[str, Identity]] = []
        self.registry.arrived = lambda identity: self.told.append(("arrived", identity))
        self.registry.left = lambda identity: self.told.append(("left", identity))

    def open(self, identity: Identity = ANN, **what: Any) -> FakeSession:
        session = FakeSession(identity, **what)
        self.registry.opened(session)
        return session

    def test_is_a_port(self) -> None:
        sessions: Sessions = self.registry
        self.assertIs(sessions, self.registry)

    def test_newer_takes_the_mail(self) -> None:
        """From the moment on that it is there, whenever the older one is gone."""
        older, newer = self.open(), self.open()
        self.assertIs(self.registry.to(ANN), newer)
        self.assertEqual(self.registry.of(ANN), [newer, older])
        self.registry.closed(older)
        self.assertIs(self.registry.to(ANN), newer)
        self.assertEqual(self.told, [("arrived", ANN)] * 2)
        self.registry.closed(newer)
        self.assertIsNone(self.registry.to(ANN))
        self.assertEqual(self.told[2:], [("left", ANN)])
        self.assertEqual((self.registry.count, list(self.registry)), (0, []))

    def test_sessions_that_take_no_mail(self) -> None:
        """There may be several, and nobody is displaced, nor told."""
        senders = [self.open(takes_mail=False) for _ in range(3)]
        self.assertIsNone(self.registry.to(ANN))
        self.assertEqual(self.told, [])
        taking = self.open()
        self.assertEqual(self.registry.of(ANN)[0], taking)
        self.assertEqual(set(self.registry.of(ANN)), {taking, *senders})
        self.assertEqual((self.registry.count, self.registry.reachable), (4, 1))
        self.registry.closed(taking)
        self.assertEqual(self.told, [("arrived", ANN), ("left", ANN)])
        self.assertEqual({s.closed_with for s in senders}, {None})
        self.assertEqual(self.registry.identities(), [ANN])


class StoredAgentsTests(StateTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.open_now = self.database()

    def kept(self) -> list[tuple[Identity, float]]:
        """Once all is written."""
        self.wait_for(self.open_now.close())
        return list(every(self.other()))

    def test_outlives_the_service(self) -> None:
        agents = StoredAgents(self.open_now)
        agents.load()
        self.assertNotIn(ANN, agents)
        agents.seen(ANN, 10.0)
        agents.seen(BOB, 20.0)
        agents.seen(ANN, 30.0)
        self.assertIn(ANN, agents)
        self.assertEqual(self.kept(), [(BOB, 20.0), (ANN, 30.0)])
        again = StoredAgents(self.database())
        again.load()
        self.assertEqual([again.last_at(one) for one in (ANN, BOB, EVE)], [30.0, 20.0, None])

    def test_bounded(self) -> None:
        """The longest absent is forgotten."""
        agents = StoredAgents(self.open_now, most=2)
        for at, identity in enumerate((ANN, BOB, ANN, EVE)):
            agents.seen(identity, float(at))
        self.assertEqual([one in agents for one in (ANN, BOB, EVE)], [True, False, True])
        self.assertEqual(self.kept(), [(ANN, 2.0), (EVE, 3.0)])

    def test_nothing_is_written_behind_the_end(self) -> None:
        agents = StoredAgents(self.open_now)
        agents.stop()
        agents.seen(ANN, 10.0)
        self.assertEqual(self.kept(), [])
