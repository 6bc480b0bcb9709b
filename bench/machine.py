"""The machine we measure on: what it has, what it lacks, what may be raised."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Final

import click

_PACKAGES: Final = {
    "postfix": "postfix",
    "smtp-source": "postfix",
    "smtp-sink": "postfix",
    "opendkim": "opendkim",
    "nsd": "nsd",
    "twistd": "",
    "protege-mta": "",
}
"""Programs by the Debian package that has them; those without one come with this program."""


def program(name: str) -> str | None:
    """Where a program is: beside our Python, in ``PATH``, or where Debian hides daemons."""
    beside = str(Path(sys.executable).parent)
    path = os.pathsep.join((beside, os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    return shutil.which(name, path=path)


def require(*names: str, root: bool = False) -> None:
    """Make sure of programs, and of being root, before anything is started.

    :raise click.ClickException: with all that is missing.
    """
    missing = [name for name in names if program(name) is None]
    packages = sorted({_PACKAGES[name] for name in missing} - {""})
    complaints = [f"{name} is not installed" for name in missing]
    if packages:
        complaints.append(f"on Debian: apt-get install {' '.join(packages)}   (or: make peers)")
    if any(not _PACKAGES[name] for name in missing):
        complaints.append("protege-mta itself: pip install --editable .   (or: make run)")
    if root and os.geteuid() != 0:
        complaints.append("Postfix has to be started by root: run this as root")
    if complaints:
        raise click.ClickException("\n  ".join(["cannot measure:", *complaints]))


def run_path(name: str) -> str:
    """Where a program is that :func:`require` has made sure of."""
    path = program(name)
    if path is None:
        raise RuntimeError(f"{name} was not asked for")
    return path


def raise_descriptors(wanted: int) -> None:
    """Let this process, and those that it starts, have so many descriptors.

    :raise click.ClickException: we may not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (ValueError, OSError) as error:
        raise click.ClickException(
            f"cannot have {wanted} open files, {hard} at most ({error}); see: ulimit -n -H"
        ) from error


def filesystem(folder: Path) -> str:
    """The kind that a folder lies on, such as ``ext4``."""
    best, kind = "", "unknown"
    path = str(folder.resolve())
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, found, *_ = line.split()
        is_above = path == mount or path.startswith(mount.rstrip("/") + "/")
        if is_above and len(mount) >= len(best):
            best, kind = mount, found
    return kind


def need_space(folder: Path, octets: int) -> None:
    """:raise click.ClickException: the disk has less free."""
    free = shutil.disk_usage(folder).free
    if free < octets:
        raise click.ClickException(
            f"{folder}: {free / 1e9:.1f} GB free, {octets / 1e9:.1f} GB are needed;"
            " name another disk with --folder"
        )


def facts(folder: Path) -> dict[str, object]:
    """What a reader of results has to know of the machine."""
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "memory_octets": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "filesystem": filesystem(folder),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for(port: int, seconds: float = 30.0, address: str = "127.0.0.1") -> None:
    """Wait until an SMTP server greets.

    :raise TimeoutError: none does in time.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with socket.create_connection((address, port), seconds) as channel:
                if channel.recv(3) == b"220":
                    return
        except OSError:
            pass  # not yet
        time.sleep(0.002)
    raise TimeoutError(f"nobody greets on {address} port {port} within {seconds:.0f} s")
