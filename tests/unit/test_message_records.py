"""What is answered about messages: truly at any moment, to whom it may be told, page by page."""

from __future__ import annotations

import json
import random
import sqlite3
from typing import Any, Final
from urllib.parse import quote

from twisted.internet.defer import Deferred

from protege_mta import message_log
from protege_mta.model.caller import Caller, Flaw
from protege_mta.model.envelope import Origin
from protege_mta.model.ports import Page
from protege_mta.testing.transports import TAKEN

from .api import ApiCase, key
from .test_schedule_dispatch import GREYLISTED, UNKNOWN


class TruthTests(ApiCase):
    """A GET right behind the 202, while the log is behind."""

    def test_attachments_that_are_not_there(self) -> None:
        """Told apart from a message that is not."""
        self.transport.script.append({0: GREYLISTED})
        id = self.posted(attachments=[{"content_b64": "aGk="}])
        for number in ("1", "9999", "10000", "-1", "x", "\u0664"):
            told = self.asked(f"/v1/message/{id}/attachments/{quote(number)}")
            self.assertEqual(self.problem(told), (404, "no-such-attachment", ""), number)

    def test_at_once(self) -> None:
        id = self.posted()
        self.assertEqual(self.statuses(id), ["delivered"])
        self.assertEqual(self.listed(), [id])

    def test_delivered_and_not_noted(self) -> None:
        """It is in neither the queue nor the log, and is looked for again."""
        waiting = self.lags()
        id = self.posted()
        for path in (f"/v1/message/{id}", "/v1/messages"):
            wire = self.asking("GET", path)
            self.assertEqual(wire.value(), b"")
            self.clock.advance(0.1)
            self.assertEqual(wire.value(), b"")
        asking = [self.asking("GET", f"/v1/message/{id}"), self.asking("GET", "/v1/messages")]
        for batch in waiting:
            self.lines += batch.events
        self.clock.advance(0.1)
        one, page = (self.answered(wire)[1] for wire in asking)
        for told in (one, page["messages"][0]):
            self.assertEqual([one["status"] for one in told["recipients"]], ["delivered"])
            self.assertFalse(told["is_queued"])

    def test_never_noted(self) -> None:
        """What is known is told after a while, and is no 404."""
        self.lags()
        id = self.posted()
        told = self.timeline(id)
        self.assertEqual((told["is_queued"], self.statuses(id)), (False, ["received"]))

    def test_lines_wait_for_the_disk(self) -> None:
        """Nobody is told that there is no such message, nor a list without it."""
        id = self.posted()
        self.journal.refuses = True
        for path in (f"/v1/message/{id}", "/v1/messages", f"/v1/message/{'0' * 26}"):
            self.assertEqual(self.problem(self.asked(path)), (503, "log-behind", ""))
        self.journal.refuses = False
        self.assertEqual(self.statuses(id), ["delivered"])

    def test_far_behind(self) -> None:
        """Each time that somebody asks it catches up by so much."""
        self.patch(message_log, "ASKED", 4)
        self.patch(message_log, "PACE", 2)
        ids = [self.posted() for _ in range(5)]
        answers = [self.asked(f"/v1/message/{ids[-1]}") for _ in range(3)]
        self.assertEqual([status for status, _ in answers], [503, 503, 200])
        self.assertEqual(answers[0][1]["type"], "urn:protege-mta:problem:log-behind")
        self.assertEqual(self.listed(), ids[::-1])

    def test_more_comes_all_the_time(self) -> None:
        """Who asks does not wait for what happens meanwhile."""
        id = self.posted()
        after = self.journal.after

        def busy(cursor: str, most: int) -> Deferred[Page]:
            self.lines.append(self.lines[0])
            self.journal.flush()
            return after(cursor, most)

        self.patch(self.journal, "after", busy)
        self.patch(message_log, "ASKED", 20)
        self.assertEqual(self.statuses(id), ["delivered"])
        self.assertEqual(self.listed(), [id])

    def test_it_can_wait_for_what_is_in_the_queue(self) -> None:
        """A message that is there can be stopped, however far behind the log is."""
        self.transport.script.append({0: GREYLISTED})
        id = self.posted()
        self.journal.refuses = True
        self.assertEqual(self.do(id, "cancel")[0], 200)

    def test_events_that_are_gone(self) -> None:
        """The log goes on with the oldest that the journal has."""
        first = self.posted()
        self.journal.oldest = len(self.lines)
        second = self.posted()
        self.assertEqual(self.listed(), [second])
        self.assertEqual(self.asked(f"/v1/message/{first}")[0], 404)

    def test_a_log_that_cannot_be_read(self) -> None:
        id = self.posted()

        def broken(*_: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        self.patch(self.log._log, "add", broken)
        for path in (f"/v1/message/{id}", "/v1/messages"):
            self.assertEqual(self.problem(self.asked(path)), (503, "unavailable", ""))
        self.assertEqual(len(self.flushLoggedErrors(sqlite3.OperationalError)), 1)

    def test_the_log_is_older_than_the_journal(self) -> None:
        """Killed between the two, or set back by a loss of power, it reads on from where it was."""
        self.transport.script += [{0: GREYLISTED}, {0: UNKNOWN}]
        first = self.posted(tags=["x"])
        self.assertEqual(self.statuses(first), ["deferred"])
        path = self.folder / "log.sqlite"
        self.log._log._open().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        old = path.read_bytes()
        second = self.posted()
        self.turn(400)
        whole = self.timeline(first), self.timeline(second)
        self.log._log.close()
        path.write_bytes(old)
        self.assertEqual((self.timeline(first), self.timeline(second)), whole)
        self.log._log.close()
        path.unlink()
        self.assertEqual((self.timeline(first), self.timeline(second)), whole)

    def test_while_it_is_tried(self) -> None:
        """A recipient that is done with, whose fate is not told yet, is no more than that."""
        at_work: Deferred[Any] = Deferred()
        self.transport.script += [{}, at_work]
        waiting = self.lags()
        id = self.posted(to=["b@b.test", "c@c.test"])
        self.assertEqual(self.statuses(id), ["ended", "active"])
        self.lines += waiting[0].events
        self.assertEqual(self.statuses(id), ["delivered", "active"])
        at_work.callback([(1, TAKEN)])

    def test_recipients_keep_their_numbers(self) -> None:
        """Where the log has not all of them, none is taken for another."""
        self.transport.script += [{0: GREYLISTED}, {}]
        self.journal.oldest = 10**6
        id = self.posted(to=["b@b.test", "c@c.test"])
        self.journal.oldest = next(n for n, line in enumerate(self.lines) if b"delivered" in line)
        self.assertEqual(self.statuses(id), ["deferred", "delivered"])

    def test_ticks(self) -> None:
        """It follows by itself, and what goes wrong is told once."""
        self.log.start()
        id = self.posted()
        self.journal.flush()
        self.clock.advance(1)
        found = self.log._log.find(id)
        assert found is not None
        self.assertEqual(found.recipients[0].status, "delivered")


class TagTests(ApiCase):
    def test_from_the_request_to_all_that_tells_of_it(self) -> None:
        self.transport.script.append({0: UNKNOWN})
        id = self.posted(tags=["welcome", "A:1", "welcome"])
        other = self.posted(campaign="c")
        told = self.timeline(id)
        self.assertEqual(told["tags"], ["welcome", "A:1"])
        self.assertEqual([one["tags"] for one in told["events"]], [["welcome", "A:1"]] * 2)
        self.assertEqual(self.listed("?tag=A:1"), [id])
        self.assertEqual(self.asked("/v1/messages?tag=A:1")[1]["messages"][0]["tags"], told["tags"])
        self.assertEqual(self.timeline(other)["tags"], [])
        self.caller = key("app", "read")
        events = self.asked(f"/v1/events?message_id={id}")[1]["events"]
        self.assertEqual(events, told["events"])
        self.assertIn(b"X-Tags: welcome, A:1\r\n", self.transport.sent[0])

    def test_nothing_where_there_are_none(self) -> None:
        self.posted()
        for line in self.lines:
            self.assertNotIn("tags", json.loads(line))

    def test_over_a_restart(self) -> None:
        """They are in the spool, so that later events have them."""
        self.transport.script.append({0: GREYLISTED})
        id = self.posted(tags=["x"])
        self.restart()
        self.turn(1000)
        self.assertEqual([one.get("tags") for one in self.told], [["x"]] * 3)
        self.assertEqual(self.listed("?tag=x&status=delivered"), [id])

    def test_each_of_a_template(self) -> None:
        status, told = self.post(template="jinja", to=["b@b.test", "c@b.test"], tags=["x"])
        self.assertEqual(status, 202)
        self.assertEqual(
            sorted(self.listed("?tag=x")), sorted(one["id"] for one in told["recipients"])
        )

    def test_refused(self) -> None:
        for tags in ([""], ["a b"], ["ok", "ü"], ["x" * 65], ["a,b"]):
            self.assertEqual(
                self.problem(self.post(tags=tags)),
                (422, "bad-member", f"/tags/{len(tags) - 1}"),
            )
        self.assertEqual(self.problem(self.post(tags=["x"] * 21))[::2], (422, "/tags"))


class ListTests(ApiCase):
    def test_stable_while_messages_arrive(self) -> None:
        """Page after page, each that was there at the beginning comes once, and nothing new."""
        there = [self.posted() for _ in range(10)]
        found, query = [], "?limit=3"
        while True:
            status, page = self.asked(f"/v1/messages{query}")
            self.assertEqual(status, 200)
            found += [one["id"] for one in page["messages"]]
            if not page["next"]:
                break
            query = f"?limit=3&after={page['next']}"
            self.clock.advance(1)
            self.posted()
        self.assertEqual(found, there[::-1])

    def test_the_last_page(self) -> None:
        """Says so; one that is full may have an empty one behind it."""
        for _ in range(4):
            self.posted()
        _, page = self.asked("/v1/messages?limit=4")
        self.assertEqual(len(page["messages"]), 4)
        last = self.asked(f"/v1/messages?limit=4&after={page['next']}")
        self.assertEqual(last, (200, {"messages": [], "next": ""}))

    def test_each_filter(self) -> None:
        self.transport.script.append({0: UNKNOWN})
        self.caller = key("admin", "admin")
        first = self.posted(to=["Bob@b.test"], tenant="t", campaign="c", tags=["x"])
        bounce = self.told[-1]["message_id"]
        self.clock.advance(3600)
        second = self.posted(to=["c@c.test"], **{"from": "z@a.test"})
        for query, wanted in (
            ("?recipient=bob@B.test", [first]),
            ("?recipient=nobody@b.test", []),
            ("?sender=Z@a.test", [second]),
            ("?sender=", [bounce]),
            ("?sender=%3C%3E", [bounce]),
            ("?status=bounced", [first]),
            ("?status=held", []),
            ("?tenant=t", sorted([first, bounce], reverse=True)),
            ("?tenant=", [second]),
            ("?campaign=c", [first]),
            ("?campaign=C", []),
            ("?tag=x", [first]),
            (f"?since={self.in_s(-1800)}", [second]),
            (f"?until={self.in_s(-1800)}&sender=a@a.test", [first]),
            (f"?since={self.in_s(-7200)}&until={self.in_s(1)}&tag=x&tenant=t", [first]),
            (f"?since={self.in_s(0)}&until={self.in_s(60)}", [second]),
            (f"?after={second}&limit=1&status=bounced", [first]),
            ("?since=2023-11-15T08:00:00%2B09:00", [second]),
        ):
            self.assertEqual(self.listed(query), wanted, query)

    def test_nonsense(self) -> None:
        """Of each parameter is refused, and the parameter named."""
        for name, values in NONSENSE.items():
            for value in values:
                told = self.asked(f"/v1/messages?{name}={value}")
                self.assertEqual((told[0], told[1]["member"]), (400, f"/{name}"), value)
        for name in NONSENSE:
            told = self.asked(f"/v1/messages?{name}={VALID[name]}&{name}={VALID[name]}")
            self.assertEqual(self.problem(told), (400, "bad-parameter", f"/{name}"))
        for name in ("tags", "Status", "a/b", "identity", "before"):
            told = self.asked(f"/v1/messages?{quote(name)}=1")
            self.assertEqual(self.problem(told)[:2], (400, "unknown-parameter"))
        told = self.asked(f"/v1/messages?since={self.in_s(0)}&until={self.in_s(0)}")
        self.assertEqual(self.problem(told), (400, "bad-parameter", "/until"))
        for name, value in VALID.items():
            self.assertEqual(self.asked(f"/v1/messages?{name}={value}")[0], 200, name)

    def test_whatever_is_asked(self) -> None:
        """No query is answered with an error of ours."""
        rng = random.Random(6)
        words = [
            "",
            "0",
            "x",
            "%00",
            "%ff",
            "'; DROP TABLE message; --",
            "a@b.test",
            "*",
            "ü",
            "1e9",
        ]
        self.posted(tags=["x"])
        for _ in range(400):
            some = rng.sample(sorted(VALID), rng.randint(0, 5))
            query = "&".join(
                f"{name}={rng.choice([VALID[name], quote(rng.choice(words), safe='%')])}"
                for name in some
            )
            self.assertIn(self.asked(f"/v1/messages?{query}")[0], (200, 400, 403), query)
        self.assertEqual(len(self.listed()), 1)


VALID: Final = {
    "recipient": "a@b.test",
    "sender": "a@b.test",
    "status": "delivered",
    "tenant": "",
    "campaign": "c",
    "tag": "t",
    "since": "2026-12-01T09:00:00Z",
    "until": "2026-12-01T09:00:00.5%2B02:00",
    "after": "0" * 26,
    "limit": "1",
}

LONG: Final = "x" * 257
NONSENSE: Final = {
    "recipient": ("", "nobody", "@b.test", "a@", "a@b@c", f"{LONG}@b.test", "%ff@b.test"),
    "sender": ("nobody", "@b.test", "%3Ca@b.test%3E", LONG, "%ff"),
    "status": ("", "active", "queued", "rejected", "Delivered", "delivered,held", "%ff"),
    "tenant": (LONG, "%ff"),
    "campaign": ("", LONG, "%ff"),
    "tag": ("", "a%20b", "a,b", "x" * 65, "%ff"),
    "since": ("", "yesterday", "2026-12-01", "2026-12-01T09:00:00", "0", "%ff", "9999-99-99T00:00:00Z"),
    "until": ("", "now", "2026-13-01T09:00:00Z", "1e400", "-1"),
    "after": ("", "x", "0" * 25, "u" * 26, "%ff", "1' OR '1'='1".replace(" ", "%20")),
    "limit": ("", "0", "-1", "1001", "1e3", "%D9%A1", "0x10", "99999999999", "%ff", "1%20"),
}  # fmt: skip


class TenantTests(ApiCase):
    """Whoever may not see a message cannot tell it from none, by any question."""

    def setUp(self) -> None:
        super().setUp()
        self.caller = key("app", tenant="t")
        self.transport.script += [{0: GREYLISTED}, {0: UNKNOWN}]
        self.waiting = self.posted(tags=["secret"], campaign="c", subject="secret plan")
        self.bounced = self.posted(tags=["secret"], campaign="c", subject="secret plan")
        self.report = self.told[-1]["message_id"]
        self.caller = key("ours", "send", "read", tenant="u")
        self.own = self.posted()

    def foreign(self) -> list[str]:
        return [self.waiting, self.bounced, self.report]

    def strangers(self) -> list[Caller]:
        return [
            key("ours", "send", "read", tenant="u"),
            key("app", "send", "read", tenant="u"),  # of the name that a key of theirs has
            key("app", "send", tenant="u"),
            key("app", "send"),
            key("", "send"),
            key("t", "read", tenant="T"),
            key("t", "read", tenant="t "),
        ]

    def test_one_by_one(self) -> None:
        nothing = None
        for caller in self.strangers():
            self.caller = caller
            for id in self.foreign():
                for path in ("", "/raw", "/attachments/0"):
                    told = self.asked(f"/v1/message/{id}{path}")
                    unknown = self.asked(f"/v1/message/{'0' * 26}{path}")
                    self.assertEqual(told, unknown, caller)
                    nothing = told
                self.assertEqual(self.asked(f"/v1/message/{id.upper()}")[0], 404)
        assert nothing is not None
        self.assertEqual(nothing[0], 404)

    def test_lists(self) -> None:
        queries = [
            *("", "?campaign=c", "?tag=secret", "?status=bounced", "?recipient=b@b.test"),
            *("?sender=a@a.test", "?sender=", "?tenant=", "?limit=1000"),
            *("?tenant=t", "?tenant=t&tag=secret", f"?after={'z' * 26}"),
        ]
        for caller in self.strangers():
            self.caller = caller
            for query in queries:
                status, told = self.asked(f"/v1/messages{query}")
                self.assertIn(status, (200, 403))
                found = [one["id"] for one in told.get("messages", ())]
                self.assertFalse(set(found) & set(self.foreign()), (caller, query))
                self.assertNotIn("secret", json.dumps(told))

    def test_events(self) -> None:
        self.journal.flush()
        for caller in self.strangers():
            self.caller = caller
            if not caller.scopes & {"read"}:
                self.assertEqual(self.asked("/v1/events")[0], 403)
                continue
            for query in (
                *("", "?event=bounced", "?recipient=b@b.test", "?tenant=", "?tenant=t"),
                *(f"?message_id={id}" for id in self.foreign()),
            ):
                status, told = self.asked(f"/v1/events{query}")
                self.assertIn(status, (200, 403))
                self.assertNotIn("secret", json.dumps(told), (caller, query))
                for one in told.get("events", ()):
                    self.assertEqual(one["message_id"], self.own)

    def test_stream(self) -> None:
        """Neither of what has been nor of what comes."""
        self.journal.flush()
        self.caller = key("ours", "read", tenant="u")
        wires = [
            self.asking("GET", f"/v1/events/stream?after={query}")
            for query in ("", f"&message_id={self.bounced}", "&event=bounced")
        ]
        self.caller = key("app", tenant="t")
        self.transport.script.append({0: UNKNOWN})
        self.posted(tags=["secret"])
        self.caller = key("ours", tenant="u")
        own = self.posted()
        self.journal.flush()
        self.clock.pump([0.2] * 5)
        texts = [wire.value() for wire in wires]
        self.assertIn(own.encode(), texts[0])
        for text in texts:
            self.assertIn(b"text/event-stream", text)
            self.assertNotIn(b"secret", text)
            for id in self.foreign():
                self.assertNotIn(id.encode(), text)
        self.caller = key("ours", "read", tenant="u")
        self.assertEqual(self.asked("/v1/events/stream?tenant=t")[0], 403)

    def test_who_may(self) -> None:
        """The tenant's readers, those of no tenant, and admin."""
        for caller in (
            key("r", "read", tenant="t"),
            key("r", "read"),
            key("r", "admin", tenant="u"),
        ):
            self.caller = caller
            for id in self.foreign():
                self.assertEqual(self.asked(f"/v1/message/{id}")[0], 200)
        self.assertEqual(len(self.listed()), 4)
        self.caller = key("app", "send", tenant="t")
        self.assertEqual(sorted(self.listed()), sorted([self.waiting, self.bounced]))
        self.assertEqual(self.asked(f"/v1/message/{self.report}")[0], 404)

    def test_mail_from_outside(self) -> None:
        """Is nobody's, and no tenant sees it, nor who has no key."""
        id = self.send("agent@b.test", origin=Origin("smtp"))
        for caller in (key("", "send"), key("t", "read", tenant="t"), key("app", "send")):
            self.caller = caller
            self.assertEqual(self.asked(f"/v1/message/{id}")[0], 404)
            self.assertNotIn(id, self.listed())

    def test_nothing_without_a_right(self) -> None:
        self.caller = Flaw(401, "no-key", "a key is needed")
        for path in ("/v1/messages", f"/v1/message/{self.waiting}", "/v1/events"):
            self.assertEqual(self.asked(path)[0], 401)
        for action in ("cancel", "hold", "retry", "release"):
            self.assertEqual(self.do(self.waiting, action)[0], 401)
        self.assertEqual(len(self.spool.ids()), 1)
