"""Mail by MX, with a real name server and real hosts on loopback.

client  -->  protege-mta  -- which hosts? -->  nsd
                  |-- SMTP, one port -->  smtp-sink on 127.0.0.21, .22 and others; nobody on .20
                  |-- DSNs -->  Maildirs of local.test, where the senders are
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import ClassVar, Final

from protege_mta.testing.nameserver import NameServer
from protege_mta.testing.peers import SmtpSink, free_port

from . import dsns
from .service import Event, ServiceTestCase, send, until

EQUALS: Final = "".join(
    f"""\
equals-{number}        MX      10 a-{number}
                MX      10 b-{number}
a-{number}             A       127.0.0.21
b-{number}             A       127.0.0.22
"""
    for number in range(16)
)
"""Sixteen domains, each with two equal hosts of its own."""

ZONE: Final = f"""\
$TTL 300
.               SOA     ns.test. hostmaster.test. 1 3600 600 86400 60
.               NS      ns.test.
$ORIGIN test.
ns              A       127.0.0.1
dead            A       127.0.0.20
a               A       127.0.0.21
b               A       127.0.0.22
mx.local        A       127.0.0.1

one             MX      10 a
dead-first      MX      10 dead
                MX      20 a
null            MX      0 .
implicit        A       127.0.0.21
alias           CNAME   one
aliased-host    MX      10 also-a
also-a          CNAME   a
void            MX      10 nobody
{EQUALS}ours            MX      10 mx.local
                MX      20 a
ours-second     MX      10 dead
                MX      20 mx.local
                MX      30 a

; each host of these fails in its own way
busy            A       127.0.0.31
hard            A       127.0.0.32
cut             A       127.0.0.33
shut            A       127.0.0.34
closing         A       127.0.0.35
end             A       127.0.0.36
busy-then-good  MX      10 busy
                MX      20 a
cut-then-good   MX      10 cut
                MX      20 a
away            A       127.0.0.40
"""

FAILING: Final = {
    31: ("-r", "RCPT"),
    32: ("-f", "RCPT"),
    33: ("-q", "DATA"),
    34: ("-f", "CONNECT"),
    35: ("-Q", "MAIL"),
    36: ("-f", "."),
}
"""The last number of a host's address, and what smtp-sink refuses or breaks off at there."""

TABLES: Final = """
[dns]
nameservers = ["127.0.0.1:{dns}"]

[outbound]
route = "mx"
mx_port = {port}
{more}

[retry]
first_s = 1
max_interval_s = 2
jitter = 0
"""


class MxTestCase(ServiceTestCase):
    more: ClassVar[str] = "prohibited_networks = []"
    port: ClassVar[int]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        server = NameServer(ZONE)
        stack.callback(server.stop)
        cls.port = free_port()
        cls.open_hosts(stack)
        tables = TABLES.format(dns=server.port, port=cls.port, more=cls.more)
        cls.service = cls.started(stack, tables)

    @classmethod
    def open_hosts(cls, stack: ExitStack) -> None:
        """Start the hosts of the zone that live."""

    @classmethod
    def host(cls, number: int, *flags: str, keeps: bool = False) -> SmtpSink:
        return SmtpSink(*flags, address=f"127.0.0.{number}", port=cls.port, keeps=keeps)

    def sent(self, domain: str, name: str = "") -> str:
        """Send one message to ``b@domain``.

        :param name: the sender's local-part; the domain's first label if left out.
        :return: the sender's local-part.
        """
        name = name or domain.partition(".")[0]
        content = f"Message-ID: <{name}@client.test>\r\nSubject: {name}\r\n\r\nhello\r\n"
        relay = self.service.port("relay")
        send(relay, f"{name}@local.test", f"b@{domain}", content.encode())
        return name

    def bounced(self, domain: str) -> tuple[Event, dsns.Dsn]:
        """The event of a message to the domain, and the DSN that its sender got."""
        name = self.sent(domain)
        event = self.service.event("bounced", recipient=f"b@{domain}")
        [octets] = self.service.wait_for_mail(name)
        found = dsns.read(octets)
        self.assertEqual(found.header["In-Reply-To"], f"<{name}@client.test>")
        self.assertIn(f"Message-ID: <{name}@client.test>", found.returned)
        self.assertEqual(found.action, "failed")
        self.assertEqual(found.recipients[0]["Final-Recipient"], f"rfc822; b@{domain}")
        self.assertEqual(found.status, event["reply"]["enhanced"])
        self.assertEqual(
            event["dsn"] + ".0.0",
            self.service.event("received", recipient=f"{name}@local.test", source="internal")["id"],
        )
        return event, found


