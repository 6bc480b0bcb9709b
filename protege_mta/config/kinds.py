"""Kinds of configuration values: what each accepts, and the value that it makes of it.

A kind knows neither the file nor the key that it is read for; it raises :class:`Unfit` with the
words for "wanted".  Only :class:`ReadableFile` looks at the disk.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import attrs

from ..model import address

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*"
    r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z",
    re.IGNORECASE,
)
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
_SELECTOR: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\Z", re.IGNORECASE)

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
class HostPort:
    """A host by name or IP address, and a TCP or UDP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen
class UnixPath:
    """A UNIX stream socket."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


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


def _text(raw: object, wanted: str) -> str:
    if not isinstance(raw, str) or not raw or any(ord(c) < 32 or ord(c) == 127 for c in raw):
        raise Unfit(wanted)
    return raw


def is_host_name(text: str) -> bool:
    """Whether it is a domain name of letters, digits and hyphens (RFC 5321, 2.3.5), and no IPv4
    address."""
    return bool(_HOST_NAME.match(text)) and not text.rpartition(".")[2].isdigit()


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
        return _text(raw, self.wanted)


@attrs.frozen
class Word:
    """A name without spaces, safe in a log line and a file."""

    wanted: str = 'a name of letters, digits, "_", "." and "-"'

    def read(self, raw: object, folder: Path) -> str:
        if not isinstance(raw, str) or not _WORD.match(raw):
            raise Unfit(self.wanted)
        return raw


@attrs.frozen
class Selector:
    """A DKIM selector (RFC 6376, 3.1): labels as in a domain name."""

    wanted: str = 'a selector: letters, digits and "-", in labels joined by "."'

    def read(self, raw: object, folder: Path) -> str:
        if not isinstance(raw, str) or len(raw) > 200:
            raise Unfit(self.wanted)
        if not all(_SELECTOR.match(label) and len(label) < 64 for label in raw.split(".")):
            raise Unfit(self.wanted)
        return raw


@attrs.frozen
class FilePath:
    """A path, absolute or from the configuration file's folder; made absolute."""

    wanted: str = "a path"

    def read(self, raw: object, folder: Path) -> Path:
        return folder / Path(_text(raw, self.wanted))


@attrs.frozen
class StatePath:
    """A path that stays as it is, since it starts at ``state_dir``."""

    wanted: str = "a path"

    def read(self, raw: object, folder: Path) -> Path:
        return Path(_text(raw, self.wanted))


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
        path = folder / Path(_text(raw, self.wanted))
        try:
            with path.open("rb") as file:
                file.read(1)
        except OSError as error:
            raise Unfit(self.wanted, note=f"{path}: {error.strerror}") from error
        return path


@attrs.frozen
class IpAddress:
    wanted: str = "an IPv4 or IPv6 address"

    def read(self, raw: object, folder: Path) -> str:
        try:
            return str(ipaddress.ip_address(_text(raw, self.wanted)))
        except ValueError as error:
            raise Unfit(self.wanted) from error


@attrs.frozen
class Cidr:
    """A network in CIDR notation; a lone address is a network of one."""

    wanted: str = "a network such as 192.0.2.0/24 or 2001:db8::/32"

    def read(self, raw: object, folder: Path) -> IpNetwork:
        text = _text(raw, self.wanted)
        try:
            return ipaddress.ip_network(text)
        except ValueError as error:
            try:
                meant = ipaddress.ip_network(text, strict=False)
            except ValueError:
                raise Unfit(self.wanted) from error
            raise Unfit(f"a network without host bits, such as {meant}") from error


@attrs.frozen
class AnswerRange:
    """A records that a list in the DNS answers with, both ends included."""

    low: ipaddress.IPv4Address
    high: ipaddress.IPv4Address

    def __str__(self) -> str:
        return f"{self.low}-{str(self.high).rpartition('.')[2]}"


ANY_ANSWER: Final = AnswerRange(
    ipaddress.IPv4Address("127.0.0.2"), ipaddress.IPv4Address("127.0.0.254")
)
"""By convention 127.0.0.2 and what is above it (RFC 5782, 2.1 and 2.3); 127.0.0.255 is how some
refuse to answer."""


@attrs.frozen
class Answers:
    """Addresses of 127.0.0.0/8: one, several by a range of the last number, or a network."""

    wanted: str = 'answers such as "127.0.0.2", "127.0.0.2-11" or "127.0.4.0/24"'

    def read(self, raw: object, folder: Path) -> AnswerRange:
        text = _text(raw, self.wanted)
        first, dash, last = text.partition("-")
        try:
            if dash:
                low = ipaddress.IPv4Address(first)
                high = ipaddress.IPv4Address(f"{first.rpartition('.')[0]}.{last}")
            else:
                network = ipaddress.IPv4Network(text)
                low, high = network[0], network[-1]
        except ValueError as error:
            raise Unfit(self.wanted) from error
        if not low.is_loopback or not high.is_loopback or low > high:
            raise Unfit(self.wanted)
        return AnswerRange(low, high)


@attrs.frozen
class HostName:
    """A host name, in lower case."""

    wanted: str = "a host name"

    def read(self, raw: object, folder: Path) -> str:
        text = _text(raw, self.wanted)
        if not is_host_name(text):
            raise Unfit(self.wanted)
        return text.lower()


