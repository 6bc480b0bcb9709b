"""Mail to other hosts is signed and sent by a process of its own.

client  --SMTP-->  protege-mta  --link-->  its delivery process  -- smarthost -->  smtp-sink
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from bench.processes import tree
from protege_mta.testing.peers import SmtpSink
from protege_mta.transport.delegate import MOST_OCTETS

from .service import Service, send, until

TABLES: Final = """
[workers]
delivery = "process"

[retry]
first_s = 1
jitter = 0

[outbound]
route = "smarthost"
smarthost = { host = "127.0.0.1", port = PORT, tls = "none" }

[dkim."signed.test"]
selectors = [
    { name = "rsa", private_key = "made/keys/rsa.pem" },
    { name = "ed25519", private_key = "made/keys/ed25519.pem" },
]
"""
CONTENT: Final = b"From: a@signed.test\r\nSubject: %b\r\n\r\n%b\r\n"


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class DeliveryProcessTests(SynchronousTestCase):
    def setUp(self) -> None:
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.sink = SmtpSink("-w", "1", keeps=True)  # a second to answer DATA
        stack.callback(self.sink.stop)
        self.service = service = Service(TABLES.replace("PORT", str(self.sink.port)))
        stack.callback(service.close)
        made = service.cli("init", "made", "--domain", "signed.test")
        self.assertEqual(made.returncode, 0, made.stderr.decode())
        service.start()
        self.child = self.deliverer()

    def deliverer(self, but: int = 0) -> int:
        """The delivery process, once it delivers."""

        def found() -> int | None:
            for pid in tree([self.service.pid])[1:]:
                if pid != but and f"process {pid} delivers" in self.service.log():
                    return pid
            return None

        return until(found, "a delivery process")

    def send(self, subject: bytes, body: bytes = b"Hello.") -> None:
        send(self.service.port("relay"), "a@signed.test", "b@dest.test", CONTENT % (subject, body))

    def came(self, subject: bytes) -> list[bytes]:
        line = b"\nSubject: " + subject + b"\n"
        return [octets for octets in self.sink.captured() if line in octets]

    def test_it_signs_and_sends(self) -> None:
        self.send(b"first")
        self.assertEqual(self.service.fate("b@dest.test")["event"], "delivered")
        [octets] = self.came(b"first")
        self.assertEqual(octets.count(b"\nDKIM-Signature: "), 2)
        row = json.loads(self.service.cli("status", "--json").stdout)
        self.assertEqual(row["connections"]["out"], 1)

    def test_it_is_killed_with_mail_in_hand(self) -> None:
        """The mail is tried again, by another one."""
        self.send(b"killed")
        until(lambda: self.is_under_way() or None, "a delivery under way")
        os.kill(self.child, signal.SIGKILL)
        deferred = self.service.event("deferred", recipient="b@dest.test")
        self.assertEqual(deferred["reply"]["enhanced"], "4.3.0")
        self.assertEqual(self.service.fate("b@dest.test")["event"], "delivered")
        self.assertNotEqual(self.deliverer(but=self.child), self.child)
        self.assertGreaterEqual(len(self.came(b"killed")), 1)

    def is_under_way(self) -> bool:
        """Whether anybody is connected to the sink."""
        sink, established = f":{self.sink.port:04X}", "01"
        rows = map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
        return any(row[2].endswith(sink) and row[3] == established for row in rows)

    def test_what_is_too_big_for_it_goes_all_the_same(self) -> None:
        body = b"\r\n".join([b"x" * 70] * (MOST_OCTETS // 70))
        self.send(b"big", body)
        self.assertEqual(self.service.fate("b@dest.test")["event"], "delivered")
        [octets] = self.came(b"big")
        self.assertIn(body.replace(b"\r\n", b"\n"), octets)
        self.assertEqual(octets.count(b"\nDKIM-Signature: "), 2)

    def test_it_works_by_what_a_reload_says(self) -> None:
        other = SmtpSink(keeps=True)
        self.addCleanup(other.stop)
        self.service.configure(TABLES.replace("PORT", str(other.port)))
        self.service.reload()
        self.send(b"rerouted")
        self.assertEqual(self.service.fate("b@dest.test")["event"], "delivered")
        self.assertEqual((len(other.captured()), self.came(b"rerouted")), (1, []))
        self.assertTrue(is_there(self.child))

    def test_it_ends_its_message_when_the_service_stops(self) -> None:
        self.send(b"last")
        self.service.terminate()
        self.assertFalse(is_there(self.child))
        self.assertEqual(self.service.fate("b@dest.test")["event"], "delivered")
        self.assertEqual(len(self.came(b"last")), 1)

    def test_signals_for_the_whole_group_do_not_end_it_early(self) -> None:
        self.send(b"group")
        os.kill(self.child, signal.SIGTERM)
        os.kill(self.child, signal.SIGINT)
        self.service.terminate()
        self.assertEqual(self.service.fate("b@dest.test")["event"], "delivered")

    def test_it_goes_with_a_service_that_is_killed(self) -> None:
        self.service.kill()
        until(lambda: not is_there(self.child) or None, "the end of the delivery process")


class NoDeliveryProcessTests(SynchronousTestCase):
    def test_the_service_does_it_by_itself(self) -> None:
        service = Service('[workers]\ndelivery = "main"\n')
        self.addCleanup(service.close)
        service.start()
        self.assertEqual(tree([service.pid]), [service.pid])
