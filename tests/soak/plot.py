"""The run as pictures: one row a figure, one column a service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from .samples import Sample

MIB: Final = 1024.0 * 1024.0
ROWS: Final = (
    ("pss_octets", "memory, MiB", MIB),
    ("descriptors", "descriptors", 1.0),
    ("threads", "threads", 1.0),
    ("queued", "messages queued", 1.0),
    ("disk_octets", "spool, MiB", MIB),
)
COLOURS: Final = {"kill": "tab:red", "outage": "tab:orange", "reload": "lightgrey"}


def plot(
    samples: Mapping[str, Sequence[Sample]],
    events: Mapping[str, Sequence[tuple[float, str]]],
    length_s: float,
    to: Sequence[Path],
) -> None:
    """Write the same picture to each path, in the format of its suffix."""
    # No types, and no such thing at all, where nobody draws.
    library: Any = import_module("matplotlib")
    library.use("Agg")
    pyplot: Any = import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(
        len(ROWS), len(samples), sharex=True, sharey="row", squeeze=False, figsize=(12, 11)
    )
    for column, (name, looks) in enumerate(samples.items()):
        axes[0][column].set_title(f"the service that is {name}")
        for row, (what, label, unit) in enumerate(ROWS):
            _one(axes[row][column], looks, what, unit)
            top = max((getattr(one, what) for each in samples.values() for one in each), default=1)
            axes[row][column].set_ylim(0, max(top, 1) / unit * 1.08)
            _mark(axes[row][column], events[name], length_s)
            axes[row][0].set_ylabel(label)
        axes[-1][column].set_xlabel("minutes")
    handles = [pyplot.Line2D([], [], color=colour, label=what) for what, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="upper right", ncols=len(handles), frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    for path in to:
        figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _one(axes: Any, looks: Sequence[Sample], what: str, unit: float) -> None:
    times = [one.at_s / 60 for one in looks]
    axes.plot(times, [getattr(one, what) / unit for one in looks], linewidth=1.2)


def _mark(axes: Any, events: Sequence[tuple[float, str]], length_s: float) -> None:
    """What happened, and the two quarters that are compared."""
    for at_s, what in events:
        axes.axvline(at_s / 60, color=COLOURS[what], linewidth=0.5, alpha=0.6, zorder=0)
    for start in (0.25, 0.75):
        axes.axvspan(
            length_s * start / 60, length_s * (start + 0.25) / 60, color="tab:blue", alpha=0.06
        )