@attrs.frozen
class HostOrAddress:
    """A host name in lower case, or an IP address."""

    wanted: str = "a host name or an IP address"

    def read(self, raw: object, folder: Path) -> str:
        text = _text(raw, self.wanted)
        try:
            return str(ipaddress.ip_address(text))
        except ValueError:
            if not is_host_name(text):
                raise Unfit(self.wanted) from None
            return text.lower()


@attrs.frozen
class MailDomain:
    """A domain as it stands behind the ``@``, in lower case; U-labels may stand in it."""

    wanted: str = "a domain name"

    def read(self, raw: object, folder: Path) -> str:
        text = _text(raw, self.wanted)
        if text.startswith("[") or address.parse(f"x@{text}", is_smtputf8=True) is None:
            raise Unfit(self.wanted)
        return text.lower()


@attrs.frozen
class LocalPart:
    """The part of an address before the ``@``; or ``*`` for any."""

    wanted: str = 'a local-part (what stands before the "@"), or "*" for any'

    def read(self, raw: object, folder: Path) -> str:
        text = _text(raw, self.wanted)
        if address.parse(f"{text}@x", is_smtputf8=True) is None:
            raise Unfit(self.wanted)
        return text


@attrs.frozen
class Mailbox:
    wanted: str = "an address such as admin@example.org"

    def read(self, raw: object, folder: Path) -> address.Address:
        mailbox = address.parse(_text(raw, self.wanted), is_smtputf8=True)
        if mailbox is None:
            raise Unfit(self.wanted)
        return mailbox


@attrs.frozen
class MaildirTemplate:
    """A path with ``{domain}`` and ``{local_part}`` in it; made absolute."""

    wanted: str = 'a path that holds "{local_part}", and perhaps "{domain}"'

    def read(self, raw: object, folder: Path) -> str:
        text = _text(raw, self.wanted)
        names = _PLACEHOLDER.findall(text)
        if "local_part" not in names or set(names) - {"local_part", "domain"}:
            raise Unfit(self.wanted)
        rest = _PLACEHOLDER.sub("", text)
        if "{" in rest or "}" in rest or ".." in Path(text).parts:
            raise Unfit(self.wanted)
        # Braces in the folder's own name must not be read as placeholders later on.
        if not text.startswith("/") and set(str(folder)) & set("{}"):
            raise Unfit(f'{self.wanted}, absolute since "{folder}" has braces of its own')
        return str(folder / text)


@attrs.frozen
class ServerAddress:
    """``host:port`` with a host that is an IP address (or a name, where ``is_name_allowed``).

    :ivar default_port: what a left out port means; None where it has to be given.
    :ivar has_unix: whether ``unix:/path`` may stand here too.
    """

    wanted: str
    default_port: int | None = None
    is_name_allowed: bool = False
    has_unix: bool = False

    def read(self, raw: object, folder: Path) -> HostPort | UnixPath:
        text = _text(raw, self.wanted)
        if self.has_unix and text.startswith("unix:"):
            if len(text) == len("unix:"):
                raise Unfit(self.wanted)
            return UnixPath(folder / text.removeprefix("unix:"))
        host, port = self._split(text)
        try:
            return HostPort(str(ipaddress.ip_address(host)), port)
        except ValueError:
            if not (self.is_name_allowed and is_host_name(host)):
                raise Unfit(self.wanted) from None
            return HostPort(host.lower(), port)

    def _split(self, text: str) -> tuple[str, int]:
        if text.count(":") > 1 and not text.startswith("["):
            host, port = text, ""  # an IPv6 address by itself
        else:
            host, colon, port = text.rpartition(":")
            if not colon or text.endswith("]"):
                host, port = text, ""
            elif not port:
                raise Unfit(self.wanted)
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        if not port:
            if self.default_port is None:
                raise Unfit(self.wanted)
            return host, self.default_port
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise Unfit(self.wanted)
        return host, int(port)


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


def _url(raw: object, schemes: tuple[str, str], wanted: str, *, has_query: bool) -> str:
    text = _text(raw, wanted)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise Unfit(wanted) from error
    is_odd = "@" in parts.netloc or "#" in text or not text.isascii() or " " in text
    if parts.scheme not in schemes or port == 0 or is_odd or ("?" in text and not has_query):
        raise Unfit(wanted)
    HostOrAddress(wanted).read(host, Path())
    return text


@attrs.frozen
class WebSocketUrl:
    """Where a WebSocket endpoint is (RFC 6455, 3), without user, query or fragment."""

    wanted: str = 'a URL such as "wss://relay.example/ws"'

    def read(self, raw: object, folder: Path) -> str:
        return _url(raw, ("ws", "wss"), self.wanted, has_query=False)


@attrs.frozen
class HttpUrl:
    """Where an HTTP endpoint is (RFC 9110, 4.2), without user or fragment.

    :ivar is_optional: whether empty text stands for "none".
    """

    wanted: str = 'a URL such as "https://app.example/hook"'
    is_optional: bool = False

    def read(self, raw: object, folder: Path) -> str:
        if raw == "" and self.is_optional:
            return ""
        return _url(raw, ("http", "https"), self.wanted, has_query=True)
