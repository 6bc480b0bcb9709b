"""A gateway's mail in the schedule: by whose session it goes, and how it waits for one."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from protege_mta.model.address import Address, domain_of
from protege_mta.model.envelope import Message
from protege_mta.model.hop import NextHop, Site
from protege_mta.model.identity import Identity
from protege_mta.model.outcome import PermanentFailure, Scope, TransientFailure
from protege_mta.model.reply import Reply
from protege_mta.routing.tunnel import TunnelRouter
from protege_mta.testing.sessions import FakeSession, FakeSessions
from protege_mta.transport.tunnel import TunnelTransport

from .test_schedule_dispatch import FlowCase

ANN = Identity("a" * 51 + "q")
BEN = Identity("b" * 51 + "q")
LOST = TransientFailure(Scope.HOST, Reply(451, "4.4.2", ("session lost",)))


class TunnelFlowTests(FlowCase):
    """All goes through tunnels: Ben's mail through his, everybody else's through Ann's."""

    def build(self) -> None:
        if not hasattr(self, "sessions"):
            self.sessions = FakeSessions()
        super().build()
        self.dispatcher._transports = {"tunnel": TunnelTransport(self.sessions)}
        self.dispatcher.route_by(self.way)

    def way(self, address: Address, message: Message) -> NextHop:
        return NextHop("tunnel", BEN if domain_of(message.envelope.sender) == "ben.test" else ANN)

    def locate(self, hop: NextHop) -> Deferred[Site | TransientFailure | PermanentFailure]:
        return TunnelRouter(self.sessions)(hop)

    def comes(self, identity: Identity) -> FakeSession:
        session = self.sessions.there[identity] = FakeSession(identity)
        self.scheduler.changed(NextHop("tunnel", identity))
        return session

    def goes(self, identity: Identity) -> None:
        del self.sessions.there[identity]
        self.scheduler.changed(NextHop("tunnel", identity))

    def test_each_goes_through_the_session_of_whose_mail_it_is(self) -> None:
        ann, ben = self.comes(ANN), self.comes(BEN)
        self.send("x@far.test", sender="a@ann.test")
        self.send("x@far.test", sender="b@ben.test")
        self.assertEqual([sent.stream.sender for sent in ann.sent], ["a@ann.test"])
        self.assertEqual([sent.stream.sender for sent in ben.sent], ["b@ben.test"])

    def test_mail_waits_for_its_session_alone_and_goes_at_once(self) -> None:
        """Waiting is no attempt, and leaves nothing in the journal."""
        ann = self.comes(ANN)
        id = self.send("x@far.test", sender="b@ben.test")
        self.send("x@far.test", sender="a@ann.test")
        self.assertEqual(len(ann.sent), 1)
        self.turn(3000)
        self.assertEqual(self.events(id), [("received", "x@far.test")])
        ben = self.comes(BEN)
        self.assertEqual(len(ben.sent), 1)

    def test_a_tunnel_that_was_cut_is_gone_on_with_by_the_next_session(self) -> None:
        """In a second, and under the same name, where all else waits five minutes."""
        ann = self.comes(ANN)
        self.send("x@far.test")
        self.goes(ANN)
        ann.sent[0].outcome.callback(LOST)
        again = self.comes(ANN)
        self.turn(1.5)
        self.assertEqual(
            [sent.stream.request_id for sent in again.sent],
            [sent.stream.request_id for sent in ann.sent],
        )

    def test_without_acknowledgements_it_is_tried_as_late_as_any(self) -> None:
        ann = self.comes(ANN)
        ann.is_reliable = False
        self.send("x@far.test")
        self.goes(ANN)
        ann.sent[0].outcome.callback(LOST)
        again = self.comes(ANN)
        self.turn(299)
        self.assertEqual(again.sent, [])
        self.turn(2)
        self.assertEqual(len(again.sent), 1)

    def test_a_refusal_for_now_waits_its_time(self) -> None:
        ann = self.comes(ANN)
        self.send("x@far.test")
        limited = TransientFailure(Scope.RECIPIENT, Reply(450, "4.7.1", ("too many",)))
        ann.sent[0].outcome.callback(limited)
        self.turn(299)
        self.assertEqual(len(ann.sent), 1)
        self.turn(2)
        self.assertEqual(len(ann.sent), 2)

    def test_a_refusal_for_good_is_returned(self) -> None:
        ann = self.comes(ANN)
        id = self.send("x@far.test")
        refused = PermanentFailure(Scope.RECIPIENT, Reply(550, "5.1.1", ("nobody",)))
        ann.sent[0].outcome.callback(refused)
        self.assertEqual(self.events(id)[-1], ("bounced", "x@far.test"))
        self.assertEqual(ann.sent[1].stream.sender, "")

    def test_what_was_young_enough_when_we_went_down_has_time_to_go(self) -> None:
        """A laptop that was closed for a week does not return its mail before it is connected."""
        id = self.send("x@far.test")
        self.scheduler.stop()
        self.clock.advance(100_000)
        self.restart()
        self.turn(300)
        self.assertNotIn(("expired", "x@far.test"), self.events(id))
        ann = self.comes(ANN)
        self.assertIn("x@far.test", [sent.stream.recipient for sent in ann.sent])

    def test_what_no_session_came_for_says_so(self) -> None:
        id = self.send("x@far.test")
        self.turn(87_000)
        events = [each for each in self.told if each["message_id"] == id]
        self.assertEqual(events[-1]["event"], "expired")
        self.assertIn("the relay server is not connected", events[-1]["reply"]["text"])

    def test_a_session_that_is_not_used_any_more(self) -> None:
        """Mail of a persona that has gone takes another's, whatever it waited for."""
        self.send("x@far.test", sender="b@ben.test")
        ann = self.comes(ANN)
        self.dispatcher.route_by(lambda address, message: NextHop("tunnel", ANN))
        for id in self.spool.ids():
            self.scheduler.retry_released(id)
        self.assertEqual(len(ann.sent), 1)
