"""``init``: a folder with all that a service needs."""

from __future__ import annotations

import grp
import ipaddress
import os
import pwd
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs
import click

from .faults import Fault
from .files import NewFile, write_files
from .layouts import ATTESTATION_KEY_ID, Names, Ports, Smarthost, local, relay, relay_server
from .options import json_option
from .terminal import Column, write, write_json, write_table

if TYPE_CHECKING:
    from .records import Record

Mode = Literal["local", "relay", "relay-server"]

_PORT: Final = click.IntRange(0, 65535)


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--mode",
    type=click.Choice(("local", "relay", "relay-server")),
    default="local",
    show_default=True,
    help="A mail host; a machine behind a relay; or the relay.",
)
@click.option(
    "--hostname",
    metavar="H",
    help="Our name.  [default: mx. and the domain; relay-server: relay. for its mail.]",
)
@click.option(
    "--domain",
    metavar="D",
    help="Ours, or the agents'.  [default: local.test; of a relay: mail. for the host's relay.]",
)
@click.option("--relay-url", metavar="URL", help="The relay, with --mode relay.")
@click.option(
    "--address", metavar="A", help="To listen on.  [default: 0.0.0.0; 127.0.0.1 behind a relay]"
)
@click.option(
    "--public-address",
    "public",
    metavar="A",
    multiple=True,
    help="Ours as others see it, for DNS records; may be repeated.  [default: the machine's]",
)
@click.option("--smtp-port", type=_PORT, help="For SMTP.  [default: 25]")
@click.option(
    "--submission-port",
    type=_PORT,
    help="For submission.  [default: 587; 2587 where SMTP's is not below 1024, or there is none]",
)
@click.option(
    "--submissions-port", type=_PORT, help="The same with implicit TLS.  [default: 465; or 2465]"
)
@click.option(
    "--tunnel-port", type=_PORT, help="For agents, of a relay-server.  [default: 443; or 2443]"
)
@click.option(
    "--plain-tunnel",
    "is_plain",
    is_flag=True,
    help="Agents of a relay-server come to loopback, without TLS, which is a proxy's affair.",
)
@click.option("--http-port", type=_PORT, default=8026, show_default=True, help="For metrics.")
@click.option(
    "--smarthost",
    metavar="HOST[:PORT]",
    help="Who takes all outbound mail.  [default: nobody; the recipients' MX hosts]",
)
@click.option("--user", metavar="U", help="Whose the service is.  [default: ours]")
@click.option("--zone", "as_zone", is_flag=True, help="Print the records as lines of a zone file.")
@click.option("--force", "is_forced", is_flag=True, help="Overwrite what is there.")
@json_option
def command(
    folder: Path,
    mode: Mode,
    hostname: str | None,
    domain: str | None,
    relay_url: str | None,
    address: str | None,
    public: tuple[str, ...],
    smtp_port: int | None,
    submission_port: int | None,
    submissions_port: int | None,
    tunnel_port: int | None,
    is_plain: bool,
    http_port: int,
    smarthost: str | None,
    user: str | None,
    as_zone: bool,
    is_forced: bool,
    as_json: bool,
) -> None:
    """Write a working configuration, keys, a certificate and a service unit into DIR.

    Prints the DNS records to publish, or our address behind a relay.
    """
    from ..config.source import load
    from ..config.toml import ConfigError
    from .records import records_of

    for option, value, modes in (
        ("--relay-url", relay_url, ("relay",)),
        ("--tunnel-port", tunnel_port, ("relay-server",)),
        ("--plain-tunnel", is_plain or None, ("relay-server",)),
        ("--smarthost", smarthost, ("local", "relay-server")),
        ("--smtp-port", smtp_port, ("local", "relay-server")),
        ("--submissions-port", submissions_port, ("local", "relay-server")),
        ("--public-address", public or None, ("local", "relay-server")),
    ):
        if value is not None and mode not in modes:
            raise Fault(f"{option}: only with --mode {' or '.join(modes)}", os.EX_USAGE)
    folder = folder.absolute()
    url = _url(relay_url) if mode == "relay" else ""
    hostname, domain = _named(mode, hostname, domain, url)
    smtp = 25 if smtp_port is None else smtp_port
    unprivileged = mode == "relay" or not 0 < smtp < 1024
    listening = _address(address or ("127.0.0.1" if mode == "relay" else "0.0.0.0"))
    names = Names(
        hostname,
        domain,
        listening,
        listening if ipaddress.ip_address(listening).is_loopback else "127.0.0.1",
        Ports(
            smtp=smtp,
            submission=_port(submission_port, 587, unprivileged),
            submissions=_port(submissions_port, 465, unprivileged),
            tunnel=_port(tunnel_port, 443, unprivileged or is_plain),
            http=http_port,
        ),
        () if mode == "relay" else _public(public, listening),
        None if smarthost is None else _smarthost(smarthost),
    )
    config = folder / "protege-mta.toml"
    owner = Owner.named(user)
    made = _made(mode, names, url, is_plain=is_plain)
    files = {
        config: NewFile(made.text.encode("utf-8")),
        **{folder / name: file for name, file in made.files.items()},
        folder / "protege-mta.service": NewFile(_unit(folder, owner)),
    }
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
                **made.facts,
            }
        )
        return
    for path in files:
        write(f"wrote {path}")
    if records:
        write("\nDNS records to publish:\n")
        _print_records(records, as_zone=as_zone)
    for line in made.told:
        write(f"\n{line}")
    write(f"\nNext: protege-mta run --config {config}")


