"""The reference page of the configuration, made from the fields' metadata.

``python -m protege_mta.config.reference > docs/reference/configuration.md``
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from .identities import IdentitiesFile
from .kinds import Kind
from .model import Settings
from .schema import TABLES, Key, Named, Table, Tables, Variant
from .toml import keys_of

_OPENING = """\
# Configuration

One TOML file, by default `protege-mta.toml` in the current folder, else
`/etc/protege-mta/protege-mta.toml`; `--config FILE` or `$PROTEGE_MTA_CONFIG` names another.
`protege-mta check-config FILE` says everything that is wrong with it, and a reload (SIGHUP) reads
it again; listeners change at a restart only.

Relative paths start at the file's folder. Unknown keys are errors. Secrets are files, never
values. A key without a default must be given.

This page is made from the program; `make docs` writes it anew.
"""


def page() -> str:
    """The whole page in Markdown."""
    whole = [_OPENING, *_section("", "Top level", Settings)]
    for name, key, _ in keys_of(IdentitiesFile):
        whole += _tables(name, key)
    return "\n".join(whole)


def _section(dotted: str, title: str, model: type) -> Iterator[str]:
    yield f"## {title}\n"
    if dotted:
        yield f"{_first_paragraph(model)}\n"
    tables = []
    rows = []
    for name, key, field in keys_of(model):
        if isinstance(key.kind, TABLES) and not _is_plain_table(key.kind):
            tables.append((name, key))
        else:
            rows.append(_row(name, key, field))
    if rows:
        yield from ("| key | value | default | |", "|---|---|---|---|", *rows, "")
    for name, key in tables:
        yield from _tables(f"{dotted}.{name}" if dotted else name, key)


def _tables(dotted: str, key: Key) -> Iterator[str]:
    kind = key.kind
    if isinstance(kind, Tables):
        kind, title = kind.each, f"[[{dotted}]]"
    elif isinstance(kind, Named):
        dotted = f'{dotted}."example.org"'
        kind, title = kind.each, f"[{dotted}]"
    else:
        title = f"[{dotted}]"
    match kind:
        case Variant(by=by, models=models):
            for word, model in models.items():
                yield from _section(dotted, f'`{title}` with `{by} = "{word}"`', model)
        case Table(model=model):
            yield from _section(dotted, f"`{title}`", model)


def _is_plain_table(kind: Kind | Table | Variant | Tables | Named) -> bool:
    """Whether it is a table of plain values, which has no keys of its own to tell of."""
    return isinstance(kind, Named) and not isinstance(kind.each, Table | Variant)


def _wanted(kind: Kind | Table | Variant | Tables | Named) -> str:
    if isinstance(kind, Named):
        return f"a table of {kind.name.wanted} = {kind.each.wanted}"
    return kind.wanted


def _row(name: str, key: Key, field: attrs.Attribute[Any]) -> str:
    return f"| `{name}` | {_wanted(key.kind)} | {_default(key, field)} | {key.text} |"


def _default(key: Key, field: attrs.Attribute[Any]) -> str:
    if key.shown_default:
        return key.shown_default
    match field.default:
        case attrs.NOTHING:
            return "must be given"
        case tuple() as items:
            text = json.dumps([str(item) for item in items])
        case Path() as path:
            text = json.dumps(str(path))
        case _ if _is_plain_table(key.kind):
            text = "{}"
        case value:
            text = json.dumps(value)
    return f"`{text}`"


def _first_paragraph(model: type) -> str:
    return " ".join((inspect.getdoc(model) or "").split("\n\n")[0].split())


if __name__ == "__main__":
    sys.stdout.write(page())
