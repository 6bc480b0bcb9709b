"""Kinds of configuration values that say where something is: hosts, addresses, networks and URLs.

Nothing is looked up.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import attrs

from .kinds import Unfit, text_of

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*"
    r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z",
    re.IGNORECASE,
)


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


def is_host_name(text: str) -> bool:
    """Whether it is a domain name of letters, digits and hyphens (RFC 5321, 2.3.5), and no IPv4
    address."""
    return bool(_HOST_NAME.match(text)) and not text.rpartition(".")[2].isdigit()


@attrs.frozen
class IpAddress:
    wanted: str = "an IPv4 or IPv6 address"

    def read(self, raw: object, folder: Path) -> str:
        try:
            return str(ipaddress.ip_address(text_of(raw, self.wanted)))
        except ValueError as error:
            raise Unfit(self.wanted) from error


@attrs.frozen
class Cidr:
    """A network in CIDR notation; a lone address is a network of one."""

    wanted: str = "a network such as 192.0.2.0/24 or 2001:db8::/32"

    def read(self, raw: object, folder: Path) -> IpNetwork:
        text = text_of(raw, self.wanted)
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
        text = text_of(raw, self.wanted)
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
        text = text_of(raw, self.wanted)
        if not is_host_name(text):
            raise Unfit(self.wanted)
        return text.lower()


@attrs.frozen
class HostOrAddress:
    """A host name in lower case, or an IP address."""

    wanted: str = "a host name or an IP address"

    def read(self, raw: object, folder: Path) -> str:
        text = text_of(raw, self.wanted)
        try:
            return str(ipaddress.ip_address(text))
        except ValueError:
            if not is_host_name(text):
                raise Unfit(self.wanted) from None
            return text.lower()


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
        text = text_of(raw, self.wanted)
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


def _url(raw: object, schemes: tuple[str, str], wanted: str, *, has_query: bool) -> str:
    text = text_of(raw, wanted)
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
