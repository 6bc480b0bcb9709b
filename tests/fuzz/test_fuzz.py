"""Each target over what once broke it, and for a short while over new inputs.

The inputs are the same in each run, and ``FUZZ_INPUTS`` (300) a target; ``make fuzz`` takes longer
and looks at coverage.
"""

from __future__ import annotations

import os
import random
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from .mutate import Mutator
from .targets import TARGETS

INPUTS: Final = int(os.environ.get("FUZZ_INPUTS", "300"))


class FuzzTests(SynchronousTestCase):
    def run_target(self, name: str) -> None:
        target = TARGETS[name]
        mutator = Mutator(target, random.Random(0))
        known = {**target.findings(), **{f"seed {n}": it for n, it in enumerate(target.seeds)}}
        new = {f"input {n}": mutator.next() for n in range(INPUTS)}
        for what, data in (known | new).items():
            try:
                target.one_input(data)
            except Exception as error:
                raise AssertionError(f"{name} on {what}, {data!r}: {error!r}") from error
        self.assertGreater(len(known), 1)


def _test(name: str) -> None:
    def test(self: FuzzTests) -> None:
        self.run_target(name)

    setattr(FuzzTests, f"test_{name}", test)


for _name in TARGETS:
    _test(_name)