def _print_records(records: list[Record], *, as_zone: bool) -> None:
    from .records import zone

    if as_zone:
        sys.stdout.write(zone(records))
        return
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


# --- what differs between modes ------------------------------------------------------------------


@attrs.frozen
class _Made:
    """A mode's configuration, and what belongs to it.

    :ivar files: by their names from the folder.
    :ivar facts: more members for ``--json``.
    :ivar told: the same in words.
    """

    text: str
    files: dict[str, NewFile]
    facts: dict[str, Any]
    told: list[str]


def _made(mode: Mode, names: Names, url: str, *, is_plain: bool) -> _Made:
    """Keys, certificate and configuration.

    :param is_plain: whether a relay server's agents come without TLS.
    """
    from ..dkim import keys
    from ..transport.self_signed import self_signed

    certificate, key = self_signed([names.hostname], datetime.now(UTC))
    files = {
        "tls/cert.pem": NewFile(certificate),
        "tls/key.pem": NewFile(key, is_secret=True),
    }
    if mode == "relay":
        return _behind_relay(names, url, files)
    files["keys/rsa.pem"] = NewFile(keys.generate_rsa(), is_secret=True)
    files["keys/ed25519.pem"] = NewFile(keys.generate_ed25519(), is_secret=True)
    if mode == "local":
        return _Made(local(names), files, {}, [])
    endpoint = _endpoint(names, is_plain=is_plain)
    through = f", by a proxy in front of http://{_with_port(names)}"
    is_proxied = is_plain and names.address != names.here
    attestation = keys.generate_ed25519()
    public = _public_pem(attestation)
    files["keys/attestation.pem"] = NewFile(attestation, is_secret=True)
    files["keys/attestation.pub"] = NewFile(public.encode("ascii"))
    return _Made(
        relay_server(names, is_plain=is_plain),
        files,
        {
            "relay_url": endpoint,
            "attestation": {"key_id": ATTESTATION_KEY_ID, "public_key": public},
        },
        [
            f"Agents come to: {endpoint}{through if is_proxied else ''}",
            "They trust our word about senders by this key, under the name "
            f'"{ATTESTATION_KEY_ID}" (keys/attestation.pub):\n\n{public}',
            "An agent is let in by its key: protege-mta tunnel allow KEY",
        ],
    )


def _endpoint(names: Names, *, is_plain: bool) -> str:
    """The URL for agents: the proxy's, where the listener is not for them."""
    if is_plain and names.address == names.here:
        return f"ws://{_with_port(names)}/ws"
    port = 443 if is_plain else names.ports.tunnel
    return f"wss://{names.hostname}{'' if port == 443 else f':{port}'}/ws"


def _with_port(names: Names) -> str:
    """Where agents of this machine, or a proxy, find the tunnel."""
    host = f"[{names.here}]" if ":" in names.here else names.here
    return f"{host}:{names.ports.tunnel}"


def _behind_relay(names: Names, url: str, files: dict[str, NewFile]) -> _Made:
    from ..dkim import keys
    from ..model.identity import identity_of

    pem = keys.generate_ed25519()
    identity = identity_of(keys.load(pem).public_octets)
    files["keys/agent.pem"] = NewFile(pem, is_secret=True)
    address, allow = f"{identity}@{names.domain}", f"protege-mta tunnel allow {identity}"
    files["address"] = NewFile(f"{address}\n".encode("ascii"))
    return _Made(
        relay(names, url=url, identity=identity),
        files,
        {"address": address, "identity": identity, "allow": allow},
        [f"Our address: {address}", f"For the relay's administrator: {allow}"],
    )


