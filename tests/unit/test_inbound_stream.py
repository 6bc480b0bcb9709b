"""What a gateway takes from its relay, and in which form."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any, cast

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import NULL, Address
from protege_mta.model.envelope import Envelope, Origin
from protege_mta.model.identity import Identity
from protege_mta.model.ports import Arrival, Held, Intake, Peer, Session
from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.stream import Stream
from protege_mta.model.verdicts import UNCHECKED, Verdicts
from protege_mta.policy.inbound_stream import Attested, InboundStreams, StreamRules
from protege_mta.policy.relaying import Mailboxes, Relaying
from protege_mta.policy.stream_intake import LISTENER
from protege_mta.testing.sessions import FakeSession

KEY = Identity("a" * 51 + "q")
STORED = Reply(250, "2.0.0", ("ok, queued as x",))
OK = Attested("ok", Verdicts("pass", "pass", "pass"), "relay-1")


@attrs.define(eq=False)
class Stored:
    """An arrival that keeps what it gets."""

    head: bytes = b""
    verdicts: Verdicts = UNCHECKED
    pieces: list[bytes] = attrs.field(factory=list)
    is_aborted: bool = False
    is_finished: bool = False
    reply: Reply = STORED
    waiting: Deferred[None] | None = None

    @property
    def octets(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def size_octets(self) -> int:
        return len(self.octets)

    def look(self) -> Deferred[Held | Reply]:
        raise NotImplementedError

    def mark(self, head: bytes, verdicts: Verdicts) -> None:
        self.head, self.verdicts = head, verdicts

    def write(self, octets: bytes) -> Deferred[None] | None:
        self.pieces.append(octets)
        return self.waiting

    def finish(self) -> Deferred[Reply]:
        self.is_finished = True
        return succeed(self.reply)

    def abort(self) -> None:
        self.is_aborted = True


class Rejections:
    """The one event of a door."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str | None, str, Reply]] = []

    def rejected(self, peer: Peer, sender: str | None, recipient: str, reply: Reply) -> None:
        self.told.append((peer.identity, sender, recipient, reply))


class DoorCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.begun: list[tuple[Envelope, Origin]] = []
        self.stored = Stored()
        self.opening: Arrival | Reply = self.stored
        self.attested = OK
        self.events = Rejections()
        self.rules = StreamRules(
            Relaying(
                domains={
                    "home.test": Mailboxes(frozenset({"*"})),
                    "few.test": Mailboxes(frozenset({"ann"})),
                },
                relay_hosts={},
                postmaster=Address("boss@home.test"),
            ),
            "gw.home.test",
            message_octets=1_000_000,
        )
        self.door = InboundStreams(
            self.rules,
            cast(Any, self.events),
            self.begin,
            verify=lambda stream: self.attested,
            is_ours=lambda local_part: local_part.lower() == KEY,
            new_session_id=lambda: "s-1",
        )
        self.session = FakeSession(KEY)

    def begin(self, session: Session, envelope: Envelope, origin: Origin) -> Arrival | Reply:
        self.begun.append((envelope, origin))
        return self.opening

    def receive(
        self,
        sender: str = "a@b.test",
        recipient: str = f"{KEY}@home.test",
        **more: Any,
    ) -> Intake | Reply:
        return self.door.receive(self.session, Stream(sender, recipient, **more))

    def intake(self, **more: Any) -> Intake:
        found = self.receive(**more)
        assert not isinstance(found, Reply), found
        return found

    def send(self, *pieces: bytes) -> bytes:
        """The content as it went into the spool."""
        intake = self.intake()
        for piece in pieces:
            intake.write(piece)
        self.assertEqual(self.successResultOf(intake.finish()), STORED)
        return self.stored.octets


