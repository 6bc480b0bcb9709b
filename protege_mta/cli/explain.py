"""``explain``: where a message stands, why, and when it is tried next."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import click

from .control import Row, connected, rows_of
from .options import config_option, json_option
from .terminal import duration, harmless, moment, until, write, write_json


@click.command()
@click.argument("id")
@config_option
@json_option
def command(id: str, config: Path | None, as_json: bool) -> None:
    """Say where a message stands, why, and when it will be tried next."""
    with connected(config) as desk:
        rows, _ = rows_of(desk.request("explain", id=id))
    row = rows[0]
    if as_json:
        write_json(row)
        return
    now = time.time()
    for line in _message(row, now):
        write(harmless(line))
    for one in row["standing"]:
        for line in _part(one, now):
            write(harmless(line))


def _message(row: Row, now: float) -> Iterator[str]:
    age = duration(now - row["arrived_at"])
    yield f"{row['id']} from {row['sender'] or '<>'} came {age} ago, by {row['source']}."
    for one in row["recipients"]:
        if one["state"] == "ended":
            yield f"{one['address']}: done with; the event log has its fate."
        elif one.get("cause") and one["attempts"]:
            failed = one["attempts"]
            times = "once" if failed == 1 else f"{failed} times"
            yield f"{one['address']}: failed {times}, the last time with: {one['cause']}"
        else:
            yield f"{one['address']}: nothing has failed so far."


def _part(one: Row, now: float) -> Iterator[str]:
    """One part of a message, which waits for one reason."""
    whom = ", ".join(one.get("recipients", []))
    way = f"by {one['route']} to {one['next_hop']}" if one.get("next_hop") else ""
    yield ": ".join(filter(None, (" ".join(filter(None, (whom, way))), f"{one['why']}.")))
    at = one.get("next_attempt_at")
    if at and one.get("state") in ("scheduled", "deferred") and "next attempt" not in one["why"]:
        yield f"Next attempt: {moment(at)} ({until(at, now)})."
