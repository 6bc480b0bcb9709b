"""The queue's commands, on every state, with the service running and without it.

send() --SMTP--> service --LMTP--> hang.test: takes content and says nothing
                         --LMTP--> later.test: 450 to everybody
                         --Maildir--> local.test: where bounces go
queue, explain, status --control.sock--> service, or the spool itself
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from contextlib import ExitStack
from typing import Any, ClassVar, Final

from .lmtp_peer import LmtpPeer
from .service import TOP, Service, ServiceTestCase, send, until

TABLES: Final = """\
[domains."hang.test"]
deliver = "lmtp"
lmtp = "127.0.0.1:{hang}"

[domains."later.test"]
deliver = "lmtp"
lmtp = "127.0.0.1:{later}"

[retry]
first_s = 3600
"""
WINDOW: Final = 5
"""Attempts at a time that an LMTP server gets at first."""


class QueueCase(ServiceTestCase):
    """Asks."""

    hang: ClassVar[LmtpPeer]
    later: ClassVar[LmtpPeer]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.hang = stack.enter_context(LmtpPeer())
        cls.hang.goes_on.clear()
        cls.later = stack.enter_context(LmtpPeer(b"450 4.2.1 not now"))
        service = Service(TABLES.format(hang=cls.hang.port, later=cls.later.port), top=TOP)
        stack.callback(service.close)
        stack.callback(cls.hang.goes_on.set)
        service.start()
        cls.service = service

    def ask(self, *arguments: str, code: int = 0) -> Any:
        """What a command says in JSON; where it fails, what it complains of."""
        done = self.service.cli(*arguments, "--json")
        self.assertEqual(done.returncode, code, done.stderr.decode())
        return json.loads(done.stdout) if code == 0 else done.stderr.decode()

    def rows(self, *filters: str) -> dict[str, dict[str, Any]]:
        """``queue list``, by subject."""
        return {row["subject"]: row for row in self.ask("queue", "list", *filters)}

    def states(self, *filters: str) -> dict[str, str]:
        return {subject: row["state"] for subject, row in self.rows(*filters).items()}

    def send(self, subject: str, *recipients: str, sender: str = "agent@local.test") -> str:
        """Send a message.  :return: its id, once the log tells of it."""
        content = f"Subject: {subject}\r\n\r\nHello, {subject}.\r\n".encode()
        send(self.service.port(), sender, recipients, content)
        return str(self.service.event("received", subject=subject)["message_id"])

    def deferred(self, subject: str) -> str:
        """A message that has been tried once."""
        id = self.send(subject, f"{subject}@later.test")
        self.service.event("deferred", message_id=id)
        return id

    def told(self, id: str) -> list[str]:
        """A message's events, which are numbered in their order."""
        told = self.service.told()
        events = [event for event in told if event.get("message_id") == id]
        by_recipient = defaultdict(list)
        for event in events:
            _, recipient, transition = event["id"].split(".")
            by_recipient[recipient].append(int(transition))
        for transitions in by_recipient.values():
            self.assertEqual(transitions, list(range(len(transitions))), events)
        ids = [event["id"] for event in told]
        self.assertEqual(len(set(ids)), len(ids))
        return [event["event"] for event in events]


