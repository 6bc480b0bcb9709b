"""A right configuration becomes the values that it says, defaults filled in."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.config.credentials import secret
from protege_mta.config.domains import LmtpDomain, MaildirDomain
from protege_mta.config.embedded import embedded
from protege_mta.config.hosts import HostPort, UnixPath
from protege_mta.config.listeners import (
    HttpListener,
    SmtpListener,
    SubmissionListener,
    SubmissionsListener,
    Tls,
    TlsCertificate,
)
from protege_mta.config.model import Events, Settings, Workers
from protege_mta.config.networks import PROHIBITED_NETWORKS
from protege_mta.config.outbound import Dkim, DkimSelector, Dns, Outbound, Retry, Smarthost
from protege_mta.config.policy import Limits
from protege_mta.config.sockets import address_of
from protege_mta.config.toml import ConfigError, glimpse, load

FILES = Path(__file__).parents[1] / "badconfig" / "files"

WHOLE = """
mode = "local"
hostname = "MX.local.test"
state_dir = "state"
run_dir = "/run/protege-mta"
drain_s = 5
postmaster = "admin@local.test"

[[listener]]
kind = "smtp"
name = "mx"
address = "::1"
port = 2525
relay_hosts = ["192.0.2.0/24", "2001:db8::1"]

[[listener]]
kind = "submission"
address = "::"
relay_hosts = ["192.0.2.1"]
hide_client = true

[[listener]]
kind = "submissions"

[[listener]]
kind = "http"
port = 0

[tls]
certificate = "tls/cert.pem"
private_key = "tls/key.pem"
min_version = "1.3"
certificates = [{ certificate = "tls/cert.pem", private_key = "tls/key.pem" }]
client_ca_file = "tls/cert.pem"

[domains."Local.test"]
deliver = "maildir"
maildir = "mail/{domain}/{local_part}"
recipients = ["agent", "postmaster"]

[domains."lmtp.test"]
deliver = "lmtp"
lmtp = "[::1]:24"
recipients = ["a"]

[domains."unix.test"]
deliver = "lmtp"
lmtp = "unix:/run/dovecot/lmtp"

[outbound]
route = "smarthost"
mx_port = 2526
source_addresses = ["192.0.2.25"]
prohibited_networks = []
smarthost = { host = "smtp.example.net", port = 465, tls = "implicit", username = "me", password_file = "password", ca_file = "tls/cert.pem" }

[dns]
nameservers = ["127.0.0.1:5353", "::1", "[::1]:5353", "192.0.2.53"]
trust_ad = true

[dkim."local.test"]
selectors = [{ name = "ed", private_key = "ed.pem" }]

[retry]
first_s = 1
factor = 1
max_interval_s = 2
max_age_s = 3
bounce_max_age_s = 4
delay_warning_s = 0
jitter = 0

[limits]
message_octets = 1
recipients = 2
connections = 3
connections_per_ip = 4
messages_per_ip_per_minute = 5
free_octets = 6
free_inodes = 7

[workers]
count = 1

