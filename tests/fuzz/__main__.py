"""Runs every target for ``FUZZ_SECONDS`` (300) each, ``FUZZ_JOBS`` (1) at a time.

``python -m tests.fuzz [TARGET ...]``; ``FUZZ_ENGINE`` is ``atheris`` where that is installed, else
``plain``.  Findings go to ``build/fuzz/TARGET``; each belongs in ``tests/corpora/fuzz/TARGET``
under a name that says what it broke, once that is mended.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import attrs

from .targets import TARGETS

ROOT: Final = Path(__file__).parents[2]
FINDINGS: Final = ROOT / "build" / "fuzz"


@attrs.frozen
class Result:
    """:ivar is_whole: whether the run came to its end."""

    target: str
    executions: int
    findings: int
    took_s: float
    is_whole: bool

    def __str__(self) -> str:
        rate = self.executions / self.took_s if self.took_s else 0.0
        end = "" if self.is_whole else "  BROKE OFF"
        return (
            f"{self.target:18} {self.executions:>12,} {self.took_s:>9.0f} {rate:>9,.0f} "
            f"{self.findings:>9}{end}"
        )


def fuzz(target: str, seconds: float, engine: str) -> Result:
    """Run one target in a process of its own, and show what it finds at once."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.run", target, str(seconds), engine, FINDINGS / target],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=ROOT,
    )
    said, trouble = process.communicate()
    lines = said.splitlines()
    for line in lines:
        if line.startswith(f"{target}: "):
            _say(line)
    if process.returncode or not lines or not lines[-1].startswith("= "):
        _say(f"{target} broke off:\n{trouble[-3000:]}")
        return Result(target, 0, 1, time.monotonic() - began, False)
    _, executions, findings, took_s = lines[-1].split()
    result = Result(target, int(executions), int(findings), float(took_s), True)
    _say(str(result))
    return result


def main(names: list[str]) -> int:
    unknown = set(names) - set(TARGETS)
    if unknown:
        _say(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
        return 2
    seconds = float(os.environ.get("FUZZ_SECONDS", "300"))
    jobs = int(os.environ.get("FUZZ_JOBS", "1"))
    found = "atheris" if importlib.util.find_spec("atheris") else "plain"
    engine = os.environ.get("FUZZ_ENGINE", found)
    wanted = names or list(TARGETS)
    _say(f"{len(wanted)} targets, {seconds:g} s each, {jobs} at a time, engine {engine}")
    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(lambda name: fuzz(name, seconds, engine), wanted))
    _say(f"\n{'target':18} {'executions':>12} {'seconds':>9} {'a second':>9} {'findings':>9}")
    for result in results:
        _say(str(result))
    whole = Result(
        "all",
        sum(result.executions for result in results),
        sum(result.findings for result in results),
        sum(result.took_s for result in results),
        all(result.is_whole for result in results),
    )
    _say(str(whole))
    return 1 if whole.findings else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
