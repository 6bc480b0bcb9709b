"""A Protege project's own files as the configuration."""

from __future__ import annotations

import ipaddress
import pickle
import re
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from protege_mta import from_settings
from protege_mta.config.domains import MaildirDomain
from protege_mta.config.gateway_json import inferred_domain, load, with_personas
from protege_mta.config.kinds import InlineText
from protege_mta.config.listeners import SmtpListener, SubmissionListener
from protege_mta.config.model import Settings
from protege_mta.config.outbound import Smarthost
from protege_mta.config.source import glimpse
from protege_mta.config.source import load as load_any
from protege_mta.config.toml import ConfigError
from protege_mta.model.address import Address
from protege_mta.model.hop import NextHop
from protege_mta.model.ports import Peer
from protege_mta.outbound import _credentials
from protege_mta.routing.table import RoutingTable
from protege_mta.testing.sessions import FakeAgents, FakeSessions
from protege_mta.transport.maildir import resolver

from .projects import RELAY, ProjectFolder, keys

PUBLIC = """\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
"""
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


class LoadTests(SynchronousTestCase):
    def project(self, **gateway: Any) -> ProjectFolder:
        members = {"mailDomain": "mail.example.test", **gateway}
        return ProjectFolder.made(Path(self.mktemp()), members)

    def load(self, project: ProjectFolder) -> Settings:
        return load(project.path)

    def relay(self, **members: Any) -> ProjectFolder:
        project = self.project(relay={**RELAY, **members})
        project.persona()
        return project

    def complaints(self, project: ProjectFolder) -> list[str]:
        """Without the project's folder."""
        error = self.assertRaises(ConfigError, load, project.path)
        return [str(each).replace(f"{project.path}/", "") for each in error.complaints]

    # --- the whole -------------------------------------------------------------------------------

    def test_scaffold(self) -> None:
        """What the original makes is a service on loopback, with the transport for a smarthost."""
        project = ProjectFolder.made(Path(self.mktemp()))
        settings = self.load(project)
        self.assertEqual((settings.mode, settings.route), ("local", "smarthost"))
        self.assertEqual(settings.state_dir, project.path / ".protege-mta")
        self.assertEqual(settings.control_socket, project.path / ".protege-mta/run/control.sock")
        self.assertEqual(
            settings.listeners,
            (SmtpListener(name="smtp", address="127.0.0.1", port=2525, relay_hosts=LOOPBACK),),
        )
        self.assertEqual(
            settings.outbound.smarthost, Smarthost(host="127.0.0.1", port=1025, tls="none")
        )
        self.assertEqual(list(settings.domains), ["localhost"])

    def test_relay(self) -> None:
        project = self.relay(reconnectBaseDelayMs=500, heartbeatTimeoutMs=20_000)
        settings = self.load(project)
        self.assertEqual((settings.mode, settings.route), ("relay", "tunnel"))
        self.assertEqual(settings.hostname, "mail.example.test")
        relay = settings.relay
        assert relay is not None
        self.assertEqual(
            (relay.url, relay.personas, relay.reconnect_base_s, relay.reconnect_max_s),
            ("wss://relay.example.test/ws", project.path / "personas", 0.5, 8.0),
        )
        self.assertEqual((relay.ping_s, relay.unattested, relay.trusted), (20.0, "accept", ()))

    def test_relay_carries_mail_out_whatever_transport_there_is(self) -> None:
        """The original sends past the relay where a scaffold's transport is left over."""
        project = self.project(
            relay=RELAY, transport={"host": "127.0.0.1", "port": 1025, "secure": False}
        )
        project.persona()
        self.assertEqual(self.load(project).route, "tunnel")

    def test_without_transport_by_mx(self) -> None:
        self.assertEqual(self.load(self.project()).route, "mx")

    def test_default_mode_has_accounts(self) -> None:
        """The original's asks for AUTH and knows nobody."""
        settings = self.load(self.project(mode="default", host="localhost", port=2587))
        self.assertEqual(settings.listeners, (SubmissionListener(name="submission", port=2587),))
        self.assertTrue(settings.is_self_signed)

    def test_byte_order_mark_and_crlf(self) -> None:
        text = '\ufeff{\r\n  "mailDomain": "Mail.Example.test"\r\n}\r\n'
        settings = self.load(ProjectFolder.made(Path(self.mktemp()), text))
        self.assertEqual(list(settings.domains), ["mail.example.test"])

    def test_by_folder_or_file(self) -> None:
        project = self.project()
        self.assertEqual(load_any(project.path).source, project.path)
        self.assertEqual(glimpse(project.path).run_dir, project.path / ".protege-mta/run")

    def test_glimpse_of_a_broken_project(self) -> None:
        """Its sockets are where they are."""
        project = ProjectFolder.made(Path(self.mktemp()), '{"relay": {"enabled": tru')
        self.assertEqual(glimpse(project.path).state_dir, project.path / ".protege-mta")
        relay = self.relay()
        relay.write(f"personas/{keys()[0].id}/persona.json", "{")
        self.assertEqual(glimpse(relay.path).hostname, "mail.example.test")

    def test_admin_is_postmaster(self) -> None:
        """But not behind a relay, which passes on what our agents write alone."""
        for project, postmaster in ((self.project(), "me@b.test"), (self.relay(), None)):
            project.write("configs/system.json", {"admin_contact_email": "me@b.test"})
            self.assertEqual(self.load(project).postmaster, postmaster)
        project = self.project()
        project.write("configs/system.json", {"admin_contact_email": "", "logs_dir_path": 5})
        self.assertIsNone(self.load(project).postmaster)

    # --- personas --------------------------------------------------------------------------------

    def test_mailboxes(self) -> None:
        """Key and aliases of a persona lead to one Maildir, in any case."""
        project = self.project()
        project.persona(0, aliases=["Sales", "info@mail.example.test", "me@elsewhere.test"])
        project.persona(1)
        settings = self.load(project)
        first, second = keys()[:2]
        where = resolver(
            {"mail.example.test": "/x/{local_part}"}, from_settings.mailboxes(settings)
        )
        for local_part, id in (
            (first.text.upper(), first.id),
            ("sales", first.id),
            ("INFO", first.id),
            (second.text, second.id),
        ):
            self.assertEqual(
                where("mail.example.test", local_part), project.path / f"memory/{id}/maildir"
            )
        self.assertEqual(where("mail.example.test", "me"), Path("/x/me"))
        relaying = from_settings.relaying(settings, FakeAgents(), FakeSessions())
        stranger = Peer("192.0.2.1", 5, "smtp", "s")
        for local_part, code in (("SALES", 250), (first.text, 250), ("me", 550)):
            address = Address(f"{local_part}@mail.example.test")
            self.assertEqual(relaying.judge(stranger, address).code, code)

    def test_other_agents_of_the_domain(self) -> None:
        """They are elsewhere: our own agents' mail for them goes through the relay."""
        project = self.relay()
        settings = self.load(project)
        relaying = from_settings.relaying(settings, FakeAgents(), FakeSessions())
        other = Address(f"{keys()[1].text}@mail.example.test")
        self.assertEqual(relaying.judge(Peer("127.0.0.1", 5, "smtp", "s"), other).code, 250)
        self.assertEqual(relaying.judge(Peer("192.0.2.1", 5, "smtp", "s"), other).code, 550)
        table = RoutingTable(*from_settings.routes(settings), shared=from_settings.shared(settings))
        self.assertEqual(table.hop(other), NextHop("tunnel", ""))
        for local_part in (keys()[0].text, "postmaster"):
            hop = table.hop(Address(f"{local_part}@mail.example.test"))
            self.assertEqual(hop, NextHop("maildir", "mail.example.test"))

    def test_half_made_persona(self) -> None:
        """Its key is all of it."""
        project = self.project()
        (project.persona() / "persona.json").unlink()
        domain = self.load(project).domains["mail.example.test"]
        assert isinstance(domain, MaildirDomain)
        self.assertEqual(domain.recipients, (keys()[0].text,))

    def test_no_personas(self) -> None:
        """Are none of the relay's business."""
        project = self.project(relay=RELAY)
        (project.path / "personas/.new-persona").mkdir(parents=True)
        self.assertEqual(
            self.complaints(project),
            ["personas: wanted one persona at least, since relay.enabled, got none"],
        )

    def test_wrong_personas(self) -> None:
        project = self.project()
        first = project.persona(0)
        (project.persona(1) / "passport.key").write_text("no key")
        project.persona(2, publicKeyBase32="x", emailLocalPart="a b", aliases=["", 5, "*"])
        project.persona(3, aliases="sales")
        ids = [key.id for key in keys()]
        project.write("personas/copy/passport.key", (first / "passport.key").read_bytes())
        found = self.complaints(project)
        self.assertEqual(
            sorted(re.sub(r" \(Unable.*", "", text) for text in found),
            sorted(
                [
                    f'personas/{ids[0]}/passport.key: wanted a key of its own, got that of "copy"',
                    f"personas/{ids[1]}/passport.key: wanted a private Ed25519 key in PEM, got "
                    f'"personas/{ids[1]}/passport.key"',
                    f'personas/{ids[2]}/persona.json: publicKeyBase32: wanted "{keys()[2].text}", '
                    'the key of passport.key, got "x"',
                    f"personas/{ids[2]}/persona.json: emailLocalPart: wanted a local-part (what "
                    'stands before the "@"), got "a b"',
                    f"personas/{ids[2]}/persona.json: aliases: wanted addresses or local-parts, "
                    'got ""',
                    f"personas/{ids[2]}/persona.json: aliases: wanted addresses or local-parts, "
                    "got 5",
                    f"personas/{ids[2]}/persona.json: aliases: wanted addresses or local-parts, "
                    'got "*"',
                    f'personas/{ids[3]}/persona.json: aliases: wanted an array, got "sales"',
                ]
            ),
        )

    def test_one_alias_for_two(self) -> None:
        project = self.project()
        project.persona(0, aliases=["sales"])
        project.persona(1, aliases=["Sales"])
        later = max(keys()[:2], key=lambda key: key.id).id
        self.assertEqual(
            self.complaints(project),
            [
                f"personas/{later}/persona.json: aliases: wanted names of its own, "
                'got "sales", which another has'
            ],
        )

    # --- security.json ---------------------------------------------------------------------------

    def security(self, project: ProjectFolder, **auth: Any) -> ProjectFolder:
        project.write("configs/security.json", {"gateway_auth": {"enabled": True, **auth}})
        return project

    def test_trusted_relays(self) -> None:
        """A key in the file itself, and one in another."""
        project = self.relay()
        (project.path / "configs/relay.pub").write_text(PUBLIC)
        self.security(
            project,
            mode="enforce",
            trusted_relays=[
                {"key_id": "relay primary", "public_key_pem": PUBLIC},
                {"key_id": "b", "public_key_path": "relay.pub"},
                {"key_id": "c", "public_key_path": "configs/relay.pub"},
            ],
        )
        settings = self.load(project)
        assert settings.relay is not None
        self.assertEqual(settings.relay.unattested, "refuse")
        self.assertEqual(settings.domains["mail.example.test"].authentication, "reject")
        trusted = settings.relay.trusted
        self.assertEqual([each.key_id for each in trusted], ["relay primary", "b", "c"])
        self.assertEqual({each.public_key.read_bytes() for each in trusted}, {PUBLIC.encode()})

    def test_monitor(self) -> None:
        for auth in ({"mode": "monitor"}, {"mode": "enforce", "enabled": False}):
            settings = self.load(self.security(self.relay(), **auth))
            assert settings.relay is not None
            self.assertEqual(settings.relay.unattested, "accept")

    def test_wrong_security(self) -> None:
        """The original falls back to its defaults, and says nothing."""
        place = "configs/security.json: gateway_auth"
        for auth, complaint in (
            ({"mode": "enforced"}, '.mode: wanted "monitor" or "enforce", got "enforced"'),
            (
                {"mode": "enforce"},
                '.trusted_relays: wanted one key at least, since mode is "enforce", got none',
            ),
            ({"trusted_relays": {}}, ".trusted_relays: wanted an array of objects, got an object"),
            (
                {"trusted_relays": [{"key_id": "a", "public_key_pem_path": "x"}]},
                ".trusted_relays[0]: wanted public_key_pem or public_key_path, "
                "got public_key_pem_path",
            ),
            (
                {"trusted_relays": [{"key_id": "a", "public_key_pem": keys()[0].pem}]},
                '.trusted_relays[0].public_key_pem: wanted a public Ed25519 key in PEM, got "text"',
            ),
        ):
            found = self.complaints(self.security(self.relay(), **auth))
            self.assertEqual([text.partition(" (")[0] for text in found], [place + complaint])

    def test_rules_about_senders_are_not_ignored(self) -> None:
        project = self.project()
        project.write(
            "configs/security.json",
            {"gateway_access": {"enabled": True, "default_decision": "allow", "deny": []}},
        )
        self.load(project)
        project.write(
            "configs/security.json", {"gateway_access": {"enabled": True, "deny": ["x@*"]}}
        )
        self.assertEqual(
            self.complaints(project),
            [
                "configs/security.json: gateway_access: rules about senders are not available in "
                "this version"
            ],
        )

    # --- transport -------------------------------------------------------------------------------

    def test_transport(self) -> None:
        """A password goes over no network in plain text; without one, TLS is taken where it is
        offered, as by the original."""
        auth = {"user": "me", "pass": "p w"}
        for transport, tls in (
            ({"host": "smtp.b.test", "port": 465, "secure": True}, "implicit"),
            ({"host": "smtp.b.test", "port": 587, "secure": False, "auth": auth}, "starttls"),
            ({"host": "smtp.b.test", "port": 25}, "opportunistic"),
            ({"host": "localhost", "port": 25, "auth": auth}, "none"),
        ):
            host = self.load(self.project(transport=transport)).outbound.smarthost
            assert host is not None
            self.assertEqual((host.host, host.port, host.tls), (*list(transport.values())[:2], tls))
            if "auth" in transport:
                sent = _credentials(pickle.loads(pickle.dumps(host)))
                assert sent is not None
                self.assertEqual((sent.username, sent.password), ("me", "p w"))
                self.assertNotIn("p w", repr(host))

    def test_wrong_members(self) -> None:
        """Each is named, and the password is not shown."""
        project = self.project(
            mode="devel",
            host="gateway",
            port="2525",
            mailDomain="-.x",
            transport={"host": "a b", "secure": "no", "auth": {"user": "", "pass": "a\nb"}},
        )
        self.assertEqual(
            sorted(self.complaints(project)),
            [
                'configs/gateway.json: host: wanted an IPv4 or IPv6 address, or "localhost", got '
                '"gateway"',
                'configs/gateway.json: mailDomain: wanted a domain name, got "-.x"',
                'configs/gateway.json: mode: wanted "dev" or "default", got "devel"',
                'configs/gateway.json: port: wanted a whole number from 0 to 65535, got "2525"',
                "configs/gateway.json: transport.auth.pass: wanted text of one line, got something "
                "else",
                'configs/gateway.json: transport.auth.user: wanted a user name, got ""',
                "configs/gateway.json: transport.host: wanted a host name or an IP address, got "
                '"a b"',
                "configs/gateway.json: transport.port: wanted the smarthost's, got nothing",
                'configs/gateway.json: transport.secure: wanted true or false, got "no"',
            ],
        )

    def test_wrong_relay(self) -> None:
        place = "configs/gateway.json: relay"
        for members, complaint in (
            ({"relayWsUrl": "http://x/ws"}, '.relayWsUrl: wanted a URL such as "wss://relay.'),
            ({"relayWsUrl": None}, '.relayWsUrl: wanted a URL such as "wss://relay.'),
            ({"enabled": "yes"}, '.enabled: wanted true or false, got "yes"'),
            ({"reconnectBaseDelayMs": 0}, ".reconnectBaseDelayMs: wanted a whole number of milli"),
            ({"heartbeatTimeoutMs": 1.5}, ".heartbeatTimeoutMs: wanted a whole number of milli"),
        ):
            found = self.complaints(self.relay(**members))
            self.assertEqual(len(found), 1, found)
            self.assertTrue(found[0].startswith(place + complaint), found)
        self.assertEqual(
            self.complaints(self.project(relay=True)),
            [f"{place}: wanted an object, got true"],
        )

    def test_localhost_behind_a_relay(self) -> None:
        project = self.project(mailDomain="Localhost", relay=RELAY)
        project.persona()
        self.assertEqual(
            self.complaints(project),
            [
                "configs/gateway.json: mailDomain: wanted the relay's domain of mail, since "
                'relay.enabled, got "localhost"'
            ],
        )

    def test_no_json(self) -> None:
        for text, complaint in (
            ('{"mode": "dev",', "configs/gateway.json: wanted JSON, got: line 1 column 16: "),
            (None, "configs/gateway.json: wanted a file that can be read, got: No such file"),
        ):
            found = self.complaints(ProjectFolder.made(Path(self.mktemp()), text))
            self.assertEqual(len(found), 1)
            self.assertTrue(found[0].startswith(complaint), found)

    def test_state_is_a_file(self) -> None:
        project = self.project()
        project.write(".protege-mta", "")
        self.assertEqual(self.complaints(project), [".protege-mta: wanted a folder, got a file"])

    def test_braces_in_the_path(self) -> None:
        project = ProjectFolder.made(Path(self.mktemp()) / "{x}")
        self.assertEqual(
            self.complaints(project),
            [f"{project.path}: wanted a folder without braces in its path"],
        )


