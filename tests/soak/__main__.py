"""``python -m tests.soak``: ``SOAK_SECONDS`` (3600), ``SOAK_SEED``, results in ``build/soak``."""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import attrs

from .plot import plot
from .samples import JUDGED, changes
from .subject import Subject

JUDGED_S: Final = 1200.0
"""Caches fill and pools of threads grow in the first minutes, so that the figures of a shorter run
are shown and not judged."""

RESULTS: Final = Path(__file__).parents[2] / "build" / "soak"


def main() -> int:
    length_s = float(os.environ.get("SOAK_SECONDS", "3600"))
    seed = int(os.environ.get("SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
    _say(f"{length_s:g} s of sending, seed {seed}")
    subjects: list[Subject] = []
    try:
        subjects.append(Subject("spared", is_killed=False, seed=seed))
        subjects.append(Subject("killed", is_killed=True, seed=seed))
        _live(subjects, length_s)
        accounts = {subject.name: str(subject.settled()) for subject in subjects}
        for subject in subjects:
            if subject.faults:
                subject.keep(RESULTS / subject.name)
    finally:
        for subject in subjects:
            subject.close()
    verdict = _told(subjects, accounts, length_s)
    _written(subjects, accounts, length_s, seed, verdict)
    _say(f"{_WORDS[verdict]}; see {RESULTS}")
    return 0 if verdict else 1


_WORDS: Final = {True: "as it should be", False: "NOT AS IT SHOULD BE"}


def _live(subjects: list[Subject], length_s: float) -> None:
    """Let them live side by side, and look at them four times a minute or oftener."""
    began = time.monotonic()
    lives = [threading.Thread(target=subject.live, args=(began, length_s)) for subject in subjects]
    for life in lives:
        life.start()
    every_s = min(15.0, length_s / 240)
    told_at = began
    while any(life.is_alive() for life in lives):
        time.sleep(every_s)
        for subject in subjects:
            subject.look()
        if time.monotonic() >= told_at + 60:
            told_at = time.monotonic()
            shown = ", ".join(
                f"{subject.name} {subject.samples[-1].pss_octets / 1048576:.1f} MiB, "
                f"{subject.samples[-1].queued:.0f} queued, {len(subject.events)} events"
                for subject in subjects
                if subject.samples
            )
            _say(f"{(told_at - began) / 60:5.1f} min: {shown}")


def _told(subjects: list[Subject], accounts: dict[str, str], length_s: float) -> bool:
    """The table and the verdict."""
    is_good = True
    _say(f"\n{'service':8} {'figure':12} {'2nd quarter':>14} {'last quarter':>14} {'change':>8}")
    for subject in subjects:
        found = changes(subject.samples, length_s)
        is_good &= bool(found)
        for one in found:
            mark = ""
            if one.figure in JUDGED:
                mark = "steady" if one.is_steady else "NOT STEADY"
                is_good &= one.is_steady or length_s < JUDGED_S
            _say(
                f"{subject.name:8} {one.figure:12} {one.second:>14,.0f} {one.last:>14,.0f} "
                f"{one.share:>+8.1%}  {mark}"
            )
    if length_s < JUDGED_S:
        _say(f"a run of less than {JUDGED_S:g} s says nothing of what is steady")
    for subject in subjects:
        whats = [what for _, what in subject.events]
        counts = ", ".join(f"{whats.count(what)} {what}s" for what in sorted(set(whats)))
        _say(f"{subject.name}: {counts}; {accounts[subject.name]}")
        for fault in subject.faults[:20]:
            _say(f"  {fault}")
        is_good &= not subject.faults
    return is_good


def _written(
    subjects: list[Subject], accounts: dict[str, str], length_s: float, seed: int, verdict: bool
) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "length_s": length_s,
        "seed": seed,
        "is_good": verdict,
        "services": {
            subject.name: {
                "account": accounts[subject.name],
                "faults": subject.faults,
                "events": subject.events,
                "changes": [attrs.asdict(one) for one in changes(subject.samples, length_s)],
                "samples": [attrs.asdict(one) for one in subject.samples],
            }
            for subject in subjects
        },
    }
    (RESULTS / "soak.json").write_text(json.dumps(result, indent=1) + "\n")
    plot(
        {subject.name: subject.samples for subject in subjects},
        {subject.name: subject.events for subject in subjects},
        length_s,
        [RESULTS / "soak.png", RESULTS / "soak.svg"],
    )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
