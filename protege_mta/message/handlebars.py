"""Handlebars as templates of mail have it, read into the tree that Jinja2 has for its own.

So there is one evaluation, and one set of bounds (:mod:`.templates`): a block becomes a loop or a
condition of that tree, and a value is looked up by a filter.  There are ``if``, ``unless``, ``each``
and ``with``, ``@index``, ``@key``, ``@first``, ``@last`` and ``@root``; no partials, decorators,
subexpressions, literals and block parameters, and no helpers of anybody's own.

Where Handlebars.js and the handlebars crate, by which KumoMTA serves its clients, go different ways,
this goes the crate's, with the settings that it has there: a name that is not in the innermost scope
is looked for in those around it, and an empty object is false.  Of a path that is the first member,
as with Handlebars.js's own setting of the kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import attrs
from jinja2 import nodes
from jinja2.exceptions import SecurityError

TAGS: Final = 2_000
TAG_CHARACTERS: Final = 250
"""A comment may be longer."""

DEPTH: Final = 50
"""So many blocks may be within each other, or follow by ``else``."""

_BLOCKS: Final = frozenset(("if", "unless", "each", "with"))
_DATA: Final = frozenset(("index", "key", "first", "last", "root"))
_LITERALS: Final = frozenset(("true", "false", "null", "undefined"))
_ROOT: Final = "_s0"
_MISSING: Final = object()

_CLOSE: Final = re.compile(r"~?\}\}")
_CLOSE_RAW: Final = re.compile(r"\}~?\}\}")
_CLOSE_COMMENT: Final = re.compile(r"--~?\}\}")
_TAG: Final = re.compile(r"\{\{(~?)(!--|!|\{|)")
_SEGMENT: Final = re.compile(r"\[([^\]]*)\]|([^\s!\"#%&'()*+,./;<=>@\[\\\]^`{|}~]+)")
_LINE_HEAD: Final = re.compile(r"[ \t]*(?:\r?\n|\Z)")
_ESCAPES: Final = str.maketrans(
    {
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        '"': "&quot;",
        "'": "&#x27;",
        "`": "&#x60;",
        "=": "&#x3D;",
    }
)

Path = tuple[int, str, bool, tuple[str, ...]]
"""Scopes to go up, the name of an ``@``, whether to look there only, and the members to go through;
plain, so that it is a constant of the tree."""


@attrs.frozen
class Scope:
    """What names are looked up in.

    :ivar data: what ``@index`` and its like are; empty where it is no turn of a loop.
    """

    value: Any
    outer: Scope | None = None
    data: Mapping[str, Any] = {}


def root(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a tree of :func:`tree_of` is rendered with."""
    return {_ROOT: Scope(values)}


def _find(scope: Scope | None, path: Path) -> Any:
    ups, data, is_own, parts = path
    for _ in range(ups):
        if scope is None:
            return _MISSING
        scope = scope.outer
    if data == "root":
        while scope is not None and scope.outer is not None:
            scope = scope.outer
    elif data:
        while scope is not None and data not in scope.data:
            scope = scope.outer
        return _MISSING if scope is None else scope.data[data]
    if not is_own:
        while scope is not None and _member(scope.value, parts[0]) is _MISSING:
            scope = scope.outer
    value = _MISSING if scope is None else scope.value
    for part in parts:
        value = _member(value, part)
    return value


def _member(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(name, _MISSING)
    if isinstance(value, list):
        if name == "length":
            return len(value)
        if name.isascii() and name.isdecimal() and len(name) < 10 and int(name) < len(value):
            return value[int(name)]
    return _MISSING


def _raw(scope: Scope, path: Path) -> str:
    return _text(_find(scope, path))


def _escaped(scope: Scope, path: Path) -> str:
    return _text(_find(scope, path)).translate(_ESCAPES)


def _text(value: Any) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case list():
            return f"[{', '.join(map(_text, value))}]"
        case Mapping():
            return "[object]"
    return ""  # null, or not there


def _is_true(scope: Scope, path: Path) -> bool:
    found = _find(scope, path)
    return found is not _MISSING and bool(found)


def _each(scope: Scope, path: Path) -> Iterator[Scope]:
    found = _find(scope, path)
    if not isinstance(found, Mapping | list):
        return
    last = len(found) - 1
    pairs = found.items() if isinstance(found, Mapping) else enumerate(found)
    for index, (key, value) in enumerate(pairs):
        data = {"index": index, "key": key, "first": index == 0, "last": index == last}
        yield Scope(value, scope, data)


def _with(scope: Scope, path: Path) -> Iterator[Scope]:
    if _is_true(scope, path):
        yield Scope(_find(scope, path), scope)


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "_raw": _raw,
    "_escaped": _escaped,
    "_is_true": _is_true,
    "_each": _each,
    "_with": _with,
}
"""What the trees call."""


@attrs.frozen
class _Tag:
    """What is between braces, without them.

    :ivar is_raw: whether there are three.
    """

    inner: str
    line: int
    is_raw: bool
    strips_before: bool
    strips_after: bool

    @property
    def may_stand_alone(self) -> bool:
        return not self.is_raw and (
            self.inner.startswith(("#", "/", "!")) or self.inner.split()[:1] in (["else"], ["^"])
        )


