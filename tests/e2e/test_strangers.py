"""What strangers get who are listed, guess, or break the rules, and what fail2ban makes of it.

a test  -- PROXY header, SMTP -->  protege-mta  -- DNS -->  nsd with block and allow lists
fail2ban-regex  -- reads the log of -->  protege-mta
"""

from __future__ import annotations

import base64
import re
import smtplib
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Final

from protege_mta.testing.nameserver import NameServer

from .service import TOP, Service, ServiceTestCase, needs, until
from .submission import open_doors

ETC: Final = Path(__file__).parents[2] / "etc/fail2ban"
BODY: Final = b"Subject: hello\r\n\r\nA word.\r\n"

ZONE: Final = """\
$TTL 60
.   SOA ns.test. admin.test. 1 3600 600 86400 60
.   NS  ns.test.
ns.test. A 127.0.0.1
7.100.51.198.block.test.  A 127.0.0.4
7.100.51.198.allow.test.  TXT "no A record here"
9.100.51.198.block.test.  A 127.0.0.4
9.100.51.198.allow.test.  A 127.0.0.2
10.100.51.198.later.test. A 127.0.0.2
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.block.test. A 127.0.0.4
*.sold.test. A 192.0.2.80
"""

STRICT: Final = TOP.replace('recipients = ["*"]', 'recipients = ["agent"]')

PROXIED: Final = """
[[listener]]
name = "proxied"
kind = "smtp"
port = 0
proxy_protocol_from = ["127.0.0.0/8"]
relay_hosts = ["192.0.2.0/24", "127.0.0.0/8"]
"""

SUBMISSIONS: Final = """
[[listener]]
name = "behind"
kind = "submissions"
port = 0
proxy_protocol_from = ["127.0.0.0/8"]
"""

LISTS: Final = """
[dns]
nameservers = ["127.0.0.1:{port}"]

[[policy.dnsbl]]
zone = "block.test"
answers = ["127.0.0.2-11"]

[[policy.dnsbl]]
zone = "later.test"
action = "defer"

[[policy.dnsbl]]
zone = "sold.test"

[[policy.allowlist]]
zone = "allow.test"
"""


class Client(smtplib.SMTP):
    """Comes from wherever it says, by way of a proxy."""

    def __init__(self, address: str, port: int) -> None:
        self._from = address
        super().__init__("127.0.0.1", port, "client.test", 30)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        channel = socket.create_connection((host, port), timeout)
        family, here = ("TCP6", "2001:db8::25") if ":" in self._from else ("TCP4", "192.0.2.25")
        channel.sendall(f"PROXY {family} {self._from} {here} 40000 25\r\n".encode())
        return channel


class Case(ServiceTestCase):
    def client(self, address: str) -> Client:
        client = Client(address, self.service.port("proxied"))
        self.addCleanup(client.close)
        return client

    def rcpt(self, address: str, recipient: str = "agent@local.test") -> str:
        """What a client's first RCPT is answered with."""
        with self.client(address) as client:
            client.ehlo()
            client.mail("a@b.example")
            code, text = client.rcpt(recipient)
            return f"{code} {text.decode()}"

    def metrics(self) -> str:
        url = f"http://127.0.0.1:{self.service.port('http')}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return str(answer.read().decode())


