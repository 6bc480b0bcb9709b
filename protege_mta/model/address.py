"""Mailboxes as SMTP writes them (RFC 5321, 4.1.2; RFC 6531, 3.3).

An :data:`Address` is text in the form it has between angle brackets, as the peer wrote it: the
local-part may be a quoted string, the domain may be an address literal or hold U-labels.  It is
plain ``str`` at run time, since a queue holds a million of them; :func:`parse` is the one way in.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import Final, NewType

Address = NewType("Address", str)
"""A mailbox that :func:`parse` has accepted, or :data:`NULL`."""

NULL: Final = Address("")
"""The null reverse-path, ``<>`` (RFC 5321, 4.5.5)."""

LOCAL_PART_OCTETS: Final = 64
DOMAIN_OCTETS: Final = 255
PATH_OCTETS: Final = 256
"""Limits of RFC 5321, 4.5.3.1.1 to 4.5.3.1.3; the path counts its angle brackets."""

_ATEXT: Final = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
_LETTER: Final = r"A-Za-z0-9"
_U: Final = r"\u00a0-\U0010ffff"  # what RFC 6531 adds; C1 controls stay out


def _mailbox(more: str) -> re.Pattern[str]:
    atom = f"[{_ATEXT}{more}]+"
    quoted = rf'"(?:[ !#-\[\]-~{more}]|\\[ -~])*"'
    label = f"[{_LETTER}{more}](?:[{_LETTER}{more}-]*[{_LETTER}{more}])?"
    return re.compile(
        rf"(?P<local>{atom}(?:\.{atom})*|{quoted})@"
        rf"(?P<domain>{label}(?:\.{label})*|\[(?P<literal>[!-Z^-~]+)\])\Z"
    )


_ASCII: Final = _mailbox("")
_WIDE: Final = _mailbox(_U)
_DOTS_AND_ATOMS: Final = re.compile(rf"[{_ATEXT}.]{{1,64}}\Z")
_NAME: Final = re.compile(
    rf"(?:[{_LETTER}](?:[{_LETTER}-]{{0,61}}[{_LETTER}])?\.)*"
    rf"[{_LETTER}](?:[{_LETTER}-]{{0,61}}[{_LETTER}])?\Z"
)


@functools.lru_cache(maxsize=4096)  # most mail is for few domains
def _is_name(domain: str) -> bool:
    return _NAME.match(domain) is not None


def parse(text: str, *, is_smtputf8: bool = False) -> Address | None:
    """Accept a mailbox, or return None where it breaks the grammar or a limit.

    :param text: what stands between the angle brackets; no source route.
    :param is_smtputf8: whether characters beyond US-ASCII may appear (RFC 6531, 3.3).
    """
    local, _, domain = text.partition("@")
    if len(text) < 200 and _DOTS_AND_ATOMS.match(local) and _is_name(domain):
        if local[0] != "." and local[-1] != "." and ".." not in local:
            return Address(text)
        return None
    match = (_WIDE if is_smtputf8 else _ASCII).match(text)
    if match is None:
        return None
    local, domain, literal = match["local"], match["domain"], match["literal"]
    try:
        octets = (len(local.encode("utf-8")), len(domain.encode("utf-8")))
    except UnicodeEncodeError:  # a lone surrogate
        return None
    if octets[0] > LOCAL_PART_OCTETS or octets[1] > DOMAIN_OCTETS or sum(octets) + 3 > PATH_OCTETS:
        return None
    if literal is not None:
        return Address(text) if _literal_address(literal) is not None else None
    if any(len(label.encode("utf-8")) > 63 for label in domain.split(".")):
        return None
    return Address(text)


def domain_of(address: Address) -> str:
    """The domain in lower case, as queues and tables name it; empty for the null reverse-path."""
    return address[address.rfind("@") + 1 :].lower()


def local_part_of(address: Address) -> str:
    """The local-part with its quoting undone, in the case that was given."""
    local = address[: address.rfind("@")] if "@" in address else address
    if local.startswith('"'):
        return re.sub(r"\\(.)", r"\1", local[1:-1])
    return local


def literal_of(domain: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address in an address literal such as ``[192.0.2.1]``, or None for a name."""
    if not (domain.startswith("[") and domain.endswith("]")):
        return None
    return _literal_address(domain[1:-1])


def _literal_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        if text[:5].lower() == "ipv6:":
            return None if "%" in text else ipaddress.IPv6Address(text[5:])
        return ipaddress.IPv4Address(text)
    except ValueError:
        return None


def is_ascii(address: Address) -> bool:
    """Whether a hop without SMTPUTF8 can take this mailbox as it stands."""
    return address.isascii()