@attrs.define
class _Block:
    """A block that is not closed yet.

    :ivar is_chained: whether it has come by ``else``, and ends with the block before it.
    """

    helper: str
    path: Path
    line: int
    scope: str
    body: list[nodes.Node] = attrs.field(factory=list)
    inverse: list[nodes.Node] | None = None
    is_chained: bool = False

    @property
    def open_end(self) -> list[nodes.Node]:
        return self.body if self.inverse is None else self.inverse


def tree_of(text: str, *, is_html: bool) -> nodes.Template:
    """Read a template.

    :param is_html: whether what stands in two braces is escaped.
    :raise SecurityError: it is none, or has what is not there; the text says what and where.
    """
    texts, tags = _split(text)
    _strip(texts, tags)
    return _Builder(is_html).built(texts, tags)


def _split(text: str) -> tuple[list[str], list[_Tag]]:
    """The tags, and the texts before, between and after them."""
    texts, tags = [], []
    literal = ""
    at, line = 0, 1
    while (start := text.find("{{", at)) >= 0:
        before = text[at:start]
        line += before.count("\n")
        if before.endswith("\\") and not before.endswith("\\\\"):
            literal += before[:-1] + "{{"
            at = start + 2
            continue
        literal += before.removesuffix("\\")
        tag, end = _tag(text, start, line)
        texts.append(literal)
        tags.append(tag)
        if len(tags) > TAGS:
            raise SecurityError("the template has too many parts")
        line += text.count("\n", start, end)
        literal, at = "", end
    texts.append(literal + text[at:])
    return texts, tags


def _tag(text: str, start: int, line: int) -> tuple[_Tag, int]:
    """The tag that begins there, and its end."""
    if text.startswith("{{{{", start):
        raise _refused("there are no raw blocks here", line)
    opening = _TAG.match(text, start)
    assert opening is not None
    tilde, kind = opening.groups()
    pattern = {"!--": _CLOSE_COMMENT, "{": _CLOSE_RAW}.get(kind, _CLOSE)
    closing = pattern.search(text, opening.end() - (2 if kind == "!--" else 0))
    if closing is None:
        raise _refused("a tag is not closed", line)
    strips_after = "~" in closing.group()
    if kind.startswith("!"):
        return _Tag("!", line, False, bool(tilde), strips_after), closing.end()
    inner = text[opening.end() : closing.start()].strip()
    if len(inner) > TAG_CHARACTERS:
        raise _refused("a tag is too long", line)
    is_raw = kind == "{"
    if is_raw and inner.startswith("~"):  # the crate's way to write it
        tilde, inner = "~", inner[1:].lstrip()
    if is_raw and inner.endswith("~"):
        strips_after, inner = True, inner[:-1].rstrip()
    if not is_raw and inner.startswith("&"):
        is_raw, inner = True, inner[1:].lstrip()
    return _Tag(inner, line, is_raw, bool(tilde), strips_after), closing.end()


def _strip(texts: list[str], tags: list[_Tag]) -> None:
    """Take out what ``~`` takes, and the rest of a line that has nothing but a block's tag or a
    comment."""
    given = list(texts)
    for index, tag in enumerate(tags):
        before, after = given[index], given[index + 1]
        tail = before[before.rfind("\n") + 1 :]
        head = _LINE_HEAD.match(after)
        if (
            tag.may_stand_alone
            and not tail.strip(" \t")
            and (index == 0 or "\n" in before)
            and head is not None
            and (head.group().endswith("\n") or index + 1 == len(tags))
        ):
            texts[index] = texts[index].rstrip(" \t")
            texts[index + 1] = after[head.end() :]
        if tag.strips_before:
            texts[index] = texts[index].rstrip()
        if tag.strips_after:
            texts[index + 1] = texts[index + 1].lstrip()


