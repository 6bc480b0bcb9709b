"""The mail part of a Protege project, read from the project's own files.

``configs/gateway.json``, ``security.json`` and ``system.json`` and the folder ``personas`` make the
same tree of settings as our own configuration does.  Members that are not about mail are nobody's
business here; of those that are, a wrong one is a complaint, never a silent default.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import attrs

from . import checks
from .domains import Domain, MaildirDomain
from .hosts import Cidr, HostOrAddress, IpAddress, WebSocketUrl, is_host_name
from .json_text import BadJson, parse
from .kinds import Flag, InlineText, Kind, OneOf, Text, Unfit, Whole
from .listeners import SmtpListener, SubmissionListener
from .mail_names import Mailbox, MaildirTemplate, MailDomain
from .model import Settings, own_name
from .outbound import Outbound, Smarthost
from .personas import DOCUMENT_FILE, Complain, Persona, read_personas
from .toml import Complaint, ConfigError, shown
from .tunnel import Relay, TrustedKey

GATEWAY: Final = Path("configs/gateway.json")
SECURITY: Final = Path("configs/security.json")
SYSTEM: Final = Path("configs/system.json")
PERSONAS: Final = Path("personas")
STATE: Final = Path(".protege-mta")
"""Files of the project, from its folder; the last is our own."""

MILLISECONDS: Final = Whole(1, 86_400_000, unit="milliseconds")
RELAY_NUMBERS: Final = {
    "reconnectBaseDelayMs": 250,
    "reconnectMaxDelayMs": 8000,
    "heartbeatTimeoutMs": 30_000,
}
"""Members of ``relay`` and what they are where nobody says."""

_LOOPBACK: Final = tuple(Cidr().read(text, Path()) for text in ("127.0.0.0/8", "::1"))


def inferred_domain(url: str) -> str | None:
    """The domain that a relay's agents have their addresses at: its host's name, where ``relay.``
    in front becomes ``mail.``; None where that is no domain of mail.

    :param url: as :class:`~.kinds.WebSocketUrl` accepts it.
    """
    host = urlsplit(url).hostname or ""
    if host == "localhost" or ":" in host:
        return None
    return f"mail.{host.removeprefix('relay.')}" if host.startswith("relay.") else host


def load(folder: Path) -> Settings:
    """Read a project's folder, and look at the files that it names.

    :raise ConfigError: with every complaint.
    """
    reader = _Reader(folder.absolute())
    settings = reader.settings()
    if reader.complaints:
        raise ConfigError(tuple(reader.complaints))
    return settings


def glimpse(folder: Path) -> Settings:
    """Where the sockets and the state of a project are, whatever is wrong with its files."""
    reader = _Reader(folder.absolute())
    gateway = _Document(reader, GATEWAY)
    hostname = reader.hostname(gateway)
    return Settings(source=reader.folder, state_dir=reader.folder / STATE, hostname=hostname)


def with_personas(settings: Settings, complain: Complain) -> Settings:
    """The settings of a project with its personas as they are now; all others as they are.

    A persona that cannot be read keeps the mailboxes that it had: somebody may be writing it.

    :param complain: is told of those.
    """
    folder = settings.source
    if folder is None or not (folder / PERSONAS).is_dir():
        return settings
    unread: set[Path] = set()

    def unreadable(path: Path, place: str, text: str) -> None:
        unread.add(path.parent)
        complain(path, place, text)

    personas = read_personas(folder / PERSONAS, unreadable)
    if folder in unread:  # nobody knows who is there
        return settings
    kept = {_box(folder, each) for each in unread}
    changed: dict[str, Domain] = {}
    for name, domain in settings.domains.items():
        assert isinstance(domain, MaildirDomain)  # as _Reader makes them
        mailboxes = _mailboxes(folder, name, personas, complain)
        for local_part, box in domain.mailboxes.items():
            if box in kept:
                mailboxes.setdefault(local_part, box)
        if mailboxes != domain.mailboxes:
            changed[name] = attrs.evolve(domain, recipients=tuple(mailboxes), mailboxes=mailboxes)
    return attrs.evolve(settings, domains={**settings.domains, **changed}) if changed else settings


def _box(folder: Path, persona: Path) -> str:
    """The Maildir of a persona, by the folder that it has."""
    return str(folder / "memory" / persona.name / "maildir")


def _mailboxes(
    folder: Path, domain: str, personas: list[Persona], complain: Complain
) -> dict[str, str]:
    """Maildirs by local-part."""
    found: dict[str, str] = {}
    for persona in personas:
        box = _box(folder, persona.folder)
        for name in persona.local_parts(domain):
            if found.setdefault(name, box) != box:
                text = f"wanted names of its own, got {shown(name)}, which another has"
                complain(persona.folder / DOCUMENT_FILE, "aliases", text)
    return found


def _got(raw: object) -> str:
    return "an object" if isinstance(raw, dict) else shown(raw)


class _Document:
    """One JSON file and what is wrong with it."""

    def __init__(self, reader: _Reader, path: Path, *, is_needed: bool = False) -> None:
        self._reader = reader
        self._path = reader.folder / path
        self._members: Mapping[str, Any] = {}
        try:
            _, self._members = parse(self._path.read_bytes())
        except OSError as error:
            if is_needed or not isinstance(error, FileNotFoundError):
                self.complain("", f"wanted a file that can be read, got: {error.strerror}")
        except BadJson as error:
            self.complain("", f"wanted JSON, got: {error}")

    def complain(self, place: str, text: str) -> None:
        self._reader.complain(self._path, place, text)

    def has(self, dotted: str) -> bool:
        return self.raw(dotted) is not None

    def raw(self, dotted: str) -> Any:
        """A member as it stands there; None where it is left out."""
        at: Any = self._members
        names = dotted.split(".")
        for number, name in enumerate(names):
            if not isinstance(at, dict):
                got = "text" if isinstance(at, str) else shown(at)  # it may hold a password
                self.complain(".".join(names[:number]), f"wanted an object, got {got}")
                return None
            if name not in at:
                return None
            at = at[name]
        return at

    def get(self, dotted: str, kind: Kind, default: Any = None) -> Any:
        """A member's value; the default where it is left out, and where it is wrong."""
        raw = self.raw(dotted)
        return default if raw is None else self.read(dotted, raw, kind, default)

    def read(self, place: str, raw: Any, kind: Kind, default: Any = None) -> Any:
        try:
            return kind.read(raw, self._reader.folder)
        except Unfit as unfit:
            got = "something else" if isinstance(kind, _Secret) else _got(raw)
            note = f" ({unfit.note})" if unfit.note else ""
            self.complain(place, f"wanted {unfit.wanted}, got {got}{note}")
            return default


