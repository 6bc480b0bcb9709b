"""The arguments of commands (RFC 5321, 4.1.1; RFC 1870, 3030, 3461, 4865, 6152, 6531, 8689).

The grammar of the RFCs and no more; where a real client needs leniency, the docstring says so.
Arguments come without CR, LF and other control characters: the caller has refused those.  What
cannot be accepted comes back as the reply to give.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from ..model.address import NULL, Address, literal_of, parse
from ..model.envelope import Envelope, Notify, Recipient
from ..model.ports import MailCommand
from ..model.reply import TABLE, Reply

CONTROLS: Final = bytes(range(32)) + b"\x7f"
"""What no command line may hold."""

STRING: Final = re.compile(
    rb"""(?:[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+|"(?:[ !#-\[\]-~]|\\[ -~])*")\Z"""
)
"""``String``, the argument of NOOP, HELP and VRFY (RFC 5321, 4.1.1.9 and 4.1.2)."""

XTEXT: Final = re.compile(r"(?:[!-*,-<>-~]|\+(?:09|[2-6][0-9A-F]|7[0-9A-E]))+\Z")
"""Text with the escapes of RFC 3461, section 4: ENVID and ORCPT."""

ENVID_CHARACTERS: Final = 100
ORCPT_CHARACTERS: Final = 500
"""Limits of RFC 3461, 4.4 and 4.2."""

_HELO: Final = re.compile(rb"(?=.{1,255}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?\Z")
_FROM: Final = re.compile(rb"(?i:FROM):<([!#-'*+\-/-9=?A-Z^-~.@]*)>\Z")
_TO: Final = re.compile(rb"(?i:TO):<([!#-'*+\-/-9=?A-Z^-~.@]+)>\Z")
_PATH: Final = re.compile(
    r"(?P<keyword>[A-Za-z]+):<"
    r"(?:(?P<route>@[^@<>,:\"\s]+(?:,@[^@<>,:\"\s]+)*):)?"
    r"(?P<mailbox>(?:\"(?:[^\"\\]|\\.)*\"|[^\"<>@\s]*)(?:@(?:\[[^\[\]<>\s]*\]|[^@<>\s\"\[\]]+))?)"
    r">(?: (?P<parameters>.*))?\Z"
)
_PARAMETER: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\u00a0-\U0010ffff]+))?\Z")
_DIGITS: Final = re.compile(r"[0-9]{1,20}\Z", re.ASCII)
_AUTH: Final = re.compile(rb"([A-Za-z0-9_-]{1,20})(?: ([!-~]+))?\Z")
_CHUNK: Final = re.compile(rb"([0-9]{1,20})( [Ll][Aa][Ss][Tt])?\Z")
_ORCPT: Final = re.compile(r"([A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+);(.+)\Z")
_UTF8_XTEXT: Final = re.compile(r"(?:[!-*,-<>-\[\]-~\u00a0-\U0010ffff]|\\x\{[0-9A-F]{2,6}\})+\Z")
_HOLD_FOR: Final = re.compile(r"[1-9][0-9]{0,8}\Z", re.ASCII)
_DATE_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
    r"(?:Z|[+-][0-9]{2}:[0-9]{2})\Z",
    re.ASCII | re.IGNORECASE,
)
_NOTIFY: Final = {"SUCCESS": Notify.SUCCESS, "FAILURE": Notify.FAILURE, "DELAY": Notify.DELAY}

_PLAIN: Final = MailCommand(Envelope(NULL, ()))


def helo_name(argument: bytes) -> str | None:
    """The argument of EHLO or HELO: a domain or an address literal; None where it is neither.

    Underscores and one final dot are let through: too many real clients are named so.
    """
    if _HELO.match(argument):
        name = argument.decode("ascii").removesuffix(".")
        return None if ".." in name else name
    if argument.isascii() and literal_of(text := argument.decode("ascii")) is not None:
        return text
    return None


def mail(argument: bytes) -> MailCommand | Reply:
    """``FROM:<reverse-path> [parameters]``.

    AUTH is read and not believed, which RFC 4954, 5, allows: who submitted a message elsewhere is
    nothing to us.
    """
    ordinary = _FROM.match(argument)
    if ordinary is not None:
        if not ordinary[1]:
            return _PLAIN
        sender = parse(ordinary[1].decode("ascii"))
        if sender is None:
            return TABLE["bad-sender"]
        return MailCommand(Envelope(sender, ()))
    path = _path(argument, "FROM")
    if path is None:
        return TABLE["bad-argument"]
    size = 0
    body = ret = envid = future_release = ""
    is_smtputf8 = requires_tls = False
    for keyword, value in _parameters(path["parameters"]):
        match keyword:
            case "SIZE" if _DIGITS.match(value):
                size = int(value)
            case "BODY" if value.upper() in ("7BIT", "8BITMIME"):
                body = value.upper()
            case "SMTPUTF8" if not value:
                is_smtputf8 = True
            case "RET" if value.upper() in ("FULL", "HDRS"):
                ret = value.upper()
            case "ENVID" if len(value) <= ENVID_CHARACTERS and XTEXT.match(value):
                envid = value
            case "HOLDFOR" if _HOLD_FOR.match(value) and not future_release:
                future_release = f"for;{value}"
            case "HOLDUNTIL" if _posix_s(value) is not None and not future_release:
                future_release = f"until;{value}"
            case "REQUIRETLS" if not value:
                requires_tls = True
            case "AUTH" if value == "<>" or XTEXT.match(value):
                pass
            case "SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID" | "AUTH" | "":
                return TABLE["bad-argument"]
            case "HOLDFOR" | "HOLDUNTIL" | "REQUIRETLS":
                return TABLE["bad-argument"]
            case _:
                return TABLE["unknown-parameter"]
    mailbox = path["mailbox"]
    if mailbox or path["route"]:
        sender = _mailbox(path, is_smtputf8)
        if sender is None:
            return _refusal(path, is_smtputf8, "bad-sender")
    else:
        sender = NULL
    return MailCommand(
        Envelope(
            sender,
            (),
            "8BITMIME" if body == "8BITMIME" else "7BIT",
            is_smtputf8,
            "FULL" if ret == "FULL" else "HDRS" if ret == "HDRS" else "",
            envid,
            0.0,
            future_release,
            requires_tls,
        ),
        size,
    )


def release_at(future_release: str, now: float) -> float:
    """When a message is released, POSIX seconds (RFC 4865).

    :param future_release: see :attr:`~..model.envelope.Envelope.future_release`; not empty.
    :param now: the present, POSIX seconds.
    """
    kind, _, text = future_release.partition(";")
    if kind == "for":
        return now + int(text)
    at = _posix_s(text)
    if at is None:
        raise ValueError(f"no time of release: {future_release!r}")
    return at


def rcpt(argument: bytes, *, is_smtputf8: bool, hostname: str) -> Recipient | Reply:
    """``TO:<forward-path> [parameters]``.

    :param is_smtputf8: whether the transaction said SMTPUTF8.
    :param hostname: our own; ``<postmaster>`` is the postmaster there (RFC 5321, 4.1.1.3), in
        whatever case it was written.
    """
    ordinary = _TO.match(argument)
    if ordinary is not None:
        text = ordinary[1].decode("ascii")
        address = parse(text)
        if address is None and text.lower() == "postmaster":
            address = Address(f"postmaster@{hostname}")
        return TABLE["bad-recipient"] if address is None else Recipient(address)
    path = _path(argument, "TO")
    if path is None:
        return TABLE["bad-argument"]
    notify = Notify.UNSET
    orcpt = ""
    for keyword, value in _parameters(path["parameters"]):
        match keyword:
            case "NOTIFY" if found := _notify(value):
                notify = found
            case "ORCPT" if _is_orcpt(value, is_smtputf8):
                orcpt = value
            case "NOTIFY" | "ORCPT" | "":
                return TABLE["bad-argument"]
            case _:
                return TABLE["unknown-parameter"]
    if path["mailbox"].lower() == "postmaster" and not path["route"]:
        address = Address(f"postmaster@{hostname}")
    else:
        address = _mailbox(path, is_smtputf8)
    if address is None:
        return _refusal(path, is_smtputf8, "bad-recipient")
    return Recipient(address, notify, orcpt)


def chunk(argument: bytes) -> tuple[int, bool] | None:
    """``chunk-size [LAST]`` of BDAT (RFC 3030, 2), or None."""
    match = _CHUNK.match(argument)
    return None if match is None else (int(match[1]), match[2] is not None)


def _posix_s(text: str) -> float | None:
    """A ``date-time`` (RFC 3339, 5.6), but for leap seconds; None where it is none."""
    if not _DATE_TIME.match(text):
        return None
    try:
        return datetime.fromisoformat(text.upper()).timestamp()
    except ValueError:  # no such day, hour or offset
        return None


def auth(argument: bytes) -> tuple[str, bytes | None] | None:
    """``mechanism [initial-response]`` of AUTH (RFC 4954, 8), or None.

    The mechanism comes back in upper case, the response as it is on the wire.
    """
    match = _AUTH.match(argument)
    return None if match is None else (match[1].decode("ascii").upper(), match[2])


def _path(argument: bytes, keyword: str) -> dict[str, str] | None:
    try:
        match = _PATH.match(argument.decode("utf-8"))
    except UnicodeDecodeError:
        return None
    if match is None or match["keyword"].upper() != keyword:
        return None
    # A space and nothing behind it has been cut off as white space before the CRLF.
    return match.groupdict(default="")


def _mailbox(path: dict[str, str], is_smtputf8: bool) -> Address | None:
    """The mailbox; a source route before it is checked and ignored (RFC 5321, 4.1.1.3)."""
    if path["route"]:
        for domain in path["route"].removeprefix("@").split(",@"):
            if parse(f"x@{domain}", is_smtputf8=is_smtputf8) is None:
                return None
    return parse(path["mailbox"], is_smtputf8=is_smtputf8)


def _refusal(path: dict[str, str], is_smtputf8: bool, name: str) -> Reply:
    """Tell bad grammar from an address that would be good under SMTPUTF8 (RFC 6531, 3.5)."""
    if not is_smtputf8 and _mailbox(path, True) is not None:
        return TABLE["needs-smtputf8"]
    return TABLE[name]


def _parameters(text: str) -> Iterator[tuple[str, str]]:
    """Keywords in upper case and values; an empty keyword for what breaks the grammar, has an
    octet beyond US-ASCII where none belongs, or comes twice."""
    seen = set()
    for parameter in text.split(" ") if text else ():
        match = _PARAMETER.match(parameter)
        if match is None:
            yield "", ""
            return
        keyword, value = match[1].upper(), match[2] or ""
        if keyword in seen or (keyword != "ORCPT" and not value.isascii()):
            yield "", ""
            return
        seen.add(keyword)
        yield keyword, value


def _notify(value: str) -> Notify:
    """UNSET where the value is not one of RFC 3461, 4.1."""
    if value.upper() == "NEVER":
        return Notify.NEVER
    notify = Notify.UNSET
    for word in value.upper().split(","):
        flag = _NOTIFY.get(word, Notify.NEVER)
        if flag is Notify.NEVER or flag in notify:
            return Notify.UNSET
        notify |= flag
    return notify


def _is_orcpt(value: str, is_smtputf8: bool) -> bool:
    """``addr-type;xtext`` (RFC 3461, 4.2), or the ``utf-8`` type of RFC 6533, 3."""
    match = _ORCPT.match(value)
    if match is None or len(value) > ORCPT_CHARACTERS:
        return False
    if match[1].lower() == "utf-8":
        return (is_smtputf8 or value.isascii()) and _UTF8_XTEXT.match(match[2]) is not None
    return XTEXT.match(match[2]) is not None
