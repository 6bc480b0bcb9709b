"""What ``status`` prints for people."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.cli.status import flat


class FlatTests(SynchronousTestCase):
    def test_facts_become_lines(self) -> None:
        facts = {
            "mode": "relay",
            "uptime_s": 1.5,
            "queue": {"messages": 3},
            "names": ["a", "b"],
            "nobody": [],
            "relay": [
                {"name": "ann", "connected_since": 1_700_000_000.0, "next_attempt_at": None},
                {"name": "ben", "connected_since": None, "next_attempt_at": 1_700_000_060.5},
            ],
        }
        self.assertEqual(
            dict(flat("", facts)),
            {
                "mode": "relay",
                "uptime_s": "1.500",
                "queue.messages": "3",
                "names": "a, b",
                "nobody": "none",
                "relay.1.name": "ann",
                "relay.1.connected_since": "2023-11-14 22:13:20Z",
                "relay.1.next_attempt_at": "none",
                "relay.2.name": "ben",
                "relay.2.connected_since": "none",
                "relay.2.next_attempt_at": "2023-11-14 22:14:20Z",
            },
        )
