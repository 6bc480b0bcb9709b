"""``init``: a folder with all that a service needs."""

from __future__ import annotations

import grp
import os
import pwd
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import click

from .faults import Fault
from .files import NewFile, write_files
from .options import json_option
from .terminal import Column, write, write_json, write_table

if TYPE_CHECKING:
    from .records import Record

_CONFIG: Final = """\
# The configuration of protege-mta.  docs/reference/configuration.md describes every key;
# "protege-mta check-config" says what is wrong.  Relative paths start at this file's folder.

mode = "local"
hostname = "{hostname}"          # should resolve to our address, and the address back to it
state_dir = "state"              # spool, event log, sockets

[[listener]]
name = "smtp"
kind = "smtp"
address = "{address}"
port = {smtp_port}
relay_hosts = []                 # networks that may relay without authentication

[[listener]]
name = "submission"
kind = "submission"              # mail of our users: STARTTLS, then AUTH
address = "{address}"
port = {submission_port}

[[listener]]
name = "submissions"
kind = "submissions"             # the same, with TLS from the first octet
address = "{address}"
port = {submissions_port}

[[listener]]
name = "http"
kind = "http"                    # /metrics and /healthz
address = "127.0.0.1"
port = {http_port}

[tls]
certificate = "tls/cert.pem"     # self-signed: fit for servers; mail programs of users will ask
private_key = "tls/key.pem"

[domains."{domain}"]
deliver = "maildir"              # or "lmtp", with lmtp = "127.0.0.1:24"
maildir = "mail/{{domain}}/{{local_part}}"
recipients = ["*"]               # ["agent", "postmaster"]: these alone

[outbound]
route = "mx"                     # or "smarthost", with:
# smarthost = {{ host = "smtp.example.net", port = 587, tls = "starttls", \
username = "me", password_file = "keys/smarthost" }}

[dkim."{domain}"]                # signs mail that is From this domain
selectors = [
    {{ name = "rsa", private_key = "keys/rsa.pem" }},
    {{ name = "ed25519", private_key = "keys/ed25519.pem" }},
]

# What follows are defaults.

# [retry]
# first_s = 300
# max_age_s = 432000             # then a bounce
# delay_warning_s = 14400        # 0 = none

# [limits]
# message_octets = 52428800
# recipients = 1000
# connections = 2000
# connections_per_ip = 50
"""

_PORT: Final = click.IntRange(0, 65535)


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--mode", default="local", show_default=True, help='Only "local" so far.')
@click.option("--hostname", metavar="H", help="Our name.  [default: mx. and the domain]")
@click.option("--domain", metavar="D", default="local.test", show_default=True, help="Ours.")
@click.option("--address", metavar="A", default="0.0.0.0", show_default=True, help="For SMTP.")
@click.option("--smtp-port", type=_PORT, default=25, show_default=True, help="For SMTP.")
@click.option(
    "--submission-port",
    type=_PORT,
    help="For submission.  [default: 587; 2587 where SMTP's is not below 1024]",
)
@click.option(
    "--submissions-port", type=_PORT, help="The same with implicit TLS.  [default: 465; or 2465]"
)
@click.option("--http-port", type=_PORT, default=8026, show_default=True, help="For metrics.")
@click.option("--user", metavar="U", help="Whose the service is.  [default: ours]")
@click.option("--force", "is_forced", is_flag=True, help="Overwrite what is there.")
@json_option
def command(
    folder: Path,
    mode: str,
    hostname: str | None,
    domain: str,
    address: str,
    smtp_port: int,
    submission_port: int | None,
    submissions_port: int | None,
    http_port: int,
    user: str | None,
    is_forced: bool,
    as_json: bool,
) -> None:
    """Write a working configuration, keys, a certificate and a service unit into DIR.

    Prints the DNS records to publish.
    """
    from ..config.toml import ConfigError, load
    from .records import records_of

    if mode != "local":
        raise Fault(f'mode "{mode}" is not available in this version, only "local"', os.EX_USAGE)
    folder = folder.absolute()
    domain = _valid(domain, "--domain")
    hostname = _valid(hostname or f"mx.{domain}", "--hostname")
    config = folder / "protege-mta.toml"
    text = _CONFIG.format(
        hostname=hostname,
        domain=domain,
        address=_address(address),
        smtp_port=smtp_port,
        submission_port=_port(submission_port, 587, smtp_port),
        submissions_port=_port(submissions_port, 465, smtp_port),
        http_port=http_port,
    )
    owner = Owner.named(user)
    files = {config: NewFile(text.encode("utf-8")), **_made(folder, hostname, owner)}
    write_files(files, is_forced=is_forced)
    if owner.uid != os.geteuid():
        _give(folder, files, owner)
    try:
        settings = load(config)
    except ConfigError as error:
        raise Fault(str(error), os.EX_CONFIG) from error
    records = records_of(settings)
    if as_json:
        write_json(
            {
                "config": str(config),
                "files": [str(path) for path in files],
                "records": [attrs.asdict(record) for record in records],
            }
        )
        return
    for path in files:
        write(f"wrote {path}")
    write("\nDNS records to publish:\n")
    _print_records(records)
    write(f"\nNext: protege-mta run --config {config}")


