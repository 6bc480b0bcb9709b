"""The options of sendmail(1), as far as they mean something to us; harmless ones are ignored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs


class NoSuchOption(Exception):
    """An option that we do not have and may not ignore, or one without its value."""


@attrs.define
class Asked:
    """What the command line asks for.

    :ivar sender: None where none was given; may be ``<>``.
    :ivar notify: the NOTIFY parameter (RFC 3461, 4.1) in upper case; empty if none.
    :ivar ret: ``FULL``, ``HDRS`` or empty.
    :ivar envid: in xtext (RFC 3461, 4).
    """

    recipients: list[str] = attrs.field(factory=list)
    sender: str | None = None
    full_name: str = ""
    takes_recipients: bool = False
    ignores_dots: bool = False
    is_verbose: bool = False
    is_help: bool = False
    notify: str = ""
    ret: str = ""
    envid: str = ""
    config: str = ""


def parsed(arguments: list[str]) -> Asked:
    """Read the command line.

    :raise NoSuchOption: it cannot be obeyed.
    """
    asked = Asked()
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            asked.recipients += rest
            break
        if word == "--help":
            asked.is_help = True
        elif word == "--config" or word.startswith("--config="):
            asked.config = word[9:] if "=" in word else _value("--config", "", rest)
        elif word.startswith("--") or word == "-":
            raise NoSuchOption(f"{word}: no such option")
        elif word.startswith("-"):
            _letters(asked, word[1:], rest)
        else:
            asked.recipients.append(word)
    return asked


def _letters(asked: Asked, letters: str, rest: list[str]) -> None:
    """One word of options: flags may stand together, the last may have its value attached."""
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter in _FLAGS:
            _FLAGS[letter](asked)
        elif letter in _WITH_VALUE:
            _WITH_VALUE[letter](asked, _value(f"-{letter}", letters, rest))
            return
        elif letter in _ATTACHED:
            return
        else:
            raise NoSuchOption(f"-{letter}: no such option")


def _value(option: str, attached: str, rest: list[str]) -> str:
    if attached:
        return attached
    if not rest:
        raise NoSuchOption(f"{option}: wanted a value behind it")
    return rest.pop(0)


def _set(name: str, value: object) -> Callable[[Asked], None]:
    return lambda asked: setattr(asked, name, value)


def _put(name: str) -> Callable[[Asked, str], None]:
    return lambda asked, value: setattr(asked, name, value)


def _ignore(asked: Asked, value: str) -> None:
    """An option of other systems' that changes nothing here."""


def _o(asked: Asked, value: str) -> None:
    if value == "i":
        asked.ignores_dots = True


def _b(asked: Asked, value: str) -> None:
    if value != "m":
        raise NoSuchOption(f"-b{value}: only -bm, to send a message, is available")


def _notify(asked: Asked, value: str) -> None:
    words = value.upper().split(",")
    known = {"SUCCESS", "FAILURE", "DELAY"}
    if words != ["NEVER"] and not set(words) <= known:
        raise NoSuchOption(f'-N: wanted "never" or some of "success,failure,delay", got {value!r}')
    asked.notify = ",".join(dict.fromkeys(words))


def _ret(asked: Asked, value: str) -> None:
    if value.upper() not in ("FULL", "HDRS"):
        raise NoSuchOption(f'-R: wanted "full" or "hdrs", got {value!r}')
    asked.ret = value.upper()


def _envid(asked: Asked, value: str) -> None:
    if not value.isascii() or not value.isprintable() or len(value) > 100:
        raise NoSuchOption("-V: wanted printable US-ASCII, 100 characters at most")
    asked.envid = "".join(
        c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in value
    )


_FLAGS: Final[dict[str, Callable[[Asked], None]]] = {
    "t": _set("takes_recipients", True),
    "i": _set("ignores_dots", True),
    "v": _set("is_verbose", True),
    "G": lambda asked: None,
    "I": lambda asked: None,
    "U": lambda asked: None,
    "c": lambda asked: None,
    "m": lambda asked: None,
    "n": lambda asked: None,
    "s": lambda asked: None,
}

_WITH_VALUE: Final[dict[str, Callable[[Asked, str], None]]] = {
    "f": _put("sender"),
    "r": _put("sender"),
    "F": _put("full_name"),
    "N": _notify,
    "R": _ret,
    "V": _envid,
    "o": _o,
    "b": _b,
    "B": _ignore,
    "C": _ignore,
    "L": _ignore,
    "O": _ignore,
    "X": _ignore,
    "h": _ignore,
    "p": _ignore,
}

_ATTACHED: Final = "Aedq"
"""Ignored together with what follows in the same word."""
