"""From an attempt to streams of an agent's session, and back to outcomes."""

from __future__ import annotations

from typing import Final

import attrs
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.hop import HopKind
from protege_mta.model.identity import identity_of
from protege_mta.model.outcome import (
    Contact,
    Delivered,
    Outcome,
    PermanentFailure,
    Scope,
    TransientFailure,
)
from protege_mta.model.ports import Attempt, HopAbilities, Prepared
from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.stream import Attestation, Stream
from protege_mta.model.verdicts import Verdicts
from protege_mta.testing.attempts import CONTENT, OctetContent, as_it_is, make_attempt
from protege_mta.testing.sessions import FakeSession, FakeSessions
from protege_mta.transport.agent import AgentTransport
from protege_mta.transport.prepared import PreparedOctets

ANNA: Final = identity_of(b"\1" * 32)
AGENT: Final[HopKind] = "agent"
TAKEN: Final = Delivered(Contact("agent", "192.0.2.1"), Reply(250, "2.0.0", ("queued",)))
ID: Final = "01hzzzzzzz0000000000000001"


def sign(stream: Stream, verdicts: Verdicts) -> Attestation:
    return Attestation("k", f"{stream.stream_id} {verdicts.spf}".encode(), b"s")


class AgentTransportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.session = FakeSession(ANNA)
        self.sessions = FakeSessions({ANNA: self.session})
        self.transport = AgentTransport(self.sessions, sign)

    def attempt(self, *recipients: str, prepare: object = as_it_is) -> Attempt:
        attempt = make_attempt(
            recipients=recipients or ("a@a.test",),
            kind=AGENT,
            prepare=prepare,  # type: ignore[arg-type]
        )
        return attrs.evolve(attempt, domain=ANNA)

    def outcome(self, said: Outcome) -> Outcome:
        answer = self.transport.deliver(self.attempt())
        self.session.sent.pop().outcome.callback(said)
        ((index, outcome),) = self.successResultOf(answer)
        self.assertEqual(index, 0)
        return outcome

    def test_a_stream_each(self) -> None:
        """With a name that lasts, the size, and our word about the sender, which names the stream."""
        answer = self.transport.deliver(self.attempt("a@a.test", "b@a.test"))
        self.assertEqual(
            [one.stream for one in self.session.sent],
            [
                Stream(
                    "a@a.test",
                    address,
                    Attestation("k", f"{ID}.{index} ".encode(), b"s"),
                    f"{ID}.{index}",
                    len(CONTENT),
                    f"{ID}.{index}",
                )
                for index, address in enumerate(["a@a.test", "b@a.test"])
            ],
        )
        self.session.sent[1].outcome.callback(TAKEN)
        self.assertNoResult(answer)
        self.session.sent[0].outcome.callback(TAKEN)
        self.assertEqual(self.successResultOf(answer), [(0, TAKEN), (1, TAKEN)])

    def test_nobody_there(self) -> None:
        self.sessions.there.clear()
        away = TransientFailure(Scope.ABSENT, TABLE["agent-not-connected"])
        answer = self.transport.deliver(self.attempt("a@a.test", "b@a.test"))
        self.assertEqual(self.successResultOf(answer), [(0, away), (1, away)])

    def test_without_a_key_there_is_no_attestation(self) -> None:
        AgentTransport(self.sessions).deliver(self.attempt())
        self.assertIsNone(self.session.sent[0].stream.attestation)

    def test_what_outcomes_come_to(self) -> None:
        """The duties of RFC 3461 stay ours; a lost session is no dead site; a full machine is."""
        reply = Reply(451, "4.4.2", ("lost",))
        full = Reply(452, "4.3.1", ("full",))
        no = PermanentFailure(Scope.RECIPIENT, Reply(550, "5.7.1", ("no",)))
        pairs: list[tuple[Outcome, Outcome]] = [
            (attrs.evolve(TAKEN, is_relayed=True, is_final=True), TAKEN),
            (TransientFailure(Scope.SITE, reply), TransientFailure(Scope.HOST, reply)),
            (TransientFailure(Scope.HOST, reply), TransientFailure(Scope.HOST, reply)),
            (TransientFailure(Scope.MESSAGE, full), TransientFailure(Scope.SITE, full)),
            (TransientFailure(Scope.RECIPIENT, reply), TransientFailure(Scope.RECIPIENT, reply)),
            (no, no),
        ]
        for said, meant in pairs:
            self.assertEqual(self.outcome(said), meant)

    def test_what_is_to_be_kept_secret(self) -> None:
        """A stream has no word for REQUIRETLS, so that such mail goes back (RFC 8689, 4.4)."""
        attempt = attrs.evolve(make_attempt(requires_tls=True, kind=AGENT), domain=ANNA)
        ((_, outcome),) = self.successResultOf(self.transport.deliver(attempt))
        self.assertEqual(outcome, PermanentFailure(Scope.MESSAGE, TABLE["tunnel-requiretls"]))

    def test_a_form_that_would_not_do(self) -> None:
        reply = Reply(550, "5.6.3", ("no form",))
        answer = self.transport.deliver(self.attempt(prepare=lambda abilities: reply))
        ((_, outcome),) = self.successResultOf(answer)
        self.assertEqual(outcome, PermanentFailure(Scope.MESSAGE, reply))
        self.assertEqual(self.session.sent, [])

    def test_an_agent_takes_anything(self) -> None:
        asked = []

        def prepare(abilities: HopAbilities) -> Prepared:
            asked.append(abilities)
            return Prepared(b"DKIM-Signature: x\r\n")

        self.transport.deliver(self.attempt(prepare=prepare))
        self.assertEqual(asked, [HopAbilities(has_8bitmime=True, has_smtputf8=True)])
        self.assertEqual(self.session.sent[0].content, b"DKIM-Signature: x\r\n" + CONTENT)

    def test_one_that_breaks_leaves_no_other_behind(self) -> None:
        """Another stream of the message is under way: the attempt lasts until that has ended."""

        def attest(stream: Stream, verdicts: Verdicts) -> Attestation:
            return Attestation("k", b"%d" % (1 // int(stream.stream_id[-1:])), b"")

        transport = AgentTransport(self.sessions, attest)
        answer = transport.deliver(self.attempt("a@a.test", "b@a.test"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertNoResult(answer)
        (sent,) = self.session.sent
        sent.outcome.callback(TAKEN)
        trouble = TransientFailure(Scope.RECIPIENT, TABLE["local-error"])
        self.assertEqual(self.successResultOf(answer), [(0, trouble), (1, TAKEN)])

    def test_preparing_that_breaks(self) -> None:
        """A bug is local trouble."""
        answer = self.transport.deliver(self.attempt(prepare=lambda abilities: 1 // 0))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        trouble = TransientFailure(Scope.MESSAGE, TABLE["local-error"])
        self.assertEqual(self.successResultOf(answer), [(0, trouble)])

    def test_closing_waits_for_what_is_at_work(self) -> None:
        answer = self.transport.deliver(self.attempt())
        closed: Deferred[None] = self.transport.close()
        self.assertNoResult(closed)
        self.session.sent[0].outcome.callback(TAKEN)
        self.successResultOf(answer)
        self.successResultOf(closed)
        self.successResultOf(AgentTransport(self.sessions).close())


class PreparedOctetsTests(SynchronousTestCase):
    """Any piece is a piece of the whole."""

    def test_pieces(self) -> None:
        attempt = make_attempt()
        content = attempt.content
        assert isinstance(content, OctetContent)
        for prepared, whole in [
            (Prepared(), CONTENT),
            (Prepared(b"head", 9), b"head" + CONTENT[9:]),
            (Prepared(b"head", body=b"the body"), b"headthe body"),
            (Prepared(body=b""), b""),
        ]:
            octets = PreparedOctets(content, prepared)
            self.assertEqual(octets.size_octets, len(whole))
            self.assertEqual(octets.read(), whole)
            for offset in range(len(whole) + 2):
                self.assertEqual(octets.read(offset), whole[offset:])
                for size in range(len(whole) + 2):
                    self.assertEqual(octets.read(offset, size), whole[offset : offset + size])

    def test_no_more_is_read_than_is_asked_for(self) -> None:
        content = make_attempt().content
        assert isinstance(content, OctetContent)
        PreparedOctets(content, Prepared(b"head")).read(2, 5)
        self.assertEqual(content.reads, [(0, 3)])
