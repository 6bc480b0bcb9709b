"""The submission door with any message in any pieces, and any number of sessions."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.account import Account, AccountLimits
from protege_mta.model.address import NULL
from protege_mta.model.envelope import Envelope
from protege_mta.model.reply import TABLE, Reply
from protege_mta.policy.header_first import HeaderFirst
from protege_mta.policy.usage import Reservation, Usage
from protege_mta.testing.doors import FakeIntake

PIECES = st.sampled_from(
    [b"From", b":", b" ", b"\r\n", b"\r", b"\n", b"\r\n\r\n", b"a@x.test", b"bad", b"\xff", b"From "]
)  # fmt: skip
MESSAGES = st.lists(PIECES, max_size=20).map(b"".join)

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "recipient", "recipient", "settle", "release", "wait"]),
        st.integers(0, 3),
    ),
    max_size=60,
)
LIMITS = st.builds(
    AccountLimits,
    messages_per_hour=st.integers(0, 3),
    messages_per_day=st.integers(0, 5),
    recipients_per_hour=st.integers(0, 5),
    recipients_per_day=st.integers(0, 8),
)


def look(fields: bytes) -> bytes | Reply:
    return TABLE["bad-author"] if b"bad" in fields else fields + b"Added: yes\r\n"


class HeaderFirstTests(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(octets=MESSAGES, cut=st.integers(1, 7))
    def test_chunks_are_not_seen(self, octets: bytes, cut: int) -> None:
        def sent(pieces: list[bytes]) -> tuple[Reply, bytes, str]:
            behind = FakeIntake(Envelope(NULL, ()))
            intake = HeaderFirst(behind, look)
            for piece in pieces:
                intake.write(piece)
            return self.successResultOf(intake.finish()), behind.content, behind.ended

        pieces = [octets[n : n + cut] for n in range(0, len(octets), cut)]
        self.assertEqual(sent(pieces), sent([octets]))


class UsageTests(SynchronousTestCase):
    @settings(max_examples=400, deadline=None)
    @given(limits=LIMITS, steps=STEPS)
    def test_no_limit_is_overrun(self, limits: AccountLimits, steps: list[tuple[str, int]]) -> None:
        """Whatever four sessions do; and what is counted is what they settled."""
        now = 0.0
        usage = Usage(lambda: now)
        account = Account(name="bot", password_hash="", limits=limits)
        open_now: dict[int, tuple[Reservation, int]] = {}
        settled: list[tuple[float, int]] = []
        for step, session in steps:
            mine = open_now.get(session)
            if step == "wait":
                if not open_now:  # so that the model need not know in which window one began
                    now += 1200.0 * session
            elif step == "begin":
                if (
                    mine is None
                    and (reservation := usage.begin(account.name, account.limits)) is not None
                ):
                    open_now[session] = reservation, 0
            elif mine is not None and step == "recipient":
                open_now[session] = mine[0], mine[1] + mine[0].add_recipient()
            elif mine is not None:
                del open_now[session]
                if step == "settle":
                    mine[0].settle()
                    settled.append((now, mine[1]))
                else:
                    mine[0].release()
            for _, start, length_s, messages, recipients in usage.rows():
                inside = [count for at, count in settled if start <= at < start + length_s]
                self.assertEqual((messages, recipients), (len(inside), sum(inside)))
                is_hour = length_s == 3600
                most = limits.messages_per_hour if is_hour else limits.messages_per_day
                self.assertTrue(not most or messages <= most)
                most = limits.recipients_per_hour if is_hour else limits.recipients_per_day
                self.assertTrue(not most or recipients <= most)
