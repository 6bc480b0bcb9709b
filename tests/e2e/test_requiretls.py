"""Mail that requires TLS on its whole way (RFC 8689).

smtplib  -- STARTTLS, REQUIRETLS -->  protege-mta  -- which host? -->  nsd
                                          |-- verified, REQUIRETLS -->  another protege-mta  -->  Maildir
                                          |-- not a word -->  smtp-sink, which knows no TLS
                                          |-- DSNs -->  Maildirs of local.test, where the senders are
"""

from __future__ import annotations

import smtplib
import ssl
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Final

from protege_mta.testing.authority import Authority
from protege_mta.testing.nameserver import NameServer
from protege_mta.testing.peers import SmtpSink, free_port

from .service import WAIT_S, Event, Service, ServiceTestCase

ZONE: Final = """\
$TTL 300
.               SOA     ns.test. hostmaster.test. 1 3600 600 86400 60
.               NS      ns.test.
$ORIGIN test.
ns              A       127.0.0.1
secure          A       127.0.0.61
plain           A       127.0.0.62
unproven        MX      10 secure
unlike          A       127.0.0.61
"""

FIRST: Final = """
[tls]
certificate = "127.0.0.1.pem"
private_key = "127.0.0.1.key"

[dns]
nameservers = ["127.0.0.1:{dns}"]

[outbound]
route = "mx"
mx_port = {port}
prohibited_networks = []

[workers]
delivery = "process"
"""

SECOND: Final = """
mode = "local"
hostname = "secure.test"
state_dir = "state"
run_dir = "run"

[[listener]]
kind = "smtp"
address = "127.0.0.61"
port = {port}

[tls]
certificate = "secure.test.pem"
private_key = "secure.test.key"

[policy]
authenticate = false

[limits]
free_octets = 0
free_inodes = 0
"""

DOMAIN: Final = """
[domains."{name}.test"]
deliver = "maildir"
maildir = "mail/{{domain}}/{{local_part}}"
recipients = ["*"]
"""
CONTENT: Final = b"Subject: private\r\n\r\nNobody else's business.\r\n"


class RequireTlsTests(ServiceTestCase):
    second: ClassVar[Service]
    sink: ClassVar[SmtpSink]
    ca_file: ClassVar[Path]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        server = NameServer(ZONE)
        stack.callback(server.stop)
        port = free_port()
        domains = "".join(DOMAIN.format(name=name) for name in ("secure", "unproven", "unlike"))
        cls.second = second = Service(domains, top=SECOND.format(port=port))
        stack.callback(second.close)
        authority = Authority(second.folder)
        cls.ca_file = authority.ca_file
        authority.issue("secure.test")
        second.start()
        cls.sink = SmtpSink(address="127.0.0.62", port=port, keeps=True)
        stack.callback(cls.sink.stop)
        tables = FIRST.format(dns=server.port, port=port)
        # The system's authorities, as far as this process sees.
        environment = {"SSL_CERT_FILE": str(authority.ca_file)}
        cls.service = service = Service(tables, environment=environment)
        stack.callback(service.close)
        for path in authority.issue("127.0.0.1"):
            path.rename(service.folder / path.name)
        service.start()

    def sent(self, name: str, *options: str, to: str = "b") -> Event:
        """What becomes of a message with REQUIRETLS to ``to@NAME.test``."""
        port = self.service.port("relay")
        with smtplib.SMTP("127.0.0.1", port, "client.test", WAIT_S) as client:
            client.ehlo()
            self.assertFalse(client.has_extn("requiretls"))
            client.starttls(context=ssl.create_default_context(cafile=str(self.ca_file)))
            client.ehlo()
            self.assertTrue(client.has_extn("requiretls"))
            client.sendmail(
                f"{to}-{name}@local.test", [f"{to}@{name}.test"], CONTENT, ["REQUIRETLS", *options]
            )
        return self.service.fate(f"{to}@{name}.test")

    def refused(self, name: str, why: str) -> None:
        """It comes back, without its body, and nobody else has seen it."""
        event = self.sent(name, "RET=FULL")
        self.assertEqual((event["event"], event["reply"]["enhanced"]), ("bounced", "5.7.30"))
        self.assertIn(why, event["reply"]["text"])
        [report] = self.service.wait_for_mail(f"b-{name}")
        self.assertIn(b"\nStatus: 5.7.30\n", report)
        self.assertIn(b"\nSubject: private\n", report)
        self.assertNotIn(b"business", report)

    def test_all_the_way(self) -> None:
        event = self.sent("secure")
        self.assertEqual(event["event"], "delivered")
        self.assertTrue(event["tls"]["verified"])
        [mail] = self.second.wait_for_mail("b", domain="secure.test")
        self.assertIn(b"with ESMTPS", mail)

    def test_where_it_cannot_go(self) -> None:
        self.refused("plain", "TLS is not offered")
        self.refused("unproven", "DNS does not prove")
        self.refused("unlike", "the certificate is not to be trusted")
        self.assertEqual(self.sink.captured(), [])
        self.assertEqual(self.second.maildir("unproven.test", "b"), [])

    def test_not_in_clear(self) -> None:
        port = self.service.port("relay")
        with smtplib.SMTP("127.0.0.1", port, "client.test", WAIT_S) as client:
            client.ehlo()
            code, text = client.mail("a@local.test", ["REQUIRETLS"])
        self.assertEqual((code, text[:7]), (530, b"5.7.10 "))
