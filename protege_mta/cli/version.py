"""``version``: what this is made of."""

from __future__ import annotations

import platform

import click

from .. import __version__
from .options import json_option
from .terminal import write_facts, write_json


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Print our version, and those of Python, Twisted and OpenSSL."""
    from cryptography.hazmat.backends.openssl import backend

    import twisted

    versions = {
        "protege-mta": __version__,
        "python": platform.python_version(),
        "twisted": twisted.__version__,
        "openssl": backend.openssl_version_text(),
    }
    if as_json:
        write_json(versions)
    else:
        write_facts(versions.items())
