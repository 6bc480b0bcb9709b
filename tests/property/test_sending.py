"""Limits and budgets hold whatever is under way at the same time, and whatever becomes of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.account import AccountLimits
from protege_mta.model.address import Address
from protege_mta.model.caller import AgentPolicy, Caller
from protege_mta.model.envelope import Envelope, Recipient
from protege_mta.policy.sending import Permit, SendingPolicy
from protege_mta.policy.usage import Usage
from protege_mta.testing.contacts import MemoryContacts
from tests.unit.test_policy_sending import FIELDS, NOON

PEOPLE = [Address(f"{name}@b.test") for name in "abcdef"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("judge"), st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=4)),
        st.tuples(st.just("settle"), st.integers(0, 5)),
        st.tuples(st.just("release"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.integers(1, 5000)),
    ),
    max_size=60,
)


class InterleavingTests(SynchronousTestCase):
    @given(STEPS, st.integers(0, 4), st.integers(0, 6), st.integers(0, 4))
    def test_never_exceeded(
        self, steps: list[tuple[str, object]], messages: int, recipients: int, first: int
    ) -> None:
        now = NOON
        contacts = MemoryContacts(lambda: now)
        sending = SendingPolicy(Usage(lambda: now), contacts, lambda: now)
        caller = Caller(
            identity="key:bot",
            scopes=frozenset({"send"}),
            limits=AccountLimits(messages_per_day=messages, recipients_per_day=recipients),
            policy=AgentPolicy(first_time_per_day=first),
        )
        pending: list[tuple[Permit, set[Address]]] = []
        accepted: list[tuple[float, set[Address]]] = []
        start = now
        for step, about in steps:
            if step == "wait":
                assert isinstance(about, int)
                now += about
            elif step == "judge":
                assert isinstance(about, list)
                envelope = Envelope(Address("bot@a.test"), tuple(Recipient(one) for one in about))
                found = sending.judge(caller, envelope, FIELDS)
                if isinstance(found, Permit):
                    pending.append((found, set(about)))
            elif pending:
                assert isinstance(about, int)
                permit, to = pending.pop(about % len(pending))
                if step == "release":
                    permit.release()
                    continue
                permit.settle()
                accepted.append((now, to))
                if now < start + 86_400:  # all in the one window that has been open from the start
                    self.assertTrue(not messages or len(accepted) <= messages)
                    count = sum(len(each) for _, each in accepted)
                    self.assertTrue(not recipients or count <= recipients)
                if first:
                    self.assertLessEqual(contacts.since("key:bot", now - 86_400), first)
        for permit, _ in pending:
            permit.release()
        self.assertEqual(sending._pending, {})
