"""Signatures of requests that we make (Standard Webhooks 1.0)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Sequence


def signed(
    secrets: Sequence[bytes], id: str, timestamp: int, pieces: Iterable[bytes]
) -> dict[str, str]:
    """The header fields that show who has made a request, and when; without secrets there is no
    signature among them.

    :param id: the same for each try.  :param timestamp: POSIX seconds of this one.
    :param pieces: of the body.
    """
    fields = {"webhook-id": id, "webhook-timestamp": str(timestamp)}
    if not secrets:
        return fields
    digests = [
        hmac.new(secret, f"{id}.{timestamp}.".encode(), hashlib.sha256) for secret in secrets
    ]
    for piece in pieces:
        for digest in digests:
            digest.update(piece)
    made = [base64.b64encode(one.digest()).decode("ascii") for one in digests]
    return {**fields, "webhook-signature": " ".join(f"v1,{one}" for one in made)}
