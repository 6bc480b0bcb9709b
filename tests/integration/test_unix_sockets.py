"""The control and submission sockets on a real file system and reactor.

test (blocking client in a thread) --UNIX socket--> ControlFactory / SubmitFactory
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IReactorUNIX
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from protege_mta.model.ports import Intake
from protege_mta.model.reply import TABLE, Reply
from protege_mta.transport.control import ControlFactory, Done, Row
from protege_mta.transport.submit import Submission, SubmitFactory, SubmitLimits
from protege_mta.transport.unix import Credentials, SocketTaken, claim, endpoint

ROWS = 20_000


def short_folder(test: SynchronousTestCase) -> Path:
    """A folder whose sockets' paths fit into 107 octets."""
    folder = Path(tempfile.mkdtemp(prefix="mta-"))
    test.addCleanup(shutil.rmtree, folder)
    return folder


class SocketTests(TestCase):
    timeout = 30

    async def listen(self, factory: IProtocolFactory, *, is_public: bool) -> Path:
        path = short_folder(self) / "x.sock"
        claim(path)
        port: IListeningPort = await endpoint(
            cast(IReactorUNIX, reactor), path, is_public=is_public
        ).listen(factory)
        self.addCleanup(port.stopListening)
        return path

    async def talk(self, path: Path, talk: Callable[[socket.socket], Any]) -> Any:
        def run() -> Any:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
                channel.settimeout(20)
                channel.connect(str(path))
                return talk(channel)

        return await deferToThread(run)

    async def test_many_rows(self) -> None:
        """All rows come, and while nobody reads few of them are made."""
        made = [0]
        pause = threading.Event()

        async def rows(arguments: Mapping[str, Any]) -> AsyncGenerator[Row | Done, None]:
            for number in range(ROWS):
                made[0] = number
                yield {"number": number, "padding": "x" * 200}
            yield Done({"count": ROWS})

        def talk(channel: socket.socket) -> tuple[int, list[bytes]]:
            channel.sendall(b'{"command":"rows"}\n')
            with channel.makefile("rb") as lines:
                first = lines.readline()
                made_unread = -1
                while made_unread != made[0]:  # until no more are made, though nobody reads
                    made_unread = made[0]
                    pause.wait(0.1)
                return made_unread, [first, *(lines.readline() for _ in range(ROWS))]

        path = await self.listen(ControlFactory({"rows": rows}, reactor), is_public=False)
        made_unread, lines = await self.talk(path, talk)
        self.assertLess(made_unread, ROWS // 2)
        self.assertEqual(json.loads(lines[ROWS - 1])["row"]["number"], ROWS - 1)
        self.assertEqual(json.loads(lines[ROWS]), {"done": {"count": ROWS}})

    async def test_modes(self) -> None:
        """Only we may command; everybody may submit."""
        control = await self.listen(ControlFactory({}, reactor), is_public=False)
        submit = await self.listen(ControlFactory({}, reactor), is_public=True)
        self.assertEqual(control.stat().st_mode & 0o777, 0o600)
        self.assertEqual(submit.stat().st_mode & 0o777, 0o666)

    async def test_credentials(self) -> None:
        """The kernel says who submits, and a refusal reaches a client that has written all."""
        seen: list[Credentials] = []

        def receive(who: Credentials, submission: Submission) -> Intake | Reply:
            seen.append(who)
            return TABLE["no-relaying"]

        def talk(channel: socket.socket) -> bytes:
            line = {"sender": "root", "recipients": ["b@b.test"], "size_octets": 1_000_000}
            channel.sendall(json.dumps(line).encode() + b"\n" + b"x" * 999_998 + b"\r\n")
            with channel.makefile("rb") as lines:
                return lines.readline()

        factory = SubmitFactory(
            receive,
            domain="mx.test",
            limits=SubmitLimits(message_octets=1_000_000),
            clock=reactor,
        )
        path = await self.listen(factory, is_public=True)
        answer = json.loads(await self.talk(path, talk))
        self.assertEqual(answer["code"], 550)
        self.assertEqual(seen, [Credentials(os.getpid(), os.getuid(), os.getgid())])


class ClaimTests(SynchronousTestCase):
    """A socket file is removed only where nobody answers any more."""

    def setUp(self) -> None:
        self.path = short_folder(self) / "x.sock"

    def test_left_by_a_crash(self) -> None:
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(str(self.path))
            gone.listen()
        self.assertTrue(self.path.exists())
        claim(self.path)
        self.assertFalse(self.path.exists())

    def test_in_use(self) -> None:
        with socket.socket(socket.AF_UNIX) as used:
            used.bind(str(self.path))
            used.listen()
            error = self.assertRaises(SocketTaken, claim, self.path)
            self.assertEqual(str(error), f"{self.path}: another process listens there")
            self.assertTrue(self.path.exists())

    def test_no_socket(self) -> None:
        self.path.write_bytes(b"precious")
        error = self.assertRaises(SocketTaken, claim, self.path)
        self.assertEqual(str(error), f"{self.path}: exists and is no socket")
        self.assertEqual(self.path.read_bytes(), b"precious")
