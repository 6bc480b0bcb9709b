"""``run``: the service in the foreground."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .faults import Fault
from .options import config_option, of_project, project_option
from .terminal import write, write_facts

if TYPE_CHECKING:
    from ..config.domains import Domain
    from ..config.listeners import Listener
    from ..config.model import Settings


@click.command()
@config_option
@project_option
def command(config: Path | None, project: Path | None) -> int:
    """Run the service in the foreground; Ctrl-C ends it.

    Without a configuration it serves localhost.test on 127.0.0.1:2525, takes submission on
    127.0.0.1:2587 and HTTP on 127.0.0.1:8026, and has its data in ./protege-mta-data.  Its first
    start makes an API key, and prints it that once.
    """
    from ..config.toml import ConfigError
    from ..tap import CannotStart, read_settings, run_foreground

    path = config if project is None else of_project(project, config)
    try:
        settings = read_settings(path)
        return run_foreground(settings, lambda: _greet(settings))
    except ConfigError as error:
        raise Fault(str(error), os.EX_CONFIG) from error
    except CannotStart as error:
        raise Fault(str(error), os.EX_UNAVAILABLE) from error


def _greet(settings: Settings) -> None:
    ports = json.loads((settings.state_dir / "ports.json").read_text("utf-8"))
    write_facts(facts_of(settings, ports))
    first = first_message(settings, ports)
    if first:
        write(f"\nSend a first message from another terminal, and look at it:\n\n{first}\n")
    account = first_account(settings)
    if account:
        write(f"Nobody can log in to send before there is an account:\n\n{account}\n")
    key = first_key(settings) if settings.source is None else ""
    if key:
        write("The API key for HTTP, which is shown this once:\n")
        click.echo(key)  # alone on its line, whatever the width
        request = first_request(settings, ports, key)
        if request:
            write(f"\nThe same over HTTP, with it:\n\n{request}\n")
    agent = first_agent(settings)
    if agent:
        write(f"No agent can come before it is allowed:\n\n{agent}\n")
    sys.stdout.flush()


def facts_of(settings: Settings, ports: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Where everything is.

    :param ports: those that listeners really have, by their names.
    """
    yield "configuration", str(settings.source or "none: the embedded default")
    for listener in settings.listeners:
        yield listener.name, f"{_scheme(listener)}{_host(listener)}:{ports[listener.name]}"
    if settings.is_self_signed:
        yield "certificate", f"self-signed: {settings.self_signed_folder / 'cert.pem'}"
    yield "data", str(settings.state_dir)
    for name, domain in settings.domains.items():
        yield name, _way(domain)
    yield "events", str(settings.events_log)


def _way(domain: Domain) -> str:
    match domain.deliver:
        case "maildir":
            return ", ".join(dict.fromkeys(domain.mailboxes.values())) or domain.maildir
        case "lmtp":
            return str(domain.lmtp)
        case "tunnel":
            return "tunnels of agents"
        case "webhook":
            return domain.webhook.url


def _scheme(listener: Listener) -> str:
    if listener.kind != "http":
        return ""
    return "https://" if listener.tls else "http://"


def _host(listener: Listener) -> str:
    return f"[{listener.address}]" if ":" in listener.address else listener.address


def first_message(settings: Settings, ports: Mapping[str, int]) -> str:
    """A command for any shell with Python 3, and one that shows what came of it; empty where this
    configuration has no Maildir."""
    smtp = [each for each in settings.listeners if each.kind == "smtp"]
    boxes = [(name, each) for name, each in settings.domains.items() if each.deliver == "maildir"]
    boxes = [(name, each) for name, each in boxes if each.recipients]
    if not smtp or not boxes:
        return ""
    name, box = boxes[0]
    local_part = "agent" if "*" in box.recipients else box.recipients[0]
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(smtp[0].address, smtp[0].address)
    recipient = f"{local_part}@{name}"
    program = (
        f"import smtplib; smtplib.SMTP('{address}', {ports[smtp[0].name]}).sendmail("
        f"'you@{name}', '{recipient}', 'From: you@{name}\\nTo: {recipient}\\n"
        "Subject: First\\n\\nHello.\\n')"
    )
    folder = box.maildir.replace("{domain}", name).replace("{local_part}", local_part.lower())
    folder = box.mailboxes.get(local_part.lower(), folder)
    return f'python3 -c "{program}"\ncat {shlex.quote(folder)}/new/*'


def first_request(settings: Settings, ports: Mapping[str, int], key: str) -> str:
    """A command for any shell with curl that sends over HTTP; empty where nothing listens for it, or
    there is no domain to write to."""
    http = [each for each in settings.listeners if each.kind == "http"]
    if not http or not settings.domains:
        return ""
    name = next(iter(settings.domains))
    message = {
        "from": f"you@{name}",
        "to": [f"agent@{name}"],
        "subject": "Second",
        "text": "Hello.",
    }
    return (
        f"curl {_scheme(http[0])}{_host(http[0])}:{ports[http[0].name]}/v1/message"
        f" -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'"
        f" -d {shlex.quote(json.dumps(message))}"
    )


def first_account(settings: Settings) -> str:
    """A command that makes one; empty where there is none to be made, or there are some."""
    from ..config.domains import MaildirDomain
    from ..model.ports import StateFailed
    from ..state.accounts import every
    from ..state.database import connect

    if not any(each.kind in ("submission", "submissions") for each in settings.listeners):
        return ""
    try:
        with closing(connect(settings.state_dir)) as connection:
            if next(every(connection), None) is not None:
                return ""
    except StateFailed:
        return ""  # the service has said so
    # At the other domains it is agents' keys that say who is who.
    ours = {name: domain for name, domain in settings.domains.items() if domain.deliver != "tunnel"}
    if settings.domains and not ours:
        return ""
    name, domain = next(iter(ours.items()), (settings.hostname, None))
    local_part = "agent"
    if isinstance(domain, MaildirDomain):
        named = [each for each in (*domain.mailboxes, *domain.recipients) if each != "*"]
        local_part = next(iter(named), local_part)
    return f"protege-mta{_config(settings)} user add agent --allowed-from {local_part}@{name}"


def first_agent(settings: Settings) -> str:
    """A command that lets one come; empty where this is no relay server, or some may come."""
    from ..config.toml import ConfigError, load_identities

    server = settings.tunnel_server
    if not server.enabled or server.identities == "any":
        return ""
    try:
        if load_identities(server.identities_file):
            return ""
    except ConfigError:
        return ""  # the service has said so
    return f"protege-mta{_config(settings)} tunnel allow KEY"


def _config(settings: Settings) -> str:
    return f" --config {shlex.quote(str(settings.source))}" if settings.source else ""


def first_key(settings: Settings) -> str:
    """The secret of a key made just now; empty where an earlier start has made one, be it that it
    was revoked since."""
    import sqlite3
    import time

    from ..model.apikey import ApiKey
    from ..model.caller import SCOPES
    from ..model.ports import StateFailed
    from ..state.apikeys import find, put
    from ..state.database import connect, once, transaction
    from .apikey import fresh_secret

    now = time.time()
    text, secret = fresh_secret(now)
    key = ApiKey(name="first", secrets=(secret,), scopes=frozenset(SCOPES), created_at=now)
    try:
        with closing(connect(settings.state_dir)) as connection, transaction(connection):
            if not once(connection, "first-key") or find(connection, key.name) is not None:
                return ""
            put(connection, key)
    except (StateFailed, sqlite3.Error) as error:
        write(f"No API key could be made: {error}")
        return ""
    return text
