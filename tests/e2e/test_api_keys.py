"""Keys of the HTTP APIs, from the command that makes them to the listener that asks for them.

protege-mta apikey ...  ->  state.sqlite  <-  service
a socket               -- HTTP, in the clear -->
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import closing
from typing import Any

from .service import ServiceTestCase, until


class ApiKeyTests(ServiceTestCase):
    def apikey(self, *arguments: str) -> Any:
        done = self.service.cli("apikey", *arguments, "--json")
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return json.loads(done.stdout)

    def ask(self, head: str, body: bytes = b"") -> tuple[int, str]:
        """Status and header of what is answered to a request, sent at once and as it is."""
        with closing(
            socket.create_connection(("127.0.0.1", self.service.port("http")), timeout=10)
        ) as connection:
            lines = head.replace("\n", "\r\n") + "\r\nHost: x\r\n\r\n"
            connection.sendall(lines.encode() + body)
            answer = b""
            while b"\r\n\r\n" not in answer:
                octets = connection.recv(65536)
                if not octets:
                    break
                answer += octets
        text = answer.decode("latin-1").partition("\r\n\r\n")[0]
        return int(text.split()[1]), text

    def status(self, secret: str, scheme: str = "Bearer") -> int:
        """Of a request with a body to a path that only callers learn does not exist."""
        return self.ask(
            f"POST /v1/nothing HTTP/1.1\nContent-Length: 1\nAuthorization: {scheme} {secret}", b"x"
        )[0]

    def within_a_second(self, secret: str, status: int) -> None:
        time.sleep(1.0)  # not by asking: who comes with an unknown key too often has to wait
        self.assertEqual(self.status(secret), status)

    def test_made_rotated_and_revoked_while_it_runs(self) -> None:
        first = self.apikey("create", "bot", "--scope", "send,read")["key"]
        self.within_a_second(first, 404)
        self.assertEqual(self.status(first, "bEARER"), 404)
        second = self.apikey("rotate", "bot", "--overlap", "1h")["key"]
        self.within_a_second(second, 404)
        self.assertEqual(self.status(first), 404)
        third = self.apikey("rotate", "bot", "--overlap", "0")["key"]
        self.within_a_second(third, 404)
        self.assertEqual((self.status(first), self.status(second)), (401, 401))
        until(lambda: self.apikey("show", "bot")["last_used_at"], "its last use")
        self.apikey("revoke", "bot")
        self.within_a_second(third, 401)
        told = self.service.log() + repr(self.service.told())
        for secret in (first, second, third):
            self.assertNotIn(secret[5:30], told)

    def test_nobody_has_to_send_a_body_to_be_refused(self) -> None:
        status, head = self.ask("POST /v1/nothing HTTP/1.1\nContent-Length: 60000000")
        self.assertEqual(status, 401)
        self.assertIn("WWW-Authenticate: Bearer", head)

    def test_a_refusal_reaches_who_sends_a_body_anyhow(self) -> None:
        status, _ = self.ask("POST /v1/nothing HTTP/1.1\nContent-Length: 500000", b"x" * 500_000)
        self.assertEqual(status, 401)

    def test_refusals_are_events(self) -> None:
        self.ask("POST /v1/nothing HTTP/1.1\nContent-Length: 0\nAuthorization: Bearer pmta_x")
        self.ask("POST /v1/nothing HTTP/1.1\nContent-Length: 1\nAuthorization: Bearer pmta_x", b"x")
        event = self.service.event("rejected", peer_address="127.0.0.1")
        self.assertIn(event["reply"]["code"], (530, 535))
        self.assertEqual(event["source"], "http")