class RoutingTests(MxTestCase):
    a: ClassVar[SmtpSink]
    b: ClassVar[SmtpSink]

    @classmethod
    def open_hosts(cls, stack: ExitStack) -> None:
        cls.a, cls.b = cls.host(21, keeps=True), cls.host(22, keeps=True)
        stack.callback(cls.a.stop)
        stack.callback(cls.b.stop)

    def arrives_at(self, sinks: Sequence[SmtpSink], name: str) -> bytes:
        """The message of this sender, at one of the hosts."""
        wanted = f"Subject: {name}\n".encode()
        return until(
            lambda: next((one for sink in sinks for one in sink.captured() if wanted in one), None),
            f"{name} at a host",
        )

    def test_a_dead_first_host(self) -> None:
        """Costs no deferral: the second is tried in the same attempt."""
        name = self.sent("dead-first.test")
        event = self.service.fate("b@dead-first.test")
        self.assertEqual((event["attempt"], event["mx"]), (1, "a.test"))
        self.assertEqual(event["peer_address"], "127.0.0.21")
        self.arrives_at([self.a], name)

    def test_an_implicit_mx(self) -> None:
        name = self.sent("implicit.test")
        event = self.service.fate("b@implicit.test")
        self.assertEqual((event["event"], event["mx"]), ("delivered", "implicit.test"))
        self.arrives_at([self.a], name)

    def test_an_alias(self) -> None:
        """Followed for the domain and for a host; the recipient stays as it was."""
        for domain, host in (("alias.test", "a.test"), ("aliased-host.test", "also-a.test")):
            name = self.sent(domain)
            self.assertEqual(self.service.fate(f"b@{domain}")["mx"], host)
            self.assertIn(f"X-Rcpt-Args: <b@{domain}>\n".encode(), self.arrives_at([self.a], name))

    def test_equals_share(self) -> None:
        """Each domain's choice is its own throw; all alike would come once in 32,768 runs."""
        for number in range(16):
            self.sent(f"equals-{number}.test")
        chosen = [
            self.service.fate(f"b@equals-{number}.test")["peer_address"] for number in range(16)
        ]
        self.assertEqual(set(chosen), {"127.0.0.21", "127.0.0.22"})

    def test_a_null_mx(self) -> None:
        event, _ = self.bounced("null.test")
        self.assertEqual(event["reply"]["enhanced"], "5.1.10")

    def test_no_such_domain(self) -> None:
        event, _ = self.bounced("nowhere.example")
        self.assertEqual(event["reply"]["enhanced"], "5.1.2")

    def test_no_host_has_an_address(self) -> None:
        event, _ = self.bounced("void.test")
        self.assertEqual(event["reply"]["enhanced"], "5.4.4")

    def test_we_are_the_best_host(self) -> None:
        """A domain that we do not serve points to us: no worse host is given its mail."""
        event, _ = self.bounced("ours.test")
        self.assertEqual(event["reply"]["enhanced"], "5.4.6")

    def test_no_host_behind_us(self) -> None:
        """RFC 5321, 5.1: with the better ones dead, the mail waits for them."""
        name = self.sent("ours-second.test")
        for attempt in (1, 2):
            event = self.service.event("deferred", recipient="b@ours-second.test", attempt=attempt)
            self.assertEqual(event["reply"]["enhanced"], "4.4.1")
        for one in self.a.captured():
            self.assertNotIn(f"Subject: {name}\n".encode(), one)