[events]
log = "log/events.jsonl"
"""


class LoadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        (self.folder / "tls").mkdir(parents=True)
        (self.folder / "tls/cert.pem").write_bytes((FILES / "cert.pem").read_bytes())
        (self.folder / "tls/key.pem").write_bytes((FILES / "key.pem").read_bytes())
        (self.folder / "ed.pem").write_bytes((FILES / "ed25519.pem").read_bytes())
        (self.folder / "password").write_text("secret of mine\r\nnot this\n")

    def load(self, text: str) -> Settings:
        path = self.folder / "c.toml"
        path.write_text(text, "utf-8")
        return load(path)

    def test_every_key(self) -> None:
        """Each key lands in its field; relative paths start at the file's folder."""
        at = self.folder
        self.assertEqual(
            self.load(WHOLE),
            Settings(
                source=at / "c.toml",
                hostname="mx.local.test",
                state_dir=at / "state",
                run_dir=Path("/run/protege-mta"),
                drain_s=5.0,
                postmaster="admin@local.test",  # type: ignore[arg-type]
                listeners=(
                    SmtpListener(
                        name="mx",
                        address="::1",
                        port=2525,
                        relay_hosts=(
                            ipaddress.ip_network("192.0.2.0/24"),
                            ipaddress.ip_network("2001:db8::1/128"),
                        ),
                    ),
                    SubmissionListener(
                        name="submission",
                        address="::",
                        port=587,
                        relay_hosts=(ipaddress.ip_network("192.0.2.1/32"),),
                        hide_client=True,
                    ),
                    SubmissionsListener(name="submissions", address="127.0.0.1", port=465),
                    HttpListener(name="http", port=0),
                ),
                tls=Tls(
                    certificate=at / "tls/cert.pem",
                    private_key=at / "tls/key.pem",
                    min_version="1.3",
                    certificates=(
                        TlsCertificate(
                            certificate=at / "tls/cert.pem", private_key=at / "tls/key.pem"
                        ),
                    ),
                    client_ca_file=at / "tls/cert.pem",
                ),
                domains={
                    "local.test": MaildirDomain(
                        maildir=f"{at}/mail/{{domain}}/{{local_part}}",
                        recipients=("agent", "postmaster"),
                    ),
                    "lmtp.test": LmtpDomain(lmtp=HostPort("::1", 24), recipients=("a",)),
                    "unix.test": LmtpDomain(lmtp=UnixPath(Path("/run/dovecot/lmtp"))),
                },
                outbound=Outbound(
                    route="smarthost",
                    mx_port=2526,
                    source_addresses=("192.0.2.25",),
                    prohibited_networks=(),
                    smarthost=Smarthost(
                        host="smtp.example.net",
                        port=465,
                        tls="implicit",
                        username="me",
                        password_file=at / "password",
                        ca_file=at / "tls/cert.pem",
                    ),
                ),
                dns=Dns(
                    nameservers=(
                        HostPort("127.0.0.1", 5353),
                        HostPort("::1", 53),
                        HostPort("::1", 5353),
                        HostPort("192.0.2.53", 53),
                    ),
                    trust_ad=True,
                ),
                dkim={
                    "local.test": Dkim(
                        selectors=(DkimSelector(name="ed", private_key=at / "ed.pem"),)
                    )
                },
                retry=Retry(
                    first_s=1,
                    factor=1,
                    max_interval_s=2,
                    max_age_s=3,
                    bounce_max_age_s=4,
                    delay_warning_s=0,
                    jitter=0,
                ),
                limits=Limits(
                    message_octets=1,
                    recipients=2,
                    connections=3,
                    connections_per_ip=4,
                    messages_per_ip_per_minute=5,
                    free_octets=6,
                    free_inodes=7,
                ),
                workers=Workers(count=1),
                events=Events(log=Path("log/events.jsonl")),
            ),
        )

    def test_empty_file(self) -> None:
        """Nothing has to be said; what is left out is the reference page's default."""
        settings = self.load("")
        self.assertEqual(settings.state_dir, self.folder / "state")
        self.assertEqual(settings.run_dir, self.folder / "state/run")
        self.assertEqual(settings.events_log, self.folder / "state/events.jsonl")
        self.assertEqual(settings.control_socket, self.folder / "state/run/control.sock")
        self.assertEqual(settings.submit_socket, self.folder / "state/run/submit.sock")
        self.assertEqual((settings.listeners, settings.tls, settings.domains), ((), None, {}))
        self.assertEqual(settings.outbound.prohibited_networks, PROHIBITED_NETWORKS)
        self.assertEqual(settings.limits.free_octets, 1_073_741_824)

    def test_names_of_listeners(self) -> None:
        """Who has no name gets its kind, with a number where that is taken."""
        settings = self.load(
            """
            [[listener]]
            kind = "smtp"
            port = 1
            [[listener]]
            kind = "smtp"
            port = 2
            [[listener]]
            kind = "smtp"
            name = "smtp-2"
            port = 3
            [[listener]]
            kind = "submissions"
            [[listener]]
            kind = "submission"
            port = 4
            [[listener]]
            kind = "submission"
            [[listener]]
            kind = "http"
            """
        )
        names = [listener.name for listener in settings.listeners]
        self.assertEqual(
            names,
            ["smtp", "smtp-3", "smtp-2", "submissions", "submission", "submission-2", "http"],
        )

    def test_self_signed(self) -> None:
        """Submission is never without TLS; who receives mail only, may be."""
        tls = '[tls]\ncertificate = "tls/cert.pem"\nprivate_key = "tls/key.pem"\n'
        for kind, more, expected in (
            ("smtp", "", False),
            ("http", "", False),
            ("submission", "", True),
            ("submissions", "", True),
            ("submission", tls, False),
        ):
            settings = self.load(f'[[listener]]\nkind = "{kind}"\n{more}')
            self.assertEqual(settings.is_self_signed, expected)
        self.assertEqual(settings.self_signed_folder, self.folder / "state/tls")

    def test_same_port_elsewhere(self) -> None:
        """One port on two addresses is two ports, and any free port is never taken."""
        settings = self.load(
            """
            [[listener]]
            kind = "smtp"
            address = "127.0.0.1"
            [[listener]]
            kind = "smtp"
            address = "127.0.0.2"
            [[listener]]
            kind = "http"
            port = 0
            [[listener]]
            kind = "http"
            port = 0
            """
        )
        self.assertEqual(len(settings.listeners), 4)

    def test_empty_text_for_none(self) -> None:
        """The contract's own example of a smarthost without a password."""
        smarthost = self.load(
            """
            [outbound]
            route = "smarthost"
            smarthost = { host = "127.0.0.1", port = 2527, tls = "starttls", username = "", password_file = "" }
            """
        ).outbound.smarthost
        self.assertEqual(smarthost, Smarthost(host="127.0.0.1", port=2527))

    def test_password_in_clear_to_this_machine(self) -> None:
        smarthost = self.load(
            """
            [outbound.smarthost]
            host = "localhost"
            tls = "none"
            username = "me"
            password_file = "password"
            """
        ).outbound.smarthost
        assert smarthost is not None
        self.assertEqual(smarthost.tls, "none")

    def test_secret_is_the_first_line(self) -> None:
        self.assertEqual(secret(self.folder / "password"), b"secret of mine")

    def test_braces_in_the_folders_name(self) -> None:
        """They are not taken for placeholders: the Maildir has to be written in full then."""
        self.folder = self.folder / "{domain}"
        self.folder.mkdir()
        domain = '[domains."a.test"]\ndeliver = "maildir"\nrecipients = ["*"]\n'
        error = self.assertRaises(ConfigError, self.load, domain + 'maildir = "{local_part}"')
        self.assertIn("has braces of its own", str(error))
        settings = self.load(domain + 'maildir = "/var/mail/{local_part}"')
        self.assertEqual(
            settings.domains["a.test"],
            MaildirDomain(maildir="/var/mail/{local_part}", recipients=("*",)),
        )


