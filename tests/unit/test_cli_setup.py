"""Commands that need no service: ``init``, ``check-config``, ``dkim``, ``dns``, ``run``'s welcome."""

from __future__ import annotations

import os
import pwd
import socket
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Final
from unittest.mock import patch

import dns.zone
from twisted.python.procutils import which
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from protege_mta.cli.run import (
    facts_of,
    first_account,
    first_agent,
    first_message,
    first_request,
)
from protege_mta.cli.terminal import duration, harmless, size, until
from protege_mta.cli.unit import PACKAGED, in_folder
from protege_mta.config.embedded import embedded
from protege_mta.config.model import Settings
from protege_mta.config.source import load as load_any
from protege_mta.config.toml import load
from protege_mta.model.account import Account
from protege_mta.state.accounts import put
from protege_mta.state.database import connect, transaction

from .console import run
from .projects import ProjectFolder, keys

ROOT: Final = Path(__file__).parents[2]
BAD: Final = ROOT / "tests/badconfig"


class InitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()

    def test_result_works(self) -> None:
        """What it writes passes its own check."""
        ran = run("init", str(self.folder), "--hostname", "MX.a.test", "--domain", "a.test")
        self.assertEqual((ran.code, ran.err), (0, ""))
        config = self.folder / "protege-mta.toml"
        checked = run("check-config", str(config))
        self.assertEqual((checked.code, checked.out), (0, f"{config}: ok\n"))
        settings = load(config)
        self.assertEqual((settings.hostname, list(settings.domains)), ("mx.a.test", ["a.test"]))
        self.assertEqual(
            [each.name for each in settings.dkim["a.test"].selectors], ["rsa", "ed25519"]
        )

    def test_secrets(self) -> None:
        """Private keys are their owner's alone."""
        run("init", str(self.folder))
        for name in ("keys/rsa.pem", "keys/ed25519.pem", "tls/key.pem"):
            mode = stat.S_IMODE((self.folder / name).stat().st_mode)
            self.assertEqual(mode, 0o600, name)

    def test_never_overwrites(self) -> None:
        """One file that is there is enough for it to write nothing at all."""
        (self.folder / "tls").mkdir(parents=True)
        (self.folder / "tls/key.pem").write_text("precious")
        ran = run("init", str(self.folder))
        self.assertEqual((ran.code, ran.out), (73, ""))
        self.assertIn(f"{self.folder}/tls/key.pem: there already", ran.err)
        self.assertEqual([p.name for p in self.folder.rglob("*") if p.is_file()], ["key.pem"])
        self.assertEqual((self.folder / "tls/key.pem").read_text(), "precious")
        self.assertEqual(run("init", str(self.folder), "--force").code, 0)
        self.assertEqual(run("check-config", str(self.folder / "protege-mta.toml")).code, 0)

    def test_json(self) -> None:
        ran = run("init", str(self.folder), "--smtp-port", "2525", "--address", "::1", "--json")
        said = ran.json()
        self.assertEqual(said["config"], str(self.folder / "protege-mta.toml"))
        self.assertEqual(len(said["files"]), 6)
        self.assertEqual(
            [(each["name"], each["type"]) for each in said["records"]],
            [
                ("mx.local.test", "A"),
                ("mx.local.test", "AAAA"),
                ("YOUR-ADDRESS", "PTR"),
                ("mx.local.test", "TXT"),
                ("local.test", "MX"),
                ("local.test", "TXT"),
                ("rsa._domainkey.local.test", "TXT"),
                ("ed25519._domainkey.local.test", "TXT"),
                ("_dmarc.local.test", "TXT"),
            ],
        )
        settings = load(Path(said["config"]))
        self.assertEqual(
            [(each.kind, each.address, each.port) for each in settings.listeners],
            [
                ("smtp", "::1", 2525),
                ("submission", "::1", 2587),
                ("submissions", "::1", 2465),
                ("http", "::1", 8026),
            ],
        )

    def test_ports(self) -> None:
        """Those that clients try; others for who may not have them, or as told."""
        for number, (arguments, expected) in enumerate(
            (
                ((), [25, 587, 465, 8026]),
                (("--smtp-port", "2526"), [2526, 2587, 2465, 8026]),
                (
                    ("--smtp-port", "2526", "--submission-port", "1", "--submissions-port", "2"),
                    [2526, 1, 2, 8026],
                ),
            )
        ):
            folder = self.folder / str(number)
            run("init", str(folder), *arguments)
            settings = load(folder / "protege-mta.toml")
            self.assertEqual([each.port for each in settings.listeners], expected)

    def test_mistakes(self) -> None:
        for arguments in (["--domain", "a b"], ["--address", "here"], ["--mode", "relay"]):
            ran = run("init", str(self.folder), *arguments)
            self.assertEqual((ran.code, ran.out), (64, ""))
            self.assertFalse(self.folder.exists())

    def test_another_user(self) -> None:
        """Root may make a service for somebody else, who then owns all of it."""
        if os.geteuid() != 0:
            raise SkipTest("needs root, to give files away")
        ran = run("init", str(self.folder), "--user", "nobody")
        self.assertEqual((ran.code, ran.err), (0, ""))
        nobody = pwd.getpwnam("nobody").pw_uid
        owners = {path.stat().st_uid for path in [self.folder, *self.folder.rglob("*")]}
        self.assertEqual(owners, {nobody})
        self.assertIn("\nUser=nobody\n", (self.folder / "protege-mta.service").read_text())

    def test_no_such_user(self) -> None:
        ran = run("init", str(self.folder), "--user", "no such")
        self.assertEqual((ran.code, ran.out, self.folder.exists()), (67, "", False))

    def test_folder_that_cannot_be_made(self) -> None:
        self.folder.write_text("a file")
        ran = run("init", str(self.folder / "below"))
        self.assertEqual(ran.code, 73)
        self.assertIn("Not a directory", ran.err)


