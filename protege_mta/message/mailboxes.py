"""Mailboxes in From and its like, for those who have to know whose they are (RFC 5322, 3.4).

There are two questions.  :func:`names_somebody` is asked of everybody's mail: is there an author at
all?  :func:`mailboxes` is for a decision that a forger would like to be mistaken: it reads a narrow
form that all readers take alike, and no other.
"""

from __future__ import annotations

import re
from typing import Final

from ..model.address import Address, parse
from .headers import encoded_words, simplified

OCTETS: Final = 10_000
"""A longer value is not read for :func:`mailboxes`."""

_SOMEBODY: Final = re.compile(rb"[^\s<>,;:@][ \t]*@[ \t]*[^\s<>,;:@]")

# Beyond US-ASCII (RFC 6532) whatever is neither a control character nor, to some, a line end.
_U: Final = r"\u00a0-\u2027\u202a-\U0010ffff"
_TOKEN: Final = re.compile(
    rf"(?P<a>[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~.\-{_U}]+)"  # dots too: people write J. Doe
    rf'|(?P<q>"(?:[\t !#-;=?-\[\]-~{_U}]|\\["\\])*")'  # no angle brackets
    rf"|(?P<c>\([\t !#-'*+\-./-9=?A-\[\]-~{_U}]*\))"  # none of , : ; < > @ " \ ( )
    r"|(?P<s>[ \t]+)"
    r"|(?P<m>[<>@,])"
)
_MAILBOX: Final = r"s?(?:[acqs]*<[aq]@a>|[aq]@a)s?(?:cs?)?"
_SHAPE: Final = re.compile(rf"{_MAILBOX}(?:,{_MAILBOX})*")
_DOUBTFUL_LOCAL: Final = re.compile(r'=\?|""|"[^"]*[@<>,;:()\\\[\]]')
_DOUBTFUL_WORD: Final = re.compile(r"[<>@\x00-\x1f\x7f-\x9f\u2028\u2029]")


def names_somebody(value: bytes) -> bool:
    """Whether an unfolded value of From holds an address, or a group, which may be empty
    (RFC 6854)."""
    plain, _ = simplified(value)
    return _SOMEBODY.search(plain) is not None or (b":" in plain and b";" in plain)


def mailboxes(value: bytes) -> list[Address] | None:
    """The mailboxes of an unfolded value about which there is no doubt.

    None where a reader might find others than we do: groups, source routes, addresses in a display
    name outside of quotes, address literals, empty local-parts, obsolete syntax, angle brackets in quoted strings, all
    but the plainest comments, quoted pairs other than of a quote and a backslash, controls, octets
    that are not UTF-8, and encoded words that say an address or in a charset that not all know:
    some decode first and parse then.
    """
    if len(value) > OCTETS:
        return None
    if b"=?" in value:
        rest, words = encoded_words(value)
        if b"=?" in rest or b"?=" in rest:
            return None
        if any(word is None or _DOUBTFUL_WORD.search(word) for word in words):
            return None
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return None
    tokens: list[str] = []
    shape = ""
    end = 0
    for token in _TOKEN.finditer(text):
        if token.start() != end:
            return None
        end = token.end()
        tokens.append(token[0])
        shape += token[0] if token.lastgroup == "m" else str(token.lastgroup)
    if end != len(text) or not _SHAPE.fullmatch(shape):
        return None
    found = []
    for at, token_text in enumerate(tokens):
        if token_text == "@":
            local, domain = tokens[at - 1], tokens[at + 1]
            address = parse(f"{local}@{domain}", is_smtputf8=True)
            if address is None or _DOUBTFUL_LOCAL.search(local):
                return None
            found.append(address)
    return found
