"""Whose a domain is, by the Public Suffix List (RFC 7489, 3.2)."""

from __future__ import annotations

import functools

from publicsuffixlist import PublicSuffixList

KNOWN = 4096
"""So many domains' answers are remembered."""


@functools.cache
def _suffixes() -> PublicSuffixList:
    """The list that the package brought; it takes 40 ms to read."""
    return PublicSuffixList()


@functools.lru_cache(KNOWN)
def organisation(domain: str) -> str:
    """The organisational domain: a public suffix and one label more.

    A public suffix is its own.

    :param domain: A-labels in lower case.
    """
    return _suffixes().privatesuffix(domain) or domain