class InferredDomainTests(SynchronousTestCase):
    def test_of_urls(self) -> None:
        for url, domain in (
            ("wss://relay.example.org/ws", "mail.example.org"),
            ("wss://Relay.Example.org:8443/ws", "mail.example.org"),
            ("wss://mx.example.org/ws", "mx.example.org"),
            ("wss://relayed.example.org/ws", "relayed.example.org"),
            ("ws://127.0.0.1:8080/ws", "127.0.0.1"),
            ("ws://localhost:8080/ws", None),
            ("ws://[::1]:8080/ws", None),
        ):
            self.assertEqual(inferred_domain(url), domain)


class InlineTextTests(SynchronousTestCase):
    def test_shows_nothing(self) -> None:
        text = InlineText("secret\r\nmore")
        self.assertNotIn("secret", f"{text} {text!r}")
        self.assertEqual(text.read_bytes(), b"secret\r\nmore")


class ChangedPersonasTests(SynchronousTestCase):
    """What a running service sees of personas that come, go and change."""

    def setUp(self) -> None:
        self.complaints: list[str] = []
        self.project = ProjectFolder.made(
            Path(self.mktemp()), {"mailDomain": "mail.example.test", "relay": RELAY}
        )
        self.project.persona(0, aliases=["sales"])
        self.settings = load(self.project.path)

    def look(self) -> list[str]:
        """The mailboxes that there are now."""
        self.complaints.clear()
        self.settings = with_personas(
            self.settings, lambda path, place, text: self.complaints.append(f"{path.name} {place}")
        )
        domain = self.settings.domains["mail.example.test"]
        assert isinstance(domain, MaildirDomain)
        self.assertEqual(set(domain.recipients), set(domain.mailboxes))
        return sorted(domain.mailboxes)

    def test_nothing_new(self) -> None:
        before = self.settings
        self.look()
        self.assertIs(self.settings, before)

    def test_come_and_gone(self) -> None:
        """As a start would read them."""
        folder = self.project.persona(1)
        self.assertEqual(self.look(), sorted([keys()[0].text, keys()[1].text, "sales"]))
        self.assertEqual(self.settings, load(self.project.path))
        (folder / "passport.key").unlink()
        (folder / "persona.json").unlink()
        self.assertEqual(self.look(), sorted([keys()[0].text, "sales"]))

    def test_other_files_wait_for_a_reload(self) -> None:
        """Half of a gateway.json is nobody's wish."""
        self.project.write("configs/gateway.json", '{"mailDomain": ')
        self.project.persona(0, aliases=["help"])
        self.assertEqual(self.look(), sorted([keys()[0].text, "help"]))

    def test_one_that_cannot_be_read_stays_as_it_was(self) -> None:
        """It may be half written; the others' changes count."""
        self.project.write(f"personas/{keys()[0].id}/persona.json", '{"aliases": [')
        self.project.persona(1)
        self.assertEqual(self.look(), sorted([keys()[0].text, keys()[1].text, "sales"]))
        self.assertEqual(self.complaints, ["persona.json "])

    def test_name_that_another_has(self) -> None:
        """Stays with whose folder comes first, as the complaint says."""
        self.project.persona(1, aliases=["sales"])
        self.look()
        self.assertEqual(self.complaints, ["persona.json aliases"])
        domain = self.settings.domains["mail.example.test"]
        assert isinstance(domain, MaildirDomain)
        first = min(keys()[0].id, keys()[1].id)
        box = self.project.path / "memory" / first / "maildir"
        self.assertEqual(domain.mailboxes["sales"], str(box))

    def test_folder_that_is_gone_changes_nothing(self) -> None:
        (self.project.path / "personas").rename(self.project.path / "elsewhere")
        self.assertEqual(self.look(), sorted([keys()[0].text, "sales"]))

    def test_no_project(self) -> None:
        plain = Settings(source=self.project.write("protege-mta.toml", ""))
        self.assertIs(with_personas(plain, lambda *what: self.fail(str(what))), plain)
        self.assertEqual(with_personas(Settings(), lambda *what: None), Settings())
