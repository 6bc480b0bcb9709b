"""A hand put in while a message is on the wire, and what is answered right behind the 202.

requests, protege-mta queue  -->  protege-mta  -- smarthost -->  a host that takes its time
"""

from __future__ import annotations

import json
import socketserver
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from .api import add_key, ask
from .service import WAIT_S, Service, ServiceTestCase, until

ROUTES = """
[outbound]
route = "smarthost"
smarthost = { host = "127.0.0.1", port = PORT, tls = "none" }

[retry]
first_s = 3600
"""


class SlowHost(socketserver.ThreadingTCPServer):
    """Answers the end of the data when it is told what to say.

    :ivar has_all: set when a message is there whole.
    :ivar says: the reply; ``go`` has it said.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), SlowSession)
        self.has_all = threading.Event()
        self.go = threading.Event()
        self.says = b"250 2.0.0 taken"

    def takes_its_time(self) -> None:
        self.has_all.clear()
        self.go.clear()


class SlowSession(socketserver.StreamRequestHandler):
    server: SlowHost

    def handle(self) -> None:
        self.say(b"220 slow.test ESMTP")
        while command := self.rfile.readline():
            verb = command[:4].upper()
            if verb == b"DATA":
                self.say(b"354 go on")
                while self.rfile.readline() not in (b".\r\n", b""):
                    pass
                self.server.has_all.set()
                self.server.go.wait(WAIT_S)
                self.say(self.server.says)
            elif verb == b"QUIT":
                self.say(b"221 2.0.0 bye")
                return
            else:
                self.say(b"250 slow.test")

    def say(self, line: bytes) -> None:
        self.wfile.write(line + b"\r\n")


class ActionsTests(ServiceTestCase):
    timeout = 300
    host: ClassVar[SlowHost]
    secret: ClassVar[str]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.host = stack.enter_context(SlowHost())
        thread = threading.Thread(target=cls.host.serve_forever)
        thread.start()
        stack.callback(thread.join)
        stack.callback(cls.host.shutdown)
        cls.service = cls.started(stack, ROUTES.replace("PORT", str(cls.host.server_address[1])))
        stack.callback(cls.host.go.set)
        cls.secret = add_key(cls.service)

    def ask(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        answer = ask(self.service, self.secret, method, path, **more)
        return answer.status_code, answer.json()

    def send(self, to: str) -> str:
        body = {"from": "me@far.test", "to": [to], "text": "there"}
        status, told = self.ask("POST", "/v1/message", json=body)
        self.assertEqual(status, 202, told)
        return str(told["id"])

    def do(self, id: str, action: str) -> tuple[int, Any, Any]:
        status, told = self.ask("POST", f"/v1/message/{id}/{action}")
        if status >= 400:
            return status, told["type"].rpartition(":")[2], None
        return status, told["changed"], told["under_way"]

    def status(self, id: str) -> str:
        status, told = self.ask("GET", f"/v1/message/{id}")
        self.assertEqual(status, 200, told)
        return str(told["recipients"][0]["status"])

    def under_way(self, says: bytes) -> str:
        """A message that the host has whole, and has said nothing about."""
        self.host.takes_its_time()
        self.host.says = says
        id = self.send("slow@far.test")
        self.assertTrue(self.host.has_all.wait(WAIT_S))
        self.assertEqual(self.status(id), "active")
        return id

    def queue(self, command: str, id: str) -> Any:
        ran = self.service.cli("queue", command, id, "--json")
        self.assertEqual(ran.returncode, 0, ran.stderr.decode())
        return json.loads(ran.stdout)

    def ends(self, id: str, wanted: str) -> None:
        self.host.go.set()
        until(lambda: self.status(id) == wanted, wanted)

    def test_cancelled_too_late(self) -> None:
        id = self.under_way(b"250 2.0.0 taken")
        self.assertEqual(self.do(id, "cancel"), (202, False, True))
        self.ends(id, "delivered")
        self.assertEqual(self.do(id, "cancel"), (409, "already-ended", None))

    def test_cancelled_in_time(self) -> None:
        """By command, and what it leaves is gone."""
        id = self.under_way(b"451 4.3.0 not now")
        self.assertEqual(self.queue("remove", id), {"count": 0, "later": 1})
        self.assertEqual(self.do(id, "hold"), (409, "being-cancelled", None))
        self.ends(id, "removed")
        self.assertEqual(self.do(id, "cancel"), (200, False, False))

    def test_held_and_let_go(self) -> None:
        id = self.under_way(b"451 4.3.0 not now")
        self.assertEqual(self.do(id, "hold"), (202, False, True))
        self.ends(id, "held")
        self.assertEqual(self.do(id, "retry"), (409, "held", None))
        self.host.says = b"250 2.0.0 taken"
        self.assertEqual(self.queue("release", id), {"count": 1})
        self.ends(id, "delivered")

    def test_retried(self) -> None:
        id = self.under_way(b"451 4.3.0 not now")
        self.ends(id, "deferred")
        self.host.says = b"250 2.0.0 taken"
        self.assertEqual(self.do(id, "retry"), (200, True, False))
        self.ends(id, "delivered")


class AtOnceTests(SynchronousTestCase):
    """Nobody is told that there is no message of an id that was just handed out."""

    timeout = 300

    def test_right_behind_the_202_and_behind_a_kill(self) -> None:
        # What a crash finds in the spool is tried when it was due next, not at once.
        service = Service("[retry]\nfirst_s = 2\n")
        self.addCleanup(service.close)
        service.start()
        secret = add_key(service)

        def post_and_look(number: int) -> str:
            body = {
                "from": "me@local.test",
                "to": [f"u{number}@local.test"],
                "text": "x",
                "tags": ["all", f"n{number}"],
            }
            id = str(ask(service, secret, "POST", "/v1/message", json=body).json()["id"])
            answer = ask(service, secret, "GET", f"/v1/message/{id}")
            self.assertEqual(answer.status_code, 200, answer.text)
            told = answer.json()
            self.assertEqual(told["tags"], ["all", f"n{number}"])
            is_over = told["recipients"][0]["status"] == "delivered"
            self.assertNotEqual(is_over, told["is_queued"], told)
            return id

        with ThreadPoolExecutor(8) as pool:
            ids = list(pool.map(post_and_look, range(200)))
        service.kill()
        service.start()
        for id in ids[::10]:
            self.assertEqual(ask(service, secret, "GET", f"/v1/message/{id}").status_code, 200)
        listed, query = [], "?tag=all&limit=64"
        while True:
            page = ask(service, secret, "GET", f"/v1/messages{query}").json()
            listed += [one["id"] for one in page["messages"]]
            if not page["next"]:
                break
            query = f"?tag=all&limit=64&after={page['next']}"
        self.assertEqual(listed, sorted(ids, reverse=True))
        until(
            lambda: all(
                ask(service, secret, "GET", f"/v1/messages?tag=n{n}&status=delivered").json()[
                    "messages"
                ]
                for n in (0, 99, 199)
            ),
            "the deliveries that the kill has taken",
        )
