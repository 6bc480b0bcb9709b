"""Signatures of requests that we make (Standard Webhooks 1.0)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

PREFIX: Final = "whsec_"


def secrets_of(text: str) -> tuple[bytes, ...]:
    """The keys in a file of secrets, one ``whsec_...`` a line.

    :raise ValueError: there is none, or what is there is no secret.  The text says nothing of it.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.strip()
        if not word or word.startswith("#"):
            continue
        try:
            key = base64.b64decode(word.removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not word.startswith(PREFIX) or not key:
            raise ValueError(f"line {number}: wanted a secret, {PREFIX} and base64")
        found.append(key)
    if not found:
        raise ValueError(f"wanted a secret, {PREFIX} and base64, got nothing")
    return tuple(found)


def signed(secrets: Sequence[bytes], id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The header fields that show who has made a request, and when.

    :param id: the same for each try.  :param timestamp: POSIX seconds of this one.
    """
    text = f"{id}.{timestamp}.".encode() + body
    signatures = [
        "v1," + base64.b64encode(hmac.digest(secret, text, hashlib.sha256)).decode("ascii")
        for secret in secrets
    ]
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }
