"""Files that tests read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

MESSAGES: Final = Path(__file__).parent / "messages"


def message(name: str) -> bytes:
    """One of the messages in ``messages/``, by its name without the suffix."""
    return (MESSAGES / f"{name}.eml").read_bytes()


def messages() -> dict[str, bytes]:
    """All of them by name."""
    return {path.stem: path.read_bytes() for path in sorted(MESSAGES.glob("*.eml"))}


REPORTS: Final = Path(__file__).parent / "reports"


def reports() -> dict[str, bytes]:
    """What other systems send back, by name, in the shapes of several vendors; ``<PATH>`` stands for
    a return path."""
    return {path.stem: path.read_bytes() for path in sorted(REPORTS.glob("*.eml"))}
