"""``init --mode relay`` and ``--mode relay-server``."""

from __future__ import annotations

import stat
from pathlib import Path
from unittest.mock import patch

import dns.zone
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.config import credentials
from protege_mta.config.domains import MaildirDomain, TunnelDomain
from protege_mta.config.kinds import InlineText
from protege_mta.config.listeners import HttpListener
from protege_mta.config.toml import load
from protege_mta.transport import addresses

from .console import Ran, run


class InitCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.config = self.folder / "protege-mta.toml"

    def init(self, mode: str, *arguments: str, code: int = 0) -> Ran:
        ran = run("init", str(self.folder), "--mode", mode, *arguments)
        self.assertEqual(ran.code, code, ran.err)
        return ran

    def check(self) -> None:
        ran = run("check-config", str(self.config))
        self.assertEqual((ran.code, ran.out, ran.err), (0, f"{self.config}: ok\n", ""))


class RelayTests(InitCase):
    URL = "wss://relay.example.test/ws"

    def test_result_works(self) -> None:
        """An agent with a key of its own, at the relay's domain, on loopback alone."""
        said = self.init("relay", "--relay-url", self.URL, "--json").json()
        self.check()
        identity = credentials.identity_in(self.folder / "keys/agent.pem")
        self.assertEqual(
            (said["identity"], said["address"], said["allow"], said["records"]),
            (
                identity,
                f"{identity}@mail.example.test",
                f"protege-mta tunnel allow {identity}",
                [],
            ),
        )
        mode = stat.S_IMODE((self.folder / "keys/agent.pem").stat().st_mode)
        self.assertEqual(mode, 0o600)
        settings = load(self.config)
        assert settings.relay is not None
        self.assertEqual((settings.mode, settings.route), ("relay", "tunnel"))
        self.assertEqual(settings.hostname, "mail.example.test")
        self.assertEqual(settings.relay.url, self.URL)
        self.assertEqual(settings.relay.identity, {"agent": self.folder / "keys/agent.pem"})
        domain = settings.domains["mail.example.test"]
        assert isinstance(domain, MaildirDomain)
        self.assertEqual((domain.recipients, domain.shared), ((identity,), True))
        self.assertEqual(
            [(each.kind, each.address, each.port) for each in settings.listeners],
            [("submission", "127.0.0.1", 2587), ("http", "127.0.0.1", 8026)],
        )

    def test_address_in_a_file(self) -> None:
        """For whom it is to be told to, and for scripts."""
        said = self.init("relay", "--relay-url", self.URL, "--json").json()
        self.assertEqual((self.folder / "address").read_text(), f"{said['address']}\n")

    def test_on_an_address_of_its_own(self) -> None:
        """Several on one machine need no ports of their own then."""
        self.init("relay", "--relay-url", self.URL, "--address", "127.0.0.3")
        self.check()
        addresses = {each.address for each in load(self.config).listeners}
        self.assertEqual(addresses, {"127.0.0.3"})

    def test_told(self) -> None:
        ran = self.init("relay", "--relay-url", self.URL)
        self.assertRegex(ran.out, r"\nOur address: [a-z2-7]{52}@mail\.example\.test\n")
        self.assertRegex(
            ran.out,
            r"\nFor the relay's administrator: protege-mta tunnel allow [a-z2-7]{52}\n",
        )
        ran = run("dns", "records", "--config", str(self.config))
        self.assertEqual(ran.out, "nothing to publish: the records are the relay's\n")

    def test_by_address(self) -> None:
        self.init("relay", "--relay-url", "ws://192.0.2.7:8080/ws")
        self.check()
        self.assertEqual(list(load(self.config).domains), ["192.0.2.7"])

    def test_mistakes(self) -> None:
        for arguments, complaint in (
            ((), '--relay-url: wanted a URL such as "wss://relay.example/ws", got nothing'),
            (("--relay-url", "relay.test"), "--relay-url: wanted a URL such as"),
            (
                ("--relay-url", "ws://localhost:1/ws"),
                "--domain: wanted the relay's domain of mail, which does not follow from",
            ),
            (("--relay-url", self.URL, "--domain", "a b"), "--domain: wanted a domain name"),
            (
                ("--relay-url", self.URL, "--smtp-port", "25"),
                "--smtp-port: only with --mode local or relay-server",
            ),
        ):
            ran = self.init("relay", *arguments, code=64)
            self.assertIn(complaint, ran.err)
            self.assertFalse(self.folder.exists())