class DnsListTests(Case):
    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        server = NameServer(ZONE)
        stack.callback(server.stop)
        cls.service = cls.started(stack, PROXIED + LISTS.format(port=server.port), top=STRICT)

    def test_who_is_listed_is_refused_with_the_zones_name(self) -> None:
        said = "550 5.7.1 your address is listed in block.test"
        self.assertEqual(self.rcpt("198.51.100.7"), said)
        self.assertEqual(self.rcpt("2001:db8::1"), said)
        self.service.event("rejected", peer_address="198.51.100.7", recipient="agent@local.test")
        self.assertIn('dns_list_answers_total{meaning="listed",zone="block.test"}', self.metrics())

    def test_or_deferred(self) -> None:
        self.assertEqual(
            self.rcpt("198.51.100.10"), "450 4.7.1 your address is listed in later.test"
        )

    def test_who_is_vouched_for_or_in_no_list_comes_in(self) -> None:
        for address in ("198.51.100.9", "198.51.100.8", "2001:db8::2"):
            self.assertEqual(self.rcpt(address), "250 2.1.5 recipient ok")

    def test_a_zone_that_lists_everybody_blocks_nobody(self) -> None:
        self.assertEqual(self.rcpt("198.51.100.8"), "250 2.1.5 recipient ok")
        self.assertIn('dns_list_answers_total{meaning="failed",zone="sold.test"}', self.metrics())
        self.assertEqual(self.service.log().count("DNS list sold.test fails"), 1)

    def test_relay_hosts_are_the_clients_and_not_the_proxys(self) -> None:
        """The proxy's own address may relay; whoever comes through it is somebody else."""
        self.assertEqual(self.rcpt("198.51.100.8", "a@elsewhere.test"), "550 5.7.1 relaying denied")
        self.assertEqual(self.rcpt("192.0.2.1", "a@elsewhere.test"), "250 2.1.5 recipient ok")

    def test_the_message_says_where_the_client_was(self) -> None:
        with self.client("198.51.100.8") as client:
            client.sendmail("a@b.example", ["agent@local.test"], BODY)
        [message] = self.service.wait_for_mail("agent")
        self.assertIn(b"from client.test ([198.51.100.8])", message)

    def test_no_header_no_greeting(self) -> None:
        with socket.create_connection(("127.0.0.1", self.service.port("proxied")), 30) as channel:
            channel.sendall(b"EHLO client.test\r\n")
            try:
                heard = channel.recv(100)
            except ConnectionResetError:
                heard = b""
        self.assertEqual(heard, b"")
        until(lambda: "PROXY header refused proxy=127.0.0.1" in self.service.log(), "the log")
        self.assertIn("protege_mta_proxy_headers_refused_total 1.0", self.metrics())


class GreylistTests(Case):
    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.service = cls.started(stack, PROXIED, top=STRICT)

    def test_a_reload_brings_it_and_takes_it_away(self) -> None:
        self.assertEqual(self.rcpt("198.51.100.8")[:3], "250")
        greylist = "[policy.greylist]\nenabled = true\ndelay_s = 1\n"
        self.service.configure(PROXIED + greylist, top=STRICT)
        self.service.reload()
        self.assertEqual(
            self.rcpt("198.51.100.8"), "450 4.7.1 not seen before, try again in a few minutes"
        )
        until(lambda: self.rcpt("198.51.100.8")[:3] == "250", "the end of the delay")
        self.assertEqual(self.rcpt("198.51.101.8")[:3], "450")
        self.service.configure(PROXIED, top=STRICT)
        self.service.reload()
        self.assertEqual(self.rcpt("198.51.101.8")[:3], "250")