class _Builder:
    """Makes the tree, block by block."""

    def __init__(self, is_html: bool) -> None:
        self._shown = "_escaped" if is_html else "_raw"
        self._body: list[nodes.Node] = []
        self._open: list[_Block] = []

    def built(self, texts: list[str], tags: list[_Tag]) -> nodes.Template:
        for text, tag in zip(texts, tags, strict=False):
            self._add_text(text)
            self._add_tag(tag)
        self._add_text(texts[-1])
        if self._open:
            block = self._open[-1]
            raise _refused(f"{{{{#{block.helper}}}}} is not closed", block.line)
        return nodes.Template(self._body, lineno=1)

    @property
    def _here(self) -> list[nodes.Node]:
        return self._open[-1].open_end if self._open else self._body

    @property
    def _scope(self) -> str:
        """The name of the scope that tags are looked up in."""
        for block in reversed(self._open):
            if block.inverse is None:
                return block.scope
        return _ROOT

    def _add_text(self, text: str) -> None:
        if text:
            self._here.append(nodes.Output([nodes.TemplateData(text)], lineno=1))

    def _add_tag(self, tag: _Tag) -> None:
        inner, line = tag.inner, tag.line
        words = inner.split()
        if not words:
            raise _refused("a tag is empty", line)
        if tag.is_raw:
            self._show(inner, line, "_raw")
        elif inner.startswith("!"):
            pass
        elif inner.startswith((">", "#>")):
            raise _refused("there are no partials here", line)
        elif inner.startswith(("*", "#*")):
            raise _refused("there are no decorators here", line)
        elif inner.startswith("#"):
            self._enter(inner[1:], line)
        elif inner.startswith("/"):
            self._leave(inner[1:].strip(), line)
        elif words in (["else"], ["^"]):
            self._turn(line)
        elif words[0] == "else":
            self._turn(line)
            self._enter(inner[4:], line, is_chained=True)
        elif inner.startswith("^"):
            raise _refused("there are no inverted sections here", line)
        else:
            self._show(inner, line, self._shown)

    def _show(self, inner: str, line: int, shown: str) -> None:
        words = inner.split()
        if len(words) > 1 and _SEGMENT.fullmatch(words[0]):
            if words[0] in _BLOCKS:
                raise _refused(f"{words[0]} is a block: {{{{#{words[0]} ...}}}}", line)
            raise _refused(f'there is no helper "{words[0]}" here', line)
        value = _call(shown, self._scope, _path(inner, line), line)
        self._here.append(nodes.Output([value], lineno=line))

    def _enter(self, inner: str, line: int, *, is_chained: bool = False) -> None:
        helper, argument = [*inner.split(None, 1), "", ""][:2]
        if helper not in _BLOCKS:
            raise _refused(f'there is no block helper "{helper}" here', line)
        if len(self._open) >= DEPTH:
            raise _refused("blocks are nested too deep", line)
        scope = f"_s{len(self._open) + 1}" if helper in ("each", "with") else self._scope
        path = _path(argument.strip(), line)
        self._open.append(_Block(helper, path, line, scope, is_chained=is_chained))

    def _turn(self, line: int) -> None:
        if not self._open or self._open[-1].inverse is not None:
            raise _refused("{{else}} is in no block", line)
        self._open[-1].inverse = []

    def _leave(self, helper: str, line: int) -> None:
        while self._open and self._open[-1].is_chained:
            self._close()
        if not self._open or self._open[-1].helper != helper:
            raise _refused(f"{{{{/{helper}}}}} closes no block", line)
        self._close()

    def _close(self) -> None:
        block = self._open.pop()
        body, inverse = block.body, block.inverse or []
        found: nodes.Node
        if block.helper in ("if", "unless"):
            if block.helper == "unless":
                body, inverse = inverse, body
            test = _call("_is_true", self._scope, block.path, block.line)
            found = nodes.If(test, body, [], inverse, lineno=block.line)
        else:
            items = _call(f"_{block.helper}", self._scope, block.path, block.line)
            target = nodes.Name(block.scope, "store")
            found = nodes.For(target, items, body, inverse, None, False, lineno=block.line)
        self._here.append(found)


def _call(name: str, scope: str, path: Path, line: int) -> nodes.Filter:
    arguments: list[nodes.Expr] = [nodes.Const(path)]
    return nodes.Filter(nodes.Name(scope, "load"), name, arguments, [], None, None, lineno=line)


def _path(text: str, line: int) -> Path:
    rest = text.removeprefix("@")
    is_data = rest != text
    ups = 0
    while rest.startswith("../"):
        ups, rest = ups + 1, rest[3:]
    if rest == "..":
        ups, rest = ups + 1, "this"
    is_own = ups > 0
    for prefix in ("./", "this.", "this/"):
        if rest.startswith(prefix):
            is_own, rest = True, rest.removeprefix(prefix)
            break
    if rest in (".", "this"):
        is_own, parts = True, list[str]()
    else:
        parts = _segments(rest)
        if not parts or text in _LITERALS:
            raise _no_path(text, line)
    if not is_data:
        return ups, "", is_own, tuple(parts)
    name = parts[0] if parts else ""
    if name not in _DATA or (len(parts) > 1 and name != "root"):
        raise _refused(f'there is no "{text}" here', line)
    return ups, name, True, tuple(parts[1:])


def _segments(text: str) -> list[str]:
    """The members that a path goes through; none where it is no path."""
    parts, at = [], 0
    while segment := _SEGMENT.match(text, at):
        parts.append(segment[2] if segment[1] is None else segment[1])
        at = segment.end()
        if at == len(text):
            return parts
        if text[at] not in "./":
            break
        at += 1
    return []


def _no_path(text: str, line: int) -> SecurityError:
    if not text:
        return _refused("a block is given nothing", line)
    if "(" in text:
        return _refused("there are no subexpressions here", line)
    if " as |" in text:
        return _refused("there are no block parameters here", line)
    if text[0] in "\"'" or text in _LITERALS:
        return _refused("there are no literals here", line)
    return _refused(f'"{text}" is no path', line)


def _refused(what: str, line: int) -> SecurityError:
    return SecurityError(f"{what}, line {line}")
