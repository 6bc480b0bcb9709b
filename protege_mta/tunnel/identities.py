"""Whose a key, an alias or an address is, and the file that says so, followed while it changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Final

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.address import Address, domain_of, local_part_of
from ..model.domain import ascii_domain
from ..model.identity import Agent, Identity, parse_identity
from ..model.ports import InThread

LOOK_S: Final = 0.3
"""How often the file is looked at.  It is read once two looks have found the same, for it may be
under an editor's hands; so a change takes effect within a second."""


@attrs.frozen(kw_only=True)
class IdentitySettings:
    """:ivar takes_any: whether keys that nobody has listed may log in.
    :ivar domains: the tunnel domains, as A-labels in lower case.
    :ivar send_per_hour: for agents that nothing else is said of; 0 = unlimited.
    """

    takes_any: bool = False
    domains: tuple[str, ...] = ()
    send_per_hour: int = 0


class Identities:
    """:class:`~..model.ports.Agents` in memory.

    :param seen: who has logged in before.
    :param settings: those in force; may be replaced.
    """

    def __init__(self, seen: Container[Identity], settings: IdentitySettings) -> None:
        self._seen = seen
        self.settings = settings
        self._listed: dict[Identity, Agent] = {}
        self._aliases: dict[str, Identity] = {}

    def use(self, agents: Sequence[Agent]) -> None:
        """Have these in the place of all that were listed."""
        self._listed = {agent.identity: agent for agent in agents}
        self._aliases = {
            alias: agent.identity
            for agent in agents
            if not agent.is_revoked
            for alias in agent.aliases
        }

    @property
    def listed(self) -> int:
        """How many are listed and not revoked."""
        return sum(not agent.is_revoked for agent in self._listed.values())

    def get(self, identity: Identity) -> Agent | None:
        agent = self._listed.get(identity)
        if agent is None:
            if not self.settings.takes_any:
                return None
            return Agent(identity, send_per_hour=self.settings.send_per_hour)
        if agent.is_revoked:
            return None
        if agent.send_per_hour is None:
            return attrs.evolve(agent, send_per_hour=self.settings.send_per_hour)
        return agent

    def at(self, address: Address) -> Identity | None:
        domain = ascii_domain(domain_of(address))
        local_part = local_part_of(address)
        # What str.lower and str.strip would make a key of is another mailbox.
        if domain not in self.settings.domains or not local_part.isascii():
            return None
        lower = local_part.lower()
        identity = parse_identity(lower)
        if identity == lower and self.get(identity) is not None:
            return identity
        return self._aliases.get(f"{lower}@{domain}") or self._aliases.get(lower)

    def addresses(self, identity: Identity) -> Sequence[str]:
        agent = self.get(identity)
        if agent is None:
            return ()
        found = []
        for name in (identity, *agent.aliases):
            found += [name] if "@" in name else [f"{name}@{one}" for one in self.settings.domains]
        return tuple(found)

    def may_hold(self, identity: Identity) -> bool:
        if self.get(identity) is None:
            return False
        return identity in self._listed or identity in self._seen


Mark = tuple[int, int, int] | None
"""What tells one state of the file from another: inode, size, mtime in ns; None: not there."""


class IdentitiesFile:
    """Follows the file.  One that is broken or gone changes nothing, and is told once in the log.

    :param read: makes agents of it; raises Exception with the complaints.  Blocks.
    :param put: takes them into use.
    """

    log = Logger()

    def __init__(
        self,
        read: Callable[[Path], Sequence[Agent]],
        put: Callable[[Sequence[Agent]], None],
        *,
        clock: IReactorTime,
        in_thread: InThread,
    ) -> None:
        self._read = read
        self._put = put
        self._in_thread = in_thread
        self._path: Path | None = None
        self._used: Mark = None
        self._last: Mark = None
        self._call = LoopingCall(self._look)
        self._call.clock = clock

    def use(self, path: Path) -> None:
        """Read it now, and follow it from now on; blocks.

        :raise Exception: the complaints; what was is kept then.
        """
        mark = _mark(path)
        agents = self._read(path)
        self._path = path
        self._used = self._last = mark
        self._put(agents)

    def forget(self) -> None:
        """There is no file any more, and nobody is listed."""
        self._path = None
        self._put(())

    def start(self) -> None:
        """Look after it, where there is one."""
        self._call.start(LOOK_S, now=False).addErrback(self._broken)

    def stop(self) -> None:
        if self._call.running:
            self._call.stop()

    async def _look(self) -> None:
        path = self._path
        if path is None:
            return
        mark = await self._in_thread(lambda: _mark(path))
        before, self._last = self._last, mark
        if mark == self._used or mark != before or path != self._path:
            return
        self._used = mark
        if mark is None:
            self.log.error("{path} is gone; the agents stay as they were", path=str(path))
            return
        try:
            agents = await self._in_thread(lambda: self._read(path))
        except Exception as error:
            self.log.error("the agents stay as they were: {error}", error=str(error))
            return
        if path == self._path:
            self.log.info("{count} agents read from {path}", count=len(agents), path=str(path))
            self._put(agents)

    def _broken(self, failure: Failure) -> None:
        self.log.failure("the file of the agents is not looked after", failure)


def _mark(path: Path) -> Mark:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
