"""``relay``: the relay of a Protege project."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from .options import json_option
from .setup import MAIL_DOMAIN, PATH, RELAY_URL, Decorator, carried_out, tell

_MILLISECONDS: Final = click.IntRange(1, 86_400_000)


def _number(name: str, member: str, help: str) -> Decorator:
    return click.option(name, member, type=_MILLISECONDS, metavar="N", help=help)


@click.group()
def command() -> None:
    """The relay of a Protege project."""


@command.command("bootstrap")
@PATH
@RELAY_URL
@MAIL_DOMAIN
@_number("--reconnect-base-delay-ms", "base", "The first wait for a lost relay.  [default: 250]")
@_number("--reconnect-max-delay-ms", "most", "The longest wait for it.  [default: 8000]")
@_number("--heartbeat-timeout-ms", "heartbeat", "How long it may be silent.  [default: 30000]")
@json_option
def _bootstrap(
    folder: Path,
    url: str | None,
    domain: str | None,
    base: int | None,
    most: int | None,
    heartbeat: int | None,
    as_json: bool,
) -> None:
    """Enable the relay of a Protege project.

    Makes a persona where there is none, and gives every persona its address at the relay's domain.
    """
    from .reconcile import Wish

    numbers = {
        "reconnectBaseDelayMs": base,
        "reconnectMaxDelayMs": most,
        "heartbeatTimeoutMs": heartbeat,
    }
    given = {name: value for name, value in numbers.items() if value is not None}
    wish = Wish(is_relay=True, url=url, numbers=given, domain=domain)
    tell(carried_out(folder, wish), as_json=as_json)