class StatesTests(QueueCase):
    """Looking changes nothing, so one service with a message in each state is enough."""

    ids: ClassVar[dict[str, str]]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        super().begin(stack)
        case = cls()
        for n in range(WINDOW):
            case.send(f"active{n}", f"a{n}@hang.test")
        cls.ids = {
            "active": case.send("active", "x@hang.test"),  # not yet: it is the sixth
            "deferred": case.deferred("deferred"),
            "held": case.deferred("held"),
            "mixed": case.send("mixed", "m@later.test", "m@local.test"),
        }
        cls.ids["scheduled"] = cls.ids.pop("active")
        case.service.event("deferred", message_id=cls.ids["mixed"])
        case.service.event("delivered", message_id=cls.ids["mixed"])
        case.ask("queue", "hold", cls.ids["held"])

    def runTest(self) -> None:
        """So that :meth:`begin` can make one."""

    def test_running(self) -> None:
        """Every state has its word."""
        states = self.states()
        self.assertEqual(
            states,
            {
                **{f"active{n}": "active" for n in range(WINDOW)},
                "active": "scheduled",
                "deferred": "deferred",
                "held": "held",
                "mixed": "deferred",
            },
        )
        for state in ("active", "scheduled", "deferred", "held"):
            wanted = {subject for subject, word in states.items() if word == state}
            self.assertEqual(self.states("--state", state).keys(), wanted)
        self.look(is_running=True)

    def look(self, *, is_running: bool) -> None:
        """What is told of a message, whoever tells it."""
        self.assertEqual(
            self.states("--domain", "LATER.test").keys(), {"deferred", "held", "mixed"}
        )
        self.assertEqual(self.states("--domain", "later.test", "--state", "held").keys(), {"held"})
        self.assertEqual(self.states("--domain", "nobody.test"), {})
        self.assertEqual(len(self.ask("queue", "list", "--limit", "2")), 2)

        id = self.ids["deferred"]
        row = self.ask("queue", "show", id)
        self.assertEqual(row, self.rows()["deferred"])
        [recipient] = row["recipients"]
        self.assertEqual(
            (recipient["address"], recipient["state"], recipient["attempts"], recipient["cause"]),
            ("deferred@later.test", "deferred", 1, "450 4.2.1 not now"),
        )
        wait_s = recipient["next_attempt_at"] - row["arrived_at"]
        self.assertTrue(3600 <= wait_s <= 3600 * 1.1 + 10, wait_s)
        self.assertEqual((row["sender"], row["source"]), ("agent@local.test", "smtp"))

        mixed = self.ask("queue", "show", self.ids["mixed"])["recipients"]
        self.assertEqual(
            [(one["address"], one["state"]) for one in mixed],
            [("m@later.test", "deferred"), ("m@local.test", "ended")],
        )

        octets = self.service.cli("queue", "cat", id).stdout
        self.assertEqual(len(octets), row["size_octets"])
        self.assertTrue(octets.startswith(b"Received: from client.test"), octets)
        self.assertTrue(octets.endswith(b"Subject: deferred\r\n\r\nHello, deferred.\r\n"), octets)

        for name in ("deferred", "held", "scheduled"):
            told = self.ask("explain", self.ids[name])
            [recipient], [part] = told["recipients"], told["standing"]
            self.assertEqual(
                list(part),
                ["recipients", "route", "next_hop", "site", "state", "attempts",
                 "next_attempt_at", "why"],
            )  # fmt: skip
            self.assertEqual(part["recipients"], [recipient["address"]])
            for member in ("state", "attempts", "next_attempt_at"):
                self.assertEqual(part[member], recipient[member], member)
            self.assertEqual((part["state"], part["route"]), (name, "lmtp" if is_running else ""))
            if name == "held":
                self.assertEqual(part["next_attempt_at"], None)
                self.assertEqual(part["why"], "held until it is released")
            elif not is_running:
                self.assertEqual(part["why"], "the service is not running")
        text = self.service.cli("explain", self.ids["held"]).stdout.decode()
        self.assertIn("held@later.test", text)
        self.assertIn(": held until it is released.\n", text)
        self.assertNotIn("ext attempt", text)
        text = self.service.cli("explain", id).stdout.decode()
        self.assertIn("deferred@later.test: failed once, the last time with: 450 4.2.1", text)
        self.assertIn("ext attempt", text)
        table = self.service.cli("queue", "list").stdout.decode()
        self.assertEqual(len(table.splitlines()), 1 + len(self.rows()))
        self.assertIn("450 4.2.1 not now", self.service.cli("queue", "show", id).stdout.decode())

    def test_stopped(self) -> None:
        """The same from the spool; what was being tried is scheduled."""
        self.service.kill()
        try:
            states = self.states()
            self.assertEqual(states["active0"], "scheduled")
            self.assertEqual(states["active"], "scheduled")
            self.assertEqual(states["held"], "held")
            self.look(is_running=False)
            self.assertEqual(self.ask("status", code=69), "")
            said = self.service.cli("status", "--json")
            self.assertEqual(json.loads(said.stdout), {"is_running": False})
        finally:
            self.service.start()
            # A crash must not make us knock again at once, and nobody else told us to.
            self.assertEqual(self.states()["active0"], "scheduled")
            self.ask("queue", "retry", "--domain", "hang.test")
            until(lambda: self.states()["active4"] == "active", "the attempts")

    def test_status(self) -> None:
        facts = self.ask("status")
        self.assertEqual((facts["is_running"], facts["pid"]), (True, self.service.pid))
        self.assertEqual(
            {name: facts["queue"][name] for name in ("messages", "active", "deferred", "held")},
            {"messages": 9, "active": WINDOW, "deferred": 2, "held": 1},
        )
        text = self.service.cli("status").stdout.decode()
        self.assertRegex(text, r"queue\.messages: +9\n")


