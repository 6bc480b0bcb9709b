"""What a program may do with its key, from the command that says so to what becomes of its mail.

a socket  -- POST /v1/message -->  service  --Maildir-->  local.test
protege-mta apikey ... , queue release ...  -->
"""

from __future__ import annotations

import json
import urllib.request
from typing import Any, ClassVar
from urllib.error import HTTPError

from .service import Event, ServiceTestCase, until

SENDER = "agent@local.test"


class PolicyCase(ServiceTestCase):
    made: ClassVar[int] = 0

    def key(self, *options: str) -> tuple[str, str]:
        """A new key's identity and its secret, once the service knows it."""
        PolicyCase.made += 1
        name = f"k{PolicyCase.made}"
        done = self.service.cli("apikey", "create", name, *options, "--json")
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        secret = json.loads(done.stdout)["key"]
        until(lambda: self.post(secret, "", [])[0] != 401, "the key")
        return f"key:{name}", secret

    def post(self, secret: str, sender: str, to: list[str], **more: Any) -> tuple[int, Any]:
        body = {"from": sender, "to": to, "subject": "Hi", "text": "Hello.", **more}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.service.port('http')}/v1/message",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {secret}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, json.load(response)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)

    def send(self, secret: str, *to: str) -> str:
        status, answer = self.post(secret, SENDER, list(to))
        self.assertEqual(status, 202, answer)
        return str(answer["id"])

    def told(self, id: str) -> list[Event]:
        return [event for event in self.service.events() if event.get("message_id") == id]

    def names(self, id: str) -> list[str]:
        return [event["event"] for event in self.told(id)]

    def refused(self, secret: str, to: list[str], **more: Any) -> tuple[int, str]:
        status, answer = self.post(secret, more.pop("sender", SENDER), to, **more)
        return status, str(answer.get("type")).rpartition(":")[2]


class ApprovalTests(PolicyCase):
    def test_until_a_person_releases_it(self) -> None:
        _, secret = self.key("--approval", "first-time")
        first, second = self.send(secret, "bob@local.test"), self.send(secret, "bob@local.test")
        until(lambda: self.names(second) == ["received", "held"], "a second one held")
        self.assertTrue(self.told(first)[1]["reason"].startswith("approval: "))
        explained = self.service.cli("explain", first).stdout.decode()
        self.assertIn("held until it is released: approval: ", explained)
        self.assertEqual(self.service.cli("queue", "release", first).returncode, 0)
        self.service.event("delivered", message_id=first)
        third = self.send(secret, "bob@local.test")
        self.service.event("delivered", message_id=third)
        self.assertEqual(self.names(third), ["received", "delivered"])
        self.assertEqual(self.names(second), ["received", "held"])

    def test_another_recipient_is_a_stranger_still(self) -> None:
        _, secret = self.key("--approval", "first-time")
        first = self.send(secret, "carol@local.test")
        self.service.cli("queue", "release", first)
        self.service.event("delivered", message_id=first)
        both = self.send(secret, "carol@local.test", "dave@local.test")
        until(lambda: self.names(both) == ["received"] * 2 + ["held"] * 2, "both held")


class KilledTests(PolicyCase):
    """A service of its own, which dies."""

    def test_held_whatever_is_killed_when(self) -> None:
        _, secret = self.key("--approval", "all")
        held = [self.send(secret, f"r{number}@local.test") for number in range(20)]
        self.service.kill()
        self.service.start()
        rows = json.loads(
            self.service.cli("queue", "list", "--state", "held", "--json").stdout or b"[]"
        )
        self.assertEqual({row["id"] for row in rows}, set(held))
        for id in held:
            self.assertEqual(self.names(id), ["received", "held"])
        self.service.kill()
        released = self.service.cli("queue", "release", held[0])
        self.assertEqual(released.returncode, 0, released.stderr.decode())
        self.service.start()
        self.service.event("delivered", message_id=held[0])
        self.assertEqual(self.names(held[1]), ["received", "held"])


class RefusalTests(PolicyCase):
    def test_lists(self) -> None:
        _, secret = self.key("--allowed-from", SENDER, "--denied-to", "eve@local.test", "--no-bcc")
        self.assertEqual(
            self.refused(secret, ["bob@local.test"], sender="x@local.test"),
            (403, "sender-not-allowed"),
        )
        self.assertEqual(
            self.refused(secret, ["bob@local.test", "eve@local.test"]),
            (403, "recipient-not-allowed"),
        )
        self.assertEqual(
            self.refused(secret, ["bob@local.test"], bcc=["carol@local.test"]),
            (403, "bcc-not-allowed"),
        )
        self.send(secret, "bob@local.test")

    def test_limits(self) -> None:
        identity, secret = self.key("--per-hour", "2", "--first-time-per-day", "1")
        self.assertEqual(
            self.refused(secret, ["a@local.test", "b@local.test"]), (429, "first-time-limit")
        )
        self.send(secret, "a@local.test")
        self.assertEqual(self.refused(secret, ["b@local.test"]), (429, "first-time-limit"))
        self.send(secret, "a@local.test")
        self.assertEqual(self.refused(secret, ["a@local.test"]), (429, "rate-limited"))
        event = self.service.event("rejected", identity=identity)
        self.assertEqual(event["source"], "http")
        self.assertGreater(event["size_octets"], 0)
        self.assertTrue(event["header_message_id"].endswith("@mx.local.test>"))


class SandboxTests(PolicyCase):
    def test_magic_recipients(self) -> None:
        """Each with its events, and nothing in a mailbox, not even the bounce."""
        identity, secret = self.key("--sandbox")
        plays = {
            "x": ["received", "delivered"],
            "bounced+1": ["received", "bounced"],
            "deferred": ["received", "deferred", "deferred", "delivered"],
            "complained": ["received", "delivered", "feedback"],
        }
        ids = {name: self.send(secret, f"{name}@local.test") for name in plays}
        for name, wanted in plays.items():
            until(lambda id=ids[name], wanted=wanted: self.names(id) == wanted, name)  # type: ignore[misc]
        [bounced] = [one for one in self.told(ids["bounced+1"]) if one["event"] == "bounced"]
        self.service.event("delivered", message_id=bounced["dsn"], route="sandbox")
        for id in (*ids.values(), bounced["dsn"]):
            self.assertEqual({one["sandbox"] for one in self.told(id)}, {True})
        for name in (*plays, "agent"):
            self.assertEqual(self.service.maildir("local.test", name), [])
        self.assertEqual(
            {one["identity"] for id in ids.values() for one in self.told(id)}, {identity}
        )
