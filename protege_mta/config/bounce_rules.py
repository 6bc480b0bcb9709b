"""The rules that classify replies: files of the configuration, and those that we bring."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from ..model.bounce_class import BadRules, Classifier, Rules, parse

SHIPPED: Final = ("texts.toml", "codes.toml", "classes.toml")
"""In this order: what servers say tells more than the codes that they put before it."""


def classifier(paths: Iterable[Path]) -> Classifier:
    """Rules of these files first, then ours.  :raise BadRules, OSError:"""
    return Classifier([*map(load, paths), *shipped()])


def load(path: Path) -> Rules:
    """:raise BadRules, OSError:"""
    try:
        return parse(path.read_bytes())
    except BadRules as error:
        raise BadRules(f"{path}: {error}") from error


@cache
def shipped() -> tuple[Rules, ...]:
    """Ours, compiled once."""
    folder = files(__package__) / "bounces"
    return tuple(parse((folder / name).read_bytes()) for name in SHIPPED)