class FailingHostTests(MxTestCase):
    a: ClassVar[SmtpSink]

    @classmethod
    def open_hosts(cls, stack: ExitStack) -> None:
        cls.a = cls.host(21, keeps=True)
        stack.callback(cls.a.stop)
        for number, flags in FAILING.items():
            stack.callback(cls.host(number, *flags).stop)

    def test_refused_for_now(self) -> None:
        """Deferred, with the peer's own words, and tried again when the event says."""
        self.sent("busy.test")
        event = self.service.event("deferred", recipient="b@busy.test", attempt=1)
        self.assertEqual(
            event["reply"], {"code": 450, "enhanced": "4.3.0", "text": "Error: command failed"}
        )
        self.assertEqual((event["mx"], event["bounce_class"]), ("busy.test", "TransientFailure"))
        again = self.service.event("deferred", recipient="b@busy.test", attempt=2)
        self.assertGreaterEqual(again["at"], event["next_attempt_at"])

    def test_refused_for_good(self) -> None:
        """Bounced with the peer's code and words."""
        for domain in ("hard.test", "end.test"):
            event, found = self.bounced(domain)
            self.assertEqual(event["reply"]["code"], 500)
            self.assertEqual(event["reply"]["enhanced"], "5.3.0")
            self.assertIn("500 5.3.0 Error: command failed", found.text)
            fields = found.recipients[0]
            self.assertEqual(fields["Diagnostic-Code"], "smtp; 500 5.3.0 Error: command failed")
            self.assertEqual(fields["Remote-MTA"], f"dns; {domain}")

    def test_cut_off(self) -> None:
        """In the middle, at the door, or with a farewell: always later."""
        for domain in ("cut.test", "shut.test", "closing.test"):
            self.sent(domain)
            event = self.service.event("deferred", recipient=f"b@{domain}", attempt=2)
            self.assertEqual(event["mx"], domain)

    def test_the_next_host(self) -> None:
        """Takes what the first one fails at; one that says 450 to a recipient has answered."""
        self.sent("cut-then-good.test")
        event = self.service.fate("b@cut-then-good.test")
        self.assertEqual((event["mx"], event["attempt"]), ("a.test", 1))

    def test_recovery(self) -> None:
        """A host that comes back gets all that has waited for it, and each once."""
        names = [self.sent("away.test", f"away-{number}") for number in range(20)]
        self.service.event("deferred", recipient="b@away.test")
        back = self.host(40, keeps=True)
        self.addCleanup(back.stop)
        until(lambda: len(back.captured()) >= 20 or None, "20 messages")
        subjects = [f"Subject: {name}\n".encode() for name in names]
        counts = [sum(one in octets for octets in back.captured()) for one in subjects]
        self.assertEqual(counts, [1] * 20)


class ProhibitedTests(MxTestCase):
    """The default: nobody's MX record makes us connect to our own networks."""

    more = ""
    a: ClassVar[SmtpSink]

    @classmethod
    def open_hosts(cls, stack: ExitStack) -> None:
        cls.a = cls.host(21, "-c", keeps=True)
        stack.callback(cls.a.stop)

    def test_loopback(self) -> None:
        for domain in ("one.test", "implicit.test"):
            event, _ = self.bounced(domain)
            self.assertEqual(event["reply"]["enhanced"], "5.4.4")
        self.assertEqual(self.a.captured(), [])


class DeadNameServerTests(MxTestCase):
    """Nobody answers our questions."""

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.port = free_port()
        tables = TABLES.format(dns=free_port(), port=cls.port, more="")
        cls.service = cls.started(stack, tables)

    def test_mail_waits(self) -> None:
        """It is our trouble, and nobody's mail is returned for it."""
        self.sent("one.test")
        event = self.service.event("deferred", recipient="b@one.test")
        self.assertEqual(event["reply"]["enhanced"], "4.4.3")
        self.assertIn("next_attempt_at", event)
