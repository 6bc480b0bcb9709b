"""A disk or a database that fails under the API, as its clients hear of it.

requests  -- HTTP -->  protege-mta  --  state/log.sqlite, state/state.sqlite  <--  who is in the way
"""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing
from typing import Any

import requests

from protege_mta.state import database, log

from .api import ApiTestCase, add_key, ask
from .service import Service, until

MESSAGE = {"from": "me@far.test", "to": ["agent@local.test"], "subject": "hi", "text": "there"}


class TroubleTests(ApiTestCase):
    timeout = 120

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.service = Service()
        stack.callback(cls.service.close)
        cls.service.state.mkdir(mode=0o700)
        (cls.service.state / log.NAME).mkdir()  # where its file should be
        cls.service.start()
        cls.secret = add_key(cls.service, scopes=frozenset(("admin",)))

    def get(self, path: str) -> requests.Response:
        return ask(self.service, self.secret, "GET", path)

    def assert_unavailable(self, answer: requests.Response) -> None:
        told: dict[str, Any] = answer.json()
        self.assertEqual((answer.status_code, told["status"]), (503, 503), answer.text)
        self.assertEqual(answer.headers["Content-Type"], "application/problem+json")
        self.assertGreater(int(answer.headers["Retry-After"]), 0)
        self.assertNotIn("sqlite", answer.text)

    def test_log_that_cannot_be_used(self) -> None:
        """Mail goes on; who asks about it is told to come back, and then finds all of it."""
        id = self.post("/v1/message", MESSAGE).json()["id"]
        self.service.event("delivered", message_id=id)
        for path in ("/v1/messages", f"/v1/message/{id}"):
            self.assert_unavailable(self.get(path))
        self.assertIn("unable to open database file", self.service.log())
        (self.service.state / log.NAME).rmdir()
        found = self.get(f"/v1/message/{id}")
        self.assertEqual(found.status_code, 200, found.text)
        self.assertEqual(
            [one["event"] for one in found.json()["events"]], ["received", "delivered"]
        )

    def test_database_that_another_process_has_locked(self) -> None:
        """Nothing is said to be done that is not, and mail still comes in."""
        entry = {"address": "a@far.test"}
        path = self.service.state / database.NAME
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            self.assert_unavailable(self.post("/v1/suppressions", entry))
            self.assertEqual(self.get("/v1/suppressions").json(), {"suppressions": []})
            self.assertEqual(self.post("/v1/message", MESSAGE).status_code, 202)
            other.execute("ROLLBACK")
        self.assertEqual(self.post("/v1/suppressions", entry).status_code, 201)

    def test_journal_that_cannot_be_read(self) -> None:
        """A folder where its first segment would be; the stream has a whole answer too."""
        self.post("/v1/message", MESSAGE)
        until(lambda: self.get("/v1/events?limit=1").json()["events"], "an event")
        journal = self.service.state / "journal"
        first = min(journal.iterdir())
        in_the_way = journal / f"{'0' * len(first.stem)}{first.suffix}"
        in_the_way.mkdir()
        try:
            for way in ("/v1/events", "/v1/events/stream?after="):
                self.assert_unavailable(self.get(way))
        finally:
            in_the_way.rmdir()
        self.assertEqual(self.get("/v1/events?limit=1").status_code, 200)
