"""``docs/reference/commands.md`` names every command and every option."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.cli import root

PAGE = Path(__file__).parents[2] / "docs/reference/commands.md"


def commands(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its whole name."""
    if not isinstance(command, click.Group):
        yield name, command
        return
    context = click.Context(command)
    for word in command.list_commands(context):
        below = command.get_command(context, word)
        assert below is not None
        yield from commands(below, f"{name} {word}".strip())


class CommandsPageTests(SynchronousTestCase):
    def test_commands(self) -> None:
        page = PAGE.read_text("utf-8")
        missing = [name for name, _ in commands(root) if f"`{name}" not in page]
        self.assertEqual(missing, [])

    def test_options(self) -> None:
        page = PAGE.read_text("utf-8")
        missing = [
            f"{name} {option}"
            for name, command in commands(root)
            for parameter in command.params
            for option in parameter.opts
            if option.startswith("--") and option not in page
        ]
        self.assertEqual(missing, [])

    def test_every_option_is_described(self) -> None:
        """In ``--help`` too."""
        missing = [
            f"{name} {parameter.opts[0]}"
            for name, command in commands(root)
            for parameter in command.params
            if isinstance(parameter, click.Option) and not parameter.help
        ]
        self.assertEqual(missing, [])
