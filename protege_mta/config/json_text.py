"""JSON files of somebody else: read with a complaint that names the place, and edited so that all
that is not edited stays as it was, octet by octet.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

BOM: Final = "\ufeff"
_SPACE: Final = " \t\r\n"
_DECODER: Final = json.JSONDecoder()


class BadJson(Exception):
    """The text is no JSON object, in words for "got"."""


@attrs.frozen
class _Member:
    """Where a member stands in the text, from its name's first quote to its value's end."""

    start: int
    name_end: int
    value_start: int
    end: int


def parse(octets: bytes) -> tuple[str, dict[str, Any]]:
    """The text without its byte order mark, and the object in it.

    :raise BadJson: not UTF-8, no JSON (RFC 8259), no object, or one with a member twice, of which
        readers take one or the other.
    """
    try:
        text = octets.decode("utf-8").removeprefix(BOM)
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise BadJson(f"octet 0x{octets[error.start]:02x} in line {line}, no UTF-8") from error
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise BadJson(f"line {error.lineno} column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise BadJson(str(error)) from error
    if not isinstance(value, dict):
        raise BadJson("a value that is no object")
    return text, value


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the member {json.dumps(twice)} twice in one object")
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word}, which is no JSON")


def written(document: Mapping[str, Any]) -> str:
    """A new file's text: two spaces a level, no line end at the end."""
    return _json(document, indent=2)


def put(text: str, path: Sequence[str], value: Any) -> str:
    """The text with a member set, at its place or behind its object's last one.

    :param text: as :func:`parse` gives it.
    :param path: names from the outermost object inwards; objects that are missing are made.
    """
    at, depth = _skip(text, 0), 0
    members = _members(text, at)
    while path[depth] in members and depth < len(path) - 1:
        inner = members[path[depth]].value_start
        if text[inner] != "{":
            break
        at, depth = inner, depth + 1
        members = _members(text, at)
    for name in reversed(path[depth + 1 :]):
        value = {name: value}
    rendered = _rendered(text, value, depth + 1)
    found = members.get(path[depth])
    if found is not None:
        return text[: found.value_start] + rendered + text[found.end :]
    item = f"{_json(path[depth])}: {rendered}"
    if members:
        last = max(each.end for each in members.values())
        gap = _gap(text, depth + 1) or " "
        return f"{text[:last]},{gap}{item}{text[last:]}"
    end = _skip(text, at + 1)
    return f"{text[: at + 1]}{_gap(text, depth + 1)}{item}{_gap(text, depth)}{text[end:]}"


def without(text: str, name: str) -> str:
    """The text without a member of its outermost object."""
    members = _members(text, _skip(text, 0))
    gone = members.pop(name, None)
    if gone is None:
        return text
    before = max((each.end for each in members.values() if each.end < gone.start), default=0)
    if before:
        return text[:before] + text[gone.end :]
    behind = min((each.start for each in members.values()), default=0)
    if behind:
        return text[: gone.start] + text[behind:]
    start = text.index("{") + 1
    return text[:start] + text[_skip(text, gone.end) :]


def renamed(text: str, old: str, new: str) -> str:
    """The text with another name for a member of its outermost object."""
    member = _members(text, _skip(text, 0))[old]
    return text[: member.start] + json.dumps(new) + text[member.name_end :]


def _members(text: str, at: int) -> dict[str, _Member]:
    """The members of the object whose brace is at ``at``."""
    return dict(_each_member(text, at + 1))


def _each_member(text: str, at: int) -> Iterator[tuple[str, _Member]]:
    at = _skip(text, at)
    while text[at] != "}":
        name, name_end = _DECODER.raw_decode(text, at)
        value_start = _skip(text, _skip(text, name_end) + 1)
        _, end = _DECODER.raw_decode(text, value_start)
        yield name, _Member(at, name_end, value_start, end)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    """The first place from ``at`` on that is no white space."""
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _gap(text: str, depth: int) -> str:
    """What stands before a member so deep, or before the brace behind it; empty where the whole
    text is on one line."""
    inside = text.strip(_SPACE)
    if "\n" not in inside and inside.strip("{}" + _SPACE):
        return ""
    first = text[text.index("{") + 1 :]
    lead = first[: len(first) - len(first.lstrip(_SPACE))]
    unit = lead.rpartition("\n")[2] if "\n" in lead and first.lstrip(_SPACE)[:1] != "}" else "  "
    return ("\r\n" if "\r\n" in text else "\n") + unit * depth


def _rendered(text: str, value: Any, depth: int) -> str:
    gap = _gap(text, 0)
    if not isinstance(value, dict | list) or not value:
        return _json(value)
    if not gap:
        return _json(value)
    unit = _gap(text, 1).removeprefix(gap)
    lines = _json(value, indent=unit).split("\n")
    return _gap(text, depth).join(lines)


def _json(value: Any, indent: int | str | None = None) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text):
        return text
    return json.dumps(value, indent=indent)  # lone surrogates have no other form than an escape
