"""Output: tables with colours on a terminal, plain aligned text or JSON elsewhere.

Text that came in by mail (addresses, subjects, causes) is shown with its control characters made
harmless, for they could steer the terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

import attrs

_UNITS: Final = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
_STYLES: Final = {
    "scheduled": "cyan",
    "active": "green",
    "deferred": "yellow",
    "held": "magenta",
    "corrupt": "bold red",
    "ended": "dim",
}
"""Colours of a message's states."""


@attrs.frozen
class Column:
    """One column of a table.

    :ivar value: its text for a row.
    :ivar is_right: for numbers.
    :ivar is_state: coloured by the word.
    """

    title: str
    value: Callable[[dict[str, Any]], str]
    is_right: bool = False
    is_state: bool = False


def is_terminal() -> bool:
    """Whether a person watches, who has not asked for plain text."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def write(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")


def harmless(text: str) -> str:
    """Text from outside, with what is not printable made visible."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def write_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")


def write_json_rows(rows: Iterable[object]) -> int:
    """One JSON array, a row a line, written as the rows come.  :return: how many."""
    count = 0
    for count, row in enumerate(rows, start=1):
        text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
        sys.stdout.write(("[" if count == 1 else ",\n") + text)
    sys.stdout.write("]\n" if count else "[]\n")
    return count


def write_table(columns: Sequence[Column], rows: Iterable[dict[str, Any]]) -> int:
    """A table of all rows.  :return: how many."""
    texts = [[harmless(column.value(row)) for column in columns] for row in rows]
    if is_terminal():
        _write_rich_table(columns, texts)
        return len(texts)
    lines = [[column.title for column in columns], *texts]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    for line in lines:
        cells = [
            text.rjust(width) if column.is_right else text.ljust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        ]
        write("  ".join(cells).rstrip())
    return len(texts)


def _write_rich_table(columns: Sequence[Column], texts: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        # Folded and never cut: somebody may copy a key from here.
        justify: Literal["left", "right"] = "right" if column.is_right else "left"
        table.add_column(column.title, justify=justify, overflow="fold")
    for line in texts:
        table.add_row(
            *(
                Text(text, style=_STYLES.get(text, "") if column.is_state else "")
                for text, column in zip(line, columns, strict=True)
            )
        )
    Console().print(table)


def write_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Names and values, one a line."""
    pairs = [(name, harmless(value)) for name, value in facts]
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        title = f"{name}:".ljust(width + 1)
        write(f"\x1b[1m{title}\x1b[0m {value}" if is_terminal() else f"{title} {value}")


def duration(seconds: float) -> str:
    """A time span in one unit, ``3 min``."""
    for name, size in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {name}"
    return "0 s"


def until(at: float, now: float) -> str:
    """When something is due, ``in 3 min``."""
    return f"in {duration(at - now)}" if at > now else "now"


def moment(at: float) -> str:
    """A time in full, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def size(octets: int) -> str:
    """A size in one unit of 1,024s, ``12 KiB``."""
    amount = float(octets)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{octets} B" if unit == "B" else f"{amount:.3g} {unit}"
