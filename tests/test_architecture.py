"""Imports point one way; nothing below ``compose`` reads a clock, rolls dice or knows the reactor."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

import protege_mta

PACKAGE: Final = Path(protege_mta.__file__).parent

PURE: Final = {"wire", "message", "dkim"}
MAY_IMPORT: Final[dict[str, set[str]]] = {
    "model": set(),
    "wire": {"model"},
    "message": {"model"},
    "dkim": {"model", "message"},
    "spool": {"model"},
    "schedule": {"model", "message", "dkim"},
    "routing": {"model"},
    "policy": {"model", "message", "dkim"},
    "state": {"model"},
    "observe": {"model"},
    "config": {"model", "dkim"},
    "transport": {"model", "wire", "message"},
    "tunnel": {"model", "wire", "message", "transport"},
    "webhook": {"model", "schedule", "state", "transport"},
    "http": {"model", "message", "observe", "transport"},
}
"""What each folder may know besides itself; ``testing``, ``cli``, ``compose`` and ``tap`` may know all."""

IMPURE: Final = {"twisted", "os", "time", "random", "secrets", "socket", "threading", "subprocess"}
HANDED_IN: Final = {"time", "random", "secrets"}
"""Clocks and chance come as arguments everywhere below ``compose``; their types may be named."""


def imports(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Each import as line, absolute module name, and whether it is for type checkers alone."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for child in ast.walk(node)
    }
    package = ["protege_mta", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, id(node) in typing_only
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module.count(".") == 0 and module == "protege_mta":
                for alias in node.names:
                    yield node.lineno, f"{module}.{alias.name}", id(node) in typing_only
            else:
                yield node.lineno, module, id(node) in typing_only


def sources() -> Iterator[tuple[str, Path]]:
    """Every module in a folder that the rules speak of."""
    for folder in MAY_IMPORT:
        for path in sorted((PACKAGE / folder).rglob("*.py")):
            yield folder, path


class ImportGraphTests(SynchronousTestCase):
    """The tree's directions, read from the source."""

    def test_folders_are_all_named(self) -> None:
        """A new folder has to say what it may import."""
        folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
        self.assertEqual(folders - set(MAY_IMPORT), {"testing", "cli"})

    def test_directions(self) -> None:
        wrong = [
            f"{path.relative_to(PACKAGE)}:{line} imports {name}"
            for folder, path in sources()
            for line, name, _ in imports(path)
            if name.startswith("protege_mta.")
            and name.split(".")[1] not in MAY_IMPORT[folder] | {folder}
        ]
        self.assertEqual(wrong, [])

    def test_pure_folders(self) -> None:
        """Protocol code does no I/O, reads no clock, rolls no dice."""
        wrong = [
            f"{path.relative_to(PACKAGE)}:{line} imports {name}"
            for folder, path in sources()
            for line, name, typing_only in imports(path)
            if folder in PURE | {"model"} and not typing_only and name.split(".")[0] in IMPURE
        ]
        self.assertEqual(wrong, [])

    def test_clock_chance_and_reactor_are_handed_in(self) -> None:
        wrong = [
            f"{path.relative_to(PACKAGE)}:{line} imports {name}"
            for _, path in sources()
            for line, name, typing_only in imports(path)
            if not typing_only
            and (name.split(".")[0] in HANDED_IN or name == "twisted.internet.reactor")
        ]
        self.assertEqual(wrong, [])
