"""What to publish in DNS for a signing key (RFC 6376, 3.6; RFC 8463, section 4)."""

from __future__ import annotations

import base64

from .keys import SigningKey


def dns_record(key: SigningKey) -> str:
    """The value of the TXT record, as one string."""
    return f"v=DKIM1; k={key.kind}; p={base64.b64encode(key.public_octets).decode('ascii')}"


def dns_name(selector: str, domain: str) -> str:
    """Where verifiers look for it; no dot at the end."""
    return f"{selector}._domainkey.{domain}"


def strings(value: str) -> tuple[str, ...]:
    """A value in pieces of 255 octets, the most that one string of a TXT record holds
    (RFC 1035, 3.3.14); readers join them with nothing in between.
    """
    return tuple(value[at : at + 255] for at in range(0, len(value), 255))


def zone_line(selector: str, domain: str, key: SigningKey) -> str:
    """The record as a line of a zone file, without a line end."""
    quoted = " ".join(f'"{piece}"' for piece in strings(dns_record(key)))
    return f"{dns_name(selector, domain)}. IN TXT {quoted}"