class CheckConfigTests(SynchronousTestCase):
    def test_project(self) -> None:
        """A folder will do, and complaints name its files."""
        project = ProjectFolder.made(Path(self.mktemp()))
        ran = run("check-config", str(project.path))
        self.assertEqual((ran.code, ran.out), (0, f"{project.path}: ok\n"))
        file = project.write("configs/gateway.json", {"port": 0.5})
        ran = run("check-config", str(project.path))
        self.assertEqual(
            (ran.code, ran.err),
            (1, f"{file}: port: wanted a whole number from 0 to 65535, got 0.5\n"),
        )

    def test_complaints(self) -> None:
        """One line each on stderr, and exit status 1."""
        path = BAD / "workers.toml"
        ran = run("check-config", str(path))
        self.assertEqual((ran.code, ran.out), (1, ""))
        self.assertEqual(ran.err, f"{path}: [workers] count: wanted 1, got 2\n")
        ran = run("check-config", "--json", "--config", str(path))
        self.assertEqual(ran.code, 1)
        self.assertEqual(
            ran.json(),
            {
                "ok": False,
                "complaints": [
                    {"file": str(path), "place": "[workers] count", "text": "wanted 1, got 2"}
                ],
            },
        )

    def test_which_file(self) -> None:
        """--config before or behind the command, then the environment; a missing one is an error."""
        path = str(BAD / "workers.toml")
        for arguments, environment in (
            (["--config", path, "check-config"], {}),
            (["check-config", "--config", path], {}),
            (["check-config"], {"PROTEGE_MTA_CONFIG": path}),
        ):
            ran = run(*arguments, environment=environment)
            self.assertIn("[workers] count", ran.err)
        ran = run("check-config", "--config", "/nowhere.toml")
        self.assertEqual(ran.code, 78)
        self.assertIn("/nowhere.toml: no such file, named by --config", ran.err)


class DkimTests(SynchronousTestCase):
    def test_keygen_and_show(self) -> None:
        folder = Path(self.mktemp()).absolute()
        file = folder / "s1.pem"
        ran = run("dkim", "keygen", str(file), "--type", "ed25519", "--domain", "a.test", "--json")
        [made] = ran.json()
        self.assertEqual((made["name"], made["kind"]), ("s1._domainkey.a.test", "ed25519"))
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        self.assertEqual(run("dkim", "keygen", str(file)).code, 73)

        config = folder / "c.toml"
        config.write_text('[dkim."a.test"]\nselectors = [{name = "s1", private_key = "s1.pem"}]\n')
        shown = run("dkim", "show", "A.test", "--config", str(config))
        self.assertEqual(shown.out, f's1._domainkey.a.test. IN TXT "{made["value"]}"\n')
        self.assertEqual(run("dkim", "show", "--json", "--config", str(config)).json(), [made])
        ran = run("dkim", "show", "b.test", "--config", str(config))
        self.assertEqual((ran.code, ran.out), (66, ""))


