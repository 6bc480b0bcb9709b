"""The spool's sizes and floors."""

from __future__ import annotations

import attrs
from attrs import validators


@attrs.frozen(kw_only=True)
class SpoolSettings:
    """Sizes and floors of one shard.

    :ivar segment_octets: a segment's size; a batch that is bigger gets a segment of its own.
    :ivar big_octets: content above this goes to a file of its own.
    :ivar free_octets: what the file system must have left; appends below it are refused.
    :ivar free_inodes: likewise.
    :ivar lazy_s: how long a lazy batch may wait for another's sync.
    :ivar cache_octets: memory for content that has just come in and waits for its first attempt.
    :ivar incoming_octets: memory for content on its way in, all of it together; beyond it, content
        goes to files whatever its size.
    """

    segment_octets: int = attrs.field(default=64 * 2**20, validator=validators.ge(4096))
    big_octets: int = attrs.field(default=2**20, validator=validators.ge(1))
    free_octets: int = attrs.field(default=2**30, validator=validators.ge(0))
    free_inodes: int = attrs.field(default=10_000, validator=validators.ge(0))
    lazy_s: float = attrs.field(default=0.05, validator=validators.gt(0))
    cache_octets: int = attrs.field(default=24 * 2**20, validator=validators.ge(0))
    incoming_octets: int = attrs.field(default=64 * 2**20, validator=validators.ge(0))
