"""Kinds of configuration values: what each accepts, and the value that it makes of it.

A kind knows neither the file nor the key that it is read for; it raises :class:`Unfit` with the
words for "wanted".  Only :class:`ReadableFile` looks at the disk.  Here are numbers, words, paths and
arrays; kinds of their own are in :mod:`.hosts` and :mod:`.mail_names`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import attrs

_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
_FEW: Final = 5
"""So many words show by themselves which one was meant."""


class Unfit(Exception):
    """A value that a kind does not accept.

    :ivar wanted: words that fit behind "wanted".
    :ivar is_later: whether a later version will take it; ``wanted`` is then the whole sentence.
    :ivar item: the item of an array that is at fault; None where the whole value is.
    :ivar note: more about what there is; empty where the value says it all.
    """

    def __init__(
        self, wanted: str, *, is_later: bool = False, item: object = None, note: str = ""
    ) -> None:
        super().__init__(wanted)
        self.wanted = wanted
        self.note = note
        self.item = item
        self.is_later = is_later


@attrs.frozen
class InlineText:
    """What a file would hold, where the configuration that was read has it in itself."""

    text: str = attrs.field(repr=False)  # it may be a password

    def read_bytes(self) -> bytes:
        return self.text.encode("utf-8")

    def __str__(self) -> str:
        return "text"


class Kind(Protocol):
    @property
    def wanted(self) -> str:
        """What is accepted, as a complaint and the reference page say it."""

    def read(self, raw: object, folder: Path) -> Any:
        """Make the value.

        :param raw: as ``tomllib`` gives it.
        :param folder: where relative paths start.
        :raise Unfit: raw is not of this kind.
        """


def text_of(raw: object, wanted: str) -> str:
    """Text that is not empty and has no control characters.  :raise Unfit:"""
    if not isinstance(raw, str) or not raw or any(ord(c) < 32 or ord(c) == 127 for c in raw):
        raise Unfit(wanted)
    return raw


@attrs.frozen
class Flag:
    wanted: str = "true or false"

    def read(self, raw: object, folder: Path) -> bool:
        if not isinstance(raw, bool):
            raise Unfit(self.wanted)
        return raw


@attrs.frozen
class Whole:
    """A whole number from ``low`` to ``high``.

    :ivar unit: what it counts, in words.
    """

    low: int = 0
    high: int | None = None
    unit: str = ""

    @property
    def wanted(self) -> str:
        noun = f"a whole number of {self.unit}" if self.unit else "a whole number"
        if self.high is None:
            return f"{noun}, {self.low} or more"
        if self.high == self.low:
            return str(self.low)
        return f"{noun} from {self.low} to {self.high}"

    def read(self, raw: object, folder: Path) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int):
            raise Unfit(self.wanted)
        if raw < self.low or (self.high is not None and raw > self.high):
            raise Unfit(self.wanted)
        return raw


@attrs.frozen
class Number:
    """A number from ``low`` to ``high``, or greater than ``low`` where ``is_low_out``.

    :ivar unit: what it counts, in words.
    """

    low: float = 0.0
    high: float | None = None
    is_low_out: bool = False
    unit: str = ""

    @property
    def wanted(self) -> str:
        noun = f"a number of {self.unit}" if self.unit else "a number"
        if self.high is not None:
            return f"{noun} from {self.low:g} to {self.high:g}"
        if self.is_low_out:
            return f"{noun} above {self.low:g}"
        return f"{noun}, {self.low:g} or more"

    def read(self, raw: object, folder: Path) -> float:
        if isinstance(raw, bool) or not isinstance(raw, int | float):
            raise Unfit(self.wanted)
        # Written so that nan, which compares false with everything, is refused.
        is_low_enough = raw <= (1e15 if self.high is None else self.high)
        is_high_enough = raw > self.low if self.is_low_out else raw >= self.low
        if not (is_low_enough and is_high_enough):
            raise Unfit(self.wanted)
        return float(raw)


SECONDS: Final = Number(unit="seconds")
SECONDS_ABOVE_0: Final = Number(is_low_out=True, unit="seconds")


@attrs.frozen
class OneOf:
    """One word of a few.

    :ivar later: words that a later version brings, and what to say of them.
    """

    words: tuple[str, ...]
    later: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def wanted(self) -> str:
        quoted = [f'"{word}"' for word in self.words]
        return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"

    def read(self, raw: object, folder: Path) -> str:
        if isinstance(raw, str) and raw in self.later:
            raise Unfit(self.later[raw], is_later=True)
        if not isinstance(raw, str):
            raise Unfit(self.wanted)
        if raw not in self.words:
            is_long = len(self.words) > _FEW
            close = difflib.get_close_matches(raw, self.words, n=1) if is_long else []
            raise Unfit(self.wanted, note=f"did you mean {close[0]}?" if close else "")
        return raw


@attrs.frozen
class Text:
    """Any text without control characters.

    :ivar is_optional: whether empty text stands for "none".
    """

    wanted: str = "text"
    is_optional: bool = False

    def read(self, raw: object, folder: Path) -> str:
        if raw == "" and self.is_optional:
            return ""
        return text_of(raw, self.wanted)


@attrs.frozen
class Word:
    """A name without spaces, safe in a log line and a file."""

    wanted: str = 'a name of letters, digits, "_", "." and "-"'

    def read(self, raw: object, folder: Path) -> str:
        if not isinstance(raw, str) or not _WORD.match(raw):
            raise Unfit(self.wanted)
        return raw


@attrs.frozen
class FilePath:
    """A path, absolute or from the configuration file's folder; made absolute."""

    wanted: str = "a path"

    def read(self, raw: object, folder: Path) -> Path:
        return folder / Path(text_of(raw, self.wanted))


@attrs.frozen
class StatePath:
    """A path that stays as it is, since it starts at ``state_dir``."""

    wanted: str = "a path"

    def read(self, raw: object, folder: Path) -> Path:
        return Path(text_of(raw, self.wanted))


@attrs.frozen
class ReadableFile:
    """A file that is there and may be read by us.

    :ivar is_optional: whether empty text stands for "none".
    """

    wanted: str = "the path of a file that can be read"
    is_optional: bool = False

    def read(self, raw: object, folder: Path) -> Path | None:
        if raw == "" and self.is_optional:
            return None
        path = folder / Path(text_of(raw, self.wanted))
        try:
            with path.open("rb") as file:
                file.read(1)
        except OSError as error:
            raise Unfit(self.wanted, note=f"{path}: {error.strerror}") from error
        return path


@attrs.frozen
class ListOf:
    """An array whose items are all of one kind.

    :ivar least: the smallest number of items.
    """

    item: Kind
    noun: str
    least: int = 0

    @property
    def wanted(self) -> str:
        return f"an array of {self.noun}" + (", one at least" if self.least else "")

    def read(self, raw: object, folder: Path) -> tuple[Any, ...]:
        if not isinstance(raw, list) or len(raw) < self.least:
            raise Unfit(self.wanted)
        return tuple(self._item(each, folder) for each in raw)

    def _item(self, raw: object, folder: Path) -> Any:
        try:
            return self.item.read(raw, folder)
        except Unfit as unfit:
            raise Unfit(unfit.wanted, item=raw, note=unfit.note) from unfit
