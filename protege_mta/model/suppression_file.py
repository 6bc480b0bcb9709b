"""The suppression list as text: JSON lines and CSV, to be taken elsewhere and brought from there.

A line has the members ``address``, ``reason`` (``manual`` where it is left out), ``tenant``,
``since``, ``until`` (RFC 3339; left out for ever), ``detail`` and ``message_id``; CSV has them under
a first line of their names, of which ``address`` alone is needed.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final, Literal

import attrs

from .ports import Suppressed
from .suppression import REASONS, normalised, written_address

Form = Literal["jsonl", "csv"]

COLUMNS: Final = ("address", "reason", "tenant", "since", "until", "detail", "message_id")
DETAIL_CHARACTERS: Final = 300

_DELIMITERS: Final = ",;\t"
"""What stands between cells: that of the first line; spreadsheets write others in other countries."""


@attrs.frozen
class BadLine:
    """:ivar number: from 1.  :ivar member: what is wrong in it; empty for all."""

    number: int
    why: str
    member: str = ""


class BadEntry(ValueError):
    """What is no entry.  :ivar member: the one at fault."""

    def __init__(self, why: str, member: str = "") -> None:
        super().__init__(why)
        self.member = member


def read(
    lines: Iterable[str], form: Form, now: float, tenant: str | None = None
) -> Iterator[Suppressed | BadLine]:
    """Each line that is not blank, in order; as they are asked for.

    :param now: since when what does not say so is suppressed.
    :param tenant: whose the lines are that name none; the others have to name it too, unless it is
        None.
    """
    rows = _csv_rows(lines) if form == "csv" else _json_rows(lines)
    for number, row in rows:
        if isinstance(row, str):
            yield BadLine(number, row)
            continue
        try:
            yield entry_of(row, now, tenant)
        except BadEntry as error:
            yield BadLine(number, str(error), error.member)


def entry_of(row: dict[str, Any], now: float, tenant: str | None = None) -> Suppressed:
    """An entry of its members; as :func:`read`.  :raise BadEntry:"""
    for name, value in row.items():
        if name not in COLUMNS:
            raise BadEntry(f"there is no such member; there are {', '.join(COLUMNS)}", str(name))
        if value is not None and not isinstance(value, str):
            raise BadEntry("wanted a text", name)
    texts: dict[str, str] = {name: row.get(name) or "" for name in COLUMNS}
    for name, text in texts.items():
        if "\ufffd" in text:  # what stands there for octets that are none
            raise BadEntry("is not UTF-8", name)
        if not text.isprintable() or len(text) > 1000:
            raise BadEntry("wanted up to 1000 printable characters", name)
    address = normalised(texts["address"])
    if address is None:
        raise BadEntry("wanted an address such as a@example.org", "address")
    reason = texts["reason"] or "manual"
    if reason not in REASONS:
        raise BadEntry(f"wanted one of {', '.join(REASONS)}", "reason")
    whose = texts["tenant"]
    if tenant is not None and whose not in ("", tenant):
        raise BadEntry("this is another tenant's", "tenant")
    return Suppressed(
        address,
        reason,
        tenant or whose,
        _time(texts["since"], "since") or now,
        _time(texts["until"], "until"),
        texts["detail"][:DETAIL_CHARACTERS],
        texts["message_id"][:64],
    )


def members_of(entry: Suppressed) -> dict[str, str]:
    """An entry's members; what it has not is left out."""
    told = {
        "address": written_address(entry.address),
        "reason": entry.reason,
        "tenant": entry.tenant,
        "since": _written(entry.since),
        "until": "" if entry.until is None else _written(entry.until),
        "detail": entry.detail,
        "message_id": entry.message_id,
    }
    return {name: value for name, value in told.items() if value}


def write(entries: Iterable[Suppressed], form: Form, *, is_first: bool) -> str:
    """Lines for entries.  :param is_first: whether CSV's line of names comes before them."""
    if form == "jsonl":
        return "".join(json.dumps(members_of(one), ensure_ascii=False) + "\n" for one in entries)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\r\n")
    if is_first:
        writer.writeheader()
    writer.writerows(map(members_of, entries))
    return text.getvalue()


def _json_rows(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            yield number, "is not JSON"
            continue
        yield number, row if isinstance(row, dict) else "wanted an object"


def _csv_rows(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    lines = iter(lines)
    begun = []
    for line in lines:
        begun.append(line)
        if line.strip():
            break
    delimiter = max(_DELIMITERS, key="".join(begun).count)
    reader = csv.reader(chain(begun, lines), strict=True, delimiter=delimiter)
    names: list[str] | None = None
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            upto = f" (up to line {reader.line_num})" if reader.line_num > number else ""
            yield number, f"is not CSV: {error}{upto}"
            continue
        if not any(cell.strip() for cell in row):
            continue
        if names is None:
            names = [cell.strip().lower().lstrip("\ufeff") for cell in row]
            if "address" not in names:
                yield reader.line_num, 'wanted names of columns, "address" among them'
                return
            unknown = [name for name in names if name not in COLUMNS]
            if unknown:
                yield reader.line_num, f"has columns besides {', '.join(COLUMNS)}"
                return
        elif len(row) > len(names):
            yield reader.line_num, "has more cells than there are columns"
        else:
            yield reader.line_num, dict(zip(names, map(str.strip, row), strict=False))


def _time(text: str, name: str) -> float | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
        stamp = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise BadEntry("wanted a time such as 2026-09-21T14:13:21Z", name) from None
    return stamp


def _written(at: float) -> str:
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return ""
