"""Domains as the DNS and our tables know them (RFC 5890; RFC 5891)."""

from __future__ import annotations

import dns.exception
import dns.name


def ascii_domain(domain: str) -> str:
    """A domain in lower case, U-labels as A-labels (RFC 5891).

    What cannot be converted comes back as it is, for the lookup to find that it is no name.
    """
    if domain.isascii():
        return domain.lower()
    try:
        name = dns.name.from_text(domain, dns.name.root, dns.name.IDNA_2008_Practical)
    except (dns.exception.DNSException, ValueError):
        return domain.lower()
    return name.canonicalize().to_text(omit_final_dot=True)