def _print_records(records: list[Record]) -> None:
    write_table(
        [
            Column("NAME", lambda row: row["name"]),
            Column("TYPE", lambda row: row["type"]),
            Column("VALUE", lambda row: row["value"]),
        ],
        [attrs.asdict(record) for record in records],
    )


@attrs.frozen
class Owner:
    """The user that the service runs as."""

    uid: int
    gid: int
    user: str
    group: str

    @classmethod
    def named(cls, user: str | None) -> Owner:
        """:raise Fault: there is no such user."""
        try:
            account = pwd.getpwuid(os.geteuid()) if user is None else pwd.getpwnam(user)
            group = grp.getgrgid(account.pw_gid).gr_name
        except KeyError as error:
            if user is not None:
                raise Fault(f"--user: there is no user {user!r}", os.EX_NOUSER) from error
            # A container's user may have a number and nothing else.
            return cls(os.geteuid(), os.getegid(), str(os.geteuid()), str(os.getegid()))
        return cls(account.pw_uid, account.pw_gid, account.pw_name, group)


def _give(folder: Path, files: Iterable[Path], owner: Owner) -> None:
    """Make the owner's what we have made."""
    made = {folder, *files, *(path.parent for path in files)}
    try:
        for path in made:
            os.chown(path, owner.uid, owner.gid)
    except OSError as error:
        text = f"{error.filename}: cannot be given to {owner.user}: {error.strerror}"
        raise Fault(text, os.EX_NOPERM) from error


def _made(folder: Path, hostname: str, owner: Owner) -> dict[Path, NewFile]:
    """Keys, certificate and unit."""
    from ..dkim import keys
    from ..transport.self_signed import self_signed
    from .unit import in_folder

    certificate, key = self_signed([hostname], datetime.now(UTC))
    twistd = Path(sys.executable).with_name("twistd")
    unit = in_folder(str(twistd), str(folder), owner.user, owner.group)
    return {
        folder / "keys/rsa.pem": NewFile(keys.generate_rsa(), is_secret=True),
        folder / "keys/ed25519.pem": NewFile(keys.generate_ed25519(), is_secret=True),
        folder / "tls/cert.pem": NewFile(certificate),
        folder / "tls/key.pem": NewFile(key, is_secret=True),
        folder / "protege-mta.service": NewFile(unit.text().encode("utf-8")),
    }


def _valid(name: str, option: str) -> str:
    from ..config.kinds import is_host_name

    if not is_host_name(name):
        raise Fault(f"{option}: wanted a domain name, got {name!r}", os.EX_USAGE)
    return name.lower()


def _port(given: int | None, usual: int, smtp_port: int) -> int:
    """Who cannot have the usual port for SMTP cannot have the others either."""
    if given is not None:
        return given
    return usual if 0 < smtp_port < 1024 else usual + 2000


def _address(text: str) -> str:
    from ..config.kinds import IpAddress, Unfit

    try:
        return IpAddress().read(text, Path())
    except Unfit as unfit:
        raise Fault(f"--address: wanted {unfit.wanted}, got {text!r}", os.EX_USAGE) from unfit
