"""The one place through which commands reach the queue.

A running service is spoken to over ``control.sock``; where none listens, the spool is opened here
instead, under its lock.  Either way there is a :class:`Connection`.

The protocol: one JSON object a line.  We send ``{"command", "arguments"}``; the service sends
``{"row": {...}}`` any number of times, then ``{"done": {...}}`` or ``{"error", "kind"}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Protocol

from ..config.sockets import address_of
from .faults import EXIT_CODES, Fault
from .options import glimpse_from, settings_from

Row = dict[str, Any]
Answer = Generator[Row, None, Row]
"""Yields rows, and returns the summary that ends them."""


class Connection(Protocol):
    """Somebody who knows the queue."""

    def request(self, command: str, **arguments: object) -> Answer:
        """:raise Fault: it could not be done."""


class Online:
    """A running service."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def request(self, command: str, **arguments: object) -> Answer:
        given = {name: value for name, value in arguments.items() if value is not None}
        line = json.dumps({"command": command, "arguments": given})
        try:
            self._channel.sendall(line.encode("utf-8") + b"\n")
            with self._channel.makefile("rb") as lines:
                return (yield from _answer(lines))
        except (ConnectionError, ValueError) as error:
            raise Fault(f"the service went away: {error}", os.EX_TEMPFAIL) from error


def _answer(lines: Iterator[bytes]) -> Answer:
    for line in lines:
        said = json.loads(line)
        if "row" in said:
            yield said["row"]
        elif "done" in said:
            done: Row = said["done"]
            return done
        else:
            code = EXIT_CODES.get(said.get("kind", ""), os.EX_SOFTWARE)
            raise Fault(str(said.get("error", "the service gave no reason")), code)
    raise ConnectionError("it closed the connection before its answer was complete")


@contextlib.contextmanager
def connected(config: Path | None) -> Iterator[Connection]:
    """The service where it runs, else its spool.

    :raise Fault: there is neither.
    """
    path = glimpse_from(config).control_socket
    channel = _reached(path)
    if channel is not None:
        with channel:
            yield Online(channel)
        return
    from .offline import offline_desk

    with offline_desk(settings_from(config)) as desk:
        yield desk


@contextlib.contextmanager
def running(config: Path | None) -> Iterator[Online | None]:
    """The service where it runs, else None."""
    channel = _reached(glimpse_from(config).control_socket)
    if channel is None:
        yield None
        return
    with channel:
        yield Online(channel)


def _reached(path: Path) -> socket.socket | None:
    """A connection to the socket; None where nobody listens."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        channel.connect(address_of(path))
    except (FileNotFoundError, ConnectionRefusedError):
        channel.close()
        return None
    except OSError as error:
        channel.close()
        raise Fault(
            f"{path}: {error.strerror or error}",
            os.EX_NOPERM,
            remedy="The queue belongs to the user that the service runs as; root may look too.",
        ) from error
    return channel


def rows_of(answer: Answer) -> tuple[list[Row], Row]:
    """All rows and the summary."""
    rows = []
    while True:
        try:
            rows.append(next(answer))
        except StopIteration as end:
            return rows, end.value or {}
