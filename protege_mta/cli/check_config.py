"""``check-config``: everything that is wrong with a configuration."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from .faults import Fault
from .options import config_option, find_config, json_option
from .terminal import write, write_json


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@config_option
@json_option
def command(file: Path | None, config: Path | None, as_json: bool) -> int:
    """Check a configuration FILE and the files that it names.

    Exit status 0, or 1 and one line a complaint.
    """
    import attrs

    from ..config.source import load
    from ..config.toml import ConfigError

    path = file if file is not None else find_config(config)
    if path is None:
        raise Fault("no configuration to check", os.EX_USAGE, remedy="Name one as an argument.")
    try:
        load(path)
    except ConfigError as error:
        if as_json:
            write_json(
                {"ok": False, "complaints": [attrs.asdict(each) for each in error.complaints]}
            )
        else:
            sys.stderr.write(f"{error}\n")
        return 1
    if as_json:
        write_json({"ok": True, "complaints": []})
    else:
        write(f"{path}: ok")
    return 0
