"""Where mail for domains with ``deliver = "webhook"`` is posted to, put together."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from . import __version__
from .config.domains import WebhookDomain
from .config.model import Settings
from .model.domain import ascii_domain
from .notifier import read_secrets
from .transport.webhook import Endpoint, WebhookTransport


def transport(
    reactor: Any,
    settings: Settings,
    in_thread: Callable[[Callable[[], Any]], Deferred[Any]],
) -> WebhookTransport:
    """What delivers to the endpoints.  :raise ValueError, OSError: a file cannot be used."""
    return WebhookTransport(
        reactor,
        endpoints(settings),
        now=time.time,
        in_thread=in_thread,
        agent=f"protege-mta/{__version__}",
    )


def endpoints(settings: Settings) -> dict[str, Endpoint]:
    """By domain.  :raise ValueError, OSError: a file of secrets holds none."""
    found = {}
    for name, domain in settings.domains.items():
        if not isinstance(domain, WebhookDomain):
            continue
        hook = domain.webhook
        secrets: tuple[bytes, ...] = ()
        if hook.secret_file is not None:
            secrets = read_secrets(hook.secret_file)
        found[ascii_domain(name)] = Endpoint(
            url=hook.url,
            form=hook.form,
            secrets=secrets,
            timeout_s=hook.timeout_s,
            ca_file=hook.ca_file,
            public_url=settings.api.public_url,
        )
    return found
