"""``dns``: what to publish."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .options import config_option, json_option, settings_from
from .terminal import Column, write, write_json, write_table


@click.group("dns")
def command() -> None:
    """DNS records."""


@command.command("records")
@click.option("--zone", "as_zone", is_flag=True, help="Print lines of a zone file.")
@config_option
@json_option
def _records(as_zone: bool, config: Path | None, as_json: bool) -> None:
    """Print the DNS records to publish, from the configuration."""
    import attrs

    from .records import records_of, zone

    records = records_of(settings_from(config))
    if as_json:
        write_json([attrs.asdict(record) for record in records])
    elif as_zone:
        sys.stdout.write(zone(records))
    elif not records:
        write("nothing to publish: the records are the relay's")
    else:
        write_table(
            [
                Column("NAME", lambda row: row["name"]),
                Column("TYPE", lambda row: row["type"]),
                Column("VALUE", lambda row: row["value"]),
                Column("WHAT FOR", lambda row: row["why"]),
            ],
            [attrs.asdict(record) for record in records],
        )
