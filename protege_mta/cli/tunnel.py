"""``tunnel``: the agents that may log in to a relay server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .faults import Fault
from .options import config_option, json_option, settings_from
from .terminal import Column, moment, write, write_json, write_json_rows, write_table

if TYPE_CHECKING:
    from ..config.model import Settings
    from ..model.identity import Identity


@click.group("tunnel")
def command() -> None:
    """Agents of a relay server.

    Works on its identities_file while the service runs, which sees a change within a second, and
    while it does not.
    """


def _identity(text: str) -> Identity:
    from ..model.identity import parse_identity

    # An address is what people have at hand.
    identity = parse_identity(text.partition("@")[0]) if text.isascii() else None
    if identity is None:
        raise click.BadParameter(
            f'wanted 52 of a-z and 2-7, the last one "a" or "q"; got {text!r}', param_hint="KEY"
        )
    return identity


def _aliases(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> list[str] | None:
    from ..config.identities import Alias
    from ..config.kinds import Unfit

    if not values:
        return None
    try:
        return list(dict.fromkeys(Alias().read(value, Path()) for value in values if value))
    except Unfit as unfit:
        raise click.BadParameter(f"wanted {unfit.wanted}") from None


_key_argument = click.argument("key", metavar="KEY")


@command.command("allow")
@_key_argument
@click.option(
    "--alias",
    "aliases",
    multiple=True,
    callback=_aliases,
    metavar="A",
    help="A further mailbox of the agent: a local-part, for each tunnel domain, or an address. May "
    "be given several times; those given replace what it had, an empty one takes all away.",
)
@click.option(
    "--send-per-hour",
    type=click.IntRange(0),
    metavar="N",
    help="Messages that it may send in an hour; 0 for any number.",
)
@click.option("--tenant", metavar="T", help="Whom its mail is told apart by; empty for nobody.")
@config_option
@json_option
def _allow(
    key: str,
    aliases: list[str] | None,
    send_per_hour: int | None,
    tenant: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Let an agent log in, or change what is given of one that may."""
    from .identities_file import change, put

    identity = _identity(key)
    settings = settings_from(config)
    values: dict[str, Any] = {"revoked": None}
    if aliases is not None:
        values["aliases"] = aliases or None
    if send_per_hour is not None:
        values["send_per_hour"] = send_per_hour
    if tenant is not None:
        values["tenant"] = tenant or None
    change(_file(settings), put(identity, values))
    if as_json:
        write_json(next(row for row in _listed(settings) if row["key"] == identity))
        return
    write(f"allowed {identity}")
    if not settings.tunnel_server.enabled:
        write("[tunnel_server] is not enabled yet: agents cannot come.")


@command.command("list")
@config_option
@json_option
def _list(config: Path | None, as_json: bool) -> None:
    """List the agents, whether they are connected, and when they were here last."""
    settings = settings_from(config)
    _file(settings)
    seen = {row["key"]: row for row in _sightings(config, settings)}
    takes_any = settings.tunnel_server.identities == "any"
    rows = [{**row, **seen.pop(row["key"], _UNSEEN)} for row in _listed(settings)]
    rows += [
        {**_UNLISTED, **sighting}
        for sighting in seen.values()
        if takes_any or sighting["is_connected"]
    ]
    if as_json:
        write_json_rows(rows)
        return
    write_table(
        [
            Column("KEY", lambda row: row["key"]),
            Column("ALIASES", lambda row: ", ".join(row["aliases"]) or "-"),
            Column("TENANT", lambda row: row["tenant"] or "-"),
            Column("STATE", _state),
            Column("LAST SEEN", _last_seen),
        ],
        rows,
    )


@command.command("revoke")
@_key_argument
@config_option
@json_option
def _revoke(key: str, config: Path | None, as_json: bool) -> None:
    """Let an agent log in no more; its session ends within a second."""
    from .identities_file import change, put, remove

    identity = _identity(key)
    settings = settings_from(config)
    path = _file(settings)
    if settings.tunnel_server.identities == "any":
        # Whoever is not listed may come, so that it takes an entry to keep one out.
        change(path, put(identity, {"revoked": True}))
    else:
        if not any(row["key"] == identity for row in _listed(settings)):
            raise Fault(f"{identity}: no such agent in {path}", os.EX_NOINPUT)
        change(path, remove(identity))
    if as_json:
        write_json({"key": identity})
    else:
        write(f"revoked {identity}")


# --- what is known of agents ---------------------------------------------------------------------

_UNSEEN: dict[str, Any] = {"is_connected": False, "last_seen_at": None, "peer_address": ""}
_UNLISTED: dict[str, Any] = {
    "aliases": [],
    "send_per_hour": None,
    "tenant": "",
    "is_listed": False,
    "is_revoked": False,
}


def _file(settings: Settings) -> Path:
    """The file of the agents.  :raise Fault: the configuration has no place for one."""
    path = settings.tunnel_server.identities_file
    if not path.is_absolute():
        where = settings.source or "the embedded default"
        raise Fault(
            f"{where}: there is no [tunnel_server]",
            os.EX_CONFIG,
            remedy="[tunnel_server] with enabled = true makes this a relay server.",
        )
    return path


def _listed(settings: Settings) -> list[dict[str, Any]]:
    from ..config.toml import ConfigError, load_identities

    try:
        agents = load_identities(settings.tunnel_server.identities_file)
    except ConfigError as error:
        raise Fault(str(error), os.EX_CONFIG) from error
    return [
        {
            "key": agent.identity,
            "aliases": list(agent.aliases),
            "send_per_hour": agent.send_per_hour,
            "tenant": agent.tenant,
            "is_listed": True,
            "is_revoked": agent.is_revoked,
        }
        for agent in agents
    ]


def _sightings(config: Path | None, settings: Settings) -> Iterator[dict[str, Any]]:
    """Who is connected, and who was here and when: by the service where it runs."""
    from .control import running

    with running(config) as service:
        if service is not None:
            yield from service.request("tunnel.list")
            return
    yield from _seen(settings.state_dir)


def _seen(folder: Path) -> Iterator[dict[str, Any]]:
    import sqlite3
    from contextlib import closing

    from ..model.ports import StateFailed
    from ..state.agents import every
    from ..state.database import NAME, READ_BUSY_S, connect_to_present

    if not os.path.lexists(folder / NAME):
        return
    try:
        with closing(connect_to_present(folder, busy_s=READ_BUSY_S)) as connection:
            for identity, at in every(connection):
                yield {**_UNSEEN, "key": identity, "last_seen_at": at}
    except (StateFailed, sqlite3.Error) as error:
        raise Fault(str(error), os.EX_IOERR) from error


def _state(row: dict[str, Any]) -> str:
    if row["is_connected"]:
        return "connected"
    return "revoked" if row["is_revoked"] else "away"


def _last_seen(row: dict[str, Any]) -> str:
    if row["is_connected"]:
        return "now"
    return moment(row["last_seen_at"]) if row["last_seen_at"] else "never"
