"""What ``setup`` and ``relay bootstrap`` do to a Protege project.

First all is read and worked out, and what cannot be done is refused; then it is written, personas
before the gateway that needs them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import attrs

from ..config.gateway_json import GATEWAY, MILLISECONDS, RELAY_NUMBERS, inferred_domain
from ..config.hosts import WebSocketUrl
from ..config.json_text import BadJson, parse, without
from ..config.kinds import Unfit
from ..config.mail_names import MailDomain
from ..config.toml import shown
from .faults import Fault
from .project import TRANSPORT, Document, Project, set_admin

SCAFFOLD: Final = {
    "mode": "dev",
    "host": "127.0.0.1",
    "port": 2525,
}
"""Members of a ``gateway.json`` that is not there yet."""

SCAFFOLD_TRANSPORT: Final = {"host": "127.0.0.1", "port": 1025, "secure": False}
"""What every new project has, and what nobody chose."""

_UNUSED_URL: Final = "ws://127.0.0.1:8080/ws"
"""Of a relay that nobody has enabled yet: the original wants some URL there."""


@attrs.frozen
class Wish:
    """What the command line asks for.

    :ivar is_relay: whether mail is to go through a relay.
    :ivar url: of the relay; None for the one that is configured.
    :ivar numbers: members of ``relay``, as far as they are given.
    :ivar domain: of mail; None for the relay's, as it follows from the URL.
    :ivar is_domain_forced: whether a domain that somebody chose makes way too.
    :ivar admin: the administrator's address, or None to leave it.
    """

    is_relay: bool
    url: str | None = None
    numbers: Mapping[str, int] = attrs.field(factory=dict)
    domain: str | None = None
    is_domain_forced: bool = False
    admin: str | None = None


@attrs.frozen
class Done:
    """What came of it.

    :ivar relay_url: None where no relay is used.
    :ivar persona_id: of the first persona.
    :ivar addresses: of all personas.
    :ivar changed: files; empty where all was as it should be.
    """

    relay_url: str | None
    domain: str
    persona_id: str
    is_created: bool
    updated: int
    gateway: Path
    addresses: tuple[str, ...]
    changed: tuple[Path, ...]

    def members(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "relayEnabled": self.relay_url is not None,
            "relayWsUrl": self.relay_url,
            "personaId": self.persona_id,
            "createdPersona": self.is_created,
            "updatedPersonaCount": self.updated,
            "gatewayConfigPath": str(self.gateway),
            "mailDomain": self.domain,
            "changed": [str(path) for path in self.changed],
        }


def reconcile(project: Project, wish: Wish, now: datetime) -> Done:
    """Make the project as it is wished.

    :raise Fault: it cannot be; nothing has been written then, unless the disk refused.
    """
    gateway = project.document(GATEWAY)
    if not gateway.members:
        for name, value in SCAFFOLD.items():
            gateway.put(name, value=value)
    block = _block(gateway, wish)
    url = block["relayWsUrl"] if wish.is_relay else None
    domain = _domain(gateway, wish, block["relayWsUrl"])
    gateway.put("mailDomain", value=domain)
    domain = domain.lower()
    transport = _transport(project, gateway, wish)
    for name, value in block.items():
        gateway.put("relay", name, value=value)
    personas = project.personas()
    system = set_admin(project, wish.admin) if wish.admin is not None else None

    created = "" if personas else project.create_persona(domain, now)
    if transport is not None:
        project.set_aside(transport)
    project.save(gateway)
    updated = sum(project.readdress(persona, domain, now) for persona in personas)
    for persona in personas:
        project.close_key(persona)
    if system is not None:
        project.save(system)
    return Done(
        relay_url=url,
        domain=domain,
        persona_id=created or personas[0].folder.name,
        is_created=bool(created),
        updated=updated,
        gateway=gateway.path,
        addresses=tuple(f"{each.local_part}@{domain}" for each in personas or project.personas()),
        changed=tuple(project.changed),
    )


def current_url(gateway: Document) -> str | None:
    """The URL of the relay that is configured, where it is one."""
    relay = gateway.members.get("relay")
    try:
        return WebSocketUrl().read(relay.get("relayWsUrl"), Path()) if relay else None
    except (Unfit, AttributeError):
        return None


def _block(gateway: Document, wish: Wish) -> dict[str, Any]:
    """The members of ``relay``: what is given, else what is there, else what everybody has."""
    found = gateway.members.get("relay")
    if found is not None and not isinstance(found, dict):
        raise _wrong(gateway, "relay", f"wanted an object, got {shown(found)}")
    there = found or {}
    is_given = wish.url is not None
    url = wish.url if is_given else there.get("relayWsUrl", _UNUSED_URL)
    if wish.is_relay and url == _UNUSED_URL and not (is_given or there.get("enabled")):
        raise Fault("--relay-ws-url: wanted the URL of a relay, got nothing", os.EX_USAGE)
    block: dict[str, Any] = {
        "enabled": wish.is_relay,
        "relayWsUrl": _url(gateway, url, is_given=is_given),
    }
    for name, default in RELAY_NUMBERS.items():
        value = wish.numbers.get(name, there.get(name, default))
        try:
            block[name] = MILLISECONDS.read(value, Path())
        except Unfit as unfit:
            text = f"wanted {unfit.wanted}, got {shown(value)}"
            raise _wrong(gateway, f"relay.{name}", text) from unfit
    if block["reconnectBaseDelayMs"] > block["reconnectMaxDelayMs"]:
        base, most = block["reconnectBaseDelayMs"], block["reconnectMaxDelayMs"]
        text = f"wanted at most reconnectMaxDelayMs, which is {most}, got {base}"
        raise _wrong(gateway, "relay.reconnectBaseDelayMs", text)
    return block


def _url(gateway: Document, url: object, *, is_given: bool) -> str:
    try:
        return WebSocketUrl().read(url, Path())
    except Unfit as unfit:
        text = f"wanted {unfit.wanted}, got {shown(url)}"
        if is_given:
            raise Fault(f"--relay-ws-url: {text}", os.EX_USAGE) from unfit
        raise _wrong(gateway, "relay.relayWsUrl", text) from unfit


def _domain(gateway: Document, wish: Wish, url: str) -> str:
    """The domain of mail.

    One that somebody chose stays; one that nobody did, or that came from the earlier relay's URL,
    follows the relay.
    """
    there = gateway.members.get("mailDomain")
    if there is not None:
        try:
            MailDomain().read(there, Path())
        except Unfit as unfit:
            text = f"wanted {unfit.wanted}, got {shown(there)}"
            raise _wrong(gateway, "mailDomain", text) from unfit
    if wish.domain is not None:
        return _domain_given(wish.domain, is_relay=wish.is_relay)
    if not wish.is_relay:
        return there or "localhost"
    earlier = current_url(gateway)
    nobodys = {"localhost", inferred_domain(earlier) if earlier is not None else None}
    if there is not None and there.lower() not in nobodys and not wish.is_domain_forced:
        return str(there)
    found = inferred_domain(url)
    if found is None:
        raise Fault(
            f"--relay-ws-url: no domain of mail follows from {url}",
            os.EX_USAGE,
            remedy="--mail-domain says it.",
        )
    # The same domain in another case is nobody's wish.
    return str(there) if there is not None and there.lower() == found else found


def _domain_given(text: str, *, is_relay: bool) -> str:
    try:
        domain = str(MailDomain().read(text, Path()))
    except Unfit as unfit:
        fault = f"--mail-domain: wanted {unfit.wanted}, got {text!r}"
        raise Fault(fault, os.EX_USAGE) from unfit
    if is_relay and domain == "localhost":
        raise Fault(f"--mail-domain: wanted the relay's, got {text!r}", os.EX_USAGE)
    return domain


def _transport(project: Project, gateway: Document, wish: Wish) -> Any:
    """See that ``transport`` is there, or not.

    Beside a relay the original would send by it, past the relay.

    :return: one that somebody chose and that has to be set aside; else None.
    """
    there = gateway.members.get("transport")
    if there is not None and not isinstance(there, dict):
        raise _wrong(gateway, "transport", f"wanted an object, got {shown(there)}")
    kept = project.place(TRANSPORT)
    if wish.is_relay:
        gateway.text = without(gateway.text, "transport")
        gateway.members.pop("transport", None)
        return there if there is not None and there != SCAFFOLD_TRANSPORT else None
    if there is None:
        gateway.put("transport", value=_kept(kept) if kept.exists() else SCAFFOLD_TRANSPORT)
    return None


def _kept(path: Path) -> dict[str, Any]:
    try:
        return parse(path.read_bytes())[1]
    except (OSError, BadJson) as error:
        raise Fault(f"{path}: {error}", os.EX_CONFIG) from error


def _wrong(gateway: Document, place: str, text: str) -> Fault:
    return Fault(f"{gateway.path}: {place}: {text}", os.EX_CONFIG)
