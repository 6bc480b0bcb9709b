"""What the environment says of settings, by the names that TS Pro Relay has for them: whoever comes
from there keeps the environment of the container.  What it says goes before what a file says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import attrs

from .embedded import FOLDER
from .hosts import Cidr
from .kinds import Kind, ListOf, Unfit, Whole
from .listeners import HttpListener
from .model import Settings
from .toml import Complaint, ConfigError

DATA_DIR: Final = "RELAY_DATA_DIR"
LOG_LEVEL: Final = "RELAY_LOG_LEVEL"
SEND_PER_HOUR: Final = "RELAY_SEND_PER_HOUR"
TRUSTED_PROXIES: Final = "RELAY_TRUSTED_PROXIES"

Level = Literal["debug", "info", "warn", "error", "critical"]
_LEVELS: Final[Mapping[str, Level]] = {
    "debug": "debug",
    "info": "info",
    "warning": "warn",
    "warn": "warn",
    "error": "error",
    "critical": "critical",
}


def data_folder(environment: Mapping[str, str]) -> Path:
    """Where the embedded default keeps its data."""
    return Path(environment.get(DATA_DIR) or FOLDER)


def log_level(environment: Mapping[str, str]) -> Level:
    """From which level on ``run`` writes its log.  :raise ConfigError:"""
    given = environment.get(LOG_LEVEL, "").strip()
    found = _LEVELS.get(given.lower() or "info")
    if found is None:
        raise _wrong(LOG_LEVEL, "one of debug, info, warning, error, critical", given)
    return found


def with_environment(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """The settings that are in force.  :raise ConfigError: what is there cannot be read."""
    per_hour = environment.get(SEND_PER_HOUR, "").strip()
    if per_hour:
        number = int(per_hour) if per_hour.isascii() and per_hour.isdigit() else per_hour
        most = _read(Whole(0), number, SEND_PER_HOUR, per_hour)
        settings = attrs.evolve(settings, api=attrs.evolve(settings.api, send_per_hour=most))
    proxies = environment.get(TRUSTED_PROXIES, "").strip()
    if proxies:
        names = [name.strip() for name in proxies.split(",") if name.strip()]
        trusted = _read(ListOf(Cidr(), "networks (CIDR)"), names, TRUSTED_PROXIES, proxies)
        listeners = (
            attrs.evolve(one, trusted_proxies=trusted) if isinstance(one, HttpListener) else one
            for one in settings.listeners
        )
        settings = attrs.evolve(settings, listeners=tuple(listeners))
    return settings


def _read(kind: Kind, value: object, name: str, given: str) -> Any:
    try:
        return kind.read(value, Path())
    except Unfit as unfit:
        raise _wrong(name, unfit.wanted, given) from unfit


def _wrong(name: str, wanted: str, given: str) -> ConfigError:
    return ConfigError((Complaint(f"${name}", "", f"wanted {wanted}, got {given!r}"),))
