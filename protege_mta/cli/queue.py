"""``queue``: look at queued mail and put a hand in."""

from __future__ import annotations

import base64
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from .control import Row, connected, rows_of
from .faults import Fault
from .options import config_option, json_option
from .terminal import (
    Column,
    duration,
    harmless,
    is_terminal,
    moment,
    size,
    until,
    write,
    write_facts,
    write_json,
    write_json_rows,
    write_table,
)

STATES: Final = ("incoming", "scheduled", "active", "deferred", "held", "corrupt")

_DONE: Final = {
    "retry": "to be tried now",
    "hold": "held",
    "release": "released",
    "bounce": "returned to the sender",
    "remove": "removed",
}
"""Each hand-in and what its messages are after it."""

_FINAL: Final = ("bounce", "remove")
"""Those that cannot be undone, and ask before they take many."""


@click.group("queue")
def command() -> None:
    """Look at queued mail, and put a hand in.

    Works while the service runs and while it does not.
    """


@command.command("list")
@click.option("--domain", metavar="D", help="Only mail with a recipient at this domain.")
@click.option("--state", type=click.Choice(STATES), help="Only mail in this state.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The first N only.")
@config_option
@json_option
def _list(
    domain: str | None, state: str | None, limit: int | None, config: Path | None, as_json: bool
) -> None:
    """List messages, oldest first."""
    with connected(config) as desk:
        rows = desk.request("queue.list", domain=domain, state=state, limit=limit)
        if as_json:
            write_json_rows(rows)
            return
        count = write_table(_columns(_now()), rows)
    if is_terminal():
        write(f"{count} message{'' if count == 1 else 's'}")


def _columns(now: float) -> list[Column]:
    return [
        Column("ID", lambda row: row["id"]),
        Column("AGE", lambda row: duration(now - row["arrived_at"]), is_right=True),
        Column("SIZE", lambda row: size(row["size_octets"]), is_right=True),
        Column("STATE", lambda row: row["state"], is_state=True),
        Column("NEXT", lambda row: _next(row, now)),
        Column("SENDER", lambda row: row["sender"] or "<>"),
        Column("RECIPIENTS", _addresses),
        Column("CAUSE", _cause),
    ]


def _addresses(row: Row) -> str:
    first, *others = [one["address"] for one in row["recipients"]] or [""]
    return f"{first} and {len(others)} more" if others else str(first)


def _next(row: Row, now: float) -> str:
    due = [one["next_attempt_at"] for one in _waiting(row)]
    return until(min(due), now) if due else "-"


def _waiting(row: Row) -> list[Row]:
    return [
        one
        for one in row["recipients"]
        if one.get("state") in ("scheduled", "deferred") and one.get("next_attempt_at")
    ]


def _cause(row: Row) -> str:
    return next(filter(None, map(_reason, row["recipients"])), "")


def _reason(one: Row) -> str:
    """Why a recipient waits: for somebody to come, or for another attempt."""
    return str(one.get("absence") or one.get("cause", ""))


@command.command("show")
@click.argument("id")
@config_option
@json_option
def _show(id: str, config: Path | None, as_json: bool) -> None:
    """Show a message's envelope and where each recipient stands."""
    with connected(config) as desk:
        rows, _ = rows_of(desk.request("queue.show", id=id))
    if as_json:
        write_json(rows[0])
        return
    row, now = rows[0], _now()
    write_facts(_facts(row, now))
    write("")
    write_table(
        [
            Column("RECIPIENT", lambda one: one["address"]),
            Column("STATE", lambda one: one["state"], is_state=True),
            Column("ATTEMPTS", lambda one: str(one.get("attempts", "")), is_right=True),
            Column("NEXT", lambda one: _when(one, now)),
            Column("CAUSE", _reason),
        ],
        row["recipients"],
    )


def _when(one: Row, now: float) -> str:
    at = one.get("next_attempt_at")
    if not at or one["state"] not in ("scheduled", "deferred"):
        return "-"
    return f"{moment(at)} ({until(at, now)})"


def _facts(row: Row, now: float) -> Iterator[tuple[str, str]]:
    yield "id", row["id"]
    yield "state", row["state"]
    yield "arrived", f"{moment(row['arrived_at'])} ({duration(now - row['arrived_at'])} ago)"
    yield "size", f"{row['size_octets']} octets"
    yield "sender", row["sender"] or "<>"
    by = " ".join(filter(None, (row["source"], row.get("identity"), row.get("peer_address"))))
    yield "source", by
    for name, title in (("subject", "subject"), ("header_message_id", "message-id")):
        if row.get(name):
            yield title, row[name]


@command.command("cat")
@click.argument("id")
@config_option
def _cat(id: str, config: Path | None) -> None:
    """Print a message as it lies in the spool, header and body."""
    with connected(config) as desk:
        for row in desk.request("queue.cat", id=id):
            sys.stdout.buffer.write(base64.b64decode(row["octets_b64"]))
        sys.stdout.buffer.flush()


def _hand_in(name: str, help: str) -> None:
    """Add a command that changes messages."""

    @click.argument("ids", nargs=-1, metavar="[ID]...")
    @click.option("--domain", metavar="D", help="All mail with a recipient at this domain.")
    @click.option("--all", "is_all", is_flag=True, help="All mail.")
    @click.option("--yes", "is_sure", is_flag=True, help="Do not ask.")
    @config_option
    @json_option
    def change(
        ids: tuple[str, ...],
        domain: str | None,
        is_all: bool,
        is_sure: bool,
        config: Path | None,
        as_json: bool,
    ) -> None:
        if sum((bool(ids), bool(domain), is_all)) != 1:
            raise click.UsageError("give ids, or --domain, or --all")
        meant: dict[str, Any] = {"ids": list(ids)} if ids else {"domain": domain}
        if is_all:
            meant = {"all": True}
        if name in _FINAL and not ids and not is_sure:
            _ask(name, f"all mail for {domain}" if domain else "all mail")
        with connected(config) as desk, _patience(f"{name}..."):
            _, done = rows_of(desk.request(f"queue.{name}", **meant))
        if as_json:
            write_json(done)
        else:
            count = done["count"]
            write(f"{count} message{'' if count == 1 else 's'} {_DONE[name]}")
            later = done.get("later", 0)
            if later:
                write(f"{later} being delivered just now: what that leaves will be {_DONE[name]}")

    command.command(name, help=help)(change)


_HELP: Final[dict[str, str]] = {
    "retry": "Try messages at once, whatever their back-off says. One that its sender has put off is "
    "tried before its time only where it is named by id.",
    "hold": "Try messages no more until they are released.",
    "release": "Undo hold.",
    "bounce": "Return messages to their senders now.",
    "remove": "Remove messages; nobody is told.",
}
for _name, _help in _HELP.items():
    _hand_in(_name, _help)


def _ask(name: str, what: str) -> None:
    if not sys.stdin.isatty():
        raise Fault(f"will not {name} {what} without --yes", os.EX_USAGE)
    click.confirm(f"{name} {harmless(what)}?", abort=True, err=True)


def _patience(text: str) -> contextlib.AbstractContextManager[object]:
    """Something that moves while a person waits."""
    if not is_terminal():
        return contextlib.nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(text)


def _now() -> float:
    import time

    return time.time()
