"""OpenDKIM as a second opinion on signatures, and as another's signer.  It opens no port and asks no
DNS."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from unittest import SkipTest

_RESULT: Final = re.compile(r"dkim=(\w+)[^;]*header\.s=(\w+)")
_SIGNATURE: Final = re.compile(
    rb"INSHEADER: idx=\d+ hname='DKIM-Signature' hvalue='(.*?)'\n", re.DOTALL
)


class OpenDkim:
    """Verifies messages.

    :param records: TXT records by their names, in place of the DNS.
    :param folder: for its files; there must be none of an earlier one.
    :ivar knows_ed25519: whether this build does (RFC 8463); old ones do not.
    :raise SkipTest: OpenDKIM is not installed.
    """

    def __init__(self, records: Mapping[str, str], folder: Path) -> None:
        self._program = program = _program()
        self._folder = folder
        known = subprocess.run([program, "-V"], capture_output=True, check=True, timeout=30).stdout
        self.knows_ed25519 = b"ed25519-sha256" in known
        dns = folder / "dns"
        dns.write_text("".join(f"{name} {text}\n" for name, text in records.items()))
        (folder / "conf").write_text(f"Mode v\nSyslog no\nTestDNSData file:{dns.absolute()}\n")

    def findings(self, octets: bytes) -> dict[str, str]:
        """The result for each signature (``pass``, ``fail``), by its selector."""
        (self._folder / "message").write_bytes(octets)
        done = subprocess.run(
            [self._program, "-x", "conf", "-vv", "-t", "message"],
            cwd=self._folder,
            capture_output=True,
            timeout=60,
        )
        if done.returncode:
            raise RuntimeError(f"opendkim: {done.stderr!r}")
        return {selector: result for result, selector in _RESULT.findall(done.stdout.decode())}


class OpenDkimSigner:
    """Signs messages.

    :param key: RSA, in PEM.
    :param canonical: of header and body, such as ``relaxed/simple``.
    :param folder: as for :class:`OpenDkim`.
    :raise SkipTest: OpenDKIM is not installed.
    """

    def __init__(
        self, domain: str, selector: str, key: bytes, canonical: str, folder: Path
    ) -> None:
        self._program = _program()
        self._folder = folder
        (folder / "key.pem").write_bytes(key)
        (folder / "conf").write_text(
            f"Mode s\nSyslog no\nDomain {domain}\nSelector {selector}\nRequireSafeKeys no\n"
            f"KeyFile {(folder / 'key.pem').absolute()}\nCanonicalization {canonical}\n"
        )

    def field(self, octets: bytes) -> bytes:
        """The signature of a message, to be put in front of it."""
        (self._folder / "message").write_bytes(octets)
        done = subprocess.run(
            [self._program, "-x", "conf", "-vvv", "-t", "message"],
            cwd=self._folder,
            capture_output=True,
            timeout=60,
        )
        found = _SIGNATURE.search(done.stdout)
        if done.returncode or found is None:
            raise RuntimeError(f"opendkim: {done.stdout!r} {done.stderr!r}")
        return b"DKIM-Signature: %b\r\n" % found[1].replace(b"\n", b"\r\n")


def _program() -> str:
    program = shutil.which("opendkim", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
    if program is None:
        raise SkipTest("opendkim is not installed")
    return program
