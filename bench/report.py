"""How results are shown and kept: tables for any width, progress, JSON."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import attrs
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

PIPE_WIDTH: Final = 132
"""Columns to write for where nobody has a terminal."""


@attrs.frozen
class Sheet:
    """A table of results.

    :ivar keys: so many columns name a row; the others are figures.
    """

    title: str
    titles: Sequence[str]
    rows: Sequence[Sequence[str]]
    keys: int = 1


def terminal() -> Console:
    """For results."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)


def show(console: Console, sheet: Sheet) -> None:
    """As a table where it fits, else as a block of lines a row."""
    table = _table(sheet)
    anything = console.options.update(width=10_000)
    fits = Measurement.get(console, anything, table).maximum <= console.width
    console.print(table if fits else _blocks(sheet))


def _table(sheet: Sheet) -> Table:
    table = Table(title=sheet.title, title_justify="left", title_style="bold")
    for column, title in enumerate(sheet.titles):
        justify: Literal["left", "right"] = "left" if column < sheet.keys else "right"
        table.add_column(title, justify=justify, no_wrap=True)
    for row in sheet.rows:
        table.add_row(*map(Text, row))
    return table


def _blocks(sheet: Sheet) -> RenderableType:
    lines = [Text(sheet.title, "bold")]
    width = max(map(len, sheet.titles[sheet.keys :]), default=0)
    named = [""] * sheet.keys
    for row in sheet.rows:  # an empty name is that of the row above
        named = [name or above for name, above in zip(row, named, strict=False)]
        lines.append(Text(", ".join(named)))
        for title, value in list(zip(sheet.titles, row, strict=True))[sheet.keys :]:
            if value:
                lines.append(Text(f"  {title:{width}}  {value}"))
    return Group(*lines)


class Steps:
    """Tells on stderr what is being done: a bar on a terminal, a line a step elsewhere.

    :param total: steps to come.
    """

    def __init__(self, bar: Progress | None, total: int) -> None:
        self._bar = bar
        self._total = total
        self._done = -1
        self._task = bar.add_task("", total=total) if bar is not None else None

    def next(self, what: str) -> None:
        """The next step begins; the one before it is done."""
        self._done += 1
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=what, completed=self._done)
        else:
            print(f"[{self._done + 1}/{self._total}] {what}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def steps(total: int) -> Iterator[Steps]:
    """Progress over so many steps."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Steps(None, total)
        return
    columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns, TextColumn("{task.description}"), console=console, transient=True
    ) as bar:
        yield Steps(bar, total)


def document(
    scenario: str, machine: Mapping[str, object], plan: Mapping[str, object], **parts: object
) -> dict[str, object]:
    """What is kept of a scenario's run."""
    return {
        "scenario": scenario,
        "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "plan": plan,
        **parts,
    }


def keep(console: Console, folder: Path, kept: Mapping[str, object]) -> Path:
    """Write a document as ``scenario.json``, and say so."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kept['scenario']}.json"
    path.write_text(json.dumps(kept, indent=1) + "\n")
    console.print(f"Kept: {path}")
    return path
