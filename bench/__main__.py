"""Measure us beside Postfix on this machine.

Everything is on loopback, in folders and on ports of its own, and is stopped at the end.  Without
a command: relay rates.  Nothing is installed; what is missing is said.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any, Final

import attrs
import click

from . import (
    attacks,
    big,
    deferred,
    destinations,
    idle,
    inject,
    latency,
    profile,
    publish,
    relay,
    slow,
    tls,
    tunnels,
    webhooks,
)
from .bench import bench
from .report import terminal

QUICK: Final[dict[str, Any]] = {
    "relay": relay.Plan(rounds=2, messages=100, warm=100, sessions=(5,)),
    "deferred": deferred.Plan(counts=(300,)),
    "idle": idle.Plan(connections=200, messages=100),
    "slow": slow.Plan(writers=10, readers=10, per_s=50, seconds=2),
    "big": big.Plan(size_octets=5_000_000),
    "destinations": destinations.Plan(rounds=1, destinations=20, per_s=50, seconds=3),
    "inject": inject.Plan(rounds=1, messages=200),
    "latency": latency.Plan(rounds=1, messages=200, seconds=2),
    "attacks": attacks.Plan(per_s=50, seconds=3),
    "profile": profile.Plan(rounds=1, messages=100),
    "tls": tls.Plan(rounds=1, messages=100, connections=100),
    "webhooks": webhooks.Plan(rounds=1, messages=300),
    "tunnels": tunnels.Plan(
        rounds=1,
        agents=20,
        messages=200,
        seconds=2,
        big_octets=5_000_000,
        others=10,
        deaf=2,
        per_s=50,
    ),
}
"""To see that everything works; the figures mean nothing."""

SCENARIOS: Final[dict[str, Any]] = {
    "relay": relay,
    "deferred": deferred,
    "idle": idle,
    "slow": slow,
    "big": big,
    "destinations": destinations,
    "inject": inject,
    "latency": latency,
    "attacks": attacks,
    "profile": profile,
    "tls": tls,
    "webhooks": webhooks,
    "tunnels": tunnels,
}
"""Each a module with a ``Plan`` and a ``run``."""


@attrs.frozen
class Choice:
    """:ivar folder: in which to make ours.
    :ivar is_quick: whether plans are those of :data:`QUICK`.
    """

    folder: Path | None
    out: Path
    is_quick: bool

    def run(self, scenario: str, plan: Any) -> None:
        console = terminal()
        with bench(console, self.folder, self.out) as one:
            try:
                SCENARIOS[scenario].run(one, QUICK[scenario] if self.is_quick else plan)
            except (RuntimeError, TimeoutError) as error:
                raise click.ClickException(f"{scenario}: {error}") from error


@click.group(help=__doc__, invoke_without_command=True)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="On the disk to measure; the system's for temporary files if left out.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("bench/results"),
    show_default=True,
    help="Where results go.",
)
@click.option("--quick", "is_quick", is_flag=True, help="A few messages, to see that it works.")
@click.pass_context
def main(context: click.Context, folder: Path | None, out: Path, is_quick: bool) -> None:
    out = out / "quick" if is_quick else out  # figures without meaning do not replace others
    context.obj = Choice(folder, out, is_quick)
    if context.invoked_subcommand is None:
        context.obj.run("relay", relay.Plan())


def _numbers(_: click.Context, __: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in value.replace("_", "").split(","))
    except ValueError:
        raise click.BadParameter("give whole numbers, with commas between them") from None
    if min(found) < 1:
        raise click.BadParameter("give numbers above 0")
    return found


def _signings(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    found = tuple(value.split(","))
    if not set(found) <= set(relay.SIGNINGS):
        raise click.BadParameter(f"give some of {', '.join(relay.SIGNINGS)}, with commas")
    return found


@main.command("relay")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--messages", type=click.IntRange(1), default=2500, show_default=True, help="A turn.")
@click.option("--sessions", callback=_numbers, default="1,20,100", show_default=True)
@click.option("--sizes", callback=_numbers, default="4096,65536", show_default=True, help="Octets.")
@click.option("--signing", callback=_signings, default="none,rsa,ed25519", show_default=True)
@click.pass_obj
def _relay(choice: Choice, /, **given: Any) -> None:
    """Relay rates, with and without DKIM."""
    choice.run("relay", relay.Plan(**given))


@main.command("deferred")
@click.option("--counts", callback=_numbers, default="10000,100000", show_default=True)
@click.option("--postfix-up-to", default=10_000, show_default=True, help="More is ours alone.")
@click.pass_obj
def _deferred(choice: Choice, /, **given: Any) -> None:
    """Long deferred queues; --counts 1000000 wants 13 GB of disk."""
    choice.run("deferred", deferred.Plan(**given))


@main.command("idle")
@click.option("--connections", type=click.IntRange(1), default=5000, show_default=True)
@click.option("--messages", type=click.IntRange(1), default=1000, show_default=True)
@click.pass_obj
def _idle(choice: Choice, /, **given: Any) -> None:
    """Memory of idle connections."""
    choice.run("idle", idle.Plan(**given))


@main.command("slow")
@click.option("--writers", type=click.IntRange(0), default=200, show_default=True)
@click.option("--readers", type=click.IntRange(0), default=200, show_default=True)
@click.option("--per-s", default=200.0, show_default=True, help="Messages of the healthy client.")
@click.option("--seconds", default=20.0, show_default=True)
@click.pass_obj
def _slow(choice: Choice, /, **given: Any) -> None:
    """A healthy client among slow ones."""
    choice.run("slow", slow.Plan(**given))


@main.command("big")
@click.option("--size-octets", type=click.IntRange(1), default=50_000_000, show_default=True)
@click.option("--messages", type=click.IntRange(1), default=1, show_default=True)
@click.pass_obj
def _big(choice: Choice, /, **given: Any) -> None:
    """Memory that a 50 MB message takes."""
    choice.run("big", big.Plan(**given))


@main.command("destinations")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--destinations", type=click.IntRange(1), default=100, show_default=True)
@click.option("--refusing", type=click.IntRange(0), default=4, show_default=True)
@click.option("--silent", type=click.IntRange(0), default=3, show_default=True)
@click.option("--slow", type=click.IntRange(0), default=3, show_default=True)
@click.option("--per-s", default=300.0, show_default=True, help="Messages, to all together.")
@click.option("--seconds", default=20.0, show_default=True)
@click.pass_obj
def _destinations(choice: Choice, /, **given: Any) -> None:
    """Healthy destinations among dead and slow ones."""
    plan = destinations.Plan(**given)
    if plan.ill >= plan.destinations:
        raise click.UsageError("none of the destinations would be healthy")
    choice.run("destinations", plan)


@main.command("inject")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--messages", type=click.IntRange(1), default=4000, show_default=True, help="A turn.")
@click.option("--sessions", type=click.IntRange(1), default=20, show_default=True)
@click.option("--batch", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.pass_obj
def _inject(choice: Choice, /, **given: Any) -> None:
    """Injection over HTTP, beside our own SMTP."""
    choice.run("inject", inject.Plan(**given))


@main.command("latency")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--messages", type=click.IntRange(1), default=3000, show_default=True)
@click.option("--seconds", default=20.0, show_default=True)
@click.option("--share", default=0.5, show_default=True, help="Of the peak rate.")
@click.pass_obj
def _latency(choice: Choice, /, **given: Any) -> None:
    """From the final dot to the next hop's 250."""
    choice.run("latency", latency.Plan(**given))


