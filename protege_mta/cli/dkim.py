"""``dkim``: signing keys and their records."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from .faults import Fault
from .files import NewFile, write_files
from .options import config_option, json_option, settings_from
from .terminal import write, write_json

if TYPE_CHECKING:
    from ..dkim.keys import SigningKey


_KINDS: Final = click.Choice(["rsa", "ed25519"])


@click.group("dkim")
def command() -> None:
    """DKIM keys and their DNS records."""


@command.command("keygen")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--type", "kind", type=_KINDS, default="rsa", show_default=True, help="Of key.")
@click.option(
    "--bits", type=click.IntRange(1024, 8192), default=2048, show_default=True, help="RSA."
)
@click.option("--domain", metavar="D", default="example.org", help="For the record's name.")
@click.option("--selector", metavar="S", default="", help="For the record's name.")
@click.option("--force", "is_forced", is_flag=True, help="Overwrite what is there.")
@json_option
def _keygen(
    file: Path, kind: str, bits: int, domain: str, selector: str, is_forced: bool, as_json: bool
) -> None:
    """Make a private key in FILE, readable by its owner alone, and print its DNS record."""
    from ..dkim import keys

    pem = keys.generate_ed25519() if kind == "ed25519" else keys.generate_rsa(bits)
    write_files({file: NewFile(pem, is_secret=True)}, is_forced=is_forced)
    _print([(domain, selector or file.stem, file, keys.load(pem))], as_json)


@command.command("show")
@click.argument("domain", required=False)
@config_option
@json_option
def _show(domain: str | None, config: Path | None, as_json: bool) -> None:
    """Print the DNS records of the configured keys, of one DOMAIN or of all."""
    from ..dkim import keys

    settings = settings_from(config)
    if domain is not None and domain.lower() not in settings.dkim:
        raise Fault(f"{domain}: no keys are configured for it", os.EX_NOINPUT)
    names = list(settings.dkim) if domain is None else [domain.lower()]
    found = [
        (name, selector.name, selector.private_key, keys.load(selector.private_key.read_bytes()))
        for name in names
        for selector in settings.dkim[name].selectors
    ]
    _print(found, as_json)


def _print(found: list[tuple[str, str, Path, SigningKey]], as_json: bool) -> None:
    from ..dkim.record import dns_name, dns_record, zone_line

    if as_json:
        write_json(
            [
                {
                    "domain": domain,
                    "selector": selector,
                    "private_key": str(path),
                    "kind": key.kind,
                    "bits": key.bits,
                    "name": dns_name(selector, domain),
                    "value": dns_record(key),
                }
                for domain, selector, path, key in found
            ]
        )
        return
    for domain, selector, _, key in found:
        write(zone_line(selector, domain, key))