class WhoTests(DoorCase):
    def test_mail_for_our_own(self) -> None:
        self.intake(request_id="r1", size_octets=10)
        ((envelope, origin),) = self.begun
        self.assertEqual(envelope.sender, "a@b.test")
        self.assertEqual([one.address for one in envelope.recipients], [f"{KEY}@home.test"])
        self.assertEqual(origin, Origin("tunnel", KEY, "192.0.2.1", request_id="r1"))

    def test_an_original_relay_uses_stream_ids_again(self) -> None:
        """So that nothing of it may be taken for a message that is here already."""
        self.session.is_reliable = False
        self.intake(request_id="session:address")
        self.assertEqual(self.begun[0][1].request_id, "")

    def test_nobody_relays_through_a_gateway(self) -> None:
        """Not even the relay, to which we have authenticated."""
        for recipient in ("x@elsewhere.test", "nobody@few.test"):
            self.assertEqual(self.receive(recipient=recipient), TABLE["no-such-user"])
        self.assertEqual(
            self.events.told,
            [
                (KEY, "a@b.test", "x@elsewhere.test", TABLE["no-such-user"]),
                (KEY, "a@b.test", "nobody@few.test", TABLE["no-such-user"]),
            ],
        )
        self.assertEqual(self.begun, [])

    def test_relay_may_relay_nothing_whatever_listeners_are_called(self) -> None:
        """Nor where it comes from an address that may relay by a listener of that name."""
        self.door.rules = attrs.evolve(
            self.rules,
            relaying=Relaying({}, {LISTENER: (ip_network("0.0.0.0/0"),)}, Address("")),
        )
        self.assertEqual(self.receive(recipient="x@elsewhere.test"), TABLE["no-such-user"])

    def test_an_agent_without_a_domain_is_for_the_operator_to_mend(self) -> None:
        with capturedLogs() as logged:
            for _ in range(3):
                answer = self.receive(recipient=f"{KEY}@new.test")
                self.assertEqual(answer, TABLE["no-local-delivery"])
        errors = [each for each in logged if each["log_level"].name == "error"]
        self.assertEqual(len(errors), 1)
        self.assertEqual(errors[0]["domain"], "new.test")

    def test_an_agent_without_a_mailbox_is_for_the_operator_to_mend(self) -> None:
        """Its mail is not returned for that."""
        with capturedLogs() as logged:
            answer = self.receive(recipient=f"{KEY}@few.test")
        self.assertEqual(answer, TABLE["no-local-delivery"])
        [error] = [each for each in logged if each["log_level"].name == "error"]
        self.assertEqual(error["domain"], "few.test")

    def test_null_sender(self) -> None:
        self.intake(sender="")
        self.assertEqual(self.begun[0][0].sender, NULL)

    def test_postmaster_goes_where_postmaster_goes(self) -> None:
        self.intake(recipient="postmaster@few.test")
        self.assertEqual(self.begun[0][0].recipients[0].address, "boss@home.test")

    def test_no_addresses(self) -> None:
        self.assertEqual(self.receive(recipient="<x>"), TABLE["bad-recipient"])
        self.assertEqual(self.receive(sender="no address"), TABLE["bad-sender"])

    def test_a_bad_sender_is_nobody_where_no_refusal_is_heard(self) -> None:
        self.session.is_reliable = False
        self.intake(sender="no address")
        self.assertEqual(self.begun[0][0].sender, NULL)

    def test_addresses_beyond_ascii(self) -> None:
        self.intake(recipient="jörg@home.test")
        self.assertTrue(self.begun[0][0].is_smtputf8)

    def test_what_is_lost_for_good_is_said_so(self) -> None:
        self.session.is_reliable = False
        with capturedLogs() as logged:
            self.receive(recipient="nobody@few.test")
        self.assertIn("is lost", logged[-1]["log_format"])

    def test_a_full_spool_is_the_answer(self) -> None:
        self.opening = TABLE["spool-full"]
        self.assertEqual(self.receive(), TABLE["spool-full"])

    def test_a_message_that_is_here_already(self) -> None:
        self.opening = STORED
        self.assertEqual(self.receive(), STORED)
        self.assertEqual(self.events.told, [])


class AttestationTests(DoorCase):
    def answers(self, unattested: Any) -> dict[str, str]:
        self.door.rules = attrs.evolve(self.rules, unattested=unattested)
        found = {}
        results: list[Any] = ["ok", "missing_attestation", "missing_trusted_key"]
        results += ["invalid_payload", "invalid_signature", "context_mismatch"]
        for result in results:
            self.attested = Attested(result)
            answer = self.receive()
            found[result] = answer.enhanced if isinstance(answer, Reply) else "taken"
        return found

    def test_accept(self) -> None:
        self.assertEqual(set(self.answers("accept").values()), {"taken"})
        self.assertEqual(self.door.seen["context_mismatch"], 1)

    def test_what_the_relay_says_is_kept_and_shown(self) -> None:
        self.attested = Attested("ok", Verdicts("pass", "", "fail"), "relay-1")
        self.intake()
        self.assertEqual(self.stored.verdicts, self.attested.verdicts)
        self.assertEqual(
            self.stored.head.replace(b"\r\n\t", b" ").replace(b"\r\n", b""),
            b'Authentication-Results: gw.home.test; spf=pass reason="told by relay relay-1"'
            b' smtp.mailfrom=b.test; dmarc=fail reason="told by relay relay-1"',
        )

    def test_what_nobody_vouches_for_has_no_field_of_ours(self) -> None:
        self.attested = Attested("missing_attestation")
        self.intake()
        self.assertEqual((self.stored.head, self.stored.verdicts), (b"", UNCHECKED))

    def test_refuse(self) -> None:
        """For good what was forged; for now what a key that is not listed yet may explain."""
        self.assertEqual(
            self.answers("refuse"),
            {
                "ok": "taken",
                "missing_attestation": "4.7.5",
                "missing_trusted_key": "4.7.5",
                "invalid_payload": "5.7.7",
                "invalid_signature": "5.7.7",
                "context_mismatch": "5.7.7",
            },
        )


