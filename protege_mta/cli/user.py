"""``user``: the accounts that may send by submission."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from ..model.account import (
    PASSWORD_CHARACTERS,
    Account,
    prepared_password,
)
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

LEAST_CHARACTERS: Final = 8
"""Of a password, by NIST SP 800-63B, 5.1.1.2."""


@click.group("user")
def command() -> None:
    """Accounts for submission.

    Works while the service runs, which sees a change within a second, and while it does not.
    """


_password_option: Final = click.option(
    "--password-stdin",
    "is_piped",
    is_flag=True,
    help="The password is the first line of stdin; else it is asked for.",
)


# --- commands ------------------------------------------------------------------------------------


@command.command("add")
@click.argument("name")
@_password_option
@rights_options()
@click.option(
    "--cram-md5",
    "has_cram",
    is_flag=True,
    help="Let it log in with CRAM-MD5 too, for old devices: the password itself is kept.",
)
@config_option
@json_option
def _add(
    name: str, is_piped: bool, has_cram: bool, config: Path | None, as_json: bool, **given: Any
) -> None:
    """Make an account."""
    import secrets
    import time

    from ..policy.password import with_password
    from ..state.accounts import find, put
    from ..state.database import transaction

    name = name_of(name)
    with state(config, is_made=True) as connection:

        def check() -> None:
            if find(connection, name) is not None:
                raise Fault(
                    f"{name}: there is such an account",
                    os.EX_CANTCREAT,
                    remedy=f'"protege-mta user change {name}" changes it, "protege-mta user passwd '
                    f'{name}" its password.',
                )

        check()
        account = Account(
            name=name,
            password_hash="",
            cram_secret="" if has_cram else None,
            created_at=time.time(),
        )
        account = with_password(evolved(account, given), _password(is_piped), secrets.token_bytes)
        with transaction(connection):
            check()
            put(connection, account)
    if as_json:
        write_json(_row(account))
        return
    write(f"added {name}")
    if not account.allowed_from:
        write(
            "It may send as anybody. To narrow that:\n"
            f"  protege-mta user change {name} --allowed-from {_own_address(name)}"
        )


def _own_address(name: str) -> str:
    return name if "@" in name else f"{name}@example.org"


@command.command("change")
@click.argument("name")
@rights_options()
@click.option(
    "--cram-md5/--no-cram-md5",
    "has_cram",
    default=None,
    help="Whether it may log in with CRAM-MD5.",
)
@config_option
@json_option
def _change(
    name: str, has_cram: bool | None, config: Path | None, as_json: bool, **given: Any
) -> None:
    """Change what is given, and leave the rest as it is.  An empty list or tenant takes it away."""
    from ..state.accounts import put
    from ..state.database import transaction

    name = name_of(name)
    if has_cram is None and all(value is None for value in given.values()):
        raise click.UsageError("nothing to change; see --help")
    with state(config) as connection, transaction(connection):
        account = evolved(_found(connection, name), given)
        if has_cram is False:
            account = attrs.evolve(account, cram_secret=None)
        elif has_cram and account.cram_secret is None:
            raise Fault(
                "CRAM-MD5 needs the password itself, which is not kept",
                os.EX_USAGE,
                remedy=f'"protege-mta user passwd {name} --cram-md5" sets one and keeps it.',
            )
        put(connection, account)
    _tell(account, f"changed {name}", as_json)


@command.command("passwd")
@click.argument("name")
@_password_option
@click.option(
    "--cram-md5/--no-cram-md5",
    "has_cram",
    default=None,
    help="Whether it may log in with CRAM-MD5, for which the password itself is kept; as before "
    "unless given.",
)
@config_option
@json_option
def _passwd(
    name: str, is_piped: bool, has_cram: bool | None, config: Path | None, as_json: bool
) -> None:
    """Set another password."""
    import secrets

    from ..policy.password import with_password
    from ..state.accounts import put
    from ..state.database import transaction

    name = name_of(name)
    with state(config) as connection:
        account = _found(connection, name)
        if has_cram is not None:
            account = attrs.evolve(account, cram_secret="" if has_cram else None)
        hashed = with_password(account, _password(is_piped), secrets.token_bytes)
        with transaction(connection):
            account = attrs.evolve(
                _found(connection, name),
                password_hash=hashed.password_hash,
                scram=hashed.scram,
                cram_secret=hashed.cram_secret,
            )
            put(connection, account)
    _tell(account, f"changed the password of {name}", as_json)


@command.command("list")
@config_option
@json_option
def _list(config: Path | None, as_json: bool) -> None:
    """List the accounts."""
    from ..state.accounts import every

    rows: list[dict[str, Any]] = []
    if is_there(folder_of(config)):
        with state(config) as connection:
            rows = [_row(account) for account in every(connection)]
    if as_json:
        write_json_rows(rows)
        return
    write_table(
        [
            Column("NAME", lambda row: row["name"]),
            Column("SINCE", lambda row: moment(row["created_at"])),
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
    """Show an account; nothing of its password."""
    with state(config) as connection:
        row = _row(_found(connection, name_of(name)))
    if as_json:
        write_json(row)
    else:
        write_facts(_facts(row))


@command.command("remove")
@click.argument("name")
@config_option
@json_option
def _remove(name: str, config: Path | None, as_json: bool) -> None:
    """Remove an account.  Mail that it has sent goes its way."""
    from ..state.accounts import remove
    from ..state.database import transaction

    name = name_of(name)
    with state(config) as connection, transaction(connection):
        if not remove(connection, name):
            raise _no_such(name)
    if as_json:
        write_json({"name": name})
    else:
        write(f"removed {name}")


# --- the database --------------------------------------------------------------------------------


def _found(connection: sqlite3.Connection, name: str) -> Account:
    from ..state.accounts import find

    account = find(connection, name)
    if account is None:
        raise _no_such(name)
    return account


def _no_such(name: str) -> Fault:
    return Fault(f"{name}: no such account", os.EX_NOINPUT)


# --- passwords -----------------------------------------------------------------------------------


def _password(is_piped: bool) -> str:
    """The password that was given, prepared.  :raise Fault: it is none that will do."""
    if is_piped:
        line = sys.stdin.buffer.readline(4 * PASSWORD_CHARACTERS + 2)
        try:
            text = line.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise Fault("the password is not UTF-8", os.EX_DATAERR) from error
    elif sys.stdin.isatty():
        text = click.prompt("Password", hide_input=True, confirmation_prompt="Again", err=True)
    else:
        raise Fault("no terminal to ask for a password on; give --password-stdin", os.EX_USAGE)
    if not text:
        raise Fault("the password is empty", os.EX_DATAERR)
    if len(text) > PASSWORD_CHARACTERS:
        raise Fault(f"the password is longer than {PASSWORD_CHARACTERS} characters", os.EX_DATAERR)
    password = prepared_password(text)
    if password is None:
        raise Fault(
            "the password has control characters, or others that clients do not send alike "
            "(RFC 4013)",
            os.EX_DATAERR,
        )
    if len(password) < LEAST_CHARACTERS:
        raise Fault(
            f"the password has {len(password)} characters; wanted {LEAST_CHARACTERS} at least "
            "(NIST SP 800-63B, 5.1.1.2)",
            os.EX_DATAERR,
        )
    return password


# --- output --------------------------------------------------------------------------------------


def _row(account: Account) -> dict[str, Any]:
    """What may be told of an account."""
    return {
        "name": account.name,
        "created_at": account.created_at,
        **rights_row(account),
        "scram": account.scram is not None,
        "cram_md5": account.cram_secret is not None,
    }


def _facts(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "name", row["name"]
    yield "since", moment(row["created_at"])
    yield from rights_facts(row)
    mechanisms = ["PLAIN", "LOGIN"]
    mechanisms += ["SCRAM-SHA-256"] if row["scram"] else []
    mechanisms += ["CRAM-MD5"] if row["cram_md5"] else []
    yield "logs in by", words(mechanisms, "")
    yield from limit_facts(row)


def _tell(account: Account, text: str, as_json: bool) -> None:
    if as_json:
        write_json(_row(account))
    else:
        write(text)