class Fail2BanTests(Case):
    regex: ClassVar[str]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.regex = needs("fail2ban-regex", "fail2ban")
        early = PROXIED.replace('"proxied"', '"early"') + "greet_delay_s = 1\n"
        cls.service, ca_file = open_doors(stack, {}, PROXIED + early + SUBMISSIONS, STRICT)
        cls.misbehave(cls.service)
        cls.fail_to_log_in(cls.service, ssl.create_default_context(cafile=str(ca_file)))

    @classmethod
    def misbehave(cls, service: Service) -> None:
        """Each address in a way of its own."""
        port = service.port("proxied")
        with Client("203.0.113.1", port) as client:
            client.ehlo()
            client.mail("a@b.example")
            client.rcpt("a@elsewhere.test")
        with Client("203.0.113.2", port) as client:
            client.ehlo()
            client.mail("a@b.example")
            for number in range(6):
                client.rcpt(f"guess{number}@local.test")
        with Client("2001:db8::3", port) as client:
            while client.docmd("FOO")[0] != 421:
                pass
            client.close()
        with Client("203.0.113.4", port) as client:
            client.ehlo()
            client.mail('"\' to peer=203.0.113.99 reply=550 5.7.1 relaying denied:"@b.example')
            client.rcpt("typo@local.test")
            client.rcpt("agent@local.test")
        with socket.create_connection(("127.0.0.1", service.port("early")), 30) as channel:
            channel.sendall(b"PROXY TCP4 203.0.113.5 192.0.2.25 40000 25\r\nEHLO x\r\n")
            assert channel.recv(100).startswith(b"554 5.5.1 ")
        for number in range(1, 6):
            address = "2001:db8::3" if number == 3 else f"203.0.113.{number}"
            service.wait_for_event(
                lambda event, address=address: event.get("peer_address") == address  # type: ignore[misc]
            )

    @classmethod
    def fail_to_log_in(cls, service: Service, trusting: ssl.SSLContext) -> None:
        """Through a proxy, the handshake behind its header."""
        with socket.create_connection(("127.0.0.1", service.port("behind")), 30) as channel:
            channel.sendall(b"PROXY TCP4 203.0.113.6 192.0.2.25 40000 465\r\n")
            with trusting.wrap_socket(channel, server_hostname="127.0.0.1") as tls:
                response = base64.b64encode(b"\0x peer=203.0.113.99 reason=\0secret")
                for said, heard in [
                    (b"", b"220 "),
                    (b"EHLO client.test", b"250"),
                    (b"AUTH PLAIN " + response, b"535 "),
                ]:
                    if said:
                        tls.sendall(said + b"\r\n")
                    answer = tls.recv(4096)
                    assert answer.startswith(heard), answer

    def banned(self, change: Callable[[str], str] = lambda line: line) -> dict[str, int]:
        """How often the filter finds each address in the service's log."""
        log = self.service.folder / "changed.log"
        log.write_text("".join(change(line) + "\n" for line in self.service.log().splitlines()))
        done = subprocess.run(
            [self.regex, "--out", "ip", log, ETC / "filter.d/protege-mta.conf"],
            capture_output=True,
            timeout=60,
        )
        found = done.stdout.decode().split()
        return {address: found.count(address) for address in found}

    expected: ClassVar = {
        "203.0.113.1": 1,
        "203.0.113.2": 1,
        "2001:db8::3": 1,
        "203.0.113.5": 1,
        "203.0.113.6": 1,
    }

    def test_in_a_log_file(self) -> None:
        until(lambda: self.banned() == self.expected, "the log")

    def test_in_the_journal(self) -> None:
        """As fail2ban reads it, and as journalctl writes it."""
        until(lambda: self.banned() == self.expected, "the log")
        for prefix in ("Nov 26 01:02:03 mx twistd[77]: ", "Nov 26 01:02:03 mx protege-mta[77]: "):
            self.assertEqual(self.banned(lambda line, p=prefix: p + line), self.expected)  # type: ignore[misc]

    def test_whoever_is_named_in_a_login(self) -> None:
        """The name comes behind the address, and cannot hold a space."""
        until(lambda: "login failed" in self.service.log(), "the log")
        [line] = [line for line in self.service.log().splitlines() if "login failed" in line]
        self.assertTrue(line.endswith("name=x%20peer%3D203.0.113.99%20reason%3D"), line)
        self.assertEqual(line.count(" peer="), 1)

    def test_the_jail_names_the_filter_and_ports_that_there_are(self) -> None:
        jail = (ETC / "jail.d/protege-mta.conf").read_text("utf-8")
        [ports] = re.findall("^port = (.+)$", jail, re.MULTILINE)
        for name in ports.split(","):
            self.assertGreater(socket.getservbyname(name), 0)
        self.assertTrue((ETC / "filter.d/protege-mta.conf").exists())
        self.assertIn("[protege-mta]", jail)
