"""Mail for a domain of ours is posted to an HTTP endpoint.

client  -- public listener -->  protege-mta  -- POST -->  endpoint
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import ClassVar, Final

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
