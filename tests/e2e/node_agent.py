"""An agent of somebody else's: ``agent.cjs`` under Node, spoken to in lines of JSON."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from unittest import SkipTest

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protege_mta.model.identity import Identity, identity_of

from .service import WAIT_S, needs, until

SCRIPT: Final = Path(__file__).with_name("agent.cjs")
MODULES: Final = Path("/usr/share/nodejs")
"""Where Debian's packages of Node's libraries are."""


class Key:
    """A new agent's key.

    :ivar path: the private key, PEM, as a Protege project has it.
    """

    def __init__(self, folder: Path) -> None:
        key = Ed25519PrivateKey.generate()
        handle, name = tempfile.mkstemp(suffix=".key", dir=folder)
        self.path = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
        self.identity: Identity = identity_of(key.public_key().public_bytes_raw())


class NodeAgent:
    """A connection to ``/ws``.

    :param role: the session's; ``inbound`` or ``outbound``.
    :raise SkipTest: Node or its WebSocket library is not installed.
    """

    def __init__(self, url: str, key: Key, role: str = "inbound") -> None:
        node = needs("node", "nodejs")
        if not (MODULES / "ws").is_dir():
            raise SkipTest("Node's library ws is not installed (Debian package node-ws)")
        self.key = key
        self._process = subprocess.Popen(
            [node, str(SCRIPT), url, str(key.path), role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "NODE_PATH": str(MODULES)},
            text=True,
        )
        self.told: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.told.append(json.loads(line))

    def _order(self, **order: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    # --- what it does ----------------------------------------------------------------------------

    def send(self, id: str, sender: str, recipient: str, content: bytes) -> None:
        text = base64.b64encode(content).decode("ascii")
        self._order(do="send", id=id, **{"from": sender}, to=recipient, content=text)

    def say(self, text: str) -> None:
        """A text message, whatever the protocol says of it."""
        self._order(do="text", text=text)

    def throw(self, octets: bytes) -> None:
        """A binary message likewise."""
        self._order(do="raw", hex=octets.hex())

    def close(self) -> None:
        """End the process; harmless when done before."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(WAIT_S)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def stop_reading(self) -> None:
        """As a frozen machine: the process is stopped, its sockets stay."""
        self._process.send_signal(19)

    def go_on(self) -> None:
        self._process.send_signal(18)

    # --- what it has seen ------------------------------------------------------------------------

    def wait_for(self, kind: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """What it tells of this kind and so, now or later.

        :raise AssertionError: nothing came in time.
        """

        def found() -> dict[str, Any] | None:
            return next((one for one in self.told if one["is"] == kind and wanted(one)), None)

        try:
            return until(found, f"{kind} at the agent")
        except AssertionError as error:
            told = "\n".join(str(one)[:500] for one in self.told[-20:])
            raise AssertionError(f"{error}; it told:\n{told}") from error

    def control(self, type: str) -> dict[str, Any]:
        """The first control message of this type."""
        one = self.wait_for("control", lambda one: one["message"]["type"] == type)
        message: dict[str, Any] = one["message"]
        return message

    def logged_in(self) -> None:
        """Wait for ``auth_ok``."""
        self.control("auth_ok")

    def result(self, id: str) -> dict[str, Any]:
        """The ``relay_delivery_result`` of one of its streams."""
        one = self.wait_for(
            "control",
            lambda one: (
                one["message"].get("streamId") == id
                and one["message"]["type"] == "relay_delivery_result"
            ),
        )
        message: dict[str, Any] = one["message"]
        return message

    def mail(self, count: int = 1) -> list[tuple[dict[str, Any], bytes]]:
        """Its mail, once there is so much: the stream's start and the content."""
        until(
            lambda: sum(one["is"] == "mail" for one in self.told) >= count,
            f"{count} messages at the agent",
        )
        return [
            (one["start"], base64.b64decode(one["content"]))
            for one in self.told
            if one["is"] == "mail"
        ]

    def ended(self) -> tuple[int, str]:
        """Code and reason, once the relay has closed."""
        one = self.wait_for("closed", lambda one: True)
        return one["code"], one["reason"]
