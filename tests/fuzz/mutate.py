"""Changes good inputs into bad ones; the same seed makes the same changes."""

from __future__ import annotations

import random

import attrs

from .target import Target

GREATEST_OCTETS = 4096


@attrs.define
class Mutator:
    """An endless source of inputs for one target."""

    target: Target
    rng: random.Random

    def next(self) -> bytes:
        rng = self.rng
        octets = bytearray(rng.choice(self.target.seeds))
        for _ in range(1 << rng.randrange(5)):
            self._change(octets)
        return bytes(octets[:GREATEST_OCTETS])

    def _change(self, octets: bytearray) -> None:
        rng = self.rng
        at = rng.randrange(len(octets) + 1)
        size = 1 << rng.randrange(7)
        match rng.randrange(9):
            case 0 if at < len(octets):
                octets[at] = rng.randrange(256)
            case 1 if at < len(octets):
                octets[at] ^= 1 << rng.randrange(8)
            case 2:
                del octets[at : at + size]
            case 3:
                octets[at:at] = octets[at : at + size]
            case 4:
                octets[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 5:
                other = rng.choice(self.target.seeds)
                begin = rng.randrange(len(other) + 1)
                octets[at:at] = other[begin : begin + size]
            case 6:
                end = rng.randrange(len(octets) + 1)
                octets[at:at] = octets[end : end + size]
            case _ if self.target.words:
                word = rng.choice(self.target.words)
                octets[at : at + len(word) * rng.randrange(2)] = word
            case _:
                pass
