"""A configuration wherever it comes from: a file of our own, or the folder of a Protege project."""

from __future__ import annotations

from pathlib import Path

from . import gateway_json, toml
from .model import Settings


def load(path: Path) -> Settings:
    """Read all of it.

    :raise ConfigError: with every complaint.
    """
    return gateway_json.load(path) if path.is_dir() else toml.load(path)


def glimpse(path: Path) -> Settings:
    """Read as much as says where a running service's sockets are.

    :raise ConfigError: that much is wrong.
    """
    return gateway_json.glimpse(path) if path.is_dir() else toml.glimpse(path)
