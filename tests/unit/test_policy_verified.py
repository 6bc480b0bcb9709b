"""Mail from strangers on its way into the spool: what is checked, what is kept, what is refused."""

from __future__ import annotations

import json
from typing import Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import Address
from protege_mta.model.envelope import Envelope, Message, Origin, Recipient
from protege_mta.model.ids import IdSource
from protege_mta.model.ports import (
    Arrival,
    Authentication,
    Intake,
    Octets,
    Peer,
    Spool,
)
from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.tally import Tally
from protege_mta.model.verdicts import Verdicts
from protege_mta.observe.events import EventLines
from protege_mta.observe.metrics import Metrics
from protege_mta.policy.header_first import HEADER_OCTETS
from protege_mta.policy.verified import Action, Verification
from protege_mta.schedule.intake import Acceptance
from protege_mta.spool.memory import MemorySpool
from protege_mta.testing.crashfs import CrashFiles
from protege_mta.testing.requests import MemoryRequests
from protege_mta.testing.spools import disk_spool

FIELD: Final = b"Authentication-Results: mx.ours.test; none\r\n"
TRACE: Final = b"Received: by mx.ours.test\r\n"
FAILED: Final = Verdicts("fail", "none", "fail")
MESSAGE: Final = b"From: a@else.test\r\nSubject: hi\r\n\r\nbody\r\n"
ACTIONS: Final[dict[str, Action]] = {"open.test": "none", "marked.test": "quarantine", "strict.test": "reject", "xn--bcher-kva.test": "reject"}  # fmt: skip


class FakeAuthenticator:
    """Says what it is told to, and remembers what it has read."""

    def __init__(self) -> None:
        self.found: Deferred[Authentication] | Authentication = Authentication(
            Verdicts("pass", "pass", "pass"), FIELD
        )
        self.read: list[bytes] = []
        self.octets: Octets | None = None

    def check(self, peer: Peer, sender: Address, octets: Octets) -> Deferred[Authentication]:
        self.octets = octets
        pieces, at = [], 0
        while piece := octets.read(at, 7):
            pieces.append(piece)
            at += len(piece)
        self.read.append(b"".join(pieces))
        assert octets.read() == self.read[-1]
        assert octets.size_octets == len(self.read[-1])
        return self.found if isinstance(self.found, Deferred) else succeed(self.found)


class VerifiedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.queued: list[Message] = []
        self.authenticator = FakeAuthenticator()
        self.use(self.new_memory_spool())

    def new_memory_spool(self) -> MemorySpool:
        spool = MemorySpool()
        spool.acquire()
        self.assertEqual(list(spool.recover()), [])
        return spool

    def use(self, spool: Spool) -> None:
        self.spool = spool
        self.now = 1000.0
        events = EventLines(
            lambda: self.now,
            lambda line: self.lines.append(json.loads(line)),
            Metrics(Tally(), "0").counts,
        )
        self.took: list[float] = []
        acceptance = self.acceptance = Acceptance(
            spool,
            events,
            now=lambda: self.now,
            new_id=IdSource(lambda: self.now, lambda wanted: b"\1" * wanted),
            first_s=lambda: 300.0,
            accepted=lambda message, status: self.queued.append(message),
            took=self.took.append,
            requests=MemoryRequests(),
        )

        def begin(peer: Peer, envelope: Envelope, origin: Origin) -> Arrival | Reply:
            return acceptance.begin(envelope, origin, lambda id, at: TRACE)

        self.verification = Verification(
            self.authenticator, events, begin, hostname="mx.ours.test", actions=ACTIONS
        )

    def begin(self, *domains: str) -> Intake:
        recipients = tuple(Recipient(Address(f"agent@{one}")) for one in domains or ["open.test"])
        envelope = Envelope(Address("a@else.test"), recipients)
        peer = Peer("192.0.2.1", 40_000, "smtp", "s-1", helo="client.test")
        intake = self.verification.begin(peer, envelope, Origin("smtp", "", "192.0.2.1"))
        assert not isinstance(intake, Reply)
        return intake

    def send(self, octets: bytes, *domains: str, piece: int = 10) -> Reply:
        intake = self.begin(*domains)
        for at in range(0, len(octets), piece):
            intake.write(octets[at : at + piece])
        return self.successResultOf(intake.finish())

    def kept(self) -> bytes:
        content = self.successResultOf(self.spool.open(self.queued[-1].id))
        try:
            return content.read()
        finally:
            content.close()

    # --- what is kept ----------------------------------------------------------------------------

    def test_field_comes_first(self) -> None:
        """Above our trace field, and counted."""
        self.assertEqual(self.send(MESSAGE).code, 250)
        self.assertEqual(self.kept(), FIELD + TRACE + MESSAGE)
        [message] = self.queued
        self.assertEqual(message.size_octets, len(self.kept()))
        self.assertEqual(message.verdicts, Verdicts("pass", "pass", "pass"))
        self.assertEqual(message.subject, "hi")

    def test_big(self) -> None:
        """Likewise where the content has gone to a file, before and after a restart."""
        disk = CrashFiles()
        spool = disk_spool(disk, big_octets=1000)
        spool.acquire()
        self.assertEqual(list(spool.recover()), [])
        self.use(spool)
        octets = MESSAGE + b"a line\r\n" * 1000
        self.assertEqual(self.send(octets, piece=500).code, 250)
        self.assertEqual(self.authenticator.read, [octets])
        self.assertEqual(self.kept(), FIELD + TRACE + octets)
        self.successResultOf(spool.close())
        self.spool = spool = disk_spool(disk.crashed(10**6, "dropped"), big_octets=1000)
        spool.acquire()
        [found] = list(spool.recover())
        self.assertEqual(found.message, self.queued[0])
        self.assertEqual(self.kept(), FIELD + TRACE + octets)

    def test_what_is_checked(self) -> None:
        """The message as it came, with the fields that we take out."""
        foreign = (
            b"Authentication-Results: MX.ours.test; dmarc=pass\r\nX-Protege-Quarantine: no\r\n"
        )
        self.send(foreign + MESSAGE)
        self.assertEqual(self.authenticator.read, [foreign + MESSAGE])
        self.assertEqual(self.kept(), FIELD + TRACE + MESSAGE)

    def test_event(self) -> None:
        self.send(MESSAGE)
        [batch] = self.spool.batches  # type: ignore[attr-defined]
        event = json.loads(batch.events[0])
        self.assertEqual([event[one] for one in ("spf", "dkim", "dmarc")], ["pass"] * 3)

    def test_time_of_the_check_counts(self) -> None:
        later: Deferred[Authentication] = Deferred()
        self.authenticator.found = later
        intake = self.begin()
        intake.write(MESSAGE)
        reply = intake.finish()
        self.now += 2.5
        later.callback(Authentication(FAILED, FIELD))
        self.successResultOf(reply)
        self.assertEqual(self.took, [2.5])

    # --- what is done with it --------------------------------------------------------------------

    def fate(self, wish: Any, *domains: str) -> str:
        """What becomes of a message that fails: its reply's code, and ``marked`` where it is."""
        self.authenticator.found = Authentication(FAILED, FIELD, wish)
        reply = self.send(MESSAGE, *domains)
        if reply.code != 250:
            self.assertEqual(reply, TABLE["dmarc-failed"])
            return str(reply.code)
        mark = b"X-Protege-Quarantine: dmarc\r\n"
        is_marked = self.kept() == FIELD + mark + TRACE + MESSAGE
        self.assertTrue(is_marked or self.kept() == FIELD + TRACE + MESSAGE)
        return "250 marked" if is_marked else "250"

    def test_actions(self) -> None:
        for wish, domain, fate in (
            ("none", "strict.test", "250"),
            ("quarantine", "open.test", "250"),
            ("quarantine", "marked.test", "250 marked"),
            ("quarantine", "strict.test", "250 marked"),
            ("reject", "open.test", "250"),
            ("reject", "marked.test", "250 marked"),
            ("reject", "strict.test", "550"),
            ("reject", "STRICT.test", "550"),
            ("reject", "bücher.test", "550"),
            ("reject", "elsewhere.test", "250"),
        ):
            self.assertEqual(self.fate(wish, domain), fate, (wish, domain))

    def test_several_domains(self) -> None:
        """Refused only where all would refuse it; marked where one of them would have it so."""
        self.assertEqual(self.fate("reject", "strict.test", "xn--bcher-kva.test"), "550")
        self.assertEqual(self.fate("reject", "strict.test", "open.test"), "250 marked")
        self.assertEqual(self.fate("reject", "marked.test", "open.test"), "250 marked")

    def test_refused(self) -> None:
        """An event tells of it, and nothing stays, of a big one either."""
        disk = CrashFiles()
        spool = disk_spool(disk, big_octets=1000)
        spool.acquire()
        self.assertEqual(list(spool.recover()), [])
        self.use(spool)
        self.authenticator.found = Authentication(FAILED, FIELD, "reject")
        reply = self.send(MESSAGE + b"a line\r\n" * 1000, "strict.test")
        self.assertEqual(reply, TABLE["dmarc-failed"])
        [event] = self.lines
        self.assertEqual((event["event"], event["sender"], event["reply"]["code"]), ("rejected", "a@else.test", 550))  # fmt: skip
        self.assertEqual((event["source"], event["subject"]), ("smtp", "hi"))
        self.assertEqual((self.queued, self.acceptance.arriving), ([], set()))
        [folder] = {step.path.parent for step in disk.steps if step.path and step.path.parent.name == "big"}  # fmt: skip
        self.assertEqual(disk.names(folder), [])

    def test_header_too_long(self) -> None:
        reply = self.send(b"X: y\r\n" * (HEADER_OCTETS // 6 + 10), piece=65536)
        self.assertEqual(reply, TABLE["header-too-long"])
        self.assertEqual([event["event"] for event in self.lines], ["rejected"])
        self.assertEqual(self.authenticator.read, [])

    # --- trouble ---------------------------------------------------------------------------------

    def test_broken_off(self) -> None:
        intake = self.begin()
        intake.write(MESSAGE)
        intake.abort()
        self.assertEqual((self.authenticator.read, self.acceptance.arriving), ([], set()))

    def test_no_room(self) -> None:
        """Nothing is checked that cannot be kept."""
        intake = self.begin()
        intake.write(MESSAGE)
        assert isinstance(self.spool, MemorySpool)
        self.spool.is_failed = True
        self.assertEqual(self.successResultOf(intake.finish()), TABLE["spool-failed"])
        self.assertEqual(self.queued, [])
        envelope = Envelope(Address("a@else.test"), (Recipient(Address("agent@open.test")),))
        peer = Peer("192.0.2.1", 40_000, "smtp", "s-1")
        refused = self.verification.begin(peer, envelope, Origin("smtp"))
        self.assertEqual(refused, TABLE["spool-failed"])

    def test_a_disk_that_fails(self) -> None:
        disk = CrashFiles()
        spool = disk_spool(disk, big_octets=1000)
        spool.acquire()
        self.assertEqual(list(spool.recover()), [])
        self.use(spool)
        intake = self.begin()
        intake.write(MESSAGE + b"a line\r\n" * 1000)
        disk.faults["sync"] = OSError("broken")
        self.assertEqual(self.successResultOf(intake.finish()), TABLE["spool-failed"])
        self.assertEqual((self.authenticator.read, self.acceptance.arriving), ([], set()))
        self.flushLoggedErrors(OSError)

    def test_a_bug(self) -> None:
        """It is ours, so the client is to come again."""
        self.authenticator.found = fail(RuntimeError("a bug"))
        self.assertEqual(self.send(MESSAGE), TABLE["local-error"])
        self.assertEqual((self.queued, self.acceptance.arriving), ([], set()))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
