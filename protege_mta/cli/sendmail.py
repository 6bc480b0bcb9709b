"""``sendmail``: hand a message to the running service, as every program expects to.

The service takes it over ``submit.sock``: one JSON line with the envelope, then the message's
octets; it answers with one JSON line, and knows who we are from the socket itself.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
import sys
import time
from pathlib import Path
from typing import Any, Final

import attrs
import click

from ..config.sockets import address_of
from ..model.address import NULL, Address, parse
from .faults import Fault
from .options import PLACES, find_config
from .sendmail_options import Asked, NoSuchOption, parsed
from .terminal import write

DEFAULT_RUN_DIR: Final = Path("/run/protege-mta")
"""Where the packaged service has its sockets: for users who may not read its configuration."""


class _Raw(click.Command):
    """Takes its arguments as they are, for sendmail's options are not click's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.params = {"arguments": list(args)}
        return []


@attrs.frozen
class Place:
    """What the configuration says to a sender of mail.

    :ivar hostname: the domain of addresses without one.
    """

    socket: Path
    hostname: str


@click.command(cls=_Raw, add_help_option=False)
@click.pass_context
def command(context: click.Context, arguments: list[str]) -> int:
    """Send a message from stdin: [-f ADDRESS] [-t] [-i] [--] RECIPIENT...

    Compatible with sendmail(1).  Exit status 75 where the service is down: try again later.
    """
    try:
        asked = parsed(arguments)
    except NoSuchOption as error:
        raise Fault(f"sendmail: {error}", os.EX_USAGE) from error
    if asked.is_help:
        write(f"{context.command.help}\n\nSee docs/reference/commands.md for the options.")
        return os.EX_OK
    given = Path(asked.config) if asked.config else context.find_root().obj
    return send(asked, sys.stdin.buffer.read(), _place(given))


def send(asked: Asked, text: bytes, place: Place) -> int:
    """Make a message of what was typed, and submit it.

    :raise Fault: nothing was sent.
    """
    from .sendmail_message import BadMessage, complete, recipients_in, with_crlf

    sender = _sender(asked, place.hostname)
    try:
        message = with_crlf(text, ends_at_dot=not asked.ignores_dots)
        found = recipients_in(message) if asked.takes_recipients else []
        recipients = [_qualified(each, place.hostname) for each in [*asked.recipients, *found]]
        if not recipients:
            raise Fault("sendmail: no recipients", os.EX_USAGE)
        author = _author(asked, sender, place.hostname)
        message = complete(message, author=author, hostname=place.hostname, now=time.time())
    except BadMessage as error:
        raise Fault(f"sendmail: {error}", os.EX_DATAERR) from error
    envelope = {
        "sender": sender,
        "recipients": list(dict.fromkeys(recipients)),
        "size_octets": len(message),
        "notify": asked.notify,
        "ret": asked.ret,
        "envid": asked.envid,
        "body": "7BIT" if message.isascii() else "8BITMIME",
    }
    said = _submit(place.socket, envelope, message)
    if asked.is_verbose:
        write(f"queued as {said['id']}")
    return os.EX_OK


def _place(given: Path | None) -> Place:
    """Where the service is.

    Called by the name of ``sendmail``, as by cron or a web application, it looks at nothing in the
    current folder: whoever may write there could have our mail.
    """
    from ..config.embedded import embedded
    from ..config.environment import data_folder
    from ..config.source import glimpse
    from ..config.toml import ConfigError

    is_called_sendmail = Path(sys.argv[0]).name == "sendmail"
    path = find_config(given, PLACES[1:] if is_called_sendmail else PLACES)
    try:
        if path is not None and os.access(path, os.R_OK):
            settings = glimpse(path)
        elif path is None and data_folder(os.environ).is_dir() and not is_called_sendmail:
            settings = embedded(data_folder(os.environ))
        else:
            return Place(DEFAULT_RUN_DIR / "submit.sock", socket.getfqdn().lower())
    except ConfigError as error:
        raise Fault(str(error), os.EX_CONFIG) from error
    return Place(settings.submit_socket, settings.hostname)


def _submit(path: Path, envelope: dict[str, Any], message: bytes) -> dict[str, Any]:
    """:raise Fault: with the exit status that says whether to come back."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.connect(address_of(path))
            said = _exchange(channel, json.dumps(envelope).encode("ascii") + b"\n" + message)
    except (OSError, ValueError) as error:
        # Whatever stands between us and the service may be gone in a while.
        raise Fault(
            f"sendmail: the service cannot be reached at {path}: {error}", os.EX_TEMPFAIL
        ) from error
    if "id" not in said:
        code = int(said.get("code") or 451)
        status = os.EX_TEMPFAIL if code // 100 == 4 else os.EX_UNAVAILABLE
        raise Fault(f"sendmail: {said.get('error', 'refused')}", status)
    return said


def _exchange(channel: socket.socket, octets: bytes) -> dict[str, Any]:
    try:
        channel.sendall(octets)
    except BrokenPipeError:
        # It refused early and closed its side; what it said is still there to be read.
        channel.shutdown(socket.SHUT_WR)
    with channel.makefile("rb") as answer:
        line = answer.readline()
    said = json.loads(line) if line else {}
    if not isinstance(said, dict) or not said:
        raise ConnectionError("it hung up without an answer")
    return said


def _user() -> tuple[str, str]:
    """Login name and full name."""
    try:
        account = pwd.getpwuid(os.getuid())
    except KeyError:  # a user id without an account, as in containers
        return f"uid{os.getuid()}", ""
    return account.pw_name, account.pw_gecos.partition(",")[0]


def _sender(asked: Asked, hostname: str) -> Address:
    if asked.sender is None:
        return _qualified(_user()[0], hostname)
    text = asked.sender.strip()
    return NULL if text in ("", "<>") else _qualified(text, hostname)


def _author(asked: Asked, sender: Address, hostname: str) -> tuple[str, str]:
    """Name and address for a From field that is missing."""
    login, name = _user()
    return asked.full_name or name, sender or _qualified(login, hostname)


def _qualified(text: str, hostname: str) -> Address:
    """An address, with our host name where it has no domain."""
    bare = text.strip().removeprefix("<").removesuffix(">")
    whole = bare if "@" in bare else f"{bare}@{hostname}"
    address = parse(whole, is_smtputf8=True)
    if address is None:
        raise Fault(f"sendmail: {text!r} is no address", os.EX_USAGE)
    return address
