"""What a failure was about, and what to do about it: replies sorted by rules.

Rules are regular expressions, by class, tried one after the other against the line ``code enhanced
text``; the first that is found decides.  They are read from TOML in the form of KumoMTA's
``iana.toml``, a table ``[rules]`` with an array of expressions for each class; a file of ours may
have ``[classes]`` too, which says what a class means.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, get_args

import attrs

from .reply import Reply

BounceScope = Literal["recipient", "message", "infrastructure"]
"""What is wrong: the mailbox; this message; or who sends it, the way or the other host."""

BounceAction = Literal[
    "suppress", "retry", "back_off", "fix_configuration", "stop_campaign", "none"
]

LINE_CHARACTERS: Final = 512
"""So much of a reply is looked at, so that no expression takes long over it."""

_REMEMBERED: Final = 1024
_VARIABLE: Final = re.compile(
    r"[^\s@<]+@[^\s>,;]+|\b\d{1,3}(?:\.\d{1,3}){3}\b|\b(?=[A-Za-z]*\d)\w{8,}"
)
"""Addresses of either kind, and what looks like the name of a session or a message."""


@attrs.frozen
class BounceClass:
    """A verdict.

    :ivar action: what is best done now.
    :ivar remedy: the same as a sentence for people.
    """

    name: str
    scope: BounceScope = "message"
    action: BounceAction = "none"
    remedy: str = ""


UNCATEGORIZED: Final = BounceClass(
    "Uncategorized", remedy="No rule knows this reply; read what the other server says."
)

AMBIGUOUS: Final = BounceClass(
    "AmbiguousRefusal",
    "infrastructure",
    remedy="The reply names the recipient, and your server, a policy or a limit as well: read it. "
    "The address may be wrong, and is not suppressed.",
)
"""Instead of a class that suppresses, where the reply may be about somebody else."""

Classify = Callable[[Reply], BounceClass]


@attrs.frozen
class Rules:
    """What one file says.

    :ivar expressions: in order, each with the name of its class.
    :ivar doubts: what keeps its expressions and its classes, and those of the files behind, from
        suppressing a recipient.
    """

    expressions: tuple[tuple[re.Pattern[str], str], ...] = ()
    doubts: tuple[re.Pattern[str], ...] = ()
    classes: Mapping[str, BounceClass] = attrs.field(factory=dict)


class Classifier:
    """A :data:`Classify` by the rules of several files; the first file goes before the second.

    What a class means is said by the first file that says it.
    """

    def __init__(self, files: Sequence[Rules]) -> None:
        self._files = tuple(files)
        self._meant_in: dict[str, int] = {}
        self._classes: dict[str, BounceClass] = {UNCATEGORIZED.name: UNCATEGORIZED}
        for index, rules in enumerate(files):
            for name, known in rules.classes.items():
                self._classes.setdefault(name, known)
                self._meant_in.setdefault(name, index)
        self._known: dict[tuple[int, str, str], BounceClass] = {}

    def __call__(self, reply: Reply) -> BounceClass:
        """The class of a failure.  Where the server would have us come back, nobody is given up."""
        # A server says the same of each of its mailboxes, but for the names and numbers in it, and
        # a mailbox may be called as it likes: spamhaus@, unknown.user@.
        line = _VARIABLE.sub(_stand_in, line_of(reply))
        asked = (reply.code, reply.enhanced, line)
        known = self._known.get(asked)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[asked] = self._found(line, is_transient=reply.code < 500)
        return known

    def _found(self, line: str, *, is_transient: bool) -> BounceClass:
        name, has_doubts = self._match(line)
        found = self._classes.get(name) or BounceClass(name, remedy=UNCATEGORIZED.remedy)
        if is_transient:
            gives_up = found.action in ("suppress", "none")
            return attrs.evolve(found, action="retry") if gives_up else found
        if found.action == "suppress" and has_doubts:
            return self._classes.get(AMBIGUOUS.name, AMBIGUOUS)
        return found

    def _match(self, line: str) -> tuple[str, bool]:
        """The name of its class, and whether there are doubts about who is at fault."""
        for index, rules in enumerate(self._files):
            for expression, name in rules.expressions:
                if expression.search(line) is not None:
                    files = self._files[: min(index, self._meant_in.get(name, index)) + 1]
                    doubts = (doubt for one in files for doubt in one.doubts)
                    return name, any(doubt.search(line) is not None for doubt in doubts)
        return UNCATEGORIZED.name, False


def _stand_in(found: re.Match[str]) -> str:
    """Another of the same kind."""
    text = found[0]
    if "@" in text:
        return "x@example"
    return "192.0.2.1" if "." in text else "x0000000"


def line_of(reply: Reply) -> str:
    """What expressions are matched against."""
    text = f"{reply.code} {reply.enhanced} " if reply.enhanced else f"{reply.code} "
    for line in reply.lines:
        text += line + " "
        if len(text) > LINE_CHARACTERS:
            break
    return text.rstrip()[:LINE_CHARACTERS]


class BadRules(ValueError):
    """A file of rules that cannot be used; the text says why."""


def parse(octets: bytes) -> Rules:
    """Read a file of rules.  :raise BadRules:"""
    try:
        tables = tomllib.loads(octets.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadRules("is not UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadRules(f"is not TOML: {error}") from error
    _check_known("", tables, ("doubts", "rules", "classes"))
    rules, classes = tables.get("rules", {}), tables.get("classes", {})
    if not isinstance(rules, dict) or not isinstance(classes, dict):
        raise BadRules("wanted tables [rules] and [classes]")
    if "doubts" in rules:
        raise BadRules("[rules] doubts: stands in front of the tables")
    doubts = tables.get("doubts", [])
    return Rules(
        tuple(
            (_compiled(name, text), name)
            for name, texts in rules.items()
            for text in _texts(name, texts)
        ),
        tuple(_compiled("doubts", text) for text in _texts("doubts", doubts)),
        {name: _class(name, table) for name, table in classes.items()},
    )


def _check_known(place: str, table: Mapping[str, object], known: Sequence[str]) -> None:
    """:raise BadRules: there is something that nobody reads."""
    for name in table:
        if name not in known:
            raise BadRules(f"{place}{name}: unknown key; there are {', '.join(known)}")


def _texts(name: str, texts: object) -> list[str]:
    found = [texts] if isinstance(texts, str) else texts
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise BadRules(f"[rules] {name}: wanted an array of regular expressions")
    return found


def _compiled(name: str, text: str) -> re.Pattern[str]:
    if _REPEATED_REPEAT.search(text):
        raise BadRules(
            f"[rules] {name}: {text!r} repeats what repeats, which can take for ever; "
            "write it without the inner or the outer * or +"
        )
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise BadRules(f"[rules] {name}: {text!r} is no regular expression: {error}") from error


_REPEATED_REPEAT: Final = re.compile(
    r"\((?:[^()\\\[]|\\.|\[[^]]*\])*(?<!\\)[*+](?:[^()\\\[]|\\.|\[[^]]*\])*\)(?:[*+]|\{\d*,)"
)
"""A group with ``*`` or ``+`` in it that is itself repeated, ``(a+)+``: the usual way to an
expression whose time doubles with each character."""


def _class(name: str, table: Any) -> BounceClass:
    if not isinstance(table, dict):
        raise BadRules(f"[classes] {name}: wanted a table")
    _check_known(f"[classes] {name}: ", table, ("scope", "action", "remedy"))
    scope, action = table.get("scope", "message"), table.get("action", "none")
    remedy = table.get("remedy", UNCATEGORIZED.remedy)
    if scope not in get_args(BounceScope):
        raise BadRules(f"[classes] {name}: scope is one of {', '.join(get_args(BounceScope))}")
    if action not in get_args(BounceAction):
        raise BadRules(f"[classes] {name}: action is one of {', '.join(get_args(BounceAction))}")
    if action == "suppress" and scope != "recipient":
        raise BadRules(f"[classes] {name}: only what is wrong with a recipient suppresses it")
    if not isinstance(remedy, str):
        raise BadRules(f"[classes] {name}: remedy is a text")
    return BounceClass(name, scope, action, remedy)
