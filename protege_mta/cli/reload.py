"""``reload``: have the running service read its configuration again."""

from __future__ import annotations

import os
from pathlib import Path

import click

from .control import rows_of, running
from .faults import Fault
from .options import config_option, json_option
from .terminal import write, write_json


@click.command()
@config_option
@json_option
def command(config: Path | None, as_json: bool) -> int:
    """Have the running service read its configuration again, as SIGHUP does.

    Returns once the new one is in force. Where it cannot be used the old one stays, with exit
    status 64 and the reason; 69 where the service does not run.
    """
    with running(config) as service:
        if service is None:
            raise Fault("the service is not running", os.EX_UNAVAILABLE)
        _, summary = rows_of(service.request("reload"))
    if as_json:
        write_json(summary)
    else:
        write("The configuration was read again.")
    return os.EX_OK
