"""What ``user`` and ``apikey`` share: the options that say what one may do, and the database."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
import click

from ..model.account import Account, AccountLimits, account_name
from ..model.apikey import ApiKey
from .faults import Fault
from .options import glimpse_from

if TYPE_CHECKING:
    import sqlite3

_LISTS: Final = {
    "allowed_from": "Addresses and domains that it may send as, with commas between them; all "
    "unless given. A domain stands for its addresses, .example.org for those of its subdomains.",
    "allowed_to": "The same for recipients.",
    "denied_to": "Recipients it may not send to, whatever --allowed-to says.",
}
_LIMITS: Final = {
    "connections": "Connections at a time; 0 = no limit of its own, as in all of these.",
    "recipients": "Recipients of one message.",
    "messages_per_hour": "Messages in an hour.",
    "messages_per_day": "Messages in a day.",
    "recipients_per_hour": "Recipients in an hour.",
    "recipients_per_day": "Recipients in a day.",
}

_SHORT: Final = {"messages_per_hour": ("--per-hour",), "messages_per_day": ("--per-day",)}

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Rights = TypeVar("_Rights", Account, ApiKey)

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


def rights_options(*, but: tuple[str, ...] = ()) -> Callable[[_Command], _Command]:
    """What an account or a key may do; the command receives what was given, and None for the rest.

    :param but: limits that it does not have.
    """

    def add(command: _Command) -> _Command:
        for name, text in reversed(_LIMITS.items()):
            if name not in but:
                option = f"--{name.replace('_', '-')}"
                names = (option, *_SHORT.get(name, ()), name)
                command = click.option(*names, type=click.IntRange(0), metavar="N", help=text)(
                    command
                )
        command = click.option(
            "--tenant", metavar="T", help="Whom its mail is told apart by; empty for nobody."
        )(command)
        for name, text in reversed(_LISTS.items()):
            command = click.option(
                f"--{name.replace('_', '-')}", callback=_patterns, metavar="A,B", help=text
            )(command)
        return command

    return add


def evolved(whose: _Rights, given: dict[str, Any]) -> _Rights:
    """An account or a key with the options that were given."""
    changes = {name: value for name, value in given.items() if value is not None}
    limits = {name: changes.pop(name) for name in _LIMITS if name in changes}
    return attrs.evolve(whose, limits=attrs.evolve(whose.limits, **limits), **changes)


def name_of(text: str) -> str:
    name = account_name(text)
    if name is None:
        raise click.BadParameter(
            f"wanted up to 128 of a-z, 0-9 and ._@+-, a letter or digit first, got {text!r}",
            param_hint="NAME",
        )
    return name


# --- the database --------------------------------------------------------------------------------


def folder_of(config: Path | None) -> Path:
    return glimpse_from(config).state_dir


def is_there(folder: Path) -> bool:
    from ..state.database import NAME

    return os.path.lexists(folder / NAME)


@contextmanager
def state(config: Path | None, *, is_made: bool = False) -> Iterator[sqlite3.Connection]:
    """The open database.

    :param is_made: whether it is to be made where it is not there yet.
    :raise Fault: it belongs to another user, or cannot be used.
    """
    import sqlite3

    from ..model.ports import StateFailed
    from ..spool.lock import ForeignOwner, check_owner
    from ..state.database import connect

    folder = folder_of(config)
    connection = None
    try:
        if folder.exists() or os.geteuid() == 0:
            # Root would make a folder that the owner of the one above could not use.
            check_owner(next(one for one in (folder, *folder.parents) if one.exists()))
        if not is_made and not is_there(folder):
            raise Fault(f"{folder}: there are none yet", os.EX_NOINPUT)
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


# --- output --------------------------------------------------------------------------------------


def rights_row(whose: Account | ApiKey) -> dict[str, Any]:
    """What may be told of what one may do."""
    return {
        "allowed_from": whose.allowed_from,
        "allowed_to": whose.allowed_to,
        "denied_to": whose.denied_to,
        "tenant": whose.tenant,
        "limits": attrs.asdict(whose.limits),
    }


def rights_facts(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The same for people."""
    yield "may send as", words(row["allowed_from"], "anybody")
    yield "may send to", words(row["allowed_to"], "anybody")
    if row["denied_to"]:
        yield "but not to", words(row["denied_to"], "")
    yield "tenant", row["tenant"] or "-"


def limit_facts(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The limits among them."""
    for field in attrs.fields(AccountLimits):
        limit = row["limits"][field.name]
        yield field.name.replace("_", " "), str(limit) if limit else "no limit"


def words(words: Any, otherwise: str) -> str:
    return ", ".join(words) or otherwise