class HandInTests(QueueCase):
    """Each command does the same to the same message, whoever carries it out."""

    def test_running(self) -> None:
        """What is done is seen at once."""
        self.hand_in("running")

    def test_stopped(self) -> None:
        """What is done without the service is what it finds."""
        self.hand_in("stopped")

    def hand_in(self, when: str) -> None:
        ids = {
            name: self.deferred(f"{when}-{name}")
            for name in ("hold", "release", "retry", "bounce", "remove")
        }
        self.ask("queue", "hold", ids["release"])
        if when == "stopped":
            self.service.terminate()
        for name, id in ids.items():
            self.assertEqual(self.ask("queue", name, id), {"count": 1}, name)
        if when == "stopped":
            states = self.states()
            self.assertEqual(states["stopped-hold"], "held")
            self.assertNotEqual(states["stopped-release"], "held")
            self.assertNotIn("stopped-remove", states)
            self.assertNotIn("stopped-bounce", states)
            self.service.start()

        first = ["received", "deferred"]
        again = 2 + 1  # the second attempt's event, behind those of before
        until(lambda: len(self.told(ids["retry"])) == again, "the attempt after retry")
        until(lambda: len(self.told(ids["release"])) == again + 2, "the attempt after release")
        self.assertEqual(self.told(ids["hold"]), [*first, "held"])
        self.assertEqual(self.told(ids["release"]), [*first, "held", "released", "deferred"])
        self.assertEqual(self.told(ids["retry"]), [*first, "deferred"])
        self.assertEqual(self.told(ids["bounce"]), [*first, "bounced"])
        self.assertEqual(self.told(ids["remove"]), [*first, "removed"])
        self.assertEqual(self.states()[f"{when}-hold"], "held")
        self.assertEqual(self.ask("queue", "show", ids["retry"])["recipients"][0]["attempts"], 2)
        for name in ("bounce", "remove"):
            self.assertIn(ids[name], self.ask("queue", "show", ids[name], code=os.EX_NOINPUT))
        self.bounced(f"{when}-bounce")

        # Undone, and done with.
        self.assertEqual(self.ask("queue", "hold", ids["hold"]), {"count": 0})
        self.assertEqual(self.ask("queue", "release", ids["hold"]), {"count": 1})
        left = [ids[name] for name in ("hold", "release", "retry")]
        self.assertEqual(self.ask("queue", "remove", *left), {"count": 3})
        self.assertEqual(self.states("--domain", "later.test"), {})

    def bounced(self, subject: str) -> None:
        """The sender has been told, once."""

        def reports() -> list[bytes]:
            found = self.service.maildir("local.test", "agent")
            return [mail for mail in found if f"rfc822; {subject}@later.test".encode() in mail]

        [report] = until(reports, "the bounce")
        self.assertIn(b"\nStatus: 5.7.0\n", report)

    def test_by_domain_and_all(self) -> None:
        """Many at once; what cannot be undone asks first."""
        self.deferred("one")
        self.deferred("two")
        refused = self.ask("queue", "remove", "--all", code=os.EX_USAGE)
        self.assertIn("will not remove all mail without --yes", refused)
        refused = self.ask("queue", "bounce", "--domain", "later.test", code=os.EX_USAGE)
        self.assertIn("will not bounce all mail for later.test without --yes", refused)
        self.ask("queue", "remove", code=os.EX_USAGE)
        self.assertEqual(self.ask("queue", "hold", "--domain", "hang.test"), {"count": 0})
        self.assertEqual(self.ask("queue", "hold", "--all"), {"count": 2})
        self.assertEqual(self.ask("queue", "release", "--domain", "later.test"), {"count": 2})
        self.service.terminate()
        self.assertEqual(self.ask("queue", "retry", "--all"), {"count": 2})
        self.assertEqual(self.ask("queue", "remove", "--all", "--yes"), {"count": 2})
        self.assertEqual(self.ask("queue", "list"), [])
        self.service.start()
        self.assertEqual(self.states(), {})

    def test_unknown_ids(self) -> None:
        """Exit status 66, and the id in the complaint, running or not."""
        gone = "0" * 26
        for is_stopped in (False, True):
            for command in ("show", "hold", "bounce"):
                text = self.ask("queue", command, gone, code=os.EX_NOINPUT)
                self.assertEqual(text, f"protege-mta: no message {gone} in the queue\n")
            text = self.ask("explain", "../x", code=os.EX_NOINPUT)
            self.assertEqual(text, "protege-mta: ../x is not a message id\n")
            cat = self.service.cli("queue", "cat", gone)
            self.assertEqual((cat.returncode, cat.stdout), (os.EX_NOINPUT, b""))
            if not is_stopped:
                self.service.terminate()
        self.service.start()


