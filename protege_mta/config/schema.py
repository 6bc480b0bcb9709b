"""How tables are made of keys: what a field's metadata says, under ``"key"``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from .kinds import Kind


@attrs.frozen
class Table:
    """A table of its own: ``[name]``, or inline.

    :ivar model: the attrs class that it fills.
    """

    model: type
    wanted: str = "a table"


@attrs.frozen
class Variant:
    """A table whose class is told by one of its keys.

    :ivar by: that key.
    :ivar default: its value where it is left out; empty where it must be given.
    :ivar later: values that a later version brings.
    """

    by: str
    models: Mapping[str, type]
    default: str = ""
    later: tuple[str, ...] = ()
    wanted: str = "a table"


@attrs.frozen
class Tables:
    """An array of tables, ``[[name]]``."""

    each: Table | Variant
    wanted: str = "an array of tables"


@attrs.frozen
class Named:
    """A table of tables or of plain values, each with a name of its own: ``[name."example.org"]``.

    :ivar name: what the names are.
    """

    name: Kind
    each: Kind | Table | Variant
    wanted: str = "a table of tables"


TABLES: Final = (Table, Variant, Tables, Named)


@attrs.frozen
class Key:
    """What a field's metadata says of its key, under ``"key"``.

    :ivar text: one or more sentences for the reference page; empty for tables, which their class
        describes.
    :ivar shown_default: the default in words, where it is not a value.
    """

    kind: Kind | Table | Variant | Tables | Named
    text: str = ""
    shown_default: str = ""


def key(
    kind: Kind | Table | Variant | Tables | Named, text: str = "", *, shown_default: str = ""
) -> dict[str, Key]:
    """Metadata for a field that is a key of the configuration."""
    return {"key": Key(kind, text, shown_default)}
