"""``apikey``: the keys that programs use the HTTP APIs with."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, get_args

import attrs
import click

from ..model.apikey import SECRET_OCTETS, ApiKey, KeySecret, fingerprint, secret_text
from ..model.caller import SCOPES, AgentPolicy, Approval, Scope
from .faults import Fault
from .options import config_option, json_option
from .rights import (
    evolved,
    folder_of,
    is_there,
    limit_facts,
    name_of,
    rights_facts,
    rights_options,
    rights_row,
    state,
    words,
)
from .terminal import Column, moment, write, write_facts, write_json, write_json_rows, write_table

if TYPE_CHECKING:
    import sqlite3

DAY_S: Final = 86_400.0

_APPROVALS: Final = get_args(Approval)
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY_S, "w": 7 * DAY_S}
_SPAN: Final = re.compile(r"(\d{1,6})([smhdw])\Z")
_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group("apikey")
def command() -> None:
    """Keys for the HTTP APIs.

    Works while the service runs, which sees a change within a second, and while it does not.
    """


# --- options -------------------------------------------------------------------------------------


def span_s(text: str) -> float | None:
    """A span of time such as ``24h`` in seconds; None for what is none."""
    match = _SPAN.match(text)
    return None if match is None else float(match[1]) * _UNITS[match[2]]


def _span(context: click.Context, parameter: click.Parameter, value: str) -> float:
    found = 0.0 if value == "0" else span_s(value)
    if found is None:
        raise click.BadParameter(f"wanted a span such as 24h or 7d, or 0, got {value!r}")
    return found


def _end(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    """A span in seconds, a moment, ``never``, or None where nothing was given."""
    if value is None or value == "never":
        return value
    found = span_s(value)
    if found is not None:
        return found
    try:
        at = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(
            f"wanted a span such as 90d, a date such as 2030-01-31, or never, got {value!r}"
        ) from error
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _scopes(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> frozenset[Scope] | None:
    if value is None:
        return None
    found = [text.strip() for text in value.split(",") if text.strip()]
    wrong = [text for text in found if text not in SCOPES]
    if wrong or not found:
        raise click.BadParameter(
            f"wanted some of {', '.join(SCOPES)}, got {wrong[0] if wrong else value!r}"
        )
    return frozenset(cast(Scope, text) for text in found)


def _approval(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> Approval | None:
    """Written as it is shown, or as options are."""
    if value is None:
        return None
    word = value.replace("-", "_")
    if word not in _APPROVALS:
        raise click.BadParameter(f"wanted one of {', '.join(_APPROVALS)}, got {value!r}")
    return cast(Approval, word)


def _key_options(command: _Command) -> _Command:
    """What a key has besides its name and secrets; the command receives what was given."""
    for option in reversed(
        (
            click.option(
                "--scope",
                "scopes",
                callback=_scopes,
                metavar="S,T",
                help="What it is for: send (messages, and a look at its own), read (all of its "
                "tenant), admin (everything).  [send]",
            ),
            click.option(
                "--sandbox/--no-sandbox",
                "is_sandbox",
                default=None,
                help="Nothing that it sends leaves; magic recipients say what becomes of it.",
            ),
            click.option(
                "--approval",
                callback=_approval,
                metavar="|".join(_APPROVALS),
                help="Which messages wait for a person to release them.  [none]",
            ),
            click.option(
                "--bcc/--no-bcc",
                "may_bcc",
                default=None,
                help="Whether it may hide recipients from the others.",
            ),
            click.option(
                "--first-time-per-day",
                type=click.IntRange(0),
                metavar="N",
                help="Recipients a day that it has never written to; 0 = any number.",
            ),
            click.option(
                "--wait/--no-wait",
                "waits",
                default=None,
                help="Whether /api/send answers after the first attempt, or at once.",
            ),
            click.option(
                "--expires",
                callback=_end,
                metavar="WHEN",
                help="When it ends: in 90d, on 2030-01-31, or never.  [never]",
            ),
        )
    ):
        command = option(command)
    return rights_options(but=("connections",))(command)


def _changed(key: ApiKey, given: dict[str, Any], now: float) -> ApiKey:
    """The key with the options that were given."""
    end = given.pop("expires")
    policy = {name: given.pop(name) for name in ("approval", "may_bcc", "first_time_per_day")}
    changes = {name: value for name, value in policy.items() if value is not None}
    key = attrs.evolve(evolved(key, given), policy=attrs.evolve(key.policy, **changes))
    match end:
        case None:
            return key
        case float():
            return attrs.evolve(key, expires_at=now + end)
        case datetime():
            return attrs.evolve(key, expires_at=end.timestamp())
    return attrs.evolve(key, expires_at=None)


# --- commands ------------------------------------------------------------------------------------


def fresh_secret(now: float) -> tuple[str, KeySecret]:
    """A new secret, and what is kept of it."""
    import secrets

    text = secret_text(secrets.token_bytes(SECRET_OCTETS))
    digest = fingerprint(text)
    if digest is None:
        raise RuntimeError("a new secret does not read as one")
    return text, KeySecret(digest=digest, created_at=now)


@command.command("create")
@click.argument("name")
@_key_options
@config_option
@json_option
def _create(name: str, config: Path | None, as_json: bool, **given: Any) -> None:
    """Make a key, and print it: now, and never again."""
    import time

    from ..state.apikeys import find, put
    from ..state.database import transaction

    name, now = name_of(name), time.time()
    text, secret = fresh_secret(now)
    key = _changed(ApiKey(name=name, secrets=(secret,), created_at=now), given, now)
    with state(config, is_made=True) as connection, transaction(connection):
        if find(connection, name) is not None:
            raise Fault(
                f"{name}: there is such a key",
                os.EX_CANTCREAT,
                remedy=f'"protege-mta apikey rotate {name}" gives it another secret, '
                f'"protege-mta apikey set {name}" changes what it may do.',
            )
        put(connection, key)
    _print_secret(name, text, as_json)


@command.command("rotate")
@click.argument("name")
@click.option(
    "--overlap",
    "overlap_s",
    default="24h",
    callback=_span,
    metavar="SPAN",
    help="How long the secret before it goes on; 0 ends it now.  [24h]",
)
@config_option
@json_option
def _rotate(name: str, overlap_s: float, config: Path | None, as_json: bool) -> None:
    """Give a key another secret, and print it: now, and never again."""
    import time

    from ..state.apikeys import put
    from ..state.database import transaction

    name = name_of(name)
    text, secret = fresh_secret(time.time())
    with state(config) as connection, transaction(connection):
        put(connection, _found(connection, name).rotated(secret, overlap_s=overlap_s))
    _print_secret(name, text, as_json)


@command.command("set")
@click.argument("name")
@_key_options
@config_option
@json_option
def _set(name: str, config: Path | None, as_json: bool, **given: Any) -> None:
    """Change what is given, and leave the rest as it is.  An empty list or tenant takes it away."""
    import time

    from ..state.apikeys import put
    from ..state.database import transaction

    name = name_of(name)
    if all(value is None for value in given.values()):
        raise click.UsageError("nothing to change; see --help")
    with state(config) as connection, transaction(connection):
        key = _changed(_found(connection, name), given, time.time())
        put(connection, key)
    if as_json:
        write_json(_row(key, {}))
    else:
        write(f"changed {name}")


@command.command("list")
@config_option
@json_option
def _list(config: Path | None, as_json: bool) -> None:
    """List the keys; nothing of their secrets."""
    from ..state.apikeys import every, uses

    rows: list[dict[str, Any]] = []
    if is_there(folder_of(config)):
        with state(config) as connection:
            used = uses(connection)
            rows = [_row(key, used) for key in every(connection)]
    if as_json:
        write_json_rows(rows)
        return
    write_table(
        [
            Column("NAME", lambda row: row["name"]),
            Column("SCOPE", lambda row: words(row["scopes"], "")),
            Column("SANDBOX", lambda row: "yes" if row["sandbox"] else "-"),
            Column("SINCE", lambda row: moment(row["created_at"])),
            Column("LAST USED", lambda row: _moment(row["last_used_at"], "never")),
            Column("EXPIRES", lambda row: _moment(row["expires_at"], "never")),
            Column("TENANT", lambda row: row["tenant"] or "-"),
            Column("MAY SEND AS", lambda row: words(row["allowed_from"], "anybody")),
        ],
        rows,
    )


@command.command("show")
@click.argument("name")
@config_option
@json_option
def _show(name: str, config: Path | None, as_json: bool) -> None:
    """Show a key; nothing of its secrets."""
    from ..state.apikeys import uses

    with state(config) as connection:
        row = _row(_found(connection, name_of(name)), uses(connection))
    if as_json:
        write_json(row)
    else:
        write_facts(_facts(row))


@command.command("revoke")
@click.argument("name")
@config_option
@json_option
def _revoke(name: str, config: Path | None, as_json: bool) -> None:
    """End a key, with all of its secrets.  Mail that it has sent goes its way."""
    from ..state.apikeys import remove
    from ..state.database import transaction

    name = name_of(name)
    with state(config) as connection, transaction(connection):
        if not remove(connection, name):
            raise _no_such(name)
    if as_json:
        write_json({"name": name})
    else:
        write(f"revoked {name}")


def _found(connection: sqlite3.Connection, name: str) -> ApiKey:
    from ..state.apikeys import find

    key = find(connection, name)
    if key is None:
        raise _no_such(name)
    return key


def _no_such(name: str) -> Fault:
    return Fault(f"{name}: no such key", os.EX_NOINPUT)


# --- output --------------------------------------------------------------------------------------


def _print_secret(name: str, text: str, as_json: bool) -> None:
    if as_json:
        write_json({"name": name, "key": text})
    else:
        click.echo(text)  # alone, and in one piece whatever the width


def _row(key: ApiKey, used: dict[str, float]) -> dict[str, Any]:
    """What may be told of a key."""
    return {
        "name": key.name,
        "scopes": [scope for scope in SCOPES if scope in key.scopes],
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": used.get(key.name),
        **rights_row(key),
        "policy": attrs.asdict(key.policy),
        "sandbox": key.is_sandbox,
        "waits": key.waits,
        "secrets": [
            {"id": one.id, "created_at": one.created_at, "expires_at": one.expires_at}
            for one in key.secrets
        ],
    }


def _facts(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "name", row["name"]
    yield "scope", words(row["scopes"], "")
    yield "since", moment(row["created_at"])
    yield "expires", _moment(row["expires_at"], "never")
    yield "last used", _moment(row["last_used_at"], "never")
    if row["sandbox"]:
        yield "sandbox", "nothing that it sends leaves"
    if not row["waits"]:
        yield "/api/send", "answers at once"
    yield from rights_facts(row)
    policy = AgentPolicy(**row["policy"])
    yield "approval", policy.approval
    yield "bcc", "yes" if policy.may_bcc else "no"
    yield "first time per day", str(policy.first_time_per_day or "no limit")
    for name, limit in limit_facts(row):
        if name != "connections":
            yield name, limit
    for one in row["secrets"]:
        end = _moment(one["expires_at"], "never")
        yield f"secret {one['id']}", f"since {moment(one['created_at'])}, ends {end}"


def _moment(at: float | None, otherwise: str) -> str:
    return otherwise if at is None else moment(at)
