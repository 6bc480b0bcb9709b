"""What serves the listeners: by SMTP or HTTP, under TLS or not, by the settings in force."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import attrs
from klein import Klein
from twisted.internet.interfaces import IProtocolFactory

from . import from_settings
from .config.listeners import HttpListener, SmtpListener, SubmissionListener
from .config.model import Settings
from .http import health as http_health
from .http import listener as http_listener
from .http import metrics as http_metrics
from .model.ports import InThread
from .model.tally import Tally
from .observe.health import Health
from .observe.metrics import Metrics
from .policy.door import SmtpDoor
from .policy.submission import SubmissionDoor
from .transport import certificates, self_signed
from .transport.proxied import ProxiedFactory
from .transport.smtp_factory import SmtpServerFactory
from .transport.tls_server import ServerContext, ServerContexts, TlsFiles
from .wire.settings import ServerSettings

MECHANISMS: Final = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN")
"""Of SASL; what submission offers whatever accounts there are."""


@attrs.frozen
class Keys:
    """Certificates as they have been read; None for no TLS."""

    source: certificates.Source | None
    loaded: certificates.Loaded | None


class Listeners:
    """:param takes_cram_md5: whether some account has the secret that it needs.
    :param serve: puts the endpoints that programs ask for on an app.
    :param gate: looks at who asks before a body is read.
    :param upgrade: what serves ``/ws`` now; None where nothing does.
    :param new_session_id: names connections in the log.
    :ivar smtp: those that speak SMTP, by name.
    :ivar http: those of kind ``http``.
    :ivar certificates: theirs.
    """

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        *,
        door: SmtpDoor,
        submission_door: SubmissionDoor,
        takes_cram_md5: Callable[[], bool],
        serve: Callable[[Klein], None],
        gate: http_listener.Gate,
        upgrade: Callable[[], http_listener.Upgrade | None],
        metrics: Metrics,
        health: Health,
        tally: Tally,
        in_thread: InThread,
        new_session_id: Callable[[], str],
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._door = door
        self._submission_door = submission_door
        self._takes_cram_md5 = takes_cram_md5
        self._serve = serve
        self._gate = gate
        self._upgrade = upgrade
        self._metrics = metrics
        self._health = health
        self._tally = tally
        self._new_session_id = new_session_id
        self.smtp: dict[str, SmtpServerFactory] = {}
        self.http: dict[str, http_listener.HttpFactory] = {}
        self._https: set[str] = set()  # those of them that are under TLS
        self._tls: ServerContexts | None = None
        self.certificates = certificates.Certificates(
            self._put_tls, clock=reactor, now=time.time, in_thread=in_thread
        )

    # --- what a reload replaces ------------------------------------------------------------------

    def read_keys(self, settings: Settings) -> Keys:
        """Blocks.  :raise ValueError, OSError: a key or certificate cannot be used."""
        source = self._source(settings)
        return Keys(source, certificates.load(source) if source is not None else None)

    def configure(self, settings: Settings, keys: Keys) -> None:
        """Put settings into force, for new connections."""
        self._settings = settings
        self.certificates.use(keys.source, keys.loaded)
        self.renew()

    def renew(self) -> None:
        """Have new connections go by what is in force now."""
        for factory in self.smtp.values():
            factory.settings = self._server_settings(is_submission=factory.settings.is_submission)
        for listener in self._settings.listeners:
            if isinstance(listener, HttpListener) and listener.name in self.http:
                self._renew_http(listener)

    def _renew_http(self, listener: HttpListener) -> None:
        self.http[listener.name].configure(
            trusted_proxies=listener.trusted_proxies,
            trusted_networks=listener.relay_hosts,
            upgrade=self._upgrade(),
            gate=self._gate,
        )

    # --- SMTP ------------------------------------------------------------------------------------

    def serve_smtp(self, listener: SmtpListener | SubmissionListener) -> IProtocolFactory:
        """Serves one listener that speaks SMTP."""
        is_submission = isinstance(listener, SubmissionListener)
        factory = self.smtp[listener.name] = SmtpServerFactory(
            self._submission_door if is_submission else self._door,
            self._server_settings(is_submission=is_submission),
            listener=listener.name,
            tally=self._tally,
            clock=self._reactor,
            now=time.time,
            new_session_id=self._new_session_id,
            new_nonce=lambda: secrets.token_urlsafe(18),
            tls=self._tls_for(is_submission=is_submission),
            is_tls_first=listener.kind == "submissions",
            greet_delay_s=0.0
            if isinstance(listener, SubmissionListener)
            else listener.greet_delay_s,
        )
        if not listener.proxy_protocol_from:
            return factory
        return ProxiedFactory(
            factory, listener.proxy_protocol_from, tally=self._tally, clock=self._reactor
        )

    def _server_settings(self, *, is_submission: bool) -> ServerSettings:
        """What the sessions of one kind of listener go by."""
        settings = self._settings
        return ServerSettings(
            settings.hostname,
            message_octets=settings.limits.message_octets,
            recipients=settings.limits.recipients,
            mechanisms=self._mechanisms() if is_submission else (),
            is_submission=is_submission,
            future_release_s=settings.limits.future_release_s,
        )

    def _mechanisms(self) -> tuple[str, ...]:
        """What AUTH takes from our users, the best first."""
        return (*MECHANISMS, "CRAM-MD5") if self._takes_cram_md5() else MECHANISMS

    # --- HTTP ------------------------------------------------------------------------------------

    def endpoints(self) -> Klein:
        """All that is served on a listener of kind ``http``, but for ``/ws``."""
        app = http_listener.new_app()
        http_metrics.add(app, self._metrics)
        http_health.add(app, self._health)
        self._serve(app)
        return app

    def serve_http(self, listener: HttpListener) -> IProtocolFactory:
        """Serves one listener of kind ``http``."""
        app = self.endpoints()
        limits = http_listener.HttpLimits(body_octets=self._settings.api.body_octets)
        factory = http_listener.site(app, clock=self._reactor, limits=limits)
        self.http[listener.name] = factory
        if listener.tls:
            self._https.add(listener.name)
            factory.tls = self._tls_for(is_submission=False)
        self._renew_http(listener)
        return factory

    # --- TLS -------------------------------------------------------------------------------------

    def _source(self, settings: Settings) -> certificates.Source | None:
        """Where the certificates come from; None for no TLS."""
        if settings.tls is not None:
            files = from_settings.tls_files(settings.tls)
            return lambda: files
        # A reload closes no listener, and those for submission and HTTPS cannot do without.
        is_served = self._https or any(one.settings.is_submission for one in self.smtp.values())
        if not settings.is_self_signed and not is_served:
            return None
        names = [settings.hostname]
        if settings.source is None:  # the embedded default, which serves this machine alone
            names += ["localhost", "127.0.0.1"]
        return partial(_self_signed, settings, names)

    def _put_tls(self, contexts: ServerContexts | None) -> None:
        self._tls = contexts
        for factory in self.smtp.values():
            factory.tls = self._tls_for(is_submission=factory.settings.is_submission)
        for name in self._https:
            self.http[name].tls = self._tls_for(is_submission=False)

    def _tls_for(self, *, is_submission: bool) -> ServerContext | None:
        if self._tls is None:
            return None
        return self._tls.submission if is_submission else self._tls.public


def _self_signed(settings: Settings, names: Sequence[str]) -> TlsFiles:
    """Files of our own, where the configuration names none."""
    now = datetime.fromtimestamp(time.time(), UTC)
    return TlsFiles((self_signed.kept(settings.self_signed_folder, names, now),))
