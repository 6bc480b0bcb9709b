"""What is kept of a run for the documents: summaries without the single turns, and the plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

COLOURS: Final = {
    "protege-mta": "#1b7837",
    "protege-mta + rsa": "#1b7837",
    "protege-mta + ed25519": "#a6dba0",
    "Postfix": "#999999",
    "Postfix + OpenDKIM": "#999999",
}
OMITTED: Final = frozenset({"runs"})
"""Left out of summaries."""


def publish(console: Console, results: Path, to: Path) -> None:
    """Write a summary of each result, and the plot of the relay rates.

    :raise click.ClickException: there are no results, or no matplotlib.
    """
    paths = sorted(results.glob("*.json"))
    if not paths:
        raise click.ClickException(f"{results}: nothing was measured yet; see python -m bench")
    to.mkdir(parents=True, exist_ok=True)
    for path in paths:
        kept = summary(json.loads(path.read_text()))
        (to / path.name).write_text(json.dumps(kept, indent=1) + "\n")
        console.print(f"Kept: {to / path.name}")
        if path.name == "relay.json":
            draw(console, kept["cells"], to)


def summary(value: Any) -> Any:
    """The same without single turns, and with four digits."""
    match value:
        case dict():
            return {key: summary(one) for key, one in value.items() if key not in OMITTED}
        case list():
            return [summary(one) for one in value]
        case float():
            return float(f"{value:.4g}")
        case _:
            return value


def draw(console: Console, cells: Sequence[Mapping[str, Any]], to: Path) -> None:
    """Write the plot of the relay rates, and say so.  :raise click.ClickException: no matplotlib."""
    for drawn in plot(cells, to / "relay"):
        console.print(f"Drawn: {drawn}")


def plot(cells: Sequence[Mapping[str, Any]], stem: Path) -> list[Path]:
    """Relay rates as bars, their ranges as whiskers, and how many times Postfix's each is.

    :param cells: as the relay scenario keeps them.
    :return: a PNG and an SVG.
    :raise click.ClickException: matplotlib is missing.
    """
    try:
        library: Any = import_module("matplotlib.figure")
    except ImportError:
        raise click.ClickException(
            "the plot needs matplotlib: pip install --editable '.[bench]'"
        ) from None
    groups = list(dict.fromkeys(cell["group"] for cell in cells))
    figure = library.Figure(figsize=(9, 5.2 * len(groups)), layout="constrained")
    for axes, group in zip(figure.subplots(len(groups), squeeze=False)[:, 0], groups, strict=True):
        _bars(axes, [cell for cell in cells if cell["group"] == group])
        axes.set_title({"plain": "Relay rate", "signed": "Relay rate, DKIM-signed"}[group])
    paths = [stem.with_suffix(suffix) for suffix in (".png", ".svg")]
    for path in paths:
        figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def _bars(axes: Any, cells: Sequence[Mapping[str, Any]]) -> None:
    servers = list(dict.fromkeys(cell["server"] for cell in cells))
    loads = list(dict.fromkeys(_load(cell) for cell in cells))
    height = 0.8 / len(servers)
    for index, server in enumerate(servers):
        own = [cell for cell in cells if cell["server"] == server]
        rates = [cell["relayed_per_s"] for cell in own]
        at = [loads.index(_load(cell)) + height * (index - (len(servers) - 1) / 2) for cell in own]
        whiskers = (
            [rate["median"] - rate["least"] for rate in rates],
            [rate["most"] - rate["median"] for rate in rates],
        )
        axes.barh(
            at,
            [rate["median"] for rate in rates],
            height,
            xerr=whiskers,
            label=server,
            color=COLOURS.get(server),
            error_kw={"linewidth": 0.8, "ecolor": "#333333"},
        )
        if not server.startswith("Postfix"):
            for y, rate, cell in zip(at, rates, own, strict=True):
                text = f" {cell['times']['median']:.1f} times"
                axes.text(rate["most"], y, text, va="center", fontsize=7)
    axes.set_yticks(range(len(loads)), loads, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("messages a second until the next hop has the last, median and range")
    axes.legend(fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)


def _load(cell: Mapping[str, Any]) -> str:
    each = "many" if cell["is_reusing"] else "one"
    return f"{cell['size_octets'] // 1024} KB, {cell['sessions']} at a time,\n{each} a connection"
