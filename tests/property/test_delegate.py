"""Whatever recipients an attempt has, and in whatever order: each outcome is its own recipient's."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.outcome import Contact, Delivered, Outcome, Scope, TransientFailure
from protege_mta.model.reply import Reply
from protege_mta.model.tally import Tally
from protege_mta.testing.attempts import make_attempt
from protege_mta.testing.transports import ScriptedTransport
from protege_mta.transport.delegate import Delegate, DelegatedTransport
from protege_mta.transport.link import Done, Fated, Job, Ready, Setup, encode, to_child

PATIENT = settings(max_examples=200, deadline=None)


class TellingChild:
    """Says of each recipient, in an order of its own, what its address is."""

    def __init__(self, received: Callable[[bytes], None], order: Callable[[int], int]) -> None:
        self._received = received
        self._order = order

    def send(self, frame: bytes) -> None:
        said = to_child(frame)
        if isinstance(said, Setup):
            self._received(encode(Ready(1)))
        elif isinstance(said, Job):
            named = enumerate(one.address for one in said.message.envelope.recipients)
            fated = [Fated.of(index, outcome_of(address)) for index, address in named]
            fated.sort(key=lambda one: self._order(one.index))
            self._received(encode(Done(said.number, fated)))

    def drop(self) -> None: ...


def outcome_of(address: str) -> Outcome:
    """Tells the address, whatever became of it."""
    if address.startswith("0"):
        return TransientFailure(Scope.RECIPIENT, Reply(450, "4.2.1", (address,)))
    return Delivered(Contact("mx.b.test"), Reply(250, "2.0.0", (address,)))


class DelegateProperties(SynchronousTestCase):
    @PATIENT
    @given(data=st.data(), count=st.integers(1, 8))
    def test_each_outcome_is_its_own_recipients(self, data: st.DataObject, count: int) -> None:
        addresses = [f"{number % 2}-{number}@b.test" for number in range(count)]
        wanted = data.draw(st.permutations(range(count)))[: data.draw(st.integers(1, count))]
        order = data.draw(st.permutations(range(count)))
        delegate = Delegate(
            lambda received, lost: TellingChild(received, order.__getitem__),
            clock=Clock(),
            tally=Tally(),
        )
        delegate.set_up(Setup(b"", []))
        transport = DelegatedTransport(delegate, ScriptedTransport())
        whole = make_attempt(recipients=addresses)
        attempt = attrs.evolve(whole, recipients=tuple(wanted))
        outcomes = self.successResultOf(transport.deliver(attempt))
        self.assertEqual(sorted(index for index, _ in outcomes), sorted(wanted))
        self.assertEqual(dict(outcomes), {index: outcome_of(addresses[index]) for index in wanted})
