"""A service with HTTP and an API key, and how tests ask it."""

from __future__ import annotations

import re
import secrets
import time
from contextlib import ExitStack, closing
from typing import Any, ClassVar

import requests

from protege_mta.http.answer import PROBLEM
from protege_mta.http.catalogue import ENDPOINTS
from protege_mta.model.apikey import SECRET_OCTETS, ApiKey, KeySecret, fingerprint, secret_text
from protege_mta.state import apikeys
from protege_mta.state.database import connect

from .service import WAIT_S, Service, ServiceTestCase, until


def add_key(service: Service, name: str = "app", **more: Any) -> str:
    """Put a key into a running service's state, and wait until it opens.  :return: its secret."""
    secret = secret_text(secrets.token_bytes(SECRET_OCTETS))
    digest = fingerprint(secret)
    assert digest is not None
    kept = KeySecret(digest=digest, created_at=time.time())
    with closing(connect(service.folder / "state")) as connection, connection:
        apikeys.put(connection, ApiKey(name=name, secrets=(kept,), **more))
    time.sleep(1.0)  # not by asking: who comes with an unknown key too often has to wait
    until(lambda: ask(service, secret, "GET", "/api/health").status_code == 200, "the key")
    return secret


def ask(service: Service, secret: str, method: str, path: str, **more: Any) -> requests.Response:
    """One request, with the key."""
    headers = {"Authorization": f"Bearer {secret}", **more.pop("headers", {})}
    url = f"http://127.0.0.1:{service.port('http')}{path}"
    answer = requests.request(method, url, headers=headers, timeout=WAIT_S, **more)
    check_described(method, path, answer)
    return answer


def check_described(method: str, path: str, answer: requests.Response) -> None:
    """Whether the API's description has an answer such as this.

    :raise AssertionError: an operation that it has answers with what it has not.
    """
    plain = path.partition("?")[0]
    for endpoint in ENDPOINTS:
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(endpoint.path))
        if endpoint.method == method and re.fullmatch(pattern, plain):
            kind, status = answer.headers.get("Content-Type", ""), answer.status_code
            kinds: tuple[str, ...] = ()
            if status in endpoint.answers:
                one = endpoint.answers[status]
                kinds = (one.media_type, *one.others)
            elif status in endpoint.refusals:
                kinds = (PROBLEM,)
            assert kind in kinds, f"{method} {path}: {status} {kind} is not described"
            return


class ApiTestCase(ServiceTestCase):
    """:cvar secret: of a key that may send anything."""

    secret: ClassVar[str]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        super().begin(stack)
        cls.secret = add_key(cls.service)

    def post(self, path: str, body: Any, **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return ask(self.service, self.secret, "POST", path, json=body, headers=named)
