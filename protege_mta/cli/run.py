"""``run``: the service in the foreground."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .faults import Fault
from .options import config_option, find_config
from .terminal import write, write_facts

if TYPE_CHECKING:
    from ..config.model import Listener, Settings


@click.command()
@config_option
def command(config: Path | None) -> int:
    """Run the service in the foreground; Ctrl-C ends it.

    Without a configuration it serves localhost.test on 127.0.0.1:2525, with its data in
    ./protege-mta-data.
    """
    from ..config.embedded import FOLDER, embedded
    from ..config.toml import ConfigError, load

    path = find_config(config)
    try:
        settings = embedded(FOLDER) if path is None else load(path)
    except ConfigError as error:
        raise Fault(str(error), os.EX_CONFIG) from error
    taken = list(_taken(settings))
    if taken:
        raise Fault("\n".join(taken), os.EX_UNAVAILABLE)
    _greet(settings)
    from ..tap import run_foreground

    return run_foreground(path)


def _taken(settings: Settings) -> Iterator[str]:
    """A complaint for each port that cannot be had."""
    for listener in settings.listeners:
        family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As Twisted will do it: connections in TIME_WAIT are no hindrance.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((listener.address, listener.port))
                probe.listen(1)
            except OSError as error:
                yield f"{_where(listener)} ({listener.name}): {error.strerror}"


def _greet(settings: Settings) -> None:
    write_facts(_facts(settings))
    first = _first_message(settings)
    if first:
        write(f"\nA first message, from another terminal:\n\n{first}\n")


def _facts(settings: Settings) -> Iterator[tuple[str, str]]:
    yield "configuration", str(settings.source or "none: the embedded default")
    for listener in settings.listeners:
        yield listener.name, _where(listener)
    yield "data", str(settings.state_dir)
    for name, domain in settings.domains.items():
        yield name, domain.maildir if domain.deliver == "maildir" else str(domain.lmtp)
    yield "events", str(settings.events_log)


def _where(listener: Listener) -> str:
    address = f"[{listener.address}]" if ":" in listener.address else listener.address
    port = listener.port or "a free port, see ports.json"
    return f"http://{address}:{port}/" if listener.kind == "http" else f"{address}:{port}"


def _first_message(settings: Settings) -> str:
    """A command for any shell with Python, and one that looks at what came of it; empty where
    this configuration has no Maildir or no fixed port for it."""
    smtp = [each for each in settings.listeners if each.kind == "smtp" and each.port]
    boxes = [(name, each) for name, each in settings.domains.items() if each.deliver == "maildir"]
    if not smtp or not boxes:
        return ""
    name, box = boxes[0]
    local_part = "agent" if "*" in box.recipients else box.recipients[0]
    address = smtp[0].address.replace("0.0.0.0", "127.0.0.1")
    recipient = f"{local_part}@{name}"
    program = (
        f"import smtplib; smtplib.SMTP('{address}', {smtp[0].port}).sendmail('you@{name}', "
        f"['{recipient}'], 'From: you@{name}\\nTo: {recipient}\\nSubject: First\\n\\nHello.')"
    )
    folder = box.maildir.replace("{domain}", name).replace("{local_part}", local_part.lower())
    return f'  python3 -c "{program}"\n  cat {shlex.quote(folder)}/new/*'
