"""The file of a relay server's agents: what ``identities_file`` of ``[tunnel_server]`` names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from ..model import address
from ..model.identity import Agent, Identity, parse_identity
from .kinds import Flag, ListOf, Text, Unfit, Whole
from .schema import Table, Tables, key

_ALIAS: Final = re.compile(r"[a-z0-9](?:[a-z0-9._+-]{0,62}[a-z0-9_+-])?\Z")


@attrs.frozen
class AgentKey:
    """An agent's public key, as its address has it."""

    wanted: str = 'a key: 52 of a-z and 2-7, the last one "a" or "q"'

    def read(self, raw: object, folder: Path) -> Identity:
        identity = parse_identity(raw) if isinstance(raw, str) and raw.isascii() else None
        if identity is None:
            raise Unfit(self.wanted)
        return identity


@attrs.frozen
class Alias:
    """A local-part, or an address; in lower case, the domain as A-labels."""

    wanted: str = 'a local-part such as "support", or an address such as "support@example.org"'

    def read(self, raw: object, folder: Path) -> str:
        from ..model.domain import ascii_domain

        if not isinstance(raw, str):
            raise Unfit(self.wanted)
        local_part, at, domain = (
            raw.lower().rpartition("@") if "@" in raw else (raw.lower(), "", "")
        )
        whole = f"{local_part}@{ascii_domain(domain) if at else 'x'}"
        # Only what every reader of From and every sender's program takes for one mailbox.
        if not _ALIAS.match(local_part) or address.parse(whole) is None or domain.startswith("["):
            raise Unfit(self.wanted)
        if parse_identity(local_part) is not None:
            raise Unfit("an alias that is no key")
        return whole if at else local_part


@attrs.frozen(kw_only=True)
class AgentEntry:
    """An agent of a relay server, in the file that `identities_file` of `[tunnel_server]` names. No
    two agents may have a key or an alias in common.
    """

    identity: Identity = attrs.field(
        metadata=key(AgentKey(), "Its public key, as its address has it.") | {"name": "key"}
    )
    aliases: tuple[str, ...] = attrs.field(
        default=(),
        metadata=key(
            ListOf(Alias(), "local-parts and addresses"),
            "Further mailboxes of it, which it may send from too: a local-part stands for the one "
            "at each tunnel domain.",
        ),
    )
    send_per_hour: int | None = attrs.field(
        default=None,
        metadata=key(
            Whole(0),
            "Messages that it may send in an hour; 0 = unlimited.",
            shown_default="`send_per_hour` of `[tunnel_server]`",
        ),
    )
    tenant: str = attrs.field(
        default="",
        metadata=key(Text(is_optional=True), "Whom its mail is told apart by."),
    )
    revoked: bool = attrs.field(
        default=False, metadata=key(Flag(), "It may not log in, whoever else may.")
    )


@attrs.frozen(kw_only=True)
class IdentitiesFile:
    """All agents."""

    entries: tuple[AgentEntry, ...] = attrs.field(
        default=(), metadata=key(Tables(Table(AgentEntry))) | {"name": "identity"}
    )

    def agents(self) -> tuple[Agent, ...]:
        """Without what is the file's own."""
        return tuple(
            Agent(
                identity=entry.identity,
                aliases=entry.aliases,
                send_per_hour=entry.send_per_hour,
                tenant=entry.tenant,
                is_revoked=entry.revoked,
            )
            for entry in self.entries
        )


def of_entries(entries: Sequence[tuple[int, AgentEntry]]) -> Iterator[tuple[int, str, str]]:
    """Number, key and complaint for what two agents may not have in common.

    An alias with a domain and the same without one may be the same mailbox.  The aliases of those
    who are revoked are free.
    """
    keys: dict[str, int] = {}
    taken: dict[str, int] = {}
    for number, entry in entries:
        if entry.identity in keys:
            yield number, "key", f"wanted every key once, got that of #{keys[entry.identity]} again"
            continue
        keys[entry.identity] = number
        if entry.revoked:
            continue
        for alias in entry.aliases:
            local_part, _, domain = alias.partition("@")
            rivals = [alias, local_part] if domain else [alias, f"{alias}@"]
            owner = next((taken[one] for one in rivals if taken.get(one, number) != number), None)
            if owner is not None:
                yield number, "aliases", f'wanted aliases of its own, got "{alias}" of #{owner}'
                continue
            taken[alias] = number
            if domain:
                taken.setdefault(f"{local_part}@", number)