@main.command("attacks")
@click.option("--per-s", default=200.0, show_default=True, help="Messages of the healthy client.")
@click.option("--seconds", default=60.0, show_default=True, help="Of each attack.")
@click.pass_obj
def _attacks(choice: Choice, /, **given: Any) -> None:
    """Memory, and a healthy client, while the doors are attacked."""
    choice.run("attacks", attacks.Plan(**given))


@main.command("profile")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--messages", type=click.IntRange(1), default=4000, show_default=True, help="A turn.")
@click.pass_obj
def _profile(choice: Choice, /, **given: Any) -> None:
    """Where the time of a message goes."""
    choice.run("profile", profile.Plan(**given))


@main.command("tls")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--messages", type=click.IntRange(1), default=2500, show_default=True, help="A turn.")
@click.option("--connections", type=click.IntRange(100), default=2000, show_default=True)
@click.pass_obj
def _tls(choice: Choice, /, **given: Any) -> None:
    """Relay rates over STARTTLS, and handshakes."""
    choice.run("tls", tls.Plan(**given))


@main.command("webhooks")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
@click.option("--messages", type=click.IntRange(1), default=5000, show_default=True, help="A turn.")
@click.option("--per-s", default=1000.0, show_default=True, help="Events that the endpoint takes.")
@click.pass_obj
def _webhooks(choice: Choice, /, **given: Any) -> None:
    """Relay rates with a webhook and without."""
    choice.run("webhooks", webhooks.Plan(**given))


@main.command("tunnels")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--agents", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--messages", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--share", default=0.5, show_default=True, help="Of the rate, for the latency.")
@click.option("--seconds", default=15.0, show_default=True, help="Of each paced load.")
@click.option("--big-octets", type=click.IntRange(1), default=50_000_000, show_default=True)
@click.option("--deaf", type=click.IntRange(0, 99), default=10, show_default=True, help="Of 100.")
@click.pass_obj
def _tunnels(choice: Choice, /, **given: Any) -> None:
    """A relay server and its agents."""
    choice.run("tunnels", tunnels.Plan(**given))


@main.command("all")
@click.pass_obj
def _all(choice: Choice) -> None:
    """Every scenario as it is by default; an hour or so."""
    for name, module in SCENARIOS.items():
        choice.run(name, module.Plan())


@main.command("publish")
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("docs/explanation/performance"),
    show_default=True,
)
@click.pass_obj
def _publish(choice: Choice, to: Path) -> None:
    """Draw the plot, and keep summaries of all results for the documents."""
    publish.publish(terminal(), choice.out, to)


def _stop(number: int, _: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
