"""A service with both kinds of submission listener, a certificate that clients can check, and
accounts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from protege_mta.testing.authority import Authority

from .service import TOP, Service

TABLES: Final = """
[[listener]]
kind = "submission"
port = 0

[[listener]]
kind = "submissions"
port = 0

[tls]
certificate = "127.0.0.1.pem"
private_key = "127.0.0.1.key"

[domains."other.test"]
deliver = "maildir"
maildir = "mail/{domain}/{local_part}"
recipients = ["*"]
"""

PASSWORD: Final = "correct horse battery"


def open_doors(
    stack: ExitStack, accounts: Mapping[str, tuple[str, ...]], tables: str = "", top: str = TOP
) -> tuple[Service, Path]:
    """A running service that ends with the stack.

    :param accounts: options for ``user add`` by name; the password is :data:`PASSWORD`.
    :return: it, and the file of the authority that has issued its certificate for 127.0.0.1.
    """
    service = Service(TABLES + tables, top=top)
    stack.callback(service.close)
    authority = Authority(service.folder)
    authority.issue("127.0.0.1", "mx.local.test", "localhost")
    for name, options in accounts.items():
        add_account(service, name, *options)
    service.start()
    return service, authority.ca_file


def add_account(service: Service, name: str, *options: str, password: str = PASSWORD) -> None:
    """By the command, as an operator does it.

    :raise RuntimeError: what it says against it.
    """
    added = service.cli(
        "user", "add", name, "--password-stdin", *options, stdin=password.encode() + b"\n"
    )
    if added.returncode:
        raise RuntimeError(added.stderr.decode())
