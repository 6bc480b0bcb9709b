"""``setup``: mail for a Protege project, through a relay or without one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from .faults import Fault
from .options import json_option
from .terminal import write, write_json

if TYPE_CHECKING:
    from .reconcile import Done, Wish

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

PATH: Final = click.option(
    "--path",
    "folder",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="DIR",
    help="The project's folder.  [default: the current one]",
)
RELAY_URL: Final = click.option(
    "--relay-ws-url",
    "url",
    metavar="URL",
    help='The relay, such as "wss://relay.example/ws".  [default: the configured one]',
)

MAIL_DOMAIN: Final = click.option(
    "--mail-domain",
    "domain",
    metavar="D",
    help="Of the addresses.  [default: the one that was chosen, else the relay's by its URL]",
)


def _refused(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value:
        text = f"{parameter.opts[0]}: wanted options about mail, got one of the Protege CLI's own"
        remedy = 'Its "protege setup" takes it; it may be called before this command or after it.'
        raise Fault(text, os.EX_USAGE, remedy=remedy)


def _not_ours(name: str, *, is_flag: bool = False) -> Decorator:
    """An option that the original's command has, and that this one does not do."""
    return click.option(
        name,
        is_flag=is_flag,
        expose_value=False,
        callback=_refused,
        help="Refused: not about mail.",
    )


@click.command()
@PATH
@click.option("--outbound", type=click.Choice(("relay", "local")), help="The way mail leaves.")
@RELAY_URL
@MAIL_DOMAIN
@click.option("--admin-contact-email", "admin", metavar="A", help="Who is told of failures.")
@click.option("--force", "is_forced", is_flag=True, help="Replace a mailDomain that was chosen.")
@click.option("--non-interactive", "is_quiet", is_flag=True, help="Never ask.")
@_not_ours("--reset", is_flag=True)
@_not_ours("--doctor", is_flag=True)
@_not_ours("--provider")
@_not_ours("--inference-api-key")
@_not_ours("--web-search-provider")
@_not_ours("--web-search-api-key")
@json_option
def command(
    folder: Path,
    outbound: str | None,
    url: str | None,
    domain: str | None,
    admin: str | None,
    is_forced: bool,
    is_quiet: bool,
    as_json: bool,
) -> None:
    """Set a Protege project up for mail.

    Enables the relay, or a transport of its own (--outbound local), makes a persona where there is
    none, and gives every persona its address.  Asks on a terminal where no option is given.
    """
    from .reconcile import Wish

    if outbound == "local" and url is not None:
        raise Fault("--relay-ws-url: only with --outbound relay", os.EX_USAGE)
    is_told = (
        is_forced
        or is_quiet
        or as_json
        or any(x is not None for x in (outbound, url, domain, admin))
    )
    if not is_told and sys.stdin.isatty() and sys.stdout.isatty():
        outbound, url = _asked(folder)
    wish = Wish(
        is_relay=outbound != "local",
        url=url,
        domain=domain,
        is_domain_forced=is_forced,
        admin=_mailbox(admin),
    )
    tell(carried_out(folder, wish), as_json=as_json)


def carried_out(folder: Path, wish: Wish) -> Done:
    """Do it.  :raise Fault:"""
    from .project import opened
    from .reconcile import reconcile

    with opened(folder) as project:
        return reconcile(project, wish, datetime.now(UTC))


def tell(done: Done, *, as_json: bool) -> None:
    """Print what was done."""
    if as_json:
        write_json(done.members())
        return
    for path in done.changed:
        write(f"wrote {path}")
    if not done.changed:
        write("nothing to change")
    write(f"\nrelay: {done.relay_url or 'none'}")
    for address in done.addresses:
        write(f"address: {address}")
    write(f"\nNext: protege-mta run --project {done.gateway.parent.parent}")


def _asked(folder: Path) -> tuple[str, str | None]:
    from ..config.gateway_json import GATEWAY
    from .project import opened
    from .reconcile import current_url

    with opened(folder) as project:
        there = current_url(project.document(GATEWAY))
    ways = click.Choice(("relay", "local"))
    outbound = click.prompt("How does mail leave?", type=ways, default="relay")
    if outbound == "local":
        return outbound, None
    return outbound, click.prompt("The relay's URL", default=there)


def _mailbox(text: str | None) -> str | None:
    from ..config.kinds import Unfit
    from ..config.mail_names import Mailbox

    try:
        return str(Mailbox().read(text, Path())) if text is not None else None
    except Unfit as unfit:
        text = f"--admin-contact-email: wanted {unfit.wanted}, got {text!r}"
        raise Fault(text, os.EX_USAGE) from unfit
