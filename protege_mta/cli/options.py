"""Options that many commands have, and the configuration that a command works with."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from .faults import Fault

if TYPE_CHECKING:
    from ..config.model import Settings

ENVIRONMENT: Final = "PROTEGE_MTA_CONFIG"
PLACES: Final = (Path("protege-mta.toml"), Path("/etc/protege-mta/protege-mta.toml"))

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _config_given(context: click.Context, parameter: click.Parameter, value: Path | None) -> Any:
    return value if value is not None else context.find_root().obj


def config_option(command: _Command) -> _Command:
    """``--config FILE``; the command receives a path, or None where none was given."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        callback=_config_given,
        metavar="FILE",
        help="The configuration.",
    )(command)


def project_option(command: _Command) -> _Command:
    """``--project DIR``; the command receives the folder, or None."""
    return click.option(
        "--project",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="A Protege project, whose own files are the configuration.",
    )(command)


def json_option(command: _Command) -> _Command:
    """``--json``; the command receives ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def find_config(given: Path | None, places: Sequence[Path] = PLACES) -> Path | None:
    """The file to read, or None where there is none, or where its folder is closed to us.

    :param places: where to look when none is named.
    :raise Fault: a file was named that is not there.
    """
    named = os.environ.get(ENVIRONMENT)
    if given is not None or named:
        path = given if given is not None else Path(named or "")
        if not os.path.exists(path):
            by = "--config" if given is not None else f"${ENVIRONMENT}"
            raise Fault(f"{path}: no such file, named by {by}", os.EX_CONFIG)
        return path
    return next((path for path in places if os.path.exists(path)), None)


def of_project(folder: Path, config: Path | None) -> Path:
    """The configuration that ``--project`` names.

    :param config: what ``--config`` names.
    :raise Fault: both are given, or there is no such folder.
    """
    if config is not None:
        raise Fault("--config and --project: give one of them", os.EX_USAGE)
    if not folder.is_dir():
        raise Fault(f"{folder}: no such folder, named by --project", os.EX_CONFIG)
    return folder


def settings_from(given: Path | None) -> Settings:
    """The whole configuration, checked.

    :raise Fault: it is wrong, or there is none.
    """
    from ..config.embedded import embedded
    from ..config.environment import data_folder
    from ..config.source import load
    from ..config.toml import ConfigError

    path = find_config(given)
    try:
        if path is not None:
            return load(path)
        folder = data_folder(os.environ)
        if folder.is_dir():
            return embedded(folder)
    except ConfigError as error:
        raise Fault(str(error), os.EX_CONFIG) from error
    raise _nowhere()


def glimpse_from(given: Path | None) -> Settings:
    """As much of the configuration as says where the service's sockets are.

    :raise Fault: that much is wrong, or there is no configuration.
    """
    from ..config.embedded import embedded
    from ..config.environment import data_folder
    from ..config.source import glimpse
    from ..config.toml import ConfigError

    path = find_config(given)
    try:
        if path is not None:
            return glimpse(path)
        folder = data_folder(os.environ)
        if folder.is_dir():
            return embedded(folder)
    except ConfigError as error:
        raise Fault(str(error), os.EX_CONFIG) from error
    raise _nowhere()


def _nowhere() -> Fault:
    places = ", ".join(map(str, PLACES))
    return Fault(
        f"no configuration: neither --config nor ${ENVIRONMENT} was given, and there is none of "
        f"{places} and ./protege-mta-data",
        os.EX_CONFIG,
        remedy="protege-mta init DIR makes one; protege-mta run tries the service out without.",
    )