class GlimpseTests(SynchronousTestCase):
    """Commands find the service's sockets even where the rest of the file is broken."""

    def glimpse(self, text: str) -> Settings:
        path = Path(self.mktemp())
        path.write_text(text)
        return glimpse(path)

    def test_broken_elsewhere(self) -> None:
        settings = self.glimpse('run_dir = "/run/x"\nnonsense = 1\n[tls]\ncertificate = "gone"\n')
        self.assertEqual(settings.control_socket, Path("/run/x/control.sock"))

    def test_what_tables_must_agree_about_is_not_asked(self) -> None:
        """``status`` of a gateway finds its socket, whatever stands in ``[relay]``."""
        for rest in ('[relay]\nurl = "ws://localhost/ws"\n', ""):
            settings = self.glimpse(f'mode = "relay"\nrun_dir = "/run/x"\n{rest}')
            self.assertEqual(settings.run_dir, Path("/run/x"))

    def test_broken_there(self) -> None:
        error = self.assertRaises(ConfigError, self.glimpse, "run_dir = 1\n")
        self.assertIn("run_dir: wanted a path, got 1", str(error))


class SocketTests(SynchronousTestCase):
    """A folder may have any name; a socket's address has room for 107 octets."""

    def meet(self, path: Path) -> bytes:
        path.parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind(address_of(path))
            server.listen()
            client.connect(address_of(path))
            client.sendall(b"hello")
            with server.accept()[0] as accepted:
                return accepted.recv(5)

    def test_long_path(self) -> None:
        path = Path(self.mktemp()).absolute() / ("x" * 100) / "control.sock"
        self.assertEqual(self.meet(path), b"hello")
        self.assertTrue(path.is_socket())

    def test_short_path(self) -> None:
        self.assertEqual(address_of(Path("/run/x/control.sock")), "/run/x/control.sock")

    def test_no_folder(self) -> None:
        self.assertRaises(FileNotFoundError, address_of, Path("/" + "x" * 120) / "control.sock")


class EmbeddedTests(SynchronousTestCase):
    def test_what_it_serves(self) -> None:
        settings = embedded(Path("/srv/protege-mta-data"))
        self.assertEqual(
            [(each.kind, each.name, each.address, each.port) for each in settings.listeners],
            [
                ("smtp", "smtp", "127.0.0.1", 2525),
                ("submission", "submission", "127.0.0.1", 2587),
                ("http", "http", "127.0.0.1", 8026),
            ],
        )
        self.assertEqual(
            settings.domains,
            {
                "localhost.test": MaildirDomain(
                    maildir="/srv/protege-mta-data/mail/{domain}/{local_part}", recipients=("*",)
                )
            },
        )
        self.assertEqual(settings.state_dir, Path("/srv/protege-mta-data"))
        self.assertEqual(settings.route, "mx")
        self.assertIsNone(settings.source)

    def test_folder_with_braces(self) -> None:
        self.assertRaises(ConfigError, embedded, Path("/srv/{x}"))
