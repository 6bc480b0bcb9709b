"""Mail for a domain of ours is posted to an HTTP endpoint.

client  -- public listener -->  protege-mta  -- POST -->  endpoint
asker   -- GET, POST /v1/message... -->  |
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from typing import Any, ClassVar, Final

from protege_mta.testing.endpoints import SILENCE, HttpEndpoint, Said

from .service import ServiceTestCase, send, until

TABLES: Final = """
[domains."hook.test"]
deliver = "webhook"
webhook = { url = "http://127.0.0.1:PORT/mail", timeout_s = 60 }

[retry]
first_s = 1
"""

CONTENT: Final = b"From: A <a@x.test>\r\nSubject: hello\r\nMessage-ID: <%d@x.test>\r\n\r\nhello\r\n"


class InboundWebhookTests(ServiceTestCase):
    endpoint: ClassVar[HttpEndpoint]

    def ask(self, path: str, scope: str, method: str = "GET") -> tuple[int, bytes]:
        """What the API says to a key with that scope."""
        if scope not in self.keys:
            made = self.service.cli("apikey", "create", f"k-{scope}", "--scope", scope)
            self.keys[scope] = made.stdout.decode().strip()
        url = f"http://127.0.0.1:{self.service.port('http')}{path}"
        request = urllib.request.Request(url, method=method)
        request.add_header("Authorization", f"Bearer {self.keys[scope]}")
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    keys: ClassVar[dict[str, str]] = {}

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.endpoint = HttpEndpoint()
        stack.callback(cls.endpoint.stop)
        cls.service = cls.started(stack, TABLES.replace("PORT", str(cls.endpoint.port)))

    def test_an_agent_gets_json(self) -> None:
        send(self.service.port("smtp"), "a@x.test", ["agent@hook.test"], CONTENT % 1)
        event = self.service.event("delivered", recipient="agent@hook.test")
        self.assertEqual(event["route"], "webhook")
        found = json.loads(self.endpoint.posted[-1].body)
        self.assertEqual((found["subject"], found["text"]), ("hello", "hello\n"))

    def test_a_kill_in_the_middle(self) -> None:
        """Has it posted again, under the same name."""
        before = len(self.endpoint.posted)
        self.endpoint.script.append(Said(SILENCE))
        send(self.service.port("smtp"), "a@x.test", ["killed@hook.test"], CONTENT % 2)
        until(lambda: len(self.endpoint.posted) > before or None, "a request")
        self.service.kill()
        self.service.start()
        self.service.event("delivered", recipient="killed@hook.test")
        ids = {one.fields["webhook-id"] for one in self.endpoint.posted[before:]}
        self.assertEqual((len(ids), len(self.endpoint.posted) - before >= 2), (1, True))

    def test_rejected_by_the_endpoint(self) -> None:
        """Its sender is told why."""
        self.endpoint.script.append(Said(422, b'{"reject": "not wanted"}'))
        send(self.service.port("smtp"), "asker@local.test", ["no@hook.test"], CONTENT % 3)
        event = self.service.event("bounced", recipient="no@hook.test")
        self.assertIn("not wanted", event["reply"]["text"])
        self.service.wait_for_mail("asker")

    def until_posted(self, requests: int) -> None:
        until(lambda: len(self.endpoint.posted) >= requests, "a request")

    def test_a_big_attachment(self) -> None:
        """Is fetched where the JSON form says, by who may, for as long as the message is there; the
        service goes on meanwhile."""
        octets = random.Random(1).randbytes(36_000_000)
        content = b"".join(
            (
                b"Subject: big\r\nMIME-Version: 1.0\r\n",
                b"Content-Type: application/pdf; name*=utf-8''%C3%BC.pdf\r\n",
                b"Content-Transfer-Encoding: base64\r\n\r\n",
                base64.encodebytes(octets).replace(b"\n", b"\r\n"),
            )
        )
        before = len(self.endpoint.posted)
        self.endpoint.script.append(Said(503, fields={"Retry-After": "5"}))
        send(self.service.port("smtp"), "a@x.test", ["big@hook.test"], content)
        deferred = self.service.event("deferred", recipient="big@hook.test")
        self.assertEqual(deferred["reply"]["code"], 451)
        [one] = json.loads(self.endpoint.posted[before].body)["attachments"]
        self.assertEqual((one["filename"], one["size_octets"]), ("ü.pdf", len(octets)))
        self.assertEqual(one["sha256"], hashlib.sha256(octets).hexdigest())
        self.assertNotIn("content_base64", one)
        self.service.cli("queue", "hold", deferred["message_id"])
        until(lambda: self.ask(one["url"], "admin")[0] != 401 or None, "the key")
        until(lambda: self.ask(one["url"], "read")[0] != 401 or None, "the key")
        until(lambda: self.ask(one["url"], "send")[0] != 401 or None, "the key")
        began = time.monotonic()
        self.assertEqual(self.ask(one["url"], "read"), (200, octets))
        self.assertLess(time.monotonic() - began, 15)
        self.assertEqual(self.ask(one["url"], "send")[0], 404)
        self.assertEqual(self.ask(one["url"][:-1] + "7", "read")[0], 404)
        bare = f"http://127.0.0.1:{self.service.port('http')}{one['url']}"
        refused = self.assertRaises(urllib.error.HTTPError, urllib.request.urlopen, bare)
        self.assertEqual(refused.code, 401)
        refused.close()
        self.service.restart()
        self.assertEqual(self.ask(one["url"], "read")[0], 200)
        self.service.cli("queue", "release", deferred["message_id"])
        self.service.event("delivered", recipient="big@hook.test")
        self.assertEqual(self.ask(one["url"], "read")[0], 404)

    def test_a_message_that_is_made_to_break_us(self) -> None:
        """Ten thousand parts and a hundred levels: it comes, and says that it is not whole."""
        parts = b"".join(b"--b\r\nContent-Type: a/x\r\n\r\nx\r\n" for _ in range(10_000))
        levels = b"".join(
            b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n)
            for n in range(100)
        )
        start = b"Subject: nasty\r\nMIME-Version: 1.0\r\n"
        for content in (
            start + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + parts,
            start + levels + b"\r\nx\r\n",
        ):
            before = len(self.endpoint.posted)
            send(self.service.port("smtp"), "a@x.test", ["nasty@hook.test"], content)
            self.until_posted(before + 1)
            found = json.loads(self.endpoint.posted[before].body)
            self.assertEqual((found["subject"], found["flags"]), ("nasty", ["cut"]))

    def test_timeline(self) -> None:
        """Of a message that waits, then of one that has left; its octets as long as it is there."""
        self.endpoint.script.extend([Said(503, fields={"Retry-After": "3600"})])
        send(self.service.port("smtp"), "t@x.test", ["late@hook.test"], CONTENT % 4)
        id = self.service.event("deferred", recipient="late@hook.test")["message_id"]
        until(lambda: self.ask(f"/v1/message/{id}", "admin")[0] != 401 or None, "the key")
        status, body = self.ask(f"/v1/message/{id}", "read")
        told: dict[str, Any] = json.loads(body)
        self.assertEqual((status, told["is_queued"], told["subject"]), (200, True, "hello"))
        [one] = told["recipients"]
        self.assertEqual((one["address"], one["status"]), ("late@hook.test", "deferred"))
        self.assertIn("503", one["last_reply"])
        self.assertIn("next_attempt_at", one)
        self.assertEqual([each["event"] for each in told["events"]][:2], ["received", "deferred"])
        status, body = self.ask(f"/v1/message/{id}/raw", "read")
        self.assertEqual((status, body.endswith(CONTENT % 4)), (200, True))
        self.assertEqual(self.ask(f"/v1/message/{id}/attachments/0", "read")[0], 404)
        self.assertEqual(self.ask(f"/v1/message/{id}", "send")[0], 404)
        self.assertEqual(self.ask(f"/v1/message/{id}/cancel", "read", "POST")[0], 403)
        status, body = self.ask(f"/v1/message/{id}/hold", "admin", "POST")
        self.assertEqual((status, json.loads(body)["changed"]), (200, True))
        self.assertEqual(self.ask(f"/v1/message/{id}/cancel", "admin", "POST")[0], 200)
        self.service.event("removed", recipient="late@hook.test")

        def gone() -> dict[str, Any] | None:
            found: dict[str, Any] = json.loads(self.ask(f"/v1/message/{id}", "read")[1])
            return found if found["recipients"][0]["status"] == "removed" else None

        told = until(gone, "the fate")
        self.assertEqual(told["is_queued"], False)
        self.assertEqual(self.ask(f"/v1/message/{id}/raw", "read")[0], 404)
        self.assertEqual(self.ask(f"/v1/message/{id}/retry", "admin", "POST")[0], 409)
        page = json.loads(self.ask("/v1/messages?recipient=late@hook.test&limit=1", "read")[1])
        self.assertEqual([each["id"] for each in page["messages"]], [id])
        page = json.loads(
            self.ask(f"/v1/messages?recipient=late@hook.test&after={page['next']}", "read")[1]
        )
        self.assertEqual(page["messages"], [])