class DnsTests(SynchronousTestCase):
    def records(self, text: str, *arguments: str) -> str:
        config = Path(self.mktemp()).absolute()
        config.write_text(text)
        return run("dns", "records", "--config", str(config), *arguments).out

    def test_zone(self) -> None:
        """A name server takes it as it is; keys longer than one string are cut."""
        folder = Path(self.mktemp()).absolute()
        run("init", str(folder), "--domain", "a.test", "--address", "8.8.8.8")
        config = str(folder / "protege-mta.toml")
        text = run("dns", "records", "--zone", "--config", config).out
        zone = dns.zone.from_text(
            f"$TTL 60\n@ IN SOA . . 1 1 1 1 1\n@ IN NS .\n{text}",
            origin="a.test.",
            relativize=False,
        )
        self.assertEqual(str(zone.find_rdataset("a.test.", "MX")), "60 IN MX 10 mx.a.test.")
        self.assertEqual(str(zone.find_rdataset("mx.a.test.", "A")), "60 IN A 8.8.8.8")
        key = zone.find_rdataset("rsa._domainkey.a.test.", "TXT")[0]
        self.assertEqual(len(key.strings), 2)
        self.assertTrue(key.strings[0].startswith(b"v=DKIM1; k=rsa; p="))

    def test_unknown_address(self) -> None:
        """It says so, and the zone file has it as a comment."""
        domain = '[domains."a.test"]\ndeliver = "lmtp"\nlmtp = "unix:/x"\n'
        text = 'hostname = "mx.a.test"\n' + domain
        self.assertIn("mx.a.test      A     YOUR-ADDRESS", self.records(text))
        self.assertIn("; mx.a.test. IN A YOUR-ADDRESS\n", self.records(text, "--zone"))
        self.assertIn("; mx.a.test. IN AAAA YOUR-IPV6-ADDRESS\n", self.records(text, "--zone"))
        self.assertIn("; YOUR-ADDRESS. IN PTR mx.a.test.\n", self.records(text, "--zone"))

    def test_public_addresses(self) -> None:
        """Those that are named, each with its PTR, which is no part of the domain's zone."""
        text = (
            'hostname = "mx.a.test"\npublic_addresses = ["192.0.2.25", "2001:db8::25"]\n'
            '[[listener]]\nkind = "smtp"\naddress = "8.8.8.8"\n'
        )
        zone = self.records(text, "--zone").splitlines()
        self.assertEqual(
            zone[:3],
            [
                "mx.a.test. IN A 192.0.2.25",
                "mx.a.test. IN AAAA 2001:db8::25",
                "; 25.2.0.192.in-addr.arpa. IN PTR mx.a.test.",
            ],
        )
        self.assertTrue(zone[3].startswith("; 5.2.0.0.0"), zone[3])
        self.assertEqual(zone[4], 'mx.a.test. IN TXT "v=spf1 a -all"')

    def test_smarthost(self) -> None:
        """Its address is the one that others see."""
        for host, mechanism in {
            "out.b.test": "a:out.b.test",
            "192.0.2.1": "ip4:192.0.2.1",
            "2001:db8::1": "ip6:2001:db8::1",
        }.items():
            text = self.records(
                'hostname = "a.test"\n[domains."a.test"]\ndeliver = "lmtp"\nlmtp = "unix:/x"\n'
                f'[outbound]\nroute = "smarthost"\nsmarthost = {{host = "{host}"}}\n',
                "--zone",
            )
            self.assertIn(f'a.test. IN TXT "v=spf1 mx {mechanism} -all"\n', text)

    def test_smarthost_on_this_machine(self) -> None:
        """Its address says nothing to others."""
        text = self.records(
            'hostname = "a.test"\n[domains."a.test"]\ndeliver = "lmtp"\nlmtp = "unix:/x"\n'
            '[outbound]\nroute = "smarthost"\nsmarthost = {host = "127.0.0.1", tls = "none"}\n',
            "--zone",
        )
        self.assertIn('a.test. IN TXT "v=spf1 mx -all"\n', text)

    def test_nothing_is_cut(self) -> None:
        """A key can be copied from a narrow terminal, in pieces."""
        folder = Path(self.mktemp()).absolute()
        run("init", str(folder))
        arguments = ("dns", "records", "--config", str(folder / "protege-mta.toml"))
        narrow = run(*arguments, is_terminal=True, environment={"COLUMNS": "80"})
        self.assertNotIn("\u2026", narrow.out)


