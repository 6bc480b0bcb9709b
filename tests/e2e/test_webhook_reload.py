"""Webhooks that a reload adds, removes and changes, with mail going on; and their process, when it
is killed, stopped or orphaned.

client ── SMTP ──▶ service ── journal ──▶ notifier ── POST ──▶ endpoints
                      ▲ SIGHUP, reload       ✗ kill -9, SIGSTOP
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import standardwebhooks

from protege_mta.state.hooks import HookStore
from protege_mta.testing.endpoints import SILENCE, HttpEndpoint, Posted, Said
from tests.crash.test_webhooks import notifier_of

from .service import ServiceTestCase, send, until

OLD: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEW: Final = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


class Case(ServiceTestCase):
    number = 0

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.service = cls.started(stack)

    def setUp(self) -> None:
        super().setUp()
        for name, secret in (("old", OLD), ("new", NEW), ("both", f"{NEW}\n{OLD}")):
            (self.service.folder / name).write_text(secret + "\n")
        self.addCleanup(self.put, "")

    def endpoint(self) -> HttpEndpoint:
        made = HttpEndpoint()
        self.addCleanup(made.stop)
        return made

    def hook(self, name: str, endpoint: HttpEndpoint, secret: str = "old", more: str = "") -> str:
        return (
            f'[[webhook]]\nname = "{name}"\nurl = "http://127.0.0.1:{endpoint.port}/{name}"\n'
            f'secret_file = "{secret}"\ntimeout_s = 20\n{more}\n'
        )

    def put(self, tables: str) -> None:
        """Configure and reload, by a command that says when that has been done."""
        self.service.configure(tables)
        said = self.service.cli("reload")
        self.assertEqual((said.returncode, said.stderr), (0, b""))

    def mail(self) -> str:
        """Hand in a message; its recipient."""
        type(self).number += 1
        recipient = f"{self.id().rpartition('.')[2]}.{self.number}@local.test"
        send(self.service.port(), "a@far.test", [recipient], b"Subject: x\r\n\r\nx\r\n")
        return recipient

    def told(self, endpoint: HttpEndpoint) -> list[tuple[str, str]]:
        """Recipients and events, as the endpoint was told of them."""
        events: list[dict[str, Any]] = [json.loads(one.body) for one in list(endpoint.posted)]
        return [(one["recipient"], one["event"]) for one in events]

    def until_told(self, endpoint: HttpEndpoint, recipient: str, event: str = "delivered") -> None:
        until(lambda: (recipient, event) in self.told(endpoint), f"{event} of {recipient}")


class ReloadTests(Case):
    def test_added_and_removed(self) -> None:
        """A new one begins with what comes; one that was removed is told nothing more, and one that
        comes back goes on where it was."""
        first, second = self.endpoint(), self.endpoint()
        before = self.mail()
        self.service.event("delivered", recipient=before)
        self.put(self.hook("added", first))
        one = self.mail()
        self.until_told(first, one)
        self.put(self.hook("added", first) + self.hook("other", second))
        two = self.mail()
        self.until_told(first, two)
        self.until_told(second, two)
        self.put(self.hook("other", second))
        count = len(first.posted)
        three = self.mail()
        self.until_told(second, three)
        self.assertEqual(len(first.posted), count)
        self.put(self.hook("added", first))
        self.until_told(first, three)
        wanted = [(who, what) for who in (one, two, three) for what in ("received", "delivered")]
        self.assertEqual(self.told(first), wanted)
        self.assertEqual(self.told(second), wanted[2:])

    def test_another_url(self) -> None:
        """Once the reload is answered, nothing goes to the old one; nothing is lost in between and
        what was under way is sent to the new one, under its old name."""
        old, new = self.endpoint(), self.endpoint()
        self.put(self.hook("moved", old))
        done = self.mail()
        self.until_told(old, done)
        old.script.append(Said(SILENCE))
        waits = self.mail()
        self.until_told(old, waits, "received")
        sent = [self.mail() for _ in range(20)]
        self.put(self.hook("moved", new))
        count = len(old.posted)
        sent += [self.mail() for _ in range(20)]
        self.until_told(new, sent[-1])
        self.assertEqual(len(old.posted), count)
        told = self.told(old)[:-1] + self.told(new)
        for recipient in (done, waits, *sent):
            events = [event for one, event in told if one == recipient]
            self.assertEqual(events, ["received", "delivered"], recipient)
        self.assertEqual(old.posted[-1].fields["webhook-id"], new.posted[0].fields["webhook-id"])

    def test_another_secret(self) -> None:
        """While one is replaced, who knows either takes what comes; before and after, only one."""
        endpoint = self.endpoint()
        for secret, known in (("old", {OLD}), ("both", {OLD, NEW}), ("new", {NEW})):
            self.put(self.hook("signed", endpoint, secret))
            before = len(endpoint.posted)
            self.until_told(endpoint, self.mail())
            for posted in endpoint.posted[before:]:
                takes = {one for one in (OLD, NEW) if is_taken(one, posted)}
                self.assertEqual(takes, known)

    def test_the_same_file(self) -> None:
        """A secret that was changed where it lies is used from the reload on."""
        endpoint = self.endpoint()
        path = self.service.folder / "rotated"
        path.write_text(f"{OLD}\n")
        self.put(self.hook("rotated", endpoint, "rotated"))
        self.until_told(endpoint, self.mail())
        path.write_text(f"{NEW}\n")
        self.service.reload()
        self.until_told(endpoint, self.mail())
        self.assertTrue(is_taken(OLD, endpoint.posted[0]))
        self.assertFalse(is_taken(OLD, endpoint.posted[-1]))
        self.assertTrue(is_taken(NEW, endpoint.posted[-1]))

    def test_other_events(self) -> None:
        """A filter holds from the reload on; the place stays."""
        endpoint = self.endpoint()
        self.put(self.hook("few", endpoint, more='events = ["delivered"]'))
        one = self.mail()
        self.until_told(endpoint, one)
        self.put(self.hook("few", endpoint, more='events = ["received"]'))
        two = self.mail()
        self.service.event("delivered", recipient=two)
        three = self.mail()
        self.until_told(endpoint, three, "received")
        self.assertEqual(
            self.told(endpoint), [(one, "delivered"), (two, "received"), (three, "received")]
        )

    def test_a_file_that_cannot_be_used(self) -> None:
        """Changes nothing, and says so."""
        endpoint = self.endpoint()
        self.put(self.hook("kept", endpoint))
        (self.service.folder / "bad").write_text("no secret\n")
        self.service.configure(self.hook("kept", self.endpoint(), "bad"))
        said = self.service.cli("reload")
        self.assertEqual(said.returncode, os.EX_USAGE)
        self.assertIn(b"wanted a secret", said.stderr)
        self.assertNotIn(b"no secret", said.stderr)
        self.until_told(endpoint, self.mail())

    def test_gone(self) -> None:
        """410 stops it (Standard Webhooks 1.0), and the next reload goes on with what was missed."""
        endpoint = self.endpoint()
        self.put(self.hook("gone", endpoint))
        endpoint.script.append(Said(410))
        one = self.mail()
        until(
            lambda: "the endpoint is gone, as it says" in self.service.log(), "the word in the log"
        )
        two = self.mail()
        self.service.event("delivered", recipient=two)
        self.assertEqual(len(endpoint.posted), 1)
        self.service.reload()
        self.until_told(endpoint, two)
        self.assertEqual(self.told(endpoint)[1:3], [(one, "received"), (one, "delivered")])


class ProcessTests(Case):
    def notifier(self) -> int:
        return until(lambda: notifier_of(self.service.pid) or None, "the process for webhooks")

    def until_ended(self, pid: int) -> None:
        until(lambda: not is_there(pid), "the process's end", 5)

    def test_killed_in_a_loop(self) -> None:
        """Each time another one goes on where the last one was; mail never waits for it."""
        endpoint = self.endpoint()
        self.put(self.hook("killed", endpoint))
        sent = []
        for _ in range(5):
            found = self.notifier()
            sent.append(self.mail())
            os.kill(found, signal.SIGKILL)
            self.service.event("delivered", recipient=sent[-1])
            self.until_ended(found)
        for recipient in sent:
            self.until_told(endpoint, recipient)
        ids = list(dict.fromkeys(one.fields["webhook-id"] for one in endpoint.posted))
        self.assertEqual(len(ids), 2 * len(sent))

    def test_stopped(self) -> None:
        """One that hangs holds up neither mail nor a reload, and is replaced in half a minute."""
        endpoint = self.endpoint()
        self.put(self.hook("stopped", endpoint))
        found = self.notifier()
        os.kill(found, signal.SIGSTOP)
        recipient = self.mail()
        self.service.event("delivered", recipient=recipient)
        self.put(self.hook("stopped", endpoint, "new"))
        self.assertFalse(is_there(found))
        self.until_told(endpoint, recipient)
        self.assertTrue(is_taken(NEW, endpoint.posted[-1]))

    def test_without_its_parent(self) -> None:
        """It ends in the same moment, and posts nothing for a service that is not there."""
        endpoint = self.endpoint()
        self.put(self.hook("orphan", endpoint))
        found = self.notifier()
        self.service.kill()
        try:
            self.until_ended(found)
        finally:
            self.service.start()
        self.until_told(endpoint, self.mail())

    def test_far_behind(self) -> None:
        """One whose events are no longer kept is told so first."""
        endpoint = self.endpoint()
        self.put(self.hook("behind", endpoint))
        self.until_told(endpoint, self.mail())
        self.put("")
        store = HookStore(self.service.state)
        store.move("behind", "00000000000001-0000000000")
        store.close()
        before = len(endpoint.posted)
        self.put(self.hook("behind", endpoint))
        recipient = self.mail()
        until(
            lambda: any(recipient.encode() in one.body for one in list(endpoint.posted)[before:]),
            "the event",
        )
        first = json.loads(endpoint.posted[before].body)
        self.assertEqual((first["event"], first["after"][:14]), ("lost", "00000000000001"))
        shown = json.loads(self.service.cli("webhook", "show", "behind", "--json").stdout)
        self.assertEqual(shown["lost"], 1)
        self.assertIn("no longer kept when it was their turn", self.service.log())


def is_taken(secret: str, posted: Posted) -> bool:
    """Whether the library of Standard Webhooks takes a request."""
    try:
        standardwebhooks.Webhook(secret).verify(posted.body, posted.fields)
    except standardwebhooks.WebhookVerificationError:
        return False
    return True


def is_there(pid: int) -> bool:
    """Whether a process runs, or could go on."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