class RelayServerTests(InitCase):
    def test_result_works(self) -> None:
        said = self.init("relay-server", "--domain", "Mail.a.test", "--json").json()
        self.check()
        settings = load(self.config)
        self.assertEqual((settings.mode, settings.hostname), ("local", "relay.a.test"))
        self.assertIsInstance(settings.domains["mail.a.test"], TunnelDomain)
        server = settings.tunnel_server
        self.assertEqual((server.enabled, server.identities), (True, "listed"))
        self.assertEqual(server.identities_file, self.folder / "identities.toml")
        assert server.attestation is not None
        self.assertEqual(server.attestation.key_id, "relay-primary")
        self.assertEqual(server.attestation.private_key, self.folder / "keys/attestation.pem")
        self.assertEqual(
            [
                (each.name, each.kind, each.address, each.port, getattr(each, "tls", None))
                for each in settings.listeners
            ],
            [
                ("smtp", "smtp", "0.0.0.0", 25, None),
                ("submission", "submission", "0.0.0.0", 587, None),
                ("submissions", "submissions", "0.0.0.0", 465, None),
                ("tunnel", "http", "0.0.0.0", 443, True),
                ("http", "http", "127.0.0.1", 8026, False),
            ],
        )
        self.assertEqual(said["relay_url"], "wss://relay.a.test/ws")
        self.assertEqual(said["attestation"]["key_id"], "relay-primary")
        public = said["attestation"]["public_key"]
        self.assertEqual((self.folder / "keys/attestation.pub").read_text(), public)
        self.assertEqual(list(credentials.of_ed25519("public_key", InlineText(public))), [])
        for name in ("keys/attestation.pem", "keys/rsa.pem", "keys/ed25519.pem"):
            self.assertEqual(stat.S_IMODE((self.folder / name).stat().st_mode), 0o600)

    def test_names(self) -> None:
        """A gateway that is given the URL finds the domain by itself."""
        for number, (arguments, hostname, domain) in enumerate(
            (
                ((), "relay.local.test", "mail.local.test"),
                (("--hostname", "relay.b.test"), "relay.b.test", "mail.b.test"),
                (("--hostname", "mx.b.test"), "mx.b.test", "mail.mx.b.test"),
                (("--domain", "b.test"), "relay.b.test", "b.test"),
                (("--domain", "c.test", "--hostname", "x.d.test"), "x.d.test", "c.test"),
            )
        ):
            self.folder = Path(self.mktemp()).absolute() / str(number)
            self.config = self.folder / "protege-mta.toml"
            self.init("relay-server", *arguments)
            self.check()
            settings = load(self.config)
            self.assertEqual((settings.hostname, list(settings.domains)), (hostname, [domain]))

    def test_records(self) -> None:
        """The table of the original's documentation, filled in; the same from the file later."""
        arguments = ("--public-address", "192.0.2.25", "--public-address", "2001:db8::25")
        said = self.init("relay-server", "--domain", "mail.a.test", *arguments, "--json").json()
        later = run("dns", "records", "--config", str(self.config), "--json").json()
        self.assertEqual(said["records"], later)
        found = {(each["name"], each["type"]): each["value"] for each in later}
        selectors = {"rsa._domainkey.mail.a.test", "ed25519._domainkey.mail.a.test"}
        self.assertEqual(
            {key: value for key, value in found.items() if key[0] not in selectors},
            {
                ("relay.a.test", "A"): "192.0.2.25",
                ("relay.a.test", "AAAA"): "2001:db8::25",
                ("25.2.0.192.in-addr.arpa", "PTR"): "relay.a.test.",
                (f"5.2.{'0.' * 22}8.b.d.0.1.0.0.2.ip6.arpa", "PTR"): "relay.a.test.",
                ("relay.a.test", "TXT"): "v=spf1 a -all",
                ("mail.a.test", "MX"): "10 relay.a.test.",
                ("mail.a.test", "TXT"): "v=spf1 mx -all",
                ("_dmarc.mail.a.test", "TXT"): (
                    "v=DMARC1; p=none; rua=mailto:postmaster@mail.a.test"
                ),
            },
        )
        self.assertEqual({name for name, _ in found} & selectors, selectors)

    def test_zone(self) -> None:
        """A name server takes the lines as they are."""
        arguments = ("--domain", "mail.a.test", "--public-address", "192.0.2.25", "--zone")
        ran = self.init("relay-server", *arguments)
        text = ran.out.partition("to publish:\n\n")[2].partition("\n\n")[0]
        zone = dns.zone.from_text(
            f"$TTL 60\n@ IN SOA . . 1 1 1 1 1\n@ IN NS .\n{text}\n",
            origin="a.test.",
            relativize=False,
        )
        self.assertEqual(str(zone.find_rdataset("mail.a.test.", "MX")), "60 IN MX 10 relay.a.test.")
        self.assertIn("; 25.2.0.192.in-addr.arpa. IN PTR relay.a.test.\n", text)

    def test_addresses_of_the_machine(self) -> None:
        """Those that the Internet can answer are known, where all are listened on."""
        with patch.object(addresses, "public_addresses", lambda: ["1.2.3.4", "2a00::1"]):
            for number, (address, expected) in enumerate(
                (("0.0.0.0", ("1.2.3.4",)), ("::", ("1.2.3.4", "2a00::1")), ("127.0.0.1", ()))
            ):
                self.folder = Path(self.mktemp()).absolute() / str(number)
                self.config = self.folder / "protege-mta.toml"
                self.init("relay-server", "--address", address)
                self.assertEqual(load(self.config).public_addresses, expected)
        self.assertIn('\n# public_addresses = ["192.0.2.25", ', self.config.read_text())

    def test_told(self) -> None:
        ran = self.init("relay-server", "--smtp-port", "2525", "--hostname", "relay.a.test")
        self.assertIn("\nAgents come to: wss://relay.a.test:2443/ws\n", ran.out)
        self.assertIn("-----BEGIN PUBLIC KEY-----\n", ran.out)
        self.assertIn("protege-mta tunnel allow KEY\n", ran.out)
        self.assertNotIn("PRIVATE KEY", ran.out)

    def test_plain_tunnel(self) -> None:
        """On loopback alone; the URL is one that leads there, or to the proxy."""
        for number, (address, here, url, proxies) in enumerate(
            (
                ("127.0.0.2", "127.0.0.2", "ws://127.0.0.2:2443/ws", 0),
                ("::1", "::1", "ws://[::1]:2443/ws", 0),
                ("0.0.0.0", "127.0.0.1", "wss://relay.local.test/ws", 2),
            )
        ):
            self.folder = Path(self.mktemp()).absolute() / str(number)
            self.config = self.folder / "protege-mta.toml"
            arguments = ("--address", address, "--plain-tunnel", "--json")
            said = self.init("relay-server", *arguments).json()
            self.check()
            self.assertEqual(said["relay_url"], url)
            tunnel = next(each for each in load(self.config).listeners if each.name == "tunnel")
            assert isinstance(tunnel, HttpListener)
            self.assertEqual(
                (tunnel.tls, tunnel.address, tunnel.port, len(tunnel.trusted_proxies)),
                (False, here, 2443, proxies),
            )
        ran = self.init("relay-server", "--plain-tunnel", "--force")
        told = "wss://relay.local.test/ws, by a proxy in front of http://127.0.0.1:2443\n"
        self.assertIn(f"\nAgents come to: {told}", ran.out)

    def test_smarthost(self) -> None:
        """In plain text where it is this machine, else never."""
        for number, (text, expected) in enumerate(
            (
                ("127.0.0.1:2525", ("127.0.0.1", 2525, "none")),
                ("[::1]:2525", ("::1", 2525, "none")),
                ("[2001:db8::25]", ("2001:db8::25", 587, "starttls")),
                ("Smtp.a.test", ("smtp.a.test", 587, "starttls")),
            )
        ):
            self.folder = Path(self.mktemp()).absolute() / str(number)
            self.config = self.folder / "protege-mta.toml"
            for mode in ("local", "relay-server"):
                self.init(mode, "--smarthost", text, "--force")
                self.check()
                settings = load(self.config)
                host = settings.outbound.smarthost
                assert host is not None
                self.assertEqual(settings.route, "smarthost")
                self.assertEqual((host.host, host.port, host.tls), expected)

    def test_never_overwrites(self) -> None:
        self.init("relay-server")
        before = {path: path.read_bytes() for path in self.folder.rglob("*.p*")}
        self.init("relay-server", code=73)
        self.init("relay", "--relay-url", "wss://relay.a.test/ws", code=73)
        self.assertEqual({path: path.read_bytes() for path in before}, before)
        self.init("relay-server", "--force")
        self.check()

    def test_mistakes(self) -> None:
        for arguments in (
            ("--public-address", "here"),
            ("--relay-url", "wss://relay.a.test/ws"),
            ("--domain", "192.0.2.1"),
            ("--hostname", "-"),
        ):
            self.init("relay-server", *arguments, code=64)
            self.assertFalse(self.folder.exists())
        for text in ("", ":25", "a.test:", "a.test:0", "a.test:x", "a b", "[::1", "::1:99999"):
            ran = self.init("local", "--smarthost", text, code=64)
            self.assertIn("--smarthost: wanted HOST or HOST:PORT, got", ran.err)
        self.init("local", "--plain-tunnel", code=64)
        self.init("local", "--tunnel-port", "1", code=64)