class ContentTests(DoorCase):
    def test_octets_pass_as_they_are(self) -> None:
        octets = b"Subject: x\r\n\r\n\x00\xff..\r\n.\r\n"
        self.assertEqual(self.send(octets), octets)

    def test_bare_ends_become_line_ends(self) -> None:
        self.assertEqual(
            self.send(b"A: 1\nB: 2\r", b"\n\nx\r.\ry\n"),
            b"A: 1\r\nB: 2\r\n\r\nx\r\n.\r\ny\r\n",
        )

    def test_the_last_line_is_ended(self) -> None:
        self.assertEqual(self.send(b"A: 1\r\n\r\nx"), b"A: 1\r\n\r\nx\r\n")

    def test_nothing_at_all(self) -> None:
        self.assertEqual(self.send(), b"\r\n")

    def test_what_claims_to_be_ours_goes(self) -> None:
        octets = (
            b"Authentication-Results: gw.home.test; spf=pass\r\n"
            b"Subject: x\r\n"
            b"authentication-results : (c) GW.Home.Test 1;\r\n\tdkim=pass\r\n"
            b'Authentication-Results:\r\n\t"gw.home.test"; dmarc=pass\r\n'
            b"Authentication-Results: other.test; spf=pass\r\n"
            b"\r\nAuthentication-Results: gw.home.test; body\r\n"
        )
        wanted = (
            b"Subject: x\r\n"
            b"Authentication-Results: other.test; spf=pass\r\n"
            b"\r\nAuthentication-Results: gw.home.test; body\r\n"
        )
        self.assertEqual(self.send(octets), wanted)
        self.setUp()
        self.assertEqual(self.send(*(bytes([one]) for one in octets)), wanted)
        self.setUp()
        self.assertEqual(
            self.send(octets.replace(b"\r\n", b"\n")),
            wanted,
        )

    def test_a_header_without_a_body(self) -> None:
        self.assertEqual(
            self.send(b"Authentication-Results: gw.home.test; spf=pass\r\nA: 1\r\n"),
            b"A: 1\r\n\r\n",
        )

    def test_a_header_without_end_is_refused(self) -> None:
        intake = self.intake()
        for _ in range(300):
            intake.write(b"x: y\r\n" * 200)
        self.assertEqual(self.successResultOf(intake.finish()), TABLE["header-too-long"])
        self.assertEqual(self.events.told[-1][3], TABLE["header-too-long"])
        self.assertTrue(self.stored.is_aborted)
        self.assertFalse(self.stored.is_finished)

    def test_size_is_looked_at_whatever_was_said(self) -> None:
        self.assertEqual(self.receive(size_octets=1_000_001), TABLE["message-too-big"])
        intake = self.intake(size_octets=3)
        intake.write(b"A: 1\r\n\r\n")
        intake.write(b"x" * 1_000_000)
        intake.write(b"more")
        self.assertEqual(self.successResultOf(intake.finish()), TABLE["message-too-big"])
        self.assertTrue(self.stored.is_aborted)
        self.assertEqual(self.events.told[-1][3], TABLE["message-too-big"])

    def test_back_pressure_is_passed_on(self) -> None:
        intake = self.intake()
        self.stored.waiting = Deferred()
        waiting = intake.write(b"A: 1\r\n\r\nx")
        assert waiting is not None
        self.assertNoResult(waiting)
        finishing = intake.finish()
        self.assertFalse(self.stored.is_finished)
        self.stored.waiting.callback(None)
        self.assertEqual(self.successResultOf(finishing), STORED)

    def test_a_refusal_at_the_end_is_told(self) -> None:
        self.stored.reply = TABLE["routing-loop"]
        intake = self.intake()
        intake.write(b"A: 1\r\n\r\n")
        self.assertEqual(self.successResultOf(intake.finish()), TABLE["routing-loop"])
        self.assertEqual(self.events.told[-1][3], TABLE["routing-loop"])

    def test_a_stream_that_is_cut_leaves_nothing(self) -> None:
        intake = self.intake()
        intake.write(b"A: 1\r\n")
        intake.abort()
        self.assertTrue(self.stored.is_aborted)
        self.assertFalse(self.stored.is_finished)
