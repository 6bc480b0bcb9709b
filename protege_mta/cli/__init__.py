"""The commands.  Modules of commands are imported when their command is asked for, and import what
is heavy when it is used, so that ``--help`` and ``sendmail`` are quick."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from pathlib import Path
from typing import Final

import click

from .. import __version__
from .faults import Fault, shown

_COMMANDS: Final = {
    "run": "run",
    "init": "init",
    "setup": "setup",
    "relay": "relay",
    "check-config": "check_config",
    "status": "status",
    "reload": "reload",
    "queue": "queue",
    "explain": "explain",
    "send": "send",
    "sendmail": "sendmail",
    "user": "user",
    "apikey": "apikey",
    "suppression": "suppression",
    "tunnel": "tunnel",
    "webhook": "webhook",
    "dkim": "dkim",
    "dns": "dns",
    "version": "version",
}
"""Each command and the module that has it, under the name ``command``."""


class _Root(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f".{_COMMANDS[cmd_name]}", __package__)
        command = module.command
        if not isinstance(command, click.Command):
            raise RuntimeError(f"{module.__name__}.command is {command!r}, no click command")
        return command


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The configuration; every command takes this option too.",
)
@click.pass_context
def root(context: click.Context, config: Path | None) -> None:
    """A mail transfer agent.

    Without --config, commands use $PROTEGE_MTA_CONFIG, ./protege-mta.toml,
    /etc/protege-mta/protege-mta.toml, the first that there is; and where there is none, what
    "protege-mta run" starts with then: ./protege-mta-data.
    """
    context.obj = config


def main(arguments: list[str] | None = None) -> int:
    """The console script.

    :return: the exit status, by ``sysexits.h`` where something is wrong.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    # Installed or linked as /usr/sbin/sendmail, it is what other programs take it for.
    if Path(sys.argv[0]).name == "sendmail":
        arguments = ["sendmail", *arguments]
    try:
        code = root.main(arguments, prog_name="protege-mta", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else os.EX_OK
    except click.UsageError as error:
        error.show()
        return os.EX_USAGE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("\nstopped\n")
        return 130
    except Fault as fault:
        sys.stderr.write(shown(fault))
        return fault.exit_code
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        # The reader of our output went away, as "head" does.  What is still buffered has nowhere
        # to go, and Python would complain of it while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
