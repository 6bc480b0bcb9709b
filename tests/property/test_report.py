"""Whatever comes back, reading it never raises, and its work is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.report import Complaint, Notification, read
from protege_mta.model.address import Address, parse
from protege_mta.model.ids import QueueId
from protege_mta.model.return_path import Returned, ReturnPaths, Subscription, UnsubscribeLinks

from ..corpora import reports

SEEDS = sorted(reports().values())


def is_sound(report: Notification | Complaint | None) -> None:
    """What is in a report is text that may go anywhere."""
    match report:
        case Notification(statuses=statuses):
            for one in statuses:
                assert one.recipient is None or parse(one.recipient, is_smtputf8=True)
                assert one.reply.text
                assert one.reply.text.isprintable()
                assert one.reply.code // 100 in (2, 4, 5)
                str(one).encode()
        case Complaint(recipients=recipients):
            assert all(parse(one, is_smtputf8=True) for one in recipients)
            str(report).encode()


class ReportTests(SynchronousTestCase):
    @given(st.binary(max_size=400))
    def test_any_octets(self, octets: bytes) -> None:
        is_sound(read(octets))

    @given(st.sampled_from(SEEDS), st.integers(0, 4000), st.binary(max_size=20), st.integers(0, 60))
    def test_damaged_reports(self, seed: bytes, at: int, octets: bytes, cut: int) -> None:
        is_sound(read(seed[:at] + octets + seed[at + cut :]))

    @given(st.lists(st.sampled_from(b"".join(SEEDS).splitlines(True)), max_size=40))
    def test_lines_in_any_order(self, lines: list[bytes]) -> None:
        is_sound(read(b"".join(lines)))


class TokenTests(SynchronousTestCase):
    @given(st.integers(0, 32**4 - 2) | st.none(), st.floats(0, 4e9))
    def test_return_paths(self, recipient: int | None, now: float) -> None:
        paths = ReturnPaths(b"secret")
        id = QueueId("01k5vz4m00abcdefgh00000001")
        path = paths.address(id, recipient, "ours.test", now)
        self.assertEqual(paths.read(path, now), Returned(id, recipient))

    @given(st.text(max_size=80))
    def test_no_text_is_a_return_path(self, text: str) -> None:
        self.assertIsNone(ReturnPaths(b"secret").read(Address(text), None))

    @given(st.text(), st.text())
    def test_links(self, address: str, tenant: str) -> None:
        links = UnsubscribeLinks(b"secret")
        wanted = Subscription(address, tenant, "")
        self.assertEqual(links.read(links.token(wanted)), wanted)
        self.assertIsNone(links.read(address))
