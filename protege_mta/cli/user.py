"""``user``: the accounts that may send by submission."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
import click

from ..model.account import (
    PASSWORD_CHARACTERS,
    Account,
    AccountLimits,
    account_name,
    prepared_password,
)
from .faults import Fault
from .options import config_option, glimpse_from, json_option
from .terminal import Column, moment, write, write_facts, write_json, write_json_rows, write_table

if TYPE_CHECKING:
    import sqlite3

LEAST_CHARACTERS: Final = 8
"""Of a password, by NIST SP 800-63B, 5.1.1.2."""

_LISTS: Final = {
    "allowed_from": "Addresses and domains that it may send as, with commas between them; all "
    "unless given. A domain stands for its addresses, .example.org for those of its subdomains.",
    "allowed_to": "The same for recipients.",
    "denied_to": "Recipients it may not send to, whatever --allowed-to says.",
}
_LIMITS: Final = {
    "connections": "Connections at a time; 0 = no limit of its own, as in what follows.",
    "recipients": "Recipients of one message.",
    "messages_per_hour": "Messages in an hour.",
    "messages_per_day": "Messages in a day.",
    "recipients_per_hour": "Recipients in an hour.",
    "recipients_per_day": "Recipients in a day.",
}

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group("user")
def command() -> None:
    """Accounts for submission.

    Works while the service runs, which sees a change within a second, and while it does not.
    """


# --- options -------------------------------------------------------------------------------------


def pattern(text: str) -> str | None:
    """An address, or a domain, as it is kept: in lower case, with A-labels (RFC 5891); None for what
    is neither."""
    from ..model.address import parse
    from ..model.domain import ascii_domain

    local, _, domain = text.rpartition("@")
    dot = "." if not local and domain.startswith(".") else ""
    domain = ascii_domain(domain.removeprefix(dot))
    is_name = domain.isascii() and (local or not domain.startswith("["))
    if not is_name or parse(f"{local or 'x'}@{domain}", is_smtputf8=True) is None:
        return None
    return f"{local.lower()}@{domain}" if local else dot + domain


def _patterns(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    if value is None:
        return None
    found: dict[str, None] = {}
    for text in filter(None, map(str.strip, value.split(","))):
        one = pattern(text)
        if one is None:
            raise click.BadParameter(
                f"wanted an address or a domain (example.org, or .example.org for its "
                f"subdomains), got {text!r}"
            )
        found[one] = None
    return tuple(found)


def _account_options(command: _Command) -> _Command:
    """What an account has besides its name and password; the command receives what was given, and
    None for the rest."""
    for name, text in reversed(_LIMITS.items()):
        command = click.option(
            f"--{name.replace('_', '-')}", type=click.IntRange(0), metavar="N", help=text
        )(command)
    command = click.option(
        "--tenant", metavar="T", help="Whom its mail is told apart by; empty for nobody."
    )(command)
    for name, text in reversed(_LISTS.items()):
        command = click.option(
            f"--{name.replace('_', '-')}", callback=_patterns, metavar="A,B", help=text
        )(command)
    return command


def _evolved(account: Account, given: dict[str, Any]) -> Account:
    """The account with the options that were given."""
    changes = {name: value for name, value in given.items() if value is not None}
    limits = {name: changes.pop(name) for name in _LIMITS if name in changes}
    return attrs.evolve(account, limits=attrs.evolve(account.limits, **limits), **changes)


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
@_account_options
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

    name = _name(name)
    with _state(config, is_made=True) as connection:

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
        account = with_password(_evolved(account, given), _password(is_piped), secrets.token_bytes)
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
@_account_options
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

    name = _name(name)
    if has_cram is None and all(value is None for value in given.values()):
        raise click.UsageError("nothing to change; see --help")
    with _state(config) as connection, transaction(connection):
        account = _evolved(_found(connection, name), given)
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

    name = _name(name)
    with _state(config) as connection:
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
    if _is_there(_folder(config)):
        with _state(config) as connection:
            rows = [_row(account) for account in every(connection)]
    if as_json:
        write_json_rows(rows)
        return
    write_table(
        [
            Column("NAME", lambda row: row["name"]),
            Column("SINCE", lambda row: moment(row["created_at"])),
            Column("TENANT", lambda row: row["tenant"] or "-"),
            Column("MAY SEND AS", lambda row: _words(row["allowed_from"], "anybody")),
        ],
        rows,
    )


@command.command("show")
@click.argument("name")
@config_option
@json_option
def _show(name: str, config: Path | None, as_json: bool) -> None:
    """Show an account; nothing of its password."""
    with _state(config) as connection:
        row = _row(_found(connection, _name(name)))
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

    name = _name(name)
    with _state(config) as connection, transaction(connection):
        if not remove(connection, name):
            raise _no_such(name)
    if as_json:
        write_json({"name": name})
    else:
        write(f"removed {name}")


# --- the database --------------------------------------------------------------------------------


def _folder(config: Path | None) -> Path:
    return glimpse_from(config).state_dir


def _is_there(folder: Path) -> bool:
    from ..state.database import NAME

    return os.path.lexists(folder / NAME)


@contextmanager
def _state(config: Path | None, *, is_made: bool = False) -> Iterator[sqlite3.Connection]:
    """The open database.

    :param is_made: whether it is to be made where it is not there yet.
    :raise Fault: it belongs to another user, or cannot be used.
    """
    import sqlite3

    from ..model.ports import StateFailed
    from ..spool.lock import ForeignOwner, check_owner
    from ..state.database import connect

    folder = _folder(config)
    connection = None
    try:
        if folder.exists() or os.geteuid() == 0:
            # Root would make a folder that the owner of the one above could not use.
            check_owner(next(one for one in (folder, *folder.parents) if one.exists()))
        if not is_made and not _is_there(folder):
            raise Fault(f"{folder}: there are no accounts yet", os.EX_NOINPUT)
        connection = connect(folder)
        yield connection
    except ForeignOwner as error:
        raise Fault(str(error), os.EX_NOPERM) from error
    except StateFailed as error:
        raise Fault(str(error), os.EX_IOERR) from error
    except sqlite3.Error as error:
        raise Fault(f"{folder}: {error}", os.EX_IOERR) from error
    finally:
        if connection is not None:
            connection.close()


def _found(connection: sqlite3.Connection, name: str) -> Account:
    from ..state.accounts import find

    account = find(connection, name)
    if account is None:
        raise _no_such(name)
    return account


def _no_such(name: str) -> Fault:
    return Fault(f"{name}: no such account", os.EX_NOINPUT)


# --- names and passwords -------------------------------------------------------------------------


def _name(text: str) -> str:
    name = account_name(text)
    if name is None:
        raise click.BadParameter(
            f"wanted up to 128 of a-z, 0-9 and ._@+-, a letter or digit first, got {text!r}",
            param_hint="NAME",
        )
    return name


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
        "allowed_from": account.allowed_from,
        "allowed_to": account.allowed_to,
        "denied_to": account.denied_to,
        "tenant": account.tenant,
        "limits": attrs.asdict(account.limits),
        "scram": account.scram is not None,
        "cram_md5": account.cram_secret is not None,
    }


def _facts(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "name", row["name"]
    yield "since", moment(row["created_at"])
    yield "may send as", _words(row["allowed_from"], "anybody")
    yield "may send to", _words(row["allowed_to"], "anybody")
    if row["denied_to"]:
        yield "but not to", _words(row["denied_to"], "")
    yield "tenant", row["tenant"] or "-"
    mechanisms = ["PLAIN", "LOGIN"]
    mechanisms += ["SCRAM-SHA-256"] if row["scram"] else []
    mechanisms += ["CRAM-MD5"] if row["cram_md5"] else []
    yield "logs in by", _words(mechanisms, "")
    for field in attrs.fields(AccountLimits):
        limit = row["limits"][field.name]
        yield field.name.replace("_", " "), str(limit) if limit else "no limit"


def _words(words: Any, otherwise: str) -> str:
    return ", ".join(words) or otherwise


def _tell(account: Account, text: str, as_json: bool) -> None:
    if as_json:
        write_json(_row(account))
    else:
        write(text)