class RunTests(SynchronousTestCase):
    def test_welcome(self) -> None:
        """Where everything is, with the ports that it really has, and a first message."""
        settings = embedded(Path("/srv/data"))
        ports = {"smtp": 4025, "submission": 4587, "http": 4080}
        self.assertEqual(
            list(facts_of(settings, ports)),
            [
                ("configuration", "none: the embedded default"),
                ("smtp", "127.0.0.1:4025"),
                ("submission", "127.0.0.1:4587"),
                ("http", "http://127.0.0.1:4080"),
                ("certificate", "self-signed: /srv/data/tls/cert.pem"),
                ("data", "/srv/data"),
                ("localhost.test", "/srv/data/mail/{domain}/{local_part}"),
                ("events", "/srv/data/events.jsonl"),
            ],
        )
        self.assertEqual(
            first_message(settings, ports).splitlines(),
            [
                "python3 -c \"import smtplib; smtplib.SMTP('127.0.0.1', 4025).sendmail("
                "'you@localhost.test', 'agent@localhost.test', 'From: you@localhost.test\\n"
                "To: agent@localhost.test\\nSubject: First\\n\\nHello.\\n')\"",
                "cat /srv/data/mail/localhost.test/agent/new/*",
            ],
        )

    def test_first_request(self) -> None:
        settings = embedded(Path("/srv/data"))
        self.assertEqual(
            first_request(settings, {"http": 4080}, "pmta_x"),
            "curl http://127.0.0.1:4080/v1/message -H 'Authorization: Bearer pmta_x'"
            " -H 'Content-Type: application/json'"
            ' -d \'{"from": "you@localhost.test", "to": ["agent@localhost.test"],'
            ' "subject": "Second", "text": "Hello."}\'',
        )
        self.assertEqual(first_request(Settings(), {}, "pmta_x"), "")

    def test_listeners_under_tls(self) -> None:
        folder = Path(self.mktemp()).absolute()
        run("init", str(folder), "--mode", "relay-server")
        settings = load_any(folder / "protege-mta.toml")
        facts = dict(facts_of(settings, {each.name: 5 for each in settings.listeners}))
        self.assertEqual(facts["tunnel"], "https://0.0.0.0:5")
        self.assertEqual(facts["http"], "http://127.0.0.1:5")

    def test_no_first_message(self) -> None:
        self.assertEqual(first_message(Settings(), {}), "")

    def test_first_account(self) -> None:
        """Until there is one, where anybody could use it."""
        folder = Path(self.mktemp()).absolute()
        self.assertEqual(
            first_account(embedded(folder)),
            "protege-mta user add agent --allowed-from agent@localhost.test",
        )
        self.assertEqual(first_account(Settings(state_dir=folder)), "")
        with closing(connect(folder)) as connection, transaction(connection):
            put(connection, Account(name="agent", password_hash="x"))
        self.assertEqual(first_account(embedded(folder)), "")

    def test_first_account_of_an_agent(self) -> None:
        """It sends as the agent, since a relay takes nothing else from it."""
        folder = Path(self.mktemp()).absolute()
        said = run(
            *("init", str(folder), "--mode", "relay", "--json"),
            *("--relay-url", "wss://relay.a.test/ws"),
        ).json()
        config = folder / "protege-mta.toml"
        self.assertEqual(
            first_account(load_any(config)),
            f"protege-mta --config {config} user add agent --allowed-from {said['address']}",
        )

    def test_first_agent(self) -> None:
        """Of a relay server, until there is one; accounts are not what it is for."""
        folder = Path(self.mktemp()).absolute()
        run("init", str(folder), "--mode", "relay-server")
        config = folder / "protege-mta.toml"
        settings = load_any(config)
        command = f"protege-mta --config {config} tunnel allow KEY"
        self.assertEqual((first_account(settings), first_agent(settings)), ("", command))
        run("tunnel", "allow", keys()[0].text, "--config", str(config))
        self.assertEqual(first_agent(settings), "")
        config.write_text(config.read_text().replace('"listed"', '"any"'))
        self.assertEqual(first_agent(load_any(config)), "")
        self.assertEqual(first_agent(Settings()), "")

    def test_project(self) -> None:
        """A persona is who a first message goes to, and who a first account sends as."""
        project = ProjectFolder.made(Path(self.mktemp()), {"mode": "default"})
        settings = load_any(project.path)
        self.assertEqual(first_message(settings, {"submission": 5}), "")
        project.persona()
        settings = load_any(project.path)
        address = f"{keys()[0].text}@localhost"
        self.assertEqual(
            first_account(settings),
            f"protege-mta --config {project.path} user add agent --allowed-from {address}",
        )
        project.write("configs/gateway.json", {"mode": "dev"})
        settings = load_any(project.path)
        box = project.path / "memory" / keys()[0].id / "maildir"
        self.assertIn(("localhost", str(box)), list(facts_of(settings, {"smtp": 5})))
        lines = first_message(settings, {"smtp": 5}).splitlines()
        self.assertIn(f", '{address}', ", lines[0])
        self.assertEqual(lines[1], f"cat {box}/new/*")

    def test_port_is_taken(self) -> None:
        """It says so in words, and nothing has begun."""
        folder = Path(self.mktemp()).absolute()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            run("init", str(folder), "--address", "127.0.0.1", "--smtp-port", port)
            program = "import sys; from protege_mta.cli import main; sys.exit(main(sys.argv[1:]))"
            ran = subprocess.run(
                [sys.executable, "-c", program, "run", "--config", folder / "protege-mta.toml"],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        self.assertEqual((ran.returncode, ran.stdout), (69, ""), ran.stderr)
        self.assertIn(f"protege-mta: listener smtp: cannot bind 127.0.0.1 port {port}", ran.stderr)
        self.assertFalse((folder / "state").exists())

    def test_bad_configuration(self) -> None:
        ran = run("run", "--config", str(BAD / "workers.toml"))
        self.assertEqual(ran.code, 78)
        self.assertIn("[workers] count: wanted 1, got 2", ran.err)


class UnitFileTests(SynchronousTestCase):
    """What is in ``etc`` is what the program says, and what systemd takes."""

    def test_packaged_service_is_current(self) -> None:
        self.assertEqual((ROOT / "etc/protege-mta.service").read_text(), PACKAGED.text())

    def test_example_is_right(self) -> None:
        """The example configuration passes the check where its keys are."""
        folder = Path(self.mktemp()).absolute()
        run("init", str(folder))
        config = folder / "protege-mta.toml"
        config.write_bytes((ROOT / "etc/protege-mta.toml").read_bytes())
        ran = run("check-config", str(config))
        self.assertEqual((ran.code, ran.err), (0, ""))
        socket_unit = (ROOT / "etc/protege-mta.socket").read_text()
        self.assertIn(f"FileDescriptorName={load(config).listeners[0].name}\n", socket_unit)

    def test_folders_that_the_sandbox_would_hide(self) -> None:
        for folder, expected in {
            "/srv/mail": "ProtectHome=yes\nPrivateTmp=yes\nReadWritePaths=/srv/mail\n",
            "/root": "ProtectHome=no\nPrivateTmp=yes\nReadWritePaths=/root\n",
            "/tmp/x": "ProtectHome=yes\nPrivateTmp=no\nReadWritePaths=/tmp/x\n",
            "/srv/50%": "ProtectHome=yes\nPrivateTmp=yes\nReadWritePaths=/srv/50%%\n",
            "/srv/a b": 'ProtectHome=yes\nPrivateTmp=yes\nReadWritePaths="/srv/a b"\n',
        }.items():
            self.assertIn(expected, in_folder("/usr/bin/twistd", folder, "u", "g").text())

    def test_systemd_takes_them(self) -> None:
        if not which("systemd-analyze"):
            raise SkipTest("systemd-analyze is not installed")
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        own = in_folder(sys.executable, str(folder), "root", "root").text()
        (folder / "own.service").write_text(own)
        packaged = PACKAGED.text().replace("/usr/bin/twistd", sys.executable)
        (folder / "protege-mta.service").write_text(
            packaged.replace("=protege-mta\nGroup=protege-mta", "=root\nGroup=root")
        )
        (folder / "protege-mta.socket").write_bytes((ROOT / "etc/protege-mta.socket").read_bytes())
        units = [folder / name for name in ("own.service", "protege-mta.service")]
        ran = subprocess.run(
            ["systemd-analyze", "verify", *units, folder / "protege-mta.socket"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
        )
        ours = [line for line in ran.stderr.splitlines() if "protege-mta" in line or "own." in line]
        self.assertEqual((ran.returncode, ours), (0, []))


class RootTests(SynchronousTestCase):
    def test_help(self) -> None:
        """Every command has a line of its own."""
        ran = run("--help")
        self.assertEqual(ran.code, 0)
        for name in ("run", "init", "check-config", "status", "queue", "explain", "sendmail"):
            self.assertRegex(ran.out, rf"\n  {name} +\w")

    def test_help_is_quick(self) -> None:
        """It imports nothing heavy."""
        program = (
            "import sys; from protege_mta.cli import main; main(['--help']);"
            "print([m for m in ('twisted', 'rich', 'cryptography', 'dns') if m in sys.modules])"
        )
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        self.assertEqual(ran.stdout.splitlines()[-1], "[]")

    def test_what_is_asked_for_often_is_quick(self) -> None:
        """It imports nothing that only a service needs."""
        path = Path(self.mktemp()).absolute()
        path.write_text('hostname = "mx.example.org"\n')
        for arguments in (["status"], ["sendmail", "bo@example.org"]):
            program = (
                "import sys\n"
                "from protege_mta.cli import main\n"
                "try:\n"
                f"    main({[*arguments[:1], '--config', str(path), *arguments[1:]]!r})\n"
                "finally:\n"
                "    heavy = ('autobahn', 'twisted.web', 'klein', 'spf', 'dkim')\n"
                "    print([name for name in heavy if name in sys.modules])\n"
            )
            ran = subprocess.run(
                [sys.executable, "-c", program], input=b"\n", capture_output=True, check=False
            )
            self.assertEqual(ran.stdout.splitlines()[-1], b"[]", (arguments, ran.stderr))

    def test_mistakes(self) -> None:
        for arguments in (["nonsense"], ["run", "--nonsense"], ["queue", "list", "--state", "x"]):
            ran = run(*arguments)
            self.assertEqual((ran.code, ran.out), (64, ""))

    def test_version(self) -> None:
        self.assertRegex(run("version").out, r"\Aprotege-mta: +\d+\.\d+\.\d+\n")
        self.assertRegex(run("--version").out, r"\Aprotege-mta \d+\.\d+\.\d+\n\Z")
        self.assertEqual(
            list(run("version", "--json").json()), ["protege-mta", "python", "twisted", "openssl"]
        )

    def test_no_configuration(self) -> None:
        """It says where it looked, and what to do."""
        folder = Path(self.mktemp())
        folder.mkdir()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder)
        with patch("protege_mta.cli.options.PLACES", (Path("protege-mta.toml"),)):
            ran = run("queue", "list")
        self.assertEqual((ran.code, ran.out), (78, ""))
        self.assertIn("no configuration", ran.err)
        self.assertIn("protege-mta init DIR makes one", ran.err)


class WordsTests(SynchronousTestCase):
    def test_durations(self) -> None:
        self.assertEqual(
            [duration(s) for s in (0, 0.9, 1, 59, 60, 3599, 3600, 86_399, 86_400, 1e6)],
            ["0 s", "0 s", "1 s", "59 s", "1 min", "59 min", "1 h", "23 h", "1 d", "11 d"],
        )
        self.assertEqual([until(10, 10), until(70, 10)], ["now", "in 1 min"])

    def test_sizes(self) -> None:
        self.assertEqual(
            [size(n) for n in (0, 1023, 1024, 1536, 52_428_800, 2**40)],
            ["0 B", "1023 B", "1 KiB", "1.5 KiB", "50 MiB", "1.02e+03 GiB"],
        )

    def test_harmless(self) -> None:
        self.assertEqual(harmless("caf\u00e9"), "caf\u00e9")
        self.assertEqual(harmless("a\x1b[2J\n\u202e"), "a\\x1b[2J\\n\\u202e")
