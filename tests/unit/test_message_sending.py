"""When mail by HTTP goes, before whom, and what is not taken."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from protege_mta.http import kumo
from protege_mta.model.address import Address
from protege_mta.model.identity import identity_of
from protege_mta.model.ids import QueueId
from protege_mta.policy.relaying import AgentMailboxes, Mailboxes, Relaying
from protege_mta.testing.sessions import FakeAgents, FakeSession, FakeSessions
from protege_mta.testing.transports import TAKEN

from .api import ApiCase, key
from .test_schedule_dispatch import START

ANNA = identity_of(b"\1" * 32)


class SendAtTests(ApiCase):
    """The clock begins at 2023-11-14T22:13:20Z."""

    def attempts_at(self, *seconds: float) -> list[int]:
        """How many attempts there were, so long after the start."""
        found = []
        for until in seconds:
            self.turn(START + until - self.clock.seconds())
            found.append(len(self.transport.attempts))
        return found

    def test_not_before_its_time(self) -> None:
        id = self.posted(send_at="2023-11-14T22:23:20Z")
        self.assertEqual(self.statuses(id), ["scheduled"])
        [one] = self.timeline(id)["recipients"]
        self.assertEqual(one["next_attempt_at"], START + 600)
        self.assertEqual(self.attempts_at(590, 610), [0, 1])
        self.assertEqual(self.statuses(id), ["delivered"])

    def test_time_zones(self) -> None:
        """The same moment, wherever it is told."""
        for text in (
            "2023-11-14T22:23:20Z",
            "2023-11-15T07:23:20+09:00",
            "2023-11-14T12:23:20.000-10:00",
            "2023-11-14t22:23:20z",
            "2023-11-15T04:08:20+05:45",
        ):
            status, told = self.post(send_at=text)
            self.assertEqual((status, told["recipients"][0]["status"]), (202, "scheduled"), text)
        self.assertEqual(self.attempts_at(590, 610), [0, 5])

    def test_what_has_passed(self) -> None:
        """A clock that is a little slow does no harm; more is a mistake that is told."""
        status, told = self.post(send_at=self.in_s(-200))
        self.assertEqual((status, told["recipients"][0]["status"]), (202, "queued"))
        self.assertEqual(len(self.transport.attempts), 1)
        refused = self.post(send_at=self.in_s(-400))
        self.assertEqual(self.problem(refused), (422, "bad-member", "/send_at"))
        self.assertEqual(refused[1]["detail"], "this time has passed")

    def test_far_off(self) -> None:
        self.assertEqual(self.post(send_at=self.in_s(86_400))[0], 202)
        for text in (self.in_s(86_401), "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-23:59"):
            told = self.post(send_at=text)
            self.assertEqual(self.problem(told), (422, "bad-member", "/send_at"), text)

    def test_nonsense(self) -> None:
        values: tuple[Any, ...] = (
            *("", "tomorrow", "2023-11-15", "2023-11-15T09:00:00", "2023-13-15T09:00:00Z"),
            *("2023-11-15T25:00:00Z", "1700000000", 1_700_000_000, {}, "0000-01-01T00:00:00Z"),
        )
        for value in values:
            told = self.post(send_at=value)
            self.assertEqual((told[0], told[1]["member"]), (422, "/send_at"), value)

    def test_over_a_restart(self) -> None:
        id = self.posted(send_at=self.in_s(600))
        self.restart()
        self.assertEqual(self.attempts_at(590), [0])
        self.assertEqual(self.statuses(id), ["scheduled"])
        self.turn(600)
        self.assertEqual(self.statuses(id), ["delivered"])

    def test_cancelled_before(self) -> None:
        """Over a restart too."""
        id = self.posted(send_at=self.in_s(600))
        self.assertEqual(self.do(id, "cancel")[0], 200)
        self.restart()
        self.assertEqual(self.attempts_at(5000), [0])
        self.assertEqual(self.statuses(id), ["removed"])
        self.assertEqual(
            [event for event, _ in self.events(QueueId(id))], ["received", "scheduled", "removed"]
        )

    def test_each_of_a_batch(self) -> None:
        one = {"from": "a@a.test", "to": ["b@b.test"], "text": "x"}
        body = [one | {"send_at": self.in_s(60)}, one, one | {"send_at": "x"}]
        status, told = self.asked("/v1/message", "POST", msgspec.json.encode(body))
        self.assertEqual(status, 202)
        first, second, third = told["results"]
        self.assertEqual(first["recipients"][0]["status"], "scheduled")
        self.assertEqual(second["recipients"][0]["status"], "queued")
        self.assertEqual(third["error"]["member"], "/2/send_at")


class PriorityTests(ApiCase):
    def test_goes_before_others(self) -> None:
        """While a site is busy, what is urgent overtakes what was there before it."""
        self.scheduler._slots.size = 1
        at_work: Deferred[Any] = Deferred()
        self.transport.script.append(at_work)
        first = self.posted()
        others = [self.posted(to=[f"n{n}@b.test"]) for n in range(3)]
        by_member = self.posted(priority="high")
        by_field = self.posted(headers={"X-Type": "Transactional"})
        self.posted(headers={"X-Priority": "1"})  # people's programs say that of anything
        at_work.callback([(0, TAKEN)])
        self.turn(1)
        order = [one.content.message.id for one in self.transport.attempts]
        self.assertEqual(order[:4], [first, by_member, by_field, others[0]])
        self.assertEqual(len(order), 7)

    def test_over_a_restart(self) -> None:
        id = self.posted(priority="high", send_at=self.in_s(60))
        self.restart()
        [entry] = self.scheduler.entries(QueueId(id))
        self.assertTrue(entry.is_urgent)

    def test_nonsense(self) -> None:
        values: tuple[Any, ...] = ("urgent", "", "HIGH", 1, None)
        for value in values:
            told = self.post(priority=value)
            self.assertEqual((told[0], told[1]["member"]), (422, "/priority"))


class FieldTests(ApiCase):
    def test_none_is_there_twice(self) -> None:
        """Once as a header field, and once made of a member."""
        unsubscribe = {"url": "https://list.test/u"}
        for name, members in (
            ("list-unsubscribe", {"unsubscribe": unsubscribe}),
            ("List-Unsubscribe-Post", {"unsubscribe": unsubscribe | {"one_click": True}}),
            ("X-TAGS", {"tags": ["a"]}),
        ):
            field = {name: "<mailto:off@list.test>"}
            told = self.post(headers=field, **members)
            self.assertEqual(self.problem(told), (422, "bad-header", f"/headers/{name}"))
            self.posted(headers=field)
            self.posted(**members)

    def test_one_click(self) -> None:
        """Wants https: of the URL that is given, or else of what the configuration has for links."""
        for given, link, member in (
            ({"url": "http://list.test/u"}, "https://us.test/u/x", "url"),
            ({}, "", "one_click"),
            ({}, "http://us.test/u/x", "one_click"),
        ):
            self.link = link
            told = self.post(unsubscribe={"one_click": True, **given})
            self.assertEqual(self.problem(told), (422, "bad-member", f"/unsubscribe/{member}"))
            self.assertEqual("[api] public_url" in told[1].get("hint", ""), member == "one_click")
        self.link = "https://us.test/u/x"
        self.posted(unsubscribe={"one_click": True})
        self.assertIn(b"<https://us.test/u/x>", self.transport.sent[-1])

    def test_controls(self) -> None:
        """Refused in a sentence."""
        for name in ("subject", "campaign"):
            told = self.post(**{name: "a\nb"})
            self.assertEqual(self.problem(told), (422, "bad-member", f"/{name}"))
            self.assertEqual(
                told[1]["detail"], "this text has a line end or another control character"
            )

    def test_campaign_may_be_said_twice(self) -> None:
        """The member counts, the field stays as it is."""
        id = self.posted(headers={"x-campaign": "one"}, campaign="two")
        self.assertEqual(self.timeline(id)["campaign"], "two")
        self.assertEqual(self.transport.sent[-1].lower().count(b"x-campaign: "), 1)


class NotKeptTests(ApiCase):
    """Mail for agents that is never kept cannot be answered for by a 202."""

    sessions = FakeSessions({ANNA: FakeSession(ANNA)})
    agents = FakeAgents({f"{ANNA}@pass.test": ANNA})
    relaying = Relaying(
        {
            "pass.test": AgentMailboxes(agents, sessions, False),
            "box.test": Mailboxes(frozenset({"x"})),
        },
        {},
        Address(""),
    )

    def test_alone(self) -> None:
        """Be the agent there or away."""
        for there in ({ANNA: FakeSession(ANNA)}, {}):
            self.patch(self.sessions, "there", there)
            told = self.post(to=[f"{ANNA}@pass.test"])
            self.assertEqual(self.problem(told), (422, "not-kept", "/to/0"))
            self.assertTrue(told[1]["hint"])
        self.assertEqual(list(self.spool.ids()), [])

    def test_among_others(self) -> None:
        """It is told of, and the others have theirs."""
        status, told = self.post(to=["x@box.test"], cc=[f"{ANNA}@pass.test"])
        self.assertEqual(status, 202)
        self.assertEqual(
            [(one["status"], one.get("detail", "")) for one in told["recipients"]],
            [
                ("queued", ""),
                ("rejected", "mail for this agent is never kept, and so cannot be taken by HTTP"),
            ],
        )
        self.assertEqual(
            [one["address"] for one in self.timeline(told["id"])["recipients"]], ["x@box.test"]
        )

    def test_an_event_tells_of_it(self) -> None:
        """As of any recipient that is refused at the door."""
        self.post(to=["x@box.test"], cc=[f"{ANNA}@pass.test"])
        [line] = [one for one in self.told if one["event"] == "rejected"]
        self.assertEqual((line["recipient"], line["reply"]["code"]), (f"{ANNA}@pass.test", 550))

    def test_sandbox(self) -> None:
        """Its mail does not come to them, and is kept like any other."""
        self.caller = key("app", is_sandbox=True)
        status, told = self.post(to=[f"{ANNA}@pass.test"])
        self.assertEqual((status, told["recipients"][0]["status"]), (202, "queued"))
        [first] = self.timeline(told["id"])["events"][:1]
        self.assertTrue(first["sandbox"])

    def test_no_such_agent(self) -> None:
        """Is what is said of one that is none."""
        told = self.post(to=["nobody@pass.test"])
        self.assertEqual(self.problem(told), (422, "no-recipient", "/to/0"))


class KumoTests(ApiCase):
    """Which value a template of KumoMTA's form has."""

    def build(self) -> None:
        super().build()
        kumo.add(self.app, self.messages)

    def filled(self, dialect: str, recipient: dict[str, Any], **substitutions: Any) -> str:
        text = "{{ email }}|{{ name }}|{{ to_header }}|{{ x }}"
        body = {
            "envelope_sender": "a@a.test",
            "content": {"from": {"email": "a@a.test"}, "text_body": text},
            "recipients": [{"email": "b@b.test"} | recipient],
            "substitutions": substitutions,
            "template_dialect": dialect,
        }
        told = self.asked("/api/inject/v1", "POST", msgspec.json.encode(body))
        self.assertEqual((told[0], told[1]["success_count"]), (200, 1), told)
        return self.transport.sent[-1].partition(b"\r\n\r\n")[2].decode().strip()

    def test_the_recipients_own_come_first(self) -> None:
        """Its substitutions, its members, then what is for all: as with KumoMTA."""
        of_all = {"email": "all", "name": "all", "to_header": "all", "x": "all"}
        own = {"email": "own", "name": "own", "to_header": "own", "x": "own"}
        for dialect in ("Jinja", "Handlebars"):
            self.assertEqual(
                self.filled(dialect, {"name": "Bea"}, **of_all),
                'b@b.test|Bea|"Bea" <b@b.test>|all',
            )
            self.assertEqual(
                self.filled(dialect, {"name": "Bea", "substitutions": own}, **of_all),
                "own|own|own|own",
            )

    def test_a_recipient_without_a_name(self) -> None:
        """The one that is for all stands in; an empty name is one."""
        self.assertEqual(self.filled("Jinja", {}, name="friend"), "b@b.test|friend|<b@b.test>|")
        self.assertEqual(self.filled("Jinja", {"name": ""}, name="friend"), "b@b.test||<b@b.test>|")
        self.assertEqual(self.filled("Jinja", {}), "b@b.test||<b@b.test>|")
