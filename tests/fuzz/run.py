"""Runs one target for a while: ``python -m tests.fuzz.run TARGET SECONDS ENGINE FOLDER``.

ENGINE is ``atheris``, or ``plain`` for changes at random without a look at coverage.  What broke a
promise is written to FOLDER, once for each place in the code; the last line says how many inputs
were tried and how many findings there are.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .target import Target

ONE_INPUT_S: Final = 20
"""An input that takes longer is a finding."""


class TooSlow(BaseException):
    """Nobody may catch this: the input takes too long."""


class Findings:
    """Counts inputs, and keeps those that break something.

    :param folder: takes them.
    """

    def __init__(self, target: Target, folder: Path) -> None:
        self._target = target
        self._folder = folder
        self._places: set[str] = set()
        self.count = 0
        self.began = time.monotonic()

    def try_one(self, data: bytes) -> None:
        self.count += 1
        try:
            with _limited(ONE_INPUT_S):
                self._target.one_input(data)
        except (Exception, TooSlow) as error:
            self._keep(data, error)

    def _keep(self, data: bytes, error: BaseException) -> None:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} {Path(frame.filename).name} {frame.lineno}"
        if place in self._places:
            return
        self._places.add(place)
        name = hashlib.sha256(data).hexdigest()[:16]
        (self._folder / name).write_bytes(data)
        sys.stdout.write(f"{self._target.name}: {place}: {error}: {self._folder / name}\n")
        sys.stdout.flush()

    def tell(self) -> None:
        took_s = time.monotonic() - self.began
        sys.stdout.write(f"= {self.count} {len(self._places)} {took_s:.1f}\n")
        sys.stdout.flush()


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _too_slow(number: int, frame: object) -> None:
    raise TooSlow(f"longer than {ONE_INPUT_S} s")


def _plain(target: Target, findings: Findings, seconds: float) -> None:
    from .mutate import Mutator

    mutator = Mutator(target, random.Random())
    for data in (*target.seeds, *target.findings().values()):
        findings.try_one(data)
    while time.monotonic() < findings.began + seconds:
        findings.try_one(mutator.next())
    findings.tell()


def _guided(atheris: Any, target: Target, findings: Findings, seconds: float, folder: Path) -> None:
    """Under libFuzzer, which leads towards code that no input has reached yet."""
    seeds = folder / "seeds"
    seeds.mkdir(exist_ok=True)
    for number, data in enumerate((*target.seeds, *target.findings().values())):
        (seeds / f"seed-{number}").write_bytes(data)
    arguments = ["fuzz", "-max_len=4096", "-verbosity=0", str(seeds)]
    if target.words:  # a dictionary with none ends libFuzzer
        words = folder / "words"
        escaped = ["".join(f"\\x{octet:02x}" for octet in word) for word in target.words]
        words.write_text("".join(f'"{word}"\n' for word in escaped))
        arguments.append(f"-dict={words}")

    def one_input(data: bytes) -> None:
        if time.monotonic() > findings.began + seconds:
            findings.tell()
            os._exit(0)  # there is no other way out of libFuzzer
        findings.try_one(data)

    atheris.Setup(arguments, one_input)
    atheris.Fuzz()


def _load(engine: str) -> tuple[Any, Callable[[], dict[str, Target]]]:
    """The engine, and what gets the targets with what they test made ready for it."""

    def targets() -> dict[str, Target]:
        from .targets import TARGETS

        return TARGETS

    if engine == "plain":
        return None, targets
    atheris: Any = import_module("atheris")

    def instrumented() -> dict[str, Target]:
        with atheris.instrument_imports(include=["protege_mta"]):
            return targets()

    return atheris, instrumented


def main(name: str, seconds: float, engine: str, folder: Path) -> None:
    atheris, targets = _load(engine)
    target = targets()[name]
    signal.signal(signal.SIGALRM, _too_slow)
    folder.mkdir(parents=True, exist_ok=True)
    findings = Findings(target, folder)
    if atheris is None:
        _plain(target, findings, seconds)
    else:
        _guided(atheris, target, findings, seconds, folder)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
