"""The real program on a disk that fills up, goes read-only, or fails to write, sync or read.

    senders --SMTP--> protege-mta run --> state on a small ext4 of its own (loop device)
                                     ^
                 strace makes chosen system calls on chosen files fail with EIO

Whatever the disk does: senders hear 4yz, health is red, the log says so as ``critical``, what was
acknowledged is there when the cause is gone, and what was refused is not, but where the disk has it
after all.  Mounting and tracing want root.
"""

from __future__ import annotations

import json
import os
import smtplib
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from ..e2e.service import TOP, Service, needs, until
from .plain import without_writing_through

MIB: Final = 2**20

TABLES: Final = """\
[outbound]
route = "smarthost"
smarthost = { host = "127.0.0.1", port = 9, tls = "none" }
"""
"""Nobody listens there: what is taken in stays."""


def run(*command: str) -> None:
    """:raise SkipTest: it is not permitted here."""
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        raise SkipTest(f"{' '.join(command)}: {found.stderr.strip()}")


class SmallDisk:
    """An ext4 in a file, mounted on a folder."""

    def __init__(self, folder: Path, octets: int) -> None:
        if os.geteuid():
            raise SkipTest("only root may mount a disk")
        self.folder = folder
        handle, name = tempfile.mkstemp(prefix="disk-")
        self._image = Path(name)
        os.ftruncate(handle, octets)
        os.close(handle)
        folder.mkdir(0o700)
        run(needs("mkfs.ext4", "e2fsprogs"), "-q", "-m", "0", name)
        run("mount", "-o", "loop,errors=remount-ro", name, str(folder))
        self._filler = folder / "filler"

    def close(self) -> None:
        """What is on it is gone with it."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=False)
        self._image.unlink()

    def fill(self, leave: int) -> None:
        """Leave so many octets free, and no more."""
        room = os.statvfs(self.folder)
        wanted = room.f_bavail * room.f_frsize - leave
        chunk, done = MIB, 0
        with self._filler.open("ab") as filler:
            while done < wanted and chunk >= 4096:
                try:
                    os.posix_fallocate(filler.fileno(), done, chunk)
                    done += chunk
                except OSError:  # the file system needs some for itself
                    chunk //= 2

    def empty(self) -> None:
        self._filler.unlink()

    def break_down(self) -> None:
        """Tell the kernel that it has found an error, whereupon it allows nothing but reading."""
        device = os.stat(self.folder).st_dev
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        try:
            Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("a test")
        except OSError as error:
            raise SkipTest(f"ext4 cannot be told to fail: {error}") from error


class DiskFaultTests(SynchronousTestCase):
    timeout = 300

    def begin(
        self,
        octets: int = 400 * MIB,
        free_octets: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        top = TOP.replace("free_octets = 0", f"free_octets = {free_octets}")
        self.service = Service(TABLES, top=top, environment=environment)
        self.sent: list[str] = []
        self.addCleanup(self.service.close)
        self.disk = SmallDisk(self.service.folder / "state", octets)
        self.addCleanup(self._end)
        self.service.start()

    def _end(self) -> None:
        self.service.kill()
        self.disk.close()

    def send(self, octets: int = 2000) -> int:
        """Hand in a message.  :return: 250, or the reply's code where it was refused."""
        name = f"r{len(self.sent)}@example.test"
        content = b"Subject: x\r\n\r\n" + b"0123456789abcdef\r\n" * (octets // 18)
        port = self.service.port("relay")
        with smtplib.SMTP("127.0.0.1", port, "client.test", timeout=30) as client:
            try:
                client.sendmail("sender@example.test", name, content)
            except smtplib.SMTPResponseException as refused:
                return refused.smtp_code
            except smtplib.SMTPRecipientsRefused as refused_all:
                return refused_all.recipients[name][0]
        self.sent.append(name)
        return 250

    def is_healthy(self) -> bool:
        url = f"http://127.0.0.1:{self.service.port('http')}/healthz"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
            return False

    def alarms(self) -> list[str]:
        return [line for line in self.service.log().splitlines() if "critical" in line]

    def check_alarm(self, text: str) -> None:
        until(lambda: not self.is_healthy(), "health to turn red")
        self.assertTrue([line for line in self.alarms() if text in line], self.service.log_tail())

    def queue(self) -> dict[str, str]:
        """The ids of what is queued, by recipient."""
        listed = json.loads(self.service.cli("queue", "list", "--json").stdout)
        return {one["recipients"][0]["address"]: one["id"] for one in listed}

    def check_account(self, most_more: int = 0) -> None:
        """Everything acknowledged is in the queue, and ``most_more`` others at most."""
        found = list(self.queue())
        self.assertEqual(set(self.sent) - set(found), set())
        self.assertLessEqual(len(found), len(self.sent) + most_more)
        status = json.loads(self.service.cli("status", "--json").stdout)
        self.assertEqual(status["spool"]["corrupt"], 0)
        told = {one["recipient"] for one in self.service.events() if one["event"] == "received"}
        self.assertEqual(told, set(found))

    def inject(self, *calls: str) -> subprocess.Popen[bytes]:
        """From now on these system calls on segments fail with EIO, until that process is ended."""
        strace = needs("strace")
        fds = Path(f"/proc/{self.service.pid}/fd")
        opened = {os.readlink(fd) for fd in fds.iterdir() if fd.exists()}
        paths = {path for path in opened if path.endswith((".fresh", ".kept"))}
        paths |= {str(path) for path in self.disk.folder.rglob("*.fresh")}
        command = [strace, "-f", "-p", str(self.service.pid), "-o", "/dev/null"]
        command += ["-e", f"trace={','.join(calls)}", "-e", f"inject={','.join(calls)}:error=EIO"]
        for path in sorted(paths):
            command += ["-P", path]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
        self.addCleanup(self._release, tracer)
        status = Path(f"/proc/{self.service.pid}/status")

        def is_traced() -> bool:
            if tracer.poll() is not None and tracer.stderr:
                raise SkipTest(f"strace may not: {tracer.stderr.read().decode()}")
            return "TracerPid:\t0\n" not in status.read_text()

        until(is_traced, "strace to attach")
        return tracer

    def _release(self, tracer: subprocess.Popen[bytes]) -> None:
        if tracer.poll() is None:
            tracer.terminate()
            tracer.wait()
        if tracer.stderr:
            tracer.stderr.close()

    # --- a disk that is full ---------------------------------------------------------------------

    def test_floor(self) -> None:
        """Below the floor 452; above it again all goes on, without a restart."""
        self.begin(free_octets=64 * MIB)
        self.assertEqual(self.send(), 250)
        self.disk.fill(32 * MIB)
        until(lambda: self.send() == 452, "a refusal")
        self.check_alarm("so little is free")
        self.disk.empty()
        until(lambda: self.send() == 250, "a welcome")
        until(self.is_healthy, "health")
        self.service.restart()
        self.check_account()

    def test_full(self) -> None:
        """Not an octet is left: 452 to large and small, nothing that was taken is lost, and what
        ends is noted."""
        self.begin()
        self.assertEqual(self.send(), 250)
        self.disk.fill(0)
        self.assertEqual(self.send(2 * MIB), 452)
        until(lambda: self.send(60_000) == 452, "a refusal")
        self.check_alarm("so little is free")
        removed = self.service.cli("queue", "remove", "--yes", self.queue()[self.sent.pop()])
        self.assertEqual(removed.returncode, 0, removed.stderr)
        self.disk.empty()
        until(lambda: self.send() == 250, "a welcome")
        until(self.is_healthy, "health")
        self.service.restart()
        self.assertEqual(self.send(), 250)
        self.assertEqual(sorted(self.queue()), sorted(self.sent))

    # --- a disk that breaks its word -------------------------------------------------------------

    def check_stopped(self) -> None:
        """Nothing more is taken, not even once the cause is gone; a restart goes on."""
        self.assertEqual(self.send(), 451)
        self.assertEqual(self.send(), 451)
        self.check_alarm("has stopped")

    def test_sync(self) -> None:
        """A sync that fails is never repeated as if nothing had happened.

        Writing through is taken away, so that the octets are there when it comes to the sync.
        """
        self.begin(environment=without_writing_through(Path(self.mktemp())))
        self.assertEqual(self.send(), 250)
        tracer = self.inject("fdatasync")
        self.check_stopped()
        self._release(tracer)
        self.assertEqual(self.send(), 451)
        self.service.restart()
        self.assertEqual(self.send(), 250)
        self.check_account(most_more=1)

    def test_write(self) -> None:
        """A write that fails is the last one.  :meth:`test_read_only` has one that the kernel does
        for us; here we do it."""
        self.begin(environment=without_writing_through(Path(self.mktemp())))
        self.assertEqual(self.send(), 250)
        tracer = self.inject("pwrite64", "pwritev", "pwritev2")
        self.check_stopped()
        self._release(tracer)
        self.service.restart()
        self.assertEqual(self.send(), 250)
        self.check_account()

    def test_read(self) -> None:
        """What cannot be read is no reason to lose it: it is there when the disk reads again."""
        self.begin()
        self.assertEqual(self.send(), 250)
        self.service.restart()
        tracer = self.inject("pread64")
        self.service.cli("queue", "retry", "--all")
        until(lambda: self.alarms(), "an alarm")
        self.assertEqual(self.send(), 250)
        self._release(tracer)
        self.service.restart()
        self.check_account()

    def test_read_only(self) -> None:
        """The kernel allows nothing but reading any more."""
        self.begin()
        self.assertEqual(self.send(), 250)
        self.disk.break_down()
        self.check_stopped()
        self.service.kill()
        run("umount", str(self.disk.folder))
        subprocess.run(["e2fsck", "-p", str(self.disk._image)], check=False, capture_output=True)
        run("mount", "-o", "loop", str(self.disk._image), str(self.disk.folder))
        self.service.start()
        self.assertEqual(self.send(), 250)
        self.check_account(most_more=1)
