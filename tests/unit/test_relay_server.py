"""The relay server as a whole, but for its sockets: settings, agents that come and go, the end."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Final, cast

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.config.model import Settings
from protege_mta.config.toml import ConfigError, load
from protege_mta.model.envelope import Envelope, Origin
from protege_mta.model.identity import Identity, identity_of
from protege_mta.model.outcome import Contact, Delivered, PermanentFailure, Scope, TransientFailure
from protege_mta.model.ports import Intake, Peer
from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.stream import Stream
from protege_mta.model.tally import Tally
from protege_mta.model.verdicts import Verdicts
from protege_mta.observe.events import EventLines
from protege_mta.observe.metrics import Counts
from protege_mta.policy.usage import Usage
from protege_mta.relay_server import GRACE_S, REPLACED, SENDING, RelayServer, attester
from protege_mta.state.database import Database
from protege_mta.testing.doors import FakeIntake
from protege_mta.testing.sessions import FakeSession
from protege_mta.testing.spools import at_once
from protege_mta.tunnel.doorstep import PER_CLIENT
from protege_mta.wire.tunnel.attestation import Check, Signals, verify

from .test_state import WAIT_S

ANN: Final = identity_of(b"\1" * 32)
BOB: Final = identity_of(b"\2" * 32)
EVE: Final = identity_of(b"\3" * 32)


class Wire(StringTransport):
    """As forgiving as a real one."""

    def unregisterProducer(self) -> None:
        self.producer = None

    def abortConnection(self) -> None:
        self.loseConnection()


class Case(SynchronousTestCase):
    """A relay server with two agents listed."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.clock = Clock()
        self.list(ANN, BOB)
        self.tally = Tally()
        self.intakes: list[FakeIntake] = []
        database = Database(
            self.folder / "state",
            in_reactor=lambda call, *arguments: call(*arguments),
            monotonic=self.clock.seconds,
        )
        database.open()
        self.server = RelayServer(
            self.clock,
            self.settings(),
            database=database,
            events=EventLines(self.clock.seconds, lambda line: None, Counts()),
            begin=self.begin,
            usage=Usage(self.clock.seconds),
            tally=self.tally,
            in_thread=at_once,
            new_message_id=lambda: "<x@mx.test>",
            new_session_id=lambda: "s-1",
        )
        self.server.configure(self.settings())
        self.server.start()
        self.addCleanup(self.end, database)

    def end(self, database: Database) -> None:
        self.server.stop()
        closed = threading.Event()  # its thread calls back by itself
        database.close().addCallback(lambda _: closed.set())
        self.assertTrue(closed.wait(WAIT_S))

    def list(self, *identities: Identity) -> None:
        entries = "".join(f'[[identity]]\nkey = "{one}"\n' for one in identities)
        (self.folder / "identities.toml").write_text(entries)

    def settings(self, tunnel: str = "enabled = true", more: str = "") -> Settings:
        path = self.folder / "mta.toml"
        path.write_text(
            'state_dir = "state"\n[[listener]]\nkind = "http"\n[tunnel_server]\n'
            f'{tunnel}\n[domains."{"agents" if "true" in tunnel else "no"}.test"]\n'
            + (
                'deliver = "tunnel"\n'
                if "true" in tunnel
                else 'deliver = "maildir"\nmaildir = "m/{local_part}"\nrecipients = ["*"]\n'
            )
            + more
        )
        return load(path)

    def begin(self, peer: Peer, envelope: Envelope, origin: Origin) -> Intake | Reply:
        self.intakes.append(FakeIntake(envelope))
        return self.intakes[-1]

    def open(self, identity: Identity = ANN, *, takes_mail: bool = True) -> FakeSession:
        server = self.server

        class Session(FakeSession):
            def close(self, code: int, reason: str) -> None:
                super().close(code, reason)
                server.closed(self)

        session = Session(identity, takes_mail=takes_mail)
        self.server.opened(session)
        return session

    def socket(self, address: str = "192.0.2.1") -> Any:
        """A connection at ``/ws``, its request answered."""
        upgrade = self.server.upgrade
        assert upgrade is not None
        protocol = upgrade(address)
        if protocol is None:
            return None
        transport = Wire()
        protocol.makeConnection(transport)
        protocol.dataReceived(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self.assertIn(b" 101 ", transport.value())
        return protocol


class SettingsTests(Case):
    def test_revoked_agents_leave(self) -> None:
        ann, bob = self.open(ANN), self.open(BOB)
        self.list(ANN)
        self.clock.pump([0.1] * 10)
        self.assertEqual(bob.closed_with, (4401, "identity_not_allowed"))
        self.assertIsNone(ann.closed_with)

    def test_from_any_to_listed(self) -> None:
        self.server.configure(self.settings('enabled = true\nidentities = "any"'))
        ann, eve = self.open(ANN), self.open(EVE)
        self.server.configure(self.settings())
        self.assertIsNone(ann.closed_with)
        self.assertEqual(eve.closed_with, (4401, "identity_not_allowed"))

    def test_switched_off(self) -> None:
        session = self.open()
        self.server.configure(self.settings("enabled = false"))
        self.assertIsNone(self.server.upgrade)
        self.assertEqual(session.closed_with, (1001, "no tunnel server here"))
        self.server.configure(self.settings())
        self.assertIsNotNone(self.server.upgrade)

    def test_broken_file_of_agents(self) -> None:
        """A reload that cannot be had changes nothing."""
        session = self.open()
        settings = self.settings()
        (self.folder / "identities.toml").write_text("broken")
        with self.assertRaises(ConfigError):
            self.server.configure(settings)
        self.assertIsNone(session.closed_with)
        self.assertIsNotNone(self.server.agents.get(ANN))

    def test_attestation(self) -> None:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        key = Ed25519PrivateKey.generate()
        (self.folder / "key.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        self.assertIsNone(attester(self.settings()))
        attest = attester(
            self.settings('enabled = true\nattestation = { key_id = "k", private_key = "key.pem" }')
        )
        assert attest is not None
        stream = Stream("a@far.test", f"{ANN}@agents.test", stream_id="m.0")
        attested = Stream(
            stream.sender,
            stream.recipient,
            attest(stream, Verdicts("softfail", "pass", "")),
            stream_id="m.0",
        )
        self.assertEqual(
            verify(attested, {"k": key.public_key()}),
            (Check.OK, Signals("fail", "pass", "unknown")),
        )


class RoomTests(Case):
    def test_silent_strangers(self) -> None:
        """A few of one address, for a quarter of ``idle_s``."""
        waiting = [self.socket() for _ in range(PER_CLIENT)]
        self.assertIsNone(self.socket())
        self.assertIsNotNone(self.socket("192.0.2.2"))
        self.assertEqual(self.tally.tunnel.connections_refused, 1)
        self.assertEqual(self.server.figures()["waiting"], PER_CLIENT + 1)
        self.clock.pump([1.0] * 40)
        self.assertTrue(all(one.transport.disconnecting for one in waiting))
        self.assertEqual(self.tally.tunnel.logins["failed"], PER_CLIENT + 1)
        self.assertIsNotNone(self.socket())

    def test_sessions(self) -> None:
        self.server.configure(self.settings("enabled = true\nsessions = 2"))
        came = [self.socket(f"192.0.2.{number}") is not None for number in range(3)]
        self.assertEqual(came, [True, True, False])

    def test_sessions_of_one_agent(self) -> None:
        """Beside the one that takes its mail a few; the oldest go for newer ones, so that nobody has
        all the room."""
        taking = self.open()
        beside = [self.open(takes_mail=False) for _ in range(SENDING + 2)]
        self.assertEqual([one.closed_with for one in beside[:3]], [REPLACED, REPLACED, None])
        self.assertEqual([one.closed_with for one in (taking, *beside[3:])], [None] * SENDING)
        others = [self.open(BOB, takes_mail=False) for _ in range(SENDING)]
        self.assertEqual([one.closed_with for one in others], [None] * SENDING)


class FiguresTests(Case):
    def test_what_is_known_of_agents(self) -> None:
        bob = self.open(BOB)
        self.server.closed(bob)
        self.open(ANN)
        rows = self.successResultOf(ensureDeferred(self.rows()))
        self.assertEqual(
            [(row["key"], row["is_connected"], row["peer_address"]) for row in rows],
            [(ANN, True, "192.0.2.1"), (BOB, False, "")],
        )
        self.assertTrue(all(row["last_seen_at"] for row in rows))
        self.assertEqual(
            self.server.status(),
            {"is_enabled": True, "listed": 2, "reachable": 1, "sessions": 1, "waiting": 0},
        )

    async def rows(self) -> list[dict[str, Any]]:
        return [cast(Any, row) async for row in self.server.handlers()["tunnel.list"]({})]

    def test_counts(self) -> None:
        session = self.open()
        address = f"{ANN}@agents.test"
        for sender in (address, "a@else.test"):
            intake = self.server.door.receive(session, Stream(sender, "b@far.test"))
            if not isinstance(intake, Reply):
                intake.write(f"From: {address}\r\n\r\n".encode())
                self.successResultOf(intake.finish())
        contact = Contact("x")
        sent = self.server._sent
        sent(Delivered(contact, TABLE["ok"]), 100)
        sent(PermanentFailure(Scope.RECIPIENT, TABLE["no-such-user"]), 200)
        sent(TransientFailure(Scope.HOST, TABLE["local-error"]), 300)
        tally = self.tally.tunnel
        self.assertEqual(tally.logins["succeeded"], 1)
        self.assertEqual((tally.streams_in["taken"], tally.streams_in["refused"]), (1, 1))
        self.assertEqual(tally.streams_out, {"delivered": 1, "refused": 1, "later": 1})
        self.assertEqual((tally.octets_in, tally.octets_out), (len(address) + 10, 100))


class StopTests(Case):
    def test_nobody_there(self) -> None:
        self.successResultOf(self.server.drain(10))

    def test_streams_come_to_their_end(self) -> None:
        """And nothing new begins; then everybody is told."""
        socket = self.socket()
        session = self.open()
        stream = Stream(f"{ANN}@agents.test", "b@far.test")
        intake = self.server.door.receive(session, stream)
        assert not isinstance(intake, Reply)
        draining = self.server.drain(10)
        self.assertEqual(self.server.door.receive(session, stream), TABLE["shutting-down"])
        assert self.server.upgrade is not None
        self.assertIsNone(self.server.upgrade("192.0.2.1"))
        self.clock.advance(1)
        self.assertFalse(socket.transport.disconnecting)
        intake.write(b"\r\n")
        self.assertEqual(self.successResultOf(intake.finish()), TABLE["ok"])
        socket.transport.clear()
        self.clock.advance(1)
        self.assertEqual(socket.transport.value()[:4], b"\x88\x0f\x03\xe9")  # a close, 1001
        self.clock.pump([1.0] * 10)
        self.assertTrue(socket.transport.disconnecting)
        socket.connectionLost()
        self.successResultOf(draining)

    def test_stream_that_never_ends(self) -> None:
        session = self.open()
        self.server.door.receive(session, Stream(f"{ANN}@agents.test", "b@far.test"))
        draining = self.server.drain(100)
        self.clock.advance(GRACE_S / 2)
        self.assertNoResult(draining)
        self.clock.advance(GRACE_S)
        self.successResultOf(draining)