def _public_pem(pem: bytes) -> str:
    from cryptography.hazmat.primitives import serialization

    public = serialization.load_pem_private_key(pem, password=None).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return public.public_bytes(serialization.Encoding.PEM, form).decode("ascii")


def _unit(folder: Path, owner: Owner) -> bytes:
    from .unit import in_folder

    twistd = Path(sys.executable).with_name("twistd")
    return in_folder(str(twistd), str(folder), owner.user, owner.group).text().encode("utf-8")


# --- options -------------------------------------------------------------------------------------


def _url(text: str | None) -> str:
    from ..config.hosts import WebSocketUrl
    from ..config.kinds import Unfit

    try:
        return WebSocketUrl().read(text, Path())
    except Unfit as unfit:
        got = "nothing" if text is None else repr(text)
        raise Fault(f"--relay-url: wanted {unfit.wanted}, got {got}", os.EX_USAGE) from unfit


def _named(mode: Mode, hostname: str | None, domain: str | None, url: str) -> tuple[str, str]:
    """Host name and domain, as given, or as one follows from the other."""
    from ..config.gateway_json import inferred_domain
    from ..config.hosts import is_host_name
    from ..config.model import own_name

    if mode == "relay":
        domain = domain or inferred_domain(url)
        if domain is None:
            text = f"--domain: wanted the relay's domain of mail, which does not follow from {url}"
            raise Fault(text, os.EX_USAGE)
        hostname = hostname or (domain if is_host_name(domain) else own_name())
        return _valid(hostname, "--hostname"), _domain(domain)
    if mode == "relay-server":
        if domain is None:
            host = hostname.lower() if hostname is not None else "relay.local.test"
            domain = f"mail.{host.removeprefix('relay.')}"
        hostname = hostname or f"relay.{domain.lower().removeprefix('mail.')}"
    domain = _valid(domain or "local.test", "--domain")
    return _valid(hostname or f"mx.{domain}", "--hostname"), domain


def _valid(name: str, option: str) -> str:
    from ..config.hosts import is_host_name

    if not is_host_name(name):
        raise Fault(f"{option}: wanted a domain name, got {name!r}", os.EX_USAGE)
    return name.lower()


def _domain(name: str) -> str:
    """A relay's: one that is reached by its IP address has that for a domain."""
    try:
        return str(ipaddress.IPv4Address(name))
    except ValueError:
        return _valid(name, "--domain")


def _port(given: int | None, usual: int, is_unprivileged: bool) -> int:
    """Who cannot have the usual port for SMTP cannot have the others either."""
    if given is not None:
        return given
    return usual + 2000 if is_unprivileged else usual


def _public(given: tuple[str, ...], listening: str) -> list[str]:
    """Our addresses as others see them: those of this machine, where it listens on all of them."""
    from ..transport.addresses import public_addresses

    if given:
        return [_address(text, "--public-address") for text in given]
    found = public_addresses() if ipaddress.ip_address(listening).is_unspecified else []
    return [each for each in found if listening == "::" or ":" not in each]


def _smarthost(text: str) -> Smarthost:
    """A host and maybe a port behind it; an IPv6 address is in brackets, as in URLs."""
    from ..config.checks import is_here
    from ..config.hosts import HostOrAddress
    from ..config.kinds import Unfit, Whole

    host, at, port = text.rpartition(":")
    if not at or text.endswith("]"):
        host, port = text, "587"
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        number = Whole(1, 65535).read(int(port) if port.isdecimal() else port, Path())
        host = HostOrAddress().read(host, Path())
    except Unfit as unfit:
        complaint = f"--smarthost: wanted HOST or HOST:PORT, got {text!r}"
        raise Fault(complaint, os.EX_USAGE) from unfit
    # What does not leave this machine needs no certificate.
    return Smarthost(host, number, "none" if is_here(host) else "starttls")


def _address(text: str, option: str = "--address") -> str:
    from ..config.hosts import IpAddress
    from ..config.kinds import Unfit

    try:
        return IpAddress().read(text, Path())
    except Unfit as unfit:
        raise Fault(f"{option}: wanted {unfit.wanted}, got {text!r}", os.EX_USAGE) from unfit
