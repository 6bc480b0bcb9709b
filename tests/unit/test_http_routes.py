"""What the service serves over HTTP, and what it says that it serves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.compose import House
from protege_mta.config.toml import load
from protege_mta.http.catalogue import ENDPOINTS
from protege_mta.http.endpoint import SCOPED
from protege_mta.http.listener import TUNNEL
from protege_mta.http.openapi import UNDESCRIBED, document, page

CONFIGURATION = """
mode = "local"
hostname = "mx.local.test"
state_dir = "state"
"""


class Reactor(MemoryReactorClock):
    def callFromThread(self, *_: object) -> None:
        """Nothing is started."""


class RoutesTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        file = folder / "protege-mta.toml"
        file.write_text(CONFIGURATION, "utf-8")
        house = House(Reactor(), load(file))
        self.rules = list(house.listeners.endpoints().url_map.iter_rules())
        self.described: Any = document(ENDPOINTS, version="1")

    def test_every_route_is_described(self) -> None:
        """By the whole house: a route that is not in the catalogue is found here."""
        served = {
            (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
            for rule in self.rules
            for method in (rule.methods or set()) - {"HEAD"}
        }
        told = {(method, path) for path, some in self.described["paths"].items() for method in some}
        self.assertEqual(served, told)

    def test_what_is_not_described_says_why(self) -> None:
        self.assertEqual(set(UNDESCRIBED), {TUNNEL.decode("ascii")})
        for path, why in UNDESCRIBED.items():
            self.assertIn(path, self.described["info"]["description"])
            self.assertTrue(why)

    def test_whoever_needs_a_key_may_be_refused(self) -> None:
        """What every key brings is said once, and holds for each endpoint that wants one."""
        for path, methods in self.described["paths"].items():
            for method, operation in methods.items():
                statuses = {int(status) for status in operation["responses"]}
                if "x-scope" in operation:
                    self.assertLessEqual(set(SCOPED), statuses, f"{method} {path}")

    def test_what_a_key_has_to_be_for(self) -> None:
        """Where one of two scopes will do, both are told."""
        paths = self.described["paths"]
        for path, method, scopes in (
            ("/v1/message", "post", ["send"]),
            ("/v1/message/{id}", "get", ["send", "read"]),
            ("/v1/messages", "get", ["send", "read"]),
            ("/v1/message/{id}/hold", "post", ["send"]),
            ("/v1/events", "get", ["read"]),
        ):
            self.assertEqual(paths[path][method]["x-scope"], scopes, path)

    def test_conflicts(self) -> None:
        """409 is about the Idempotency-Key where there is one, and only there."""
        for path, methods in self.described["paths"].items():
            for method, operation in methods.items():
                told = operation["responses"].get("409", {"description": ""})["description"]
                names = {one["name"] for one in operation.get("parameters", ())}
                if "Idempotency-Key" in told:
                    self.assertIn("Idempotency-Key", names, f"{method} {path}")

    def test_members_of_answers_are_told(self) -> None:
        members = self.described["components"]["schemas"]["MessagePage"]["properties"]
        self.assertEqual(members["next"]["description"][:26], "the `after` of the next re")

    def test_refusals_are_problems(self) -> None:
        """All but those whose clients know another form, or are people."""
        others = {"/api/send", "/api/health", "/healthz", "/u/{token}"}
        for path, methods in self.described["paths"].items():
            for method, operation in methods.items():
                for status, told in operation["responses"].items():
                    if int(status) >= 400 and path not in others:
                        self.assertEqual(
                            list(told["content"]), ["application/problem+json"], f"{method} {path}"
                        )

    def test_other_media_types(self) -> None:
        """Those that are read, and those that a client may ask for."""
        suppressions = self.described["paths"]["/v1/suppressions"]
        kinds = ["application/json", "application/x-ndjson"]
        self.assertEqual(
            list(suppressions["get"]["responses"]["200"]["content"]),
            [*kinds, "text/csv; charset=utf-8"],
        )
        self.assertEqual(list(suppressions["post"]["requestBody"]["content"]), [*kinds, "text/csv"])
        self.assertFalse(self.described["paths"]["/u/{token}"]["post"]["requestBody"]["required"])

    def test_page_shows_every_operation(self) -> None:
        html = page(self.described)
        for methods in self.described["paths"].values():
            for operation in methods.values():
                self.assertIn(f'id="{operation["operationId"]}"', html)
