"""The configurations that ``init`` writes, one a mode."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import attrs

ATTESTATION_KEY_ID: Final = "relay-primary"

_HEAD: Final = """\
# The configuration of protege-mta.  docs/reference/configuration.md describes every key;
# "protege-mta check-config" says what is wrong.  Relative paths start at this file's folder.

mode = "{mode}"
hostname = "{hostname}"          # {hostname_is}
state_dir = "state"              # spool, event log, sockets
"""

_ADDRESSES: Final = """\
{mark}public_addresses = {addresses}  # ours as others see them, for "protege-mta dns records"
# postmaster = "you@example.net"   # who reads mail for postmaster, where no mailbox has that name
"""

_SMTP: Final = """
[[listener]]
name = "smtp"
kind = "smtp"
address = "{address}"
port = {smtp}
relay_hosts = []                 # networks that may relay without authentication
"""

_SUBMISSION: Final = """
[[listener]]
name = "submission"
kind = "submission"              # mail of our users: STARTTLS, then AUTH
address = "{address}"
port = {submission}
"""

_SUBMISSIONS: Final = """
[[listener]]
name = "submissions"
kind = "submissions"             # the same, with TLS from the first octet
address = "{address}"
port = {submissions}
"""

_TUNNEL: Final = """
[[listener]]
name = "tunnel"
kind = "http"                    # agents come to /ws
address = "{tunnel_address}"
port = {tunnel}
tls = {tunnel_tls}
{proxied}trusted_proxies = ["127.0.0.1/32", "::1/128"]  # whose X-Forwarded-For says who the client is
"""

_HTTP: Final = """
[[listener]]
name = "http"
kind = "http"                    # the API, see /docs; /metrics and /healthz
address = "{here}"
port = {http}
"""

_TLS: Final = """
[tls]
certificate = "tls/cert.pem"     # self-signed: fit for servers; {asking} will ask
private_key = "tls/key.pem"
"""

_MAILBOXES: Final = """
[domains."{domain}"]
deliver = "maildir"              # or "lmtp", with lmtp = "127.0.0.1:24"
maildir = "mail/{{domain}}/{{local_part}}"
recipients = ["*"]               # ["agent", "postmaster"]: these alone
"""

_OUTBOUND: Final = """
[outbound]
route = "mx"                     # or "smarthost", with:
# smarthost = { host = "smtp.example.net", port = 587, tls = "starttls", \
username = "me", password_file = "keys/smarthost" }
"""

_SMARTHOST: Final = """
[outbound]
route = "smarthost"
smarthost = {{ host = "{host}", port = {port}, tls = "{tls}" }}  # with AUTH: username, password_file
"""

_DKIM: Final = """
[dkim."{domain}"]                # signs mail that is From this domain
selectors = [
    {{ name = "rsa", private_key = "keys/rsa.pem" }},
    {{ name = "ed25519", private_key = "keys/ed25519.pem" }},
]
"""

_AGENTS: Final = """
[domains."{domain}"]             # the agents' addresses: KEY@{domain}
deliver = "tunnel"
tunnel = {{ store = true, hold_s = 432000 }}  # kept until the agent comes, or 5 days

[tunnel_server]
enabled = true
identities = "listed"            # "protege-mta tunnel allow KEY" lists an agent; "any" takes all
identities_file = "identities.toml"
send_per_hour = 60               # messages of an agent, where its entry says nothing else
attestation = {{ key_id = "{key_id}", private_key = "keys/attestation.pem" }}
"""

_AGENT: Final = """
[domains."{domain}"]             # where our address is, and other agents' too
deliver = "maildir"
maildir = "mail/{{domain}}/{{local_part}}"
recipients = ["{identity}"]
shared = true                    # mail for the others goes through the relay

[relay]
url = {url}
identity = {{ agent = "keys/agent.pem" }}
# trusted = [{{ key_id = "{key_id}", public_key = "keys/attestation.pub" }}]  # the relay's key
# unattested = "refuse"          # mail whose sender no trusted relay has checked
# ca_file = "tls/relay.pem"      # where the relay's certificate is of no public authority
"""

_DEFAULTS: Final = """
# What follows are defaults.

# [retry]
# first_s = 300
# max_age_s = 432000             # then a bounce
# delay_warning_s = 14400        # 0 = none

# [limits]
# message_octets = 52428800
# recipients = 1000
# connections = 2000
# connections_per_ip = 50
"""


@attrs.frozen
class Ports:
    """Of the listeners, as far as the mode has them."""

    smtp: int
    submission: int
    submissions: int
    tunnel: int
    http: int


@attrs.frozen
class Smarthost:
    """Who takes all outbound mail.

    :ivar tls: as the configuration has it.
    """

    host: str
    port: int
    tls: str


@attrs.frozen
class Names:
    """What a configuration is filled with.

    :ivar address: to listen on.
    :ivar here: to listen on for this machine alone.
    :ivar public_addresses: as others see them; empty where they are not known.
    :ivar smarthost: None where mail goes to the recipients' MX hosts.
    """

    hostname: str
    domain: str
    address: str
    here: str
    ports: Ports
    public_addresses: Sequence[str] = ()
    smarthost: Smarthost | None = None

    def filled(self, *parts: str, **more: str) -> str:
        text = "".join(parts)
        known = json.dumps(list(self.public_addresses or ("192.0.2.25", "2001:db8::25")))
        return text.format(
            hostname=self.hostname,
            domain=self.domain,
            address=self.address,
            here=self.here,
            addresses=known,
            mark="" if self.public_addresses else "# ",
            key_id=ATTESTATION_KEY_ID,
            outbound=self._outbound(),
            **attrs.asdict(self.ports),
            **more,
        )

    def _outbound(self) -> str:
        if self.smarthost is None:
            return _OUTBOUND
        return _SMARTHOST.format(**attrs.asdict(self.smarthost))


_RESOLVES: Final = "should resolve to our address, and the address back to it"


def local(names: Names) -> str:
    """A host that mail comes to, with mailboxes."""
    return names.filled(
        *(_HEAD, _ADDRESSES, _SMTP, _SUBMISSION, _SUBMISSIONS, _HTTP, _TLS),
        *(_MAILBOXES, "{outbound}", _DKIM, _DEFAULTS),
        mode="local",
        hostname_is=_RESOLVES,
        asking="mail programs of users",
    )


def relay_server(names: Names, *, is_plain: bool = False) -> str:
    """A host that mail for agents comes to, and that agents send through.

    :param is_plain: whether agents come without TLS: from this machine, or through a proxy on it.
    """
    return names.filled(
        *(_HEAD, _ADDRESSES, _SMTP, _SUBMISSION, _SUBMISSIONS, _TUNNEL, _HTTP, _TLS),
        *(_AGENTS, "{outbound}", _DKIM, _DEFAULTS),
        mode="local",
        hostname_is=_RESOLVES,
        asking="mail programs of users" if is_plain else "agents and users",
        tunnel_address=names.here if is_plain else names.address,
        tunnel_tls="false" if is_plain else "true",
        proxied="" if is_plain and names.address != names.here else "# ",
    )


def relay(names: Names, *, url: str, identity: str) -> str:
    """An agent's machine, behind a relay."""
    return names.filled(
        *(_HEAD, _SUBMISSION, _HTTP, _TLS, _AGENT, _DEFAULTS),
        mode="relay",
        hostname_is="our name in what we send; it need not resolve",
        asking="mail programs",
        url=json.dumps(url),
        identity=identity,
    )
