"""``suppression``: who is not written to."""

from __future__ import annotations

import codecs
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click

from .faults import Fault
from .options import config_option, json_option
from .rights import folder_of, is_there, state
from .terminal import Column, is_terminal, write, write_json, write_json_rows, write_table

if TYPE_CHECKING:
    from ..model.ports import Suppressed
    from ..model.suppression import Chosen
    from ..model.suppression_file import Form

_AT_ONCE: Final = 5000
_REASONS: Final = ("hard_bounce", "complaint", "unsubscribe", "manual", "policy")

_tenant_option: Final = click.option(
    "--tenant", metavar="T", help="Of this tenant; empty for what holds for everybody."
)
_reason_option: Final = click.option("--reason", type=click.Choice(_REASONS), help="Why.")


@click.group("suppression")
def command() -> None:
    """Addresses that are not written to.

    Works while the service runs, which sees a change within a second, and while it does not.
    """


def _address(value: str) -> str:
    from ..model.suppression import normalised

    address = normalised(value)
    if address is None:
        raise click.BadParameter(
            f"wanted an address such as a@example.org, got {value!r}", param_hint="ADDRESS"
        )
    return address


_address_argument: Final = click.argument("address")


@command.command("list")
@_tenant_option
@_reason_option
@click.option("--domain", metavar="D", help="Only addresses at this domain.")
@config_option
@json_option
def _list(
    tenant: str | None,
    reason: str | None,
    domain: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """List who is not written to."""
    from ..model.suppression_file import members_of

    rows = (members_of(one) for one in _entries(config, _chosen(tenant, reason, domain)))
    if as_json:
        write_json_rows(rows)
    else:
        _write_rows(rows)


@command.command("check")
@_address_argument
@_tenant_option
@config_option
@json_option
def _check(address: str, tenant: str | None, config: Path | None, as_json: bool) -> int:
    """Say whether an address is written to; the exit status is 1 where it is not."""
    import attrs

    from ..model.suppression_file import members_of

    address = _address(address)
    chosen = attrs.evolve(
        _chosen(None, None, None), address=address, tenants=tuple({"", tenant or ""})
    )
    rows = [members_of(one) for one in _entries(config, chosen)]
    if as_json:
        write_json({"address": address, "suppressed": bool(rows), "entries": rows})
    elif rows:
        _write_rows(rows)
    else:
        write(f"{address} is written to")
    return 1 if rows else os.EX_OK


@command.command("add")
@_address_argument
@_tenant_option
@click.option(
    "--reason", type=click.Choice(_REASONS), default="manual", show_default=True, help="Why."
)
@click.option(
    "--for",
    "days",
    type=click.FloatRange(0, min_open=True),
    metavar="DAYS",
    help="For so many days; for ever unless given.",
)
@click.option("--detail", default="", metavar="TEXT", help="A remark for people.")
@config_option
@json_option
def _add(
    address: str,
    tenant: str | None,
    reason: str,
    days: float | None,
    detail: str,
    config: Path | None,
    as_json: bool,
) -> None:
    """Write to an address no more."""
    from ..model.ports import Suppressed
    from ..model.suppression_file import members_of
    from ..state.database import transaction
    from ..state.suppression import put

    address, now = _address(address), time.time()
    until = None if days is None else now + days * 86_400
    entry = Suppressed(address, reason, tenant or "", now, until, detail[:300])
    with state(config, is_made=True) as connection, transaction(connection):
        put(connection, [entry])
    if as_json:
        write_json(members_of(entry))
    else:
        write(f"{address} is not written to any more")


@command.command("remove")
@_address_argument
@_tenant_option
@_reason_option
@config_option
@json_option
def _remove(
    address: str, tenant: str | None, reason: str | None, config: Path | None, as_json: bool
) -> None:
    """Write to an address again: of all tenants and for all reasons unless some are given."""
    import attrs

    from ..state.database import transaction
    from ..state.suppression import remove

    address = _address(address)
    chosen = attrs.evolve(_chosen(tenant, reason, None), address=address, at=None)
    with state(config) as connection, transaction(connection):
        count = remove(connection, chosen)
    if not count:
        raise Fault(f"{address}: is not on the list", os.EX_NOINPUT)
    if as_json:
        write_json({"address": address, "removed": count})
    else:
        write(f"{address} is written to again")


@command.command("export")
@click.option("--csv", "is_csv", is_flag=True, help="CSV; JSON lines unless given.")
@_tenant_option
@_reason_option
@config_option
def _export(is_csv: bool, tenant: str | None, reason: str | None, config: Path | None) -> None:
    """Write the list to stdout, for "import" here or elsewhere."""
    from ..model.suppression_file import write as written

    form: Form = "csv" if is_csv else "jsonl"
    entries, is_first = _entries(config, _chosen(tenant, reason, None)), True
    while some := list(islice(entries, _AT_ONCE)):
        sys.stdout.write(written(some, form, is_first=is_first))
        is_first = False
    if is_first:
        sys.stdout.write(written([], form, is_first=True))


@command.command("import")
@click.argument("file")
@click.option("--csv", "is_csv", is_flag=True, help="CSV; JSON lines unless given.")
@click.option("--tenant", metavar="T", help="Whose the lines are that name no tenant.")
@config_option
@json_option
def _import(file: str, is_csv: bool, tenant: str | None, config: Path | None, as_json: bool) -> int:
    """Add the lines of a file, "-" for stdin.

    Lines that are no entries are told and left out; the exit status is 65 then.  If it breaks off,
    the same again takes up what is missing.
    """
    from ..model.suppression_file import BadLine, read
    from ..state.database import transaction
    from ..state.suppression import put

    added = refused = 0
    form: Form = "csv" if is_csv else "jsonl"
    with _opened(file) as lines, state(config, is_made=True) as connection:
        rows = read(_watched(lines), form, time.time(), tenant)
        while some := list(islice(rows, _AT_ONCE)):
            good = [one for one in some if not isinstance(one, BadLine)]
            with transaction(connection):
                put(connection, good)
            added += len(good)
            for one in some:
                if isinstance(one, BadLine):
                    refused += 1
                    place = f" {one.member}" if one.member else ""
                    sys.stderr.write(f"line {one.number}:{place} {one.why}\n")
    if as_json:
        write_json({"added": added, "refused": refused})
    else:
        write(f"added {added}, left out {refused}")
    return os.EX_DATAERR if refused else os.EX_OK


def _opened(file: str) -> AbstractContextManager[IO[str]]:
    """UTF-8, or what a file says by its first octets; octets that are none become U+FFFD."""
    try:
        with open(file if file != "-" else os.devnull, "rb") as binary:
            mark = binary.read(2)
        is_wide = mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        encoding = "utf-16" if is_wide else "utf-8-sig"
        return click.open_file(file, encoding=encoding, errors="replace")
    except OSError as error:
        raise Fault(f"{file}: {error.strerror}", os.EX_NOINPUT) from error


def _watched(file: IO[str]) -> Iterator[str]:
    """The lines; where a person waits, a bar says how many have been read."""
    if not (sys.stderr.isatty() and is_terminal()):
        yield from file
        return
    from rich.console import Console
    from rich.progress import Progress

    size = os.fstat(file.fileno()).st_size or None
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("importing", total=size)
        for line in file:
            progress.advance(task, len(line.encode("utf-8", "replace")))
            yield line


def _chosen(tenant: str | None, reason: str | None, domain: str | None) -> Chosen:
    from ..model.domain import ascii_domain
    from ..model.suppression import Chosen

    return Chosen(
        domain=ascii_domain(domain or ""),
        reason=reason or "",
        tenants=None if tenant is None else (tenant,),
        at=time.time(),
    )


def _entries(config: Path | None, chosen: Chosen) -> Iterator[Suppressed]:
    """Those that are chosen, in order; none where there is no database yet."""
    from ..model.suppression import Place, place_of
    from ..state.suppression import page

    if not is_there(folder_of(config)):
        return
    after: Place | None = None
    with state(config) as connection:
        while some := page(connection, chosen, after, _AT_ONCE):
            yield from some
            after = place_of(some[-1])


def _write_rows(rows: Any) -> None:
    write_table(
        [
            Column("ADDRESS", lambda row: row["address"]),
            Column("REASON", lambda row: row["reason"]),
            Column("TENANT", lambda row: row.get("tenant", "-")),
            Column("SINCE", lambda row: row.get("since", "-")),
            Column("UNTIL", lambda row: row.get("until", "for ever")),
            Column("DETAIL", lambda row: row.get("detail", "")[:60]),
        ],
        rows,
    )