class ActiveTests(QueueCase):
    """A message that is with a peer just now."""

    def active(self, subject: str) -> list[str]:
        """Three messages, with the peer."""
        self.hang.goes_on.clear()
        ids = [self.send(f"{subject}{n}", f"a{n}@hang.test") for n in range(3)]
        until(lambda: len(self.states("--state", "active")) == 3, "the attempts")
        return ids

    def order(self, held: str, removed: str, left: str) -> None:
        """What is under way is not bounced; hold and remove wait for its end."""
        self.assertEqual(self.ask("queue", "bounce", left), {"count": 0})
        self.ask("queue", "hold", held)
        self.ask("queue", "remove", removed)
        self.hang.goes_on.set()

    def test_taken(self) -> None:
        """What is delivered is delivered, whatever was ordered meanwhile."""
        ids = self.active("taken")
        self.order(*ids)
        for id in ids:
            self.service.event("delivered", message_id=id)
            self.assertEqual(self.told(id), ["received", "delivered"])
        self.assertEqual(self.states(), {})

    def test_refused(self) -> None:
        """An order is obeyed once the attempt has failed."""
        self.hang.final = b"451 4.3.0 not now"
        ids = held, removed, left = self.active("refused")
        self.order(*ids)
        self.service.event("deferred", message_id=left)
        self.service.event("removed", message_id=removed)
        self.service.event("held", message_id=held)
        self.assertEqual(self.told(held), ["received", "deferred", "held"])
        self.assertEqual(self.told(removed), ["received", "removed"])
        self.assertEqual(self.states(), {"refused0": "held", "refused2": "deferred"})
        self.hang.final = b"250 2.0.0 taken"
        self.assertEqual(self.ask("queue", "release", held), {"count": 1})
        self.assertEqual(self.ask("queue", "retry", left), {"count": 1})
        for id in (held, left):
            self.service.event("delivered", message_id=id)