@attrs.frozen
class _Host:
    """An address to listen on; names other than this one say nothing of that."""

    wanted: str = 'an IPv4 or IPv6 address, or "localhost"'

    def read(self, raw: object, folder: Path) -> str:
        return "127.0.0.1" if raw == "localhost" else IpAddress(self.wanted).read(raw, folder)


class _Reader:
    """Makes settings of a project.

    :ivar folder: the project's.
    :ivar complaints: what is wrong so far.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.complaints: list[Complaint] = []

    def complain(self, path: Path, place: str, text: str) -> None:
        complaint = Complaint(str(path), place, text)
        if complaint not in self.complaints:  # a wrong object is met once for each of its members
            self.complaints.append(complaint)

    def settings(self) -> Settings:
        gateway = _Document(self, GATEWAY, is_needed=True)
        security = _Document(self, SECURITY)
        system = _Document(self, SYSTEM)
        domain = gateway.get("mailDomain", MailDomain(), "localhost")
        personas = read_personas(self.folder / PERSONAS, self.complain)
        is_enforced = self._is_enforced(security)
        own = self._domain(domain, personas, is_enforced=is_enforced)
        relay = None
        if gateway.get("relay.enabled", Flag(), default=False):
            relay = attrs.evolve(
                self._relay(gateway, domain, personas),
                trusted=self._trusted(security, is_enforced=is_enforced),
                unattested="refuse" if is_enforced else "accept",
            )
        state = self.folder / STATE
        if state.exists() and not state.is_dir():
            self.complain(state, "", "wanted a folder, got a file")
        admin = system.get("admin_contact_email", _Optional(Mailbox()))
        return Settings(
            source=self.folder,
            mode="local" if relay is None else "relay",
            state_dir=state,
            listeners=(self._listener(gateway),),
            domains={} if own is None else {domain: own},
            outbound=Outbound() if relay is not None else self._outbound(gateway),
            relay=relay,
            # A relay takes from us what our agents write, and nothing that is passed on.
            postmaster=admin if relay is None else None,
            hostname=self.hostname(gateway),
        )

    def hostname(self, gateway: _Document) -> str:
        """Our name: behind a relay the domain's, for this machine's is nobody's business there."""
        domain = gateway.get("mailDomain", MailDomain(), "localhost")
        is_behind = gateway.get("relay.enabled", Flag(), default=False)
        return str(domain) if is_behind and is_host_name(domain) else own_name()

    def _listener(self, gateway: _Document) -> SmtpListener | SubmissionListener:
        mode = gateway.get("mode", OneOf(("dev", "default")), "dev")
        address = gateway.get("host", _Host(), "127.0.0.1")
        port = gateway.get("port", Whole(0, 65535), 2525)
        if mode == "default":
            return SubmissionListener(name="submission", address=address, port=port)
        return SmtpListener(name="smtp", address=address, port=port, relay_hosts=_LOOPBACK)

    def _domain(
        self, domain: str, personas: list[Persona], *, is_enforced: bool
    ) -> MaildirDomain | None:
        mailboxes = _mailboxes(self.folder, domain, personas, self.complain)
        try:
            template = MaildirTemplate().read("mail/{domain}/{local_part}", self.folder / STATE)
        except Unfit:
            self.complain(self.folder, "", "wanted a folder without braces in its path")
            return None
        return MaildirDomain(
            maildir=template,
            recipients=tuple(mailboxes),
            mailboxes=mailboxes,
            # The relay's other agents have their addresses at the same domain.
            shared=True,
            authentication="reject" if is_enforced else "none",
        )

    def _relay(self, gateway: _Document, domain: str, personas: list[Persona]) -> Relay:
        url = gateway.get("relay.relayWsUrl", WebSocketUrl())
        if url is None and not gateway.has("relay.relayWsUrl"):
            gateway.complain("relay.relayWsUrl", f"wanted {WebSocketUrl().wanted}, got nothing")
        if domain == "localhost":
            text = f"wanted the relay's domain of mail, since relay.enabled, got {shown(domain)}"
            gateway.complain("mailDomain", text)
        if not personas and not self.complaints:
            text = "wanted one persona at least, since relay.enabled, got none"
            self.complain(self.folder / PERSONAS, "", text)
        numbers = {
            name: gateway.get(f"relay.{name}", MILLISECONDS, default) / 1000
            for name, default in RELAY_NUMBERS.items()
        }
        return Relay(
            url=url or "",
            personas=self.folder / PERSONAS,
            reconnect_base_s=numbers["reconnectBaseDelayMs"],
            reconnect_max_s=numbers["reconnectMaxDelayMs"],
            ping_s=min(max(numbers["heartbeatTimeoutMs"], 1.0), 3600.0),
        )

    def _is_enforced(self, security: _Document) -> bool:
        """Whether mail of a sender that nobody vouches for is refused."""
        if security.get("gateway_access.enabled", Flag(), default=False):
            decisions = OneOf(("allow", "deny"))
            decision = security.get("gateway_access.default_decision", decisions, "allow")
            if decision == "deny" or security.raw("gateway_access.deny"):
                text = "rules about senders are not available in this version"
                security.complain("gateway_access", text)
        is_on = security.get("gateway_auth.enabled", Flag(), default=True)
        mode = security.get("gateway_auth.mode", OneOf(("monitor", "enforce")), "monitor")
        return bool(is_on) and mode == "enforce"

    def _trusted(self, security: _Document, *, is_enforced: bool) -> tuple[TrustedKey, ...]:
        """The keys of relays whose word about senders is believed."""
        place = "gateway_auth.trusted_relays"
        raw = security.raw(place)
        if raw is not None and not isinstance(raw, list):
            security.complain(place, f"wanted an array of objects, got {_got(raw)}")
        found = []
        for number, each in enumerate(raw if isinstance(raw, list) else ()):
            key = self._trusted_key(security, f"{place}[{number}]", each)
            if key is not None:
                found.append(key)
        if is_enforced and not raw:
            security.complain(place, 'wanted one key at least, since mode is "enforce", got none')
        return tuple(found)

    def _trusted_key(self, security: _Document, place: str, raw: Any) -> TrustedKey | None:
        if not isinstance(raw, dict):
            security.complain(place, f"wanted an object, got {shown(raw)}")
            return None
        key_id = security.read(f"{place}.key_id", raw.get("key_id"), Text("a name"))
        pem, path = raw.get("public_key_pem"), raw.get("public_key_path")
        found: Path | InlineText | None = None
        if isinstance(pem, str) and pem.strip():
            found, name = InlineText(pem), "public_key_pem"
        elif isinstance(path, str) and path.strip():
            found, name = self._there(path), "public_key_path"
        if found is None:
            got = ", ".join(sorted(raw.keys() - {"key_id"})) or "neither"
            security.complain(place, f"wanted public_key_pem or public_key_path, got {got}")
            return None
        if key_id is None:
            return None
        key = TrustedKey(key_id=key_id, public_key=found)
        faults = list(checks.of_table(key))
        for _, text in faults:
            security.complain(f"{place}.{name}", text)
        return None if faults else key

    def _there(self, text: str) -> Path:
        """A path from the project's folder, or from that of its configuration where it is there."""
        beside = (self.folder / SECURITY).parent / text
        return beside if beside.exists() else self.folder / text

    def _outbound(self, gateway: _Document) -> Outbound:
        if not gateway.has("transport"):
            return Outbound()
        host = gateway.get("transport.host", HostOrAddress())
        port = gateway.get("transport.port", Whole(1, 65535))
        for name, value in (("host", host), ("port", port)):
            if value is None and not gateway.has(f"transport.{name}"):
                gateway.complain(f"transport.{name}", "wanted the smarthost's, got nothing")
        is_secure = gateway.get("transport.secure", Flag(), default=False)
        username = password = ""
        if gateway.has("transport.auth"):
            username = gateway.get("transport.auth.user", Text("a user name"), "")
            password = gateway.get("transport.auth.pass", _Secret(), "")
            for name, given in (("user", username), ("pass", password)):
                if not given and not gateway.has(f"transport.auth.{name}"):
                    gateway.complain(f"transport.auth.{name}", "wanted text, got nothing")
        if host is None or port is None:
            return Outbound()
        tls: Literal["none", "opportunistic", "starttls", "implicit"]
        if is_secure:
            tls = "implicit"
        elif checks.is_here(host):
            tls = "none"
        else:  # a password never goes over a network in plain text
            tls = "starttls" if username else "opportunistic"
        smarthost = Smarthost(
            host=host,
            port=port,
            tls=tls,
            username=username,
            password_file=InlineText(password) if password else None,
        )
        return Outbound(route="smarthost", smarthost=smarthost)


@attrs.frozen
class _Optional:
    """Another kind, or empty text for none."""

    kind: Kind

    @property
    def wanted(self) -> str:
        return self.kind.wanted

    def read(self, raw: object, folder: Path) -> Any:
        return None if raw == "" else self.kind.read(raw, folder)


@attrs.frozen
class _Secret:
    """A password, which no complaint shows."""

    wanted: str = "text of one line"

    def read(self, raw: object, folder: Path) -> str:
        if not isinstance(raw, str) or not raw or "\n" in raw or "\r" in raw:
            raise Unfit(self.wanted)
        return raw
