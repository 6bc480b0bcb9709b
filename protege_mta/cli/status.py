"""``status``: whether the service runs, and how it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from .control import rows_of, running
from .options import config_option, json_option
from .terminal import write, write_facts, write_json


@click.command()
@config_option
@json_option
def command(config: Path | None, as_json: bool) -> int:
    """Say whether the service runs, and how it is.

    Exit status 0 where it runs, 69 where it does not.
    """
    with running(config) as service:
        if service is None:
            if as_json:
                write_json({"is_running": False})
            else:
                write("The service is not running.")
            return os.EX_UNAVAILABLE
        rows, _ = rows_of(service.request("status"))
    facts = rows[0]
    if as_json:
        write_json({"is_running": True, **facts})
    else:
        write_facts(flat("", facts))
    return os.EX_OK


def flat(prefix: str, facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Nested facts as lines, their names joined by dots."""
    from ..schedule.standing import clock_time  # which brings Twisted along

    for name, value in facts.items():
        match value:
            case dict():
                yield from flat(f"{prefix}{name}.", value)
            case [dict(), *_]:
                for number, row in enumerate(value, 1):
                    yield from flat(f"{prefix}{name}.{number}.", row)
            case list():
                yield prefix + name, ", ".join(map(str, value)) or "none"
            case float():
                is_time = name.endswith(("_at", "_since"))
                yield prefix + name, clock_time(value) if is_time else f"{value:.3f}"
            case None:
                yield prefix + name, "none"
            case _:
                yield prefix + name, str(value) or "none"
