"""``setup`` and ``relay bootstrap`` on a Protege project."""

from __future__ import annotations

import json
import stat
from typing import Any

from protege_mta.config import credentials
from protege_mta.config.source import load
from protege_mta.model.identity import persona_id

from .console import run
from .projects import COMMANDS, RELAY, SCAFFOLD, URL, ProjectCase, keys


class RelayTests(ProjectCase):
    """Both commands enable the relay alike."""

    def test_scaffold(self) -> None:
        """URL, domain and numbers in place; the transport gone, which would send past the relay;
        the rest as it was, in its order."""
        for command in COMMANDS:
            project = self.made()
            self.ran(*command, "--relay-ws-url", URL)
            self.assertEqual(
                project.text(),
                """\
{
  "mode": "dev",
  "host": "127.0.0.1",
  "port": 2525,
  "mailDomain": "mail.example.test",
  "attachmentLimits": {
    "maxAttachmentBytes": 10485760,
    "maxAttachmentsPerMessage": 10,
    "maxTotalAttachmentBytes": 26214400
  },
  "relay": {
    "enabled": true,
    "relayWsUrl": "wss://relay.example.test/ws",
    "reconnectBaseDelayMs": 250,
    "reconnectMaxDelayMs": 8000,
    "heartbeatTimeoutMs": 30000
  }
}""",
            )
            settings = load(project.path)
            self.assertEqual((settings.mode, settings.route), ("relay", "tunnel"))

    def test_persona_is_made(self) -> None:
        """With a key of its own that is its owner's alone, as the original writes it."""
        project = self.made()
        done = self.bootstrap("--relay-ws-url", URL, "--json").json()
        folder = project.path / "personas" / done["personaId"]
        pem = folder / "passport.key"
        identity = credentials.identity_in(pem)
        assert isinstance(identity, str)
        self.assertEqual(len(pem.read_bytes()), 119)
        self.assertTrue(pem.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n"))
        self.assertEqual(persona_id(identity), done["personaId"])
        text = (folder / "persona.json").read_text()
        document = json.loads(text)
        self.assertRegex(document.pop("createdAt"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertEqual(
            document,
            {
                "personaId": done["personaId"],
                "publicKeyBase32": identity,
                "emailLocalPart": identity,
                "emailAddress": f"{identity}@mail.example.test",
                "aliases": [],
            },
        )
        self.assertEqual(text, json.dumps(json.loads(text), indent=2))
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder, pem)]
        self.assertEqual(modes, [0o700, 0o600])
        self.assertEqual([path.name for path in folder.parent.iterdir()], [done["personaId"]])

    def test_json(self) -> None:
        project = self.made()
        first = self.bootstrap("--relay-ws-url", URL, "--json").json()
        id = first["personaId"]
        self.assertEqual(
            first,
            {
                "relayEnabled": True,
                "relayWsUrl": URL,
                "personaId": id,
                "createdPersona": True,
                "updatedPersonaCount": 0,
                "gatewayConfigPath": str(project.path / "configs/gateway.json"),
                "mailDomain": "mail.example.test",
                "changed": [
                    str(project.path / name)
                    for name in (
                        f"personas/{id}/passport.key",
                        f"personas/{id}/persona.json",
                        "configs/gateway.json",
                    )
                ],
            },
        )
        again = self.setup("--relay-ws-url", URL, "--json").json()
        self.assertEqual(again, {**first, "createdPersona": False, "changed": []})

    def test_second_run_changes_nothing(self) -> None:
        """Not a file's octets, mode, or time; and says so."""
        for command in COMMANDS:
            project = self.made()
            project.persona(0)
            project.persona(1, aliases=["a"], label="Sales")
            self.ran(*command, "--relay-ws-url", URL)
            before = project.snapshot()
            times = {path: path.stat().st_mtime_ns for path in project.path.rglob("*")}
            done = self.ran(*command, "--relay-ws-url", URL)
            self.assertTrue(done.out.startswith("nothing to change\n"), done.out)
            self.assertEqual(project.snapshot(), before)
            self.assertEqual(
                times, {path: path.stat().st_mtime_ns for path in project.path.rglob("*")}
            )

    def test_every_persona_is_readdressed(self) -> None:
        """The original's setup takes the first one alone."""
        for command in COMMANDS:
            project = self.made()
            folders = [project.persona(number) for number in range(3)]
            done = self.ran(*command, "--relay-ws-url", URL, "--json").json()
            self.assertEqual((done["updatedPersonaCount"], done["createdPersona"]), (3, False))
            self.assertEqual(done["personaId"], min(folder.name for folder in folders))
            for number, folder in enumerate(folders):
                document = json.loads((folder / "persona.json").read_text())
                self.assertEqual(
                    document["emailAddress"], f"{keys()[number].text}@mail.example.test"
                )
                self.assertEqual(document["aliases"], [])

    def test_persona_keeps_what_is_not_mail(self) -> None:
        """In its order; ``label`` becomes what it is called today."""
        project = self.made()
        key = keys()[0]
        text = (
            '{"label":"Sales", "mood": 1e3,\r\n "personaId": "' + key.id + '",'
            '"emailLocalPart":"' + key.text + '", "publicKeyBase32": "' + key.text + '" }\r\n'
        )
        project.persona(0)
        project.write(f"personas/{key.id}/persona.json", "\ufeff" + text)
        self.bootstrap("--relay-ws-url", URL)
        self.assertEqual(
            project.text(f"personas/{key.id}/persona.json"),
            text.replace('"label"', '"displayName"').replace(
                " }\r\n",
                f',\r\n  "emailAddress": "{key.text}@mail.example.test",\r\n  "aliases": [] }}\r\n',
            ),
        )

    def test_label_beside_its_successor(self) -> None:
        project = self.made()
        folder = project.persona(0, label="old", displayName="new", aliases=["x"])
        self.bootstrap("--relay-ws-url", URL)
        document = json.loads((folder / "persona.json").read_text())
        self.assertEqual(
            (document["label"], document["displayName"], document["aliases"]), ("old", "new", ["x"])
        )

    def test_half_made_persona_is_completed(self) -> None:
        project = self.made()
        folder = project.persona(0)
        (folder / "persona.json").unlink()
        done = self.bootstrap("--relay-ws-url", URL, "--json").json()
        self.assertEqual((done["createdPersona"], done["updatedPersonaCount"]), (False, 1))
        document = json.loads((folder / "persona.json").read_text())
        self.assertEqual(document["emailAddress"], f"{keys()[0].text}@mail.example.test")

    def test_interrupted_creation(self) -> None:
        """What is left of it is in nobody's way, and goes."""
        project = self.made()
        project.write("personas/.new-persona/passport.key", "half")
        project.write("personas/.new-persona/.passport.key.new", "half of")
        self.bootstrap("--relay-ws-url", URL)
        self.assertEqual(len(list((project.path / "personas").iterdir())), 1)
        load(project.path)

    def test_open_keys_are_closed(self) -> None:
        """As the original leaves them; a group that somebody let in stays."""
        project = self.made()
        first, second = project.persona(0), project.persona(1)
        (second / "passport.key").chmod(0o640)
        self.bootstrap("--relay-ws-url", URL)
        modes = [stat.S_IMODE((each / "passport.key").stat().st_mode) for each in (first, second)]
        self.assertEqual(modes, [0o600, 0o640])

    # --- the domain ------------------------------------------------------------------------------

    def domain_after(self, before: Any, *arguments: str, relay: Any = None) -> str:
        gateway = {"mailDomain": before, "relay": relay}
        self.made({name: value for name, value in gateway.items() if value is not None})
        domain: str = self.bootstrap(*arguments, "--json").json()["mailDomain"]
        self.assertEqual(self.project.json()["mailDomain"].lower(), domain)
        document = next(self.project.path.glob("personas/*/persona.json"))
        self.assertTrue(json.loads(document.read_text())["emailAddress"].endswith(f"@{domain}"))
        return domain

    def test_domain(self) -> None:
        """It follows the relay where nobody chose it."""
        to = ("--relay-ws-url", URL)
        self.assertEqual(self.domain_after(None, *to), "mail.example.test")
        self.assertEqual(self.domain_after("localhost", *to), "mail.example.test")
        self.assertEqual(self.domain_after("LOCALHOST", *to), "mail.example.test")
        self.assertEqual(self.domain_after("My.test", *to), "my.test")
        ip = ("--relay-ws-url", "ws://192.0.2.7:8080/ws")
        self.assertEqual(self.domain_after("localhost", *ip), "192.0.2.7")

    def test_domain_of_the_earlier_relay(self) -> None:
        """Goes with it; the original keeps it."""
        to = ("--relay-ws-url", "wss://relay.new.test/ws")
        self.assertEqual(self.domain_after("mail.example.test", *to, relay=RELAY), "mail.new.test")
        self.assertEqual(self.domain_after("Mail.example.test", *to, relay=RELAY), "mail.new.test")
        self.assertEqual(self.domain_after("own.test", *to, relay=RELAY), "own.test")
        broken = {**RELAY, "relayWsUrl": "relay.example.test"}
        self.assertEqual(self.domain_after("own.test", *to, relay=broken), "own.test")

    def test_forced_domain(self) -> None:
        self.made({"mailDomain": "own.test"})
        self.setup("--relay-ws-url", URL, "--force")
        self.assertEqual(self.project.json()["mailDomain"], "mail.example.test")

    def test_given_domain(self) -> None:
        """Where none follows from the URL, or another; every persona has it."""
        for command in (("setup", "--outbound", "relay"), ("relay", "bootstrap")):
            project = self.made()
            project.persona()
            self.ran(
                *(*command, "--relay-ws-url", "ws://localhost:1/ws", "--mail-domain", "Agents.test")
            )
            self.assertEqual(project.json()["mailDomain"], "agents.test")
            address = project.json(f"personas/{keys()[0].id}/persona.json")["emailAddress"]
            self.assertEqual(address, f"{keys()[0].text}@agents.test")
        for wrong in ("localhost", "a b"):
            said = self.refused("setup", "--relay-ws-url", URL, "--mail-domain", wrong, code=64)
            self.assertIn("--mail-domain: wanted ", said)

    def test_no_domain_follows(self) -> None:
        self.made()
        for url in ("ws://localhost:8080/ws", "ws://[::1]:8080/ws"):
            said = self.refused("relay", "bootstrap", "--relay-ws-url", url, code=64)
            self.assertIn(f"--relay-ws-url: no domain of mail follows from {url}\n", said)
            self.assertIn("--mail-domain says it.", said)

    # --- the rest of the block -------------------------------------------------------------------

    def test_numbers(self) -> None:
        """What is given wins, what is there stays, and what nobody says is the usual."""
        self.made({"relay": {"enabled": False, "heartbeatTimeoutMs": 7, "mine": [1]}})
        self.bootstrap(
            *("--relay-ws-url", URL, "--reconnect-base-delay-ms", "5"),
            *("--reconnect-max-delay-ms", "50"),
        )
        self.assertEqual(
            self.project.json()["relay"],
            {
                "enabled": True,
                "heartbeatTimeoutMs": 7,
                "mine": [1],
                "relayWsUrl": URL,
                "reconnectBaseDelayMs": 5,
                "reconnectMaxDelayMs": 50,
            },
        )
        self.bootstrap("--heartbeat-timeout-ms", "8")
        relay = self.project.json()["relay"]
        self.assertEqual((relay["relayWsUrl"], relay["heartbeatTimeoutMs"]), (URL, 8))

    def test_wrong_numbers(self) -> None:
        """The original takes its defaults, and says nothing."""
        self.made()
        for option in (
            "--reconnect-base-delay-ms",
            "--reconnect-max-delay-ms",
            "--heartbeat-timeout-ms",
        ):
            for number in ("0", "-1", "x", "1.5", "", "99999999999"):
                said = self.refused(
                    "relay", "bootstrap", "--relay-ws-url", URL, option, number, code=64
                )
                self.assertIn(f"Invalid value for '{option}'", said)
        said = self.refused(
            *("relay", "bootstrap", "--relay-ws-url", URL, "--reconnect-base-delay-ms", "9000"),
            code=78,
        )
        self.assertIn("relay.reconnectBaseDelayMs: wanted at most reconnectMaxDelayMs", said)

    def test_wrong_number_there(self) -> None:
        """Is told of, and gives way to one that is given."""
        self.made({"relay": {**RELAY, "reconnectMaxDelayMs": "8s"}})
        said = self.refused("setup", "--relay-ws-url", URL, code=78)
        self.assertIn(
            "configs/gateway.json: relay.reconnectMaxDelayMs: wanted a whole number of "
            'milliseconds from 1 to 86400000, got "8s"',
            said,
        )
        self.bootstrap("--relay-ws-url", URL, "--reconnect-max-delay-ms", "8000")

    def test_wrong_urls(self) -> None:
        for url in (
            "http://relay.test/ws",
            "relay.test",
            "",
            "wss://",
            "wss://a b/ws",
            "wss://u@h/ws",
        ):
            self.made()
            for command in COMMANDS:
                said = self.refused(*command, "--relay-ws-url", url, code=64)
                self.assertIn('--relay-ws-url: wanted a URL such as "wss://relay.example/ws"', said)

    def test_no_url(self) -> None:
        """Nobody's mail goes to a relay that he has not named."""
        for gateway in (
            SCAFFOLD,
            {"relay": {"enabled": False, "relayWsUrl": "ws://127.0.0.1:8080/ws"}},
        ):
            self.made(gateway)
            for command in COMMANDS:
                said = self.refused(*command, code=64)
                self.assertIn("--relay-ws-url: wanted the URL of a relay, got nothing", said)

    # --- the transport ---------------------------------------------------------------------------

    def test_transport_that_somebody_chose(self) -> None:
        """Waits where nobody else reads it, and is there again without the relay."""
        for command in COMMANDS:
            transport = {
                "host": "smtp.b.test",
                "port": 465,
                "secure": True,
                "auth": {"user": "me", "pass": "secret"},
            }
            project = self.made({"mailDomain": "a.test", "transport": transport, "port": 1})
            self.ran(*command, "--relay-ws-url", URL)
            self.assertNotIn("transport", project.json())
            kept = project.path / ".protege-mta/transport.json"
            modes = [stat.S_IMODE(path.stat().st_mode) for path in (kept.parent, kept)]
            self.assertEqual(modes, [0o700, 0o600])
            self.setup("--outbound", "local")
            self.assertEqual(project.json()["transport"], transport)

    def test_scaffolds_transport_is_nobodys(self) -> None:
        self.made()
        self.bootstrap("--relay-ws-url", URL)
        self.assertFalse((self.project.path / ".protege-mta").exists())


class LocalTests(ProjectCase):
    def test_from_relay(self) -> None:
        """The relay is off, a transport is there, and addresses stay."""
        project = self.made({"mailDomain": "mail.example.test", "relay": {**RELAY, "x": 1}})
        project.persona()
        done = self.setup("--outbound", "local", "--json").json()
        self.assertEqual((done["relayEnabled"], done["relayWsUrl"]), (False, None))
        self.assertEqual(done["mailDomain"], "mail.example.test")
        self.assertEqual(
            project.json(),
            {
                "mailDomain": "mail.example.test",
                "relay": {**RELAY, "enabled": False, "x": 1},
                "transport": {"host": "127.0.0.1", "port": 1025, "secure": False},
            },
        )
        self.assertTrue(self.setup("--outbound", "local").out.startswith("nothing to change"))

    def test_new_gateway(self) -> None:
        """A project without ``gateway.json`` gets one that works."""
        project = self.made(None)
        self.setup("--outbound", "local")
        self.assertEqual(
            list(project.json()), ["mode", "host", "port", "mailDomain", "transport", "relay"]
        )
        self.assertEqual(project.json()["relay"]["enabled"], False)
        self.assertEqual(load(project.path).route, "smarthost")

    def test_url_without_relay(self) -> None:
        self.made()
        said = self.refused("setup", "--outbound", "local", "--relay-ws-url", URL, code=64)
        self.assertIn("--relay-ws-url: only with --outbound relay", said)

    def test_admin(self) -> None:
        project = self.made()
        project.write("configs/system.json", '{\n  "logs_dir_path": "tmp/logs"\n}\n')
        self.setup("--outbound", "local", "--admin-contact-email", "me@b.test")
        self.assertEqual(
            project.text("configs/system.json"),
            '{\n  "logs_dir_path": "tmp/logs",\n  "admin_contact_email": "me@b.test"\n}\n',
        )
        said = self.refused("setup", "--outbound", "local", "--admin-contact-email", "me", code=64)
        self.assertIn("--admin-contact-email: wanted an address such as", said)


class AskingTests(ProjectCase):
    def test_on_a_terminal(self) -> None:
        """Where nothing is given it asks; what is configured is what it offers."""
        self.made()
        path = str(self.project.path)
        done = run("setup", "--path", path, stdin=f"\n{URL}\n".encode(), is_terminal=True)
        self.assertEqual(done.code, 0, done.err)
        self.assertEqual(self.project.json()["relay"]["relayWsUrl"], URL)
        done = run("setup", "--path", path, stdin=b"\n\n", is_terminal=True)
        self.assertIn("nothing to change", done.out)
        done = run("setup", "--path", path, stdin=b"local\n", is_terminal=True)
        self.assertEqual(self.project.json()["relay"]["enabled"], False)

    def test_never_asks(self) -> None:
        """With any option, or without a terminal."""
        self.made()
        path = str(self.project.path)
        for arguments, is_terminal in (
            (["--non-interactive"], True),
            (["--outbound", "relay"], True),
            (["--json"], True),
            ([], False),
        ):
            done = run("setup", "--path", path, *arguments, is_terminal=is_terminal)
            self.assertEqual(done.code, 64)
            self.assertIn("--relay-ws-url: wanted the URL of a relay", done.err)
