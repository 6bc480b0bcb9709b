"""The clock of the machine is set while the service runs: by an hour, either way.

agents, clients  -->  relay server, which libfaketime tells the time  -->  smtp-sink
"""

from __future__ import annotations

import smtplib
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar, Final

from twisted.trial.unittest import SkipTest

from protege_mta.testing.agents import Closed, TunnelAgent

from .relay_server import RelayServer
from .service import ServiceTestCase, until

HOUR_S: Final = 3600


def libfaketime() -> Path:
    """What takes the place of the C library's clock.  :raise SkipTest: it is not installed."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        raise SkipTest("libfaketime is not installed (Debian package faketime)")
    return found[0]


class ClockCase(ServiceTestCase):
    relay: ClassVar[RelayServer]
    offset: ClassVar[Path]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        library = libfaketime()
        cls.offset = Path(mkdtemp(prefix="e2e-")) / "offset"
        stack.callback(cls.offset.parent.rmdir)
        stack.callback(cls.offset.unlink)
        cls.set_clock(0)
        # As the kernel does it: what counts from the start of the machine is never set.
        cls.relay = RelayServer(
            stack,
            environment={
                "LD_PRELOAD": str(library),
                "FAKETIME_TIMESTAMP_FILE": str(cls.offset),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            },
        )
        cls.service = cls.relay.service
        cls.service.start()

    @classmethod
    def set_clock(cls, ahead_s: int) -> None:
        """:param ahead_s: of the true time, in whole seconds."""
        cls.offset.write_text(f"{ahead_s:+d}\n", "ascii")

    def agent(self) -> TunnelAgent:
        """One that has logged in."""
        agent = TunnelAgent()
        self.addCleanup(agent.close)
        agent.connect(self.service.port("http"))
        self.assertEqual(agent.log_in()["type"], "auth_ok")
        return agent

    def send(self, agent: TunnelAgent, subject: str) -> None:
        """An agent's message goes out by the smarthost."""
        address = f"{agent.identity}@agents.test"
        content = f"From: {address}\r\nSubject: {subject}\r\n\r\n".encode()
        self.assertEqual(agent.send(address, "b@far.test", content)["status"], "sent")
        wanted = f"\nSubject: {subject}\n".encode()
        until(lambda: any(wanted in one for one in self.relay.sink.captured()), subject)

    def hour(self, subject: str) -> int:
        """Of a message's arrival, by the service's clock: hours that it is ahead, rounded."""
        at = self.service.event("received", subject=subject)["at"]
        said = time.strptime(at[:19], "%Y-%m-%dT%H:%M:%S")
        seconds = (time.mktime(said) - time.timezone) - time.time()
        return round(seconds / HOUR_S)


class BackTests(ClockCase):
    def test_nothing_waits_for_the_hour_to_come_again(self) -> None:
        """Mail goes on, a key that is revoked has to leave, and the service can be stopped."""
        agent = self.agent()
        self.send(agent, "before")
        self.set_clock(-HOUR_S)
        self.send(agent, "behind")
        self.assertEqual(self.hour("behind"), -1)
        self.assertEqual(self.service.cli("tunnel", "revoke", agent.identity).returncode, 0)
        began_at = time.monotonic()
        with self.assertRaises(Closed) as caught:
            agent.read()
        self.assertEqual(caught.exception.reason, "identity_not_allowed")
        self.assertLess(time.monotonic() - began_at, 3)
        began_at = time.monotonic()
        self.service.restart()
        self.assertLess(time.monotonic() - began_at, 20)


class ForwardTests(ClockCase):
    def setUp(self) -> None:
        super().setUp()
        self.set_clock(0)

    def test_nobody_has_been_silent_for_an_hour(self) -> None:
        """Sessions, their streams and SMTP conversations that are under way go on."""
        agent = self.agent()
        self.send(agent, "before")
        stream_id = agent.start(f"{agent.identity}@agents.test", "c@far.test")
        agent.chunk(stream_id, f"From: {agent.identity}@agents.test\r\n".encode())
        with smtplib.SMTP("127.0.0.1", self.service.port("relay"), "client.test") as client:
            client.ehlo()
            self.assertEqual(client.mail("a@far.test")[0], 250)
            self.set_clock(HOUR_S)
            time.sleep(3)  # more than one look at who is silent
            self.assertEqual(client.rcpt("d@far.test")[0], 250)
            self.assertEqual(client.data(b"Subject: by SMTP\r\n\r\n")[0], 250)
        agent.chunk(stream_id, b"Subject: across\r\n\r\n")
        agent.end(stream_id)
        self.assertEqual(agent.heard()["status"], "sent")
        self.send(agent, "ahead")
        self.assertEqual(self.hour("ahead"), 1)

    def test_a_login_that_is_under_way(self) -> None:
        """Has all its time; when it would be over is told by the time of day."""
        agent = TunnelAgent()
        self.addCleanup(agent.close)
        agent.connect(self.service.port("http"))
        before = agent.ask()
        self.set_clock(HOUR_S)
        after = agent.ask()
        self.assertEqual(self.minutes_between(before, after), 60)
        self.assertEqual(agent.prove(before)["type"], "auth_ok")

    def minutes_between(self, *challenges: Mapping[str, Any]) -> int:
        """Of the ends of two challenges, rounded."""
        first, last = (datetime.fromisoformat(one["expiresAt"]) for one in challenges)
        return round((last - first).total_seconds() / 60)
