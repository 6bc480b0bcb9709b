"""TOML in, one tree of frozen values out; or every complaint at once.

What keys there are, and of what kind, stands in :mod:`.model` alone; what no single key can tell,
in :mod:`.checks`.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from ..model.identity import Agent
from . import checks
from .identities import IdentitiesFile
from .kinds import FilePath, Kind, Unfit
from .model import Settings
from .schema import TABLES, Key, Named, Table, Tables, Variant

_GOT_CHARACTERS: Final = 60
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+\Z")
_TOML_PLACE: Final = re.compile(
    r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)\Z", re.DOTALL
)


@attrs.frozen
class Complaint:
    """One thing that is wrong with a configuration.

    :ivar place: table and key as they stand in the file; empty where the file itself is wrong.
    """

    file: str
    place: str
    text: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.file, self.place, self.text)))


class ConfigError(Exception):
    """The configuration cannot be used.

    :ivar complaints: all that is wrong, in the order of the file's tables; never empty.
    """

    def __init__(self, complaints: tuple[Complaint, ...]) -> None:
        super().__init__("\n".join(map(str, complaints)))
        self.complaints = complaints


def load(path: Path) -> Settings:
    """Read a configuration file, and look at the files that it names.

    :raise ConfigError: with every complaint.
    """
    reader = _Reader(str(path), path.parent.absolute())
    document = reader.document(path)
    settings = reader.whole(document, path) if document is not None else None
    if settings is not None and settings.tunnel_server.enabled:
        try:
            load_identities(settings.tunnel_server.identities_file)
        except ConfigError as error:
            reader.complaints += error.complaints
    if settings is None or reader.complaints:
        raise ConfigError(tuple(reader.complaints))
    return settings


def load_identities(path: Path) -> tuple[Agent, ...]:
    """Read the file of a relay server's agents; one that is not there names none.

    :raise ConfigError: with every complaint.
    """
    return parse_identities(path, None)


def parse_identities(path: Path, text: str | None) -> tuple[Agent, ...]:
    """:func:`load_identities` of what is to be in the file.

    :param text: None for what is in it.
    :raise ConfigError:
    """
    reader = _Reader(str(path), path.parent.absolute(), elsewhere={})
    if text is None and not os.path.lexists(path):
        return ()
    document = reader.document(path) if text is None else tomllib.loads(text)
    values = {} if document is None else reader.values(document, IdentitiesFile)
    if reader.complaints:
        raise ConfigError(tuple(reader.complaints))
    return IdentitiesFile(**values).agents()


def glimpse(path: Path) -> Settings:
    """Read the plain keys of the top level alone, where the sockets are to be found.

    Enough to talk to a running service, for users who may not read its keys, and while the rest of
    the file is broken.

    :raise ConfigError: the file cannot be read, or one of those keys is wrong.
    """
    reader = _Reader(str(path), path.parent.absolute())
    document = reader.document(path)
    if document is None:
        raise ConfigError(tuple(reader.complaints))
    plain = {name for name, key, _ in keys_of(Settings) if not isinstance(key.kind, TABLES)}
    settings = reader.settings({k: v for k, v in document.items() if k in plain}, path)
    if reader.complaints:
        raise ConfigError(tuple(reader.complaints))
    return settings


def keys_of(model: type) -> Iterator[tuple[str, Key, attrs.Attribute[Any]]]:
    """The keys of a table: name in the file, description, field."""
    for field in attrs.fields(model):
        if "key" in field.metadata:
            yield field.metadata.get("name", field.name), field.metadata["key"], field


@attrs.frozen
class _Where:
    """A table's place in the file.

    :ivar dotted: its name, quoted as need be; empty for the top level.
    :ivar number: counted from 1 in an array of tables; 0 elsewhere.
    """

    dotted: str = ""
    number: int = 0

    def key(self, name: str) -> str:
        return f"{self} {_quoted(name)}".strip()

    def table(self, name: str, number: int = 0) -> _Where:
        return _Where(".".join(filter(None, (self.dotted, _quoted(name)))), number)

    def __str__(self) -> str:
        if not self.dotted:
            return ""
        return f"[[{self.dotted}]] #{self.number}" if self.number else f"[{self.dotted}]"


class _Reader:
    """:param elsewhere: the keys of each table, for one that was put into another."""

    def __init__(
        self, file: str, folder: Path, elsewhere: Mapping[str, frozenset[str]] | None = None
    ) -> None:
        self.complaints: list[Complaint] = []
        self._elsewhere = _KEYS_BY_TABLE if elsewhere is None else elsewhere
        self._file = file
        self._folder = folder

    def document(self, path: Path) -> dict[str, Any] | None:
        try:
            octets = path.read_bytes()
        except OSError as error:
            self._complain("", f"wanted a file that can be read, got: {error.strerror}")
            return None
        try:
            text = octets.decode("utf-8")
        except UnicodeDecodeError as error:
            line = octets.count(b"\n", 0, error.start) + 1
            got = f"octet 0x{octets[error.start]:02x}"
            self._complain(f"line {line}", f"wanted text in UTF-8, got {got}")
            return None
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            self._not_toml(text, str(error))
            return None

    def _not_toml(self, text: str, problem: str) -> None:
        match = _TOML_PLACE.match(problem)
        if match is None or match[2] is None:
            self._complain("", f"wanted TOML, got: {match[1] if match else problem}")
            return
        lines = text.split("\n")
        number = min(int(match[2]), len(lines))
        line = lines[number - 1].strip()[:_GOT_CHARACTERS]
        got = line if line.isprintable() else shown(line)
        self._complain(f"line {number}", f"wanted TOML, got: {got} ({match[1]})")

    def settings(self, document: dict[str, Any], path: Path) -> Settings:
        # Built even where a key was wrong, so that checks over several tables can complain too.
        values, _ = self._values(document, Settings, _Where())
        settings = Settings(source=path.absolute(), **values)
        for place, text in checks.of_top(settings):
            self._complain(place, text)
        return settings

    def whole(self, document: dict[str, Any], path: Path) -> Settings:
        settings = self.settings(document, path)
        for place, text in checks.of_settings(settings, document):
            self._complain(place, text)
        return settings

    def values(self, document: dict[str, Any], model: type) -> dict[str, Any]:
        """Arguments for the class of a whole file."""
        return self._values(document, model, _Where())[0]

    def _table(self, raw: Any, kind: Table | Variant, where: _Where) -> Any:
        """An instance of the table's class; None where something in it is wrong."""
        if not isinstance(raw, dict):
            return self._complain(str(where), f"wanted {kind.wanted}, got {shown(raw)}")
        model = self._variant(raw, kind, where) if isinstance(kind, Variant) else kind.model
        if model is None:
            return None
        others: tuple[type, ...] = ()
        rest = raw
        if isinstance(kind, Variant):
            others = tuple(kind.models.values())
            rest = {name: value for name, value in raw.items() if name != kind.by}
        values, is_whole = self._values(rest, model, where, kind, others)
        if not is_whole:
            return None
        table = model(**values)
        wrong = list(checks.of_table(table))
        for name, text in wrong:
            self._complain(where.key(name), text)
        return None if wrong else table

    def _variant(self, raw: dict[str, Any], kind: Variant, where: _Where) -> type | None:
        chosen = raw.get(kind.by)
        if isinstance(chosen, str) and chosen in kind.models:
            return kind.models[chosen]
        if isinstance(chosen, str) and chosen in kind.later:
            self._complain(where.key(kind.by), f"{shown(chosen)} is not available in this version")
            return None
        words = " or ".join(f'"{word}"' for word in kind.models)
        got = shown(chosen) if kind.by in raw else "nothing"
        self._complain(where.key(kind.by), f"wanted {words}, got {got}")
        known = {name for model in kind.models.values() for name, _, _ in keys_of(model)}
        later = {name for model in kind.models.values() for name in _later(model)}
        for name in raw.keys() - known - later - {kind.by}:
            self._complain(where.key(name), self._unknown(name, [kind.by, *known]))
        return None

    def _values(
        self,
        raw: dict[str, Any],
        model: type,
        where: _Where,
        kind: Table | Variant | None = None,
        others: tuple[type, ...] = (),
    ) -> tuple[dict[str, Any], bool]:
        """Arguments for ``model``, and whether nothing was wrong."""
        before = len(self.complaints)
        keys = {name: (key, field) for name, key, field in keys_of(model)}
        values: dict[str, Any] = {}
        for name, value in raw.items():
            if name in keys:
                key, field = keys[name]
                read = self._value(value, key, name, where)
                if read is not None:
                    values[field.name] = read
            elif name in _later(model):
                place = str(where.table(name)) if isinstance(value, dict) else where.key(name)
                self._complain(place, "not available in this version")
            elif (owner := _owner(name, others)) is not None and isinstance(kind, Variant):
                word = next(word for word, each in kind.models.items() if each is owner)
                self._complain(where.key(name), f'only with {kind.by} = "{word}"')
            else:
                by = [kind.by] if isinstance(kind, Variant) else []
                place = str(where.table(name)) if isinstance(value, dict) else where.key(name)
                self._complain(place, self._unknown(name, [*by, *keys]))
        for name, (key, field) in keys.items():
            if field.default is attrs.NOTHING and name not in raw:
                self._complain(where.key(name), f"wanted {key.kind.wanted}, got nothing")
            elif (
                name not in raw
                and isinstance(key.kind, FilePath)
                and isinstance(field.default, Path)
            ):
                values[field.name] = self._folder / field.default
        return values, len(self.complaints) == before

    def _value(self, raw: Any, key: Key, name: str, where: _Where) -> Any:
        match key.kind:
            case Table() | Variant():
                return self._table(raw, key.kind, where.table(name))
            case Tables(each=each):
                return self._tables(raw, each, name, where)
            case Named(name=names, each=each):
                return self._named(raw, names, each, where.table(name))
            case _:
                return self._plain(raw, key.kind, where.key(name))

    def _tables(self, raw: Any, each: Table | Variant, name: str, where: _Where) -> Any:
        if not isinstance(raw, list):
            wanted = f"wanted an array of tables, [[{where.table(name).dotted}]]"
            return self._complain(where.key(name), f"{wanted}, got {shown(raw)}")
        found = [
            (number, self._table(item, each, where.table(name, number)))
            for number, item in enumerate(raw, start=1)
        ]
        whole = [(number, table) for number, table in found if table is not None]
        for number, key, text in checks.of_tables(whole):
            self._complain(where.table(name, number).key(key), text)
        return checks.completed([table for _, table in whole])

    def _named(self, raw: Any, names: Kind, each: Kind | Table | Variant, where: _Where) -> Any:
        if not isinstance(raw, dict):
            return self._complain(str(where), f"wanted tables with names, got {shown(raw)}")
        found: dict[str, Any] = {}
        seen: dict[str, str] = {}
        for written, item in raw.items():
            name = self._plain(written, names, str(where.table(written)))
            if name is None:
                continue
            if name in seen:
                got = f'got "{seen[name]}" and "{written}", which are one'
                self._complain(str(where.table(written)), f"wanted every domain once, {got}")
                continue
            seen[name] = written
            if isinstance(each, Table | Variant):
                value = self._table(item, each, where.table(written))
            else:
                value = self._plain(item, each, where.key(written))
            if value is not None:
                found[name] = value
        return found

    def _plain(self, raw: Any, kind: Kind, place: str) -> Any:
        """A single value; None where it is wrong, and where the kind reads empty text as none."""
        try:
            return kind.read(raw, self._folder)
        except Unfit as unfit:
            if unfit.is_later:
                return self._complain(place, unfit.wanted)
            got = shown(raw if unfit.item is None else unfit.item)
            note = f" ({unfit.note})" if unfit.note else ""
            return self._complain(place, f"wanted {unfit.wanted}, got {got}{note}")

    def _unknown(self, name: str, known: list[str]) -> str:
        """Words for a key that is not known here, with what may have been meant."""
        close = difflib.get_close_matches(name, known, n=1)
        if close:
            return f"unknown key; did you mean {close[0]}?"
        for table, keys in self._elsewhere.items():
            if name in keys:
                # TOML puts every key below a [table] line into that table: a common slip.
                place = f"in [{table}]" if table else "at the top, above the first [table]"
                return f"unknown key; did you mean {name} {place}?"
        return f"unknown key; known here: {', '.join(sorted(known))}"

    def _complain(self, place: str, text: str) -> None:
        self.complaints.append(Complaint(self._file, place, text))


def _later(model: type) -> tuple[str, ...]:
    return getattr(model, "later", ())


def _owner(name: str, models: tuple[type, ...]) -> type | None:
    """Which of the models has the key."""
    for model in models:
        if any(name == each for each, _, _ in keys_of(model)):
            return model
    return None


def _quoted(name: str) -> str:
    return name if _BARE_KEY.match(name) else _json(name)


def shown(raw: object) -> str:
    """A value as the file writes it, on one line, cut where it is long."""
    match raw:
        case dict():
            return "a table"
        case None | str() | bool() | int() | float() | list():
            text = _json(raw)
        case _:
            text = str(raw)
    return text if len(text) <= _GOT_CHARACTERS else text[: _GOT_CHARACTERS - 3] + "..."


def _json(value: object) -> str:
    """On one line, and with nothing that could steer a terminal."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def _keys_by_table() -> Mapping[str, frozenset[str]]:
    found = {"": frozenset(name for name, _, _ in keys_of(Settings))}
    for name, key, _ in keys_of(Settings):
        if isinstance(key.kind, Table):
            found[name] = frozenset(each for each, _, _ in keys_of(key.kind.model))
    return found


_KEYS_BY_TABLE: Final = _keys_by_table()
