"""A relay server, a gateway, and the process that plays a relay server's agents."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal, Self

import attrs

from . import configurations
from .agents import Plan, identity, pem
from .machine import free_port
from .servers import Ours, end

DOMAIN: Final = "agents.test"
NUMBERED: Final = "r"
"""The local-part that smtp-source puts numbers before."""

PACED: Final = "p"
"""What stands before the numbers of a paced load."""

READY_S: Final = 60.0


def identities(agents: int, names: int) -> str:
    """An identities file, in which so many numbers are spread evenly as the agents' aliases.

    Agent ``n`` has the names whose number leaves ``n`` when divided by how many agents there are.
    """
    entries = []
    for number in range(agents):
        mine = range(number, names + 1, agents)
        aliases = [alias for n in mine for alias in (f"{n}{NUMBERED}", f"{PACED}{n}")]
        quoted = ", ".join(f'"{one}"' for one in aliases)
        entries.append(f'[[identity]]\nkey = "{identity(number)}"\naliases = [{quoted}]\n')
    return "".join(entries)


class RelayServer(Ours):
    """Takes mail for agents by SMTP.

    :param names: so many numbers are aliases of its agents.
    :ivar http_port: where the agents come to.
    """

    def __init__(self, folder: Path, *, agents: int, names: int, sink_port: int) -> None:
        self.http_port = free_port()
        super().__init__(
            folder, configurations.RELAY_SERVER, http_port=self.http_port, sink_port=sink_port
        )
        self.name = "relay server"
        (folder / "identities.toml").write_text(identities(agents, names))
        (folder / "attest.pem").write_bytes(pem(agents))  # a key that no agent has

    def start(self) -> None:
        super().start()
        give_up_at = time.monotonic() + READY_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.http_port), READY_S).close()
                return
            except ConnectionRefusedError:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.002)


class Gateway(Ours):
    """The gateway of agent 0."""

    def __init__(self, folder: Path, relay: RelayServer) -> None:
        super().__init__(folder, configurations.GATEWAY, relay_port=relay.http_port)
        self.name = "gateway"
        self.address = f"{identity(0)}@{DOMAIN}"
        self._mail = folder / "mail" / DOMAIN / identity(0) / "new"
        (folder / "agent.pem").write_bytes(pem(0))

    def count(self) -> int:
        """Messages in the agent's Maildir."""
        return len(os.listdir(self._mail)) if self._mail.exists() else 0

    def wait(self, count: int, limit_s: float) -> None:
        """Wait until it has so many.  :raise TimeoutError: they do not come in time."""
        give_up_at = time.monotonic() + limit_s
        while (found := self.count()) < count:
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"{found} of {count} messages arrived in {limit_s:.0f} s")
            time.sleep(0.005)


@attrs.define
class Told:
    """Moments by CLOCK_MONOTONIC, the first one of each: of logins by the agent's number, of mail by
    the local-part of its recipient.

    :ivar surplus: messages that came once more.
    """

    login: dict[str, float] = attrs.field(factory=dict)
    mail: dict[str, float] = attrs.field(factory=dict)
    surplus: int = 0

    def read(self, lines: Iterable[str]) -> None:
        for line in lines:
            at, what, whom = line.split()
            if what == "login":
                self.login[whom] = float(at)
            elif whom in self.mail:
                self.surplus += 1
            else:
                self.mail[whom] = float(at)


class Agents:
    """A process that plays agents: :mod:`.agents`; there from the first on, and gone at the end.

    :param folder: for what it tells.
    :ivar told: up to the last :meth:`look`.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.told = Told()
        self._count = plan.agents
        self._path = folder / f"agents-{time.monotonic_ns()}"
        self._rest = b""
        with self._path.open("wb") as told:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.agents", json.dumps(attrs.asdict(plan))],
                cwd=Path(__file__).parents[1],
                stdin=subprocess.PIPE,
                stdout=told,
                stderr=subprocess.PIPE,
            )
        self._told = self._path.open("rb")

    def __enter__(self) -> Self:
        """:raise RuntimeError: it cannot be started."""
        try:
            give_up_at = time.monotonic() + READY_S
            while not self._told.readline():
                self._check(give_up_at, "it is not ready")
                time.sleep(0.01)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def go(self) -> float:
        """Let them connect.  :return: the moment."""
        assert self._process.stdin is not None
        now = time.monotonic()
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()
        return now

    def connect(self, limit_s: float = READY_S) -> None:
        """Let them connect, and wait until all have logged in."""
        self.go()
        self.wait("login", self._count, limit_s)

    def look(self) -> None:
        """Read on in what it tells."""
        octets = self._rest + self._told.read()
        whole, _, self._rest = octets.rpartition(b"\n")
        self.told.read(whole.decode("ascii").splitlines())

    def wait(self, what: Literal["login", "mail"], count: int, limit_s: float) -> float:
        """Wait until so many have logged in, or so many messages have come.

        :return: the moment of the last one.
        :raise RuntimeError: they do not, in time; or an agent was turned away.
        """
        give_up_at = time.monotonic() + limit_s
        found = self.told.login if what == "login" else self.told.mail
        self.look()
        while len(found) < count:
            self._check(give_up_at, f"{what}: {len(found)} of {count}")
            time.sleep(0.02)
            self.look()
        return max(found.values())

    def _check(self, give_up_at: float, why: str) -> None:
        assert self._process.stderr is not None
        if self._process.poll() is not None:
            said = self._process.stderr.read().decode().strip()
            raise RuntimeError(f"the agents have ended: {said}")
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"the agents: {why} in time")

    def stop(self) -> None:
        with self._process:  # closes its pipes
            end(self._process)
        self._told.close()
