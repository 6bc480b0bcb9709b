"""The console script in this process, and a scripted service for it to talk to."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import attrs

from protege_mta.cli import main
from protege_mta.config.sockets import address_of


@attrs.frozen
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str
    octets: bytes

    def json(self) -> Any:
        return json.loads(self.out)


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def run(
    *arguments: str,
    stdin: bytes = b"",
    is_terminal: bool = False,
    program: str = "protege-mta",
    environment: dict[str, str] | None = None,
) -> Ran:
    """Run a command to its end."""
    stream = _Terminal if is_terminal else io.TextIOWrapper
    out, err = stream(io.BytesIO(), "utf-8"), stream(io.BytesIO(), "utf-8")
    outside = {k: v for k, v in os.environ.items() if k != "PROTEGE_MTA_CONFIG"}
    outside |= {"TERM": "xterm", "COLUMNS": "200", **(environment or {})}
    with (
        patch.object(sys, "stdout", out),
        patch.object(sys, "stderr", err),
        patch.object(sys, "stdin", stream(io.BytesIO(stdin), "utf-8")),
        patch.object(sys, "argv", [f"/usr/sbin/{program}", *arguments]),
        patch.dict(os.environ, outside, clear=True),
    ):
        code = main()
        out.flush()
        err.flush()
    assert isinstance(out.buffer, io.BytesIO)
    assert isinstance(err.buffer, io.BytesIO)
    octets = out.buffer.getvalue()
    return Ran(code, octets.decode("utf-8", "replace"), err.buffer.getvalue().decode(), octets)


@attrs.define
class Service:
    """What the scripted service was asked."""

    heard: list[Any] = attrs.field(factory=list)


@contextmanager
def service(path: Path, serve: Callable[[io.BufferedRWPair, Service], None]) -> Iterator[Service]:
    """Listen at ``path`` and let ``serve`` have each connection, one after the other."""
    state = Service()
    path.parent.mkdir(parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address_of(path))
    listener.listen()

    def accept() -> None:
        while True:
            channel, _ = listener.accept()
            with channel, channel.makefile("rwb") as stream:
                if not stream.peek(1):
                    return  # the farewell from below
                serve(stream, state)
                stream.flush()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield state
    finally:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as farewell:
            farewell.connect(address_of(path))
        thread.join(10)
        listener.close()
        path.unlink()


def control(
    answers: dict[str, list[Any]],
) -> Callable[[io.BufferedRWPair, Service], None]:
    """Serve the control protocol: for each command the lines to answer with, else hang up."""

    def serve(stream: io.BufferedRWPair, state: Service) -> None:
        while line := stream.readline():
            asked = json.loads(line)
            state.heard.append(asked)
            if asked["command"] not in answers:
                return
            stream.writelines(
                json.dumps(said).encode() + b"\n" for said in answers[asked["command"]]
            )
            stream.flush()

    return serve


def submission(answer: bytes) -> Callable[[io.BufferedRWPair, Service], None]:
    """Serve the submit protocol once."""

    def serve(stream: io.BufferedRWPair, state: Service) -> None:
        envelope = json.loads(stream.readline())
        state.heard.append((envelope, stream.read(envelope["size_octets"])))
        stream.write(answer)

    return serve
