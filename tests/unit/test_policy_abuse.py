"""What the public door does about those who do not behave."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from ipaddress import IPv4Address, ip_network
from typing import Any, cast

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import NULL, Address
from protege_mta.model.envelope import Envelope, Recipient
from protege_mta.model.ports import Events, MailCommand, Peer
from protege_mta.model.reply import TABLE, Reply, name_of
from protege_mta.model.tally import Tally
from protege_mta.policy.clients import Streaks, Window, network_of
from protege_mta.policy.dns_lists import DnsList, DnsLists, Verdict, refusal, reversed_name
from protege_mta.policy.door import SmtpDoor
from protege_mta.policy.greylist import Greylist, GreylistSettings
from protege_mta.policy.guard import WAIT_S, Guard, HeloCheck
from protege_mta.policy.limits import Limits, LimitSettings
from protege_mta.policy.relaying import Mailboxes, Relaying
from protege_mta.policy.tarpit import SLOTS, Tarpit
from protege_mta.testing.zones import ZoneResolver

MAIL = MailCommand(Envelope(Address("a@b.example"), ()))
AGENT = Recipient(Address("agent@local.test"))
NOBODY = Recipient(Address("nobody@local.test"))
POSTMASTER = Recipient(Address("Postmaster@local.test"))
LISTED = "list.example"
ANSWERS = ((IPv4Address("127.0.0.2"), IPv4Address("127.0.0.11")),)


def peer(address: str = "198.51.100.7", *, helo: str = "c.example") -> Peer:
    return Peer(address, 40000, "mx", "s-1", helo=helo)


def ipv4(count: int) -> list[str]:
    return [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(count)]


class Told:
    """:class:`Events`, of which only what is rejected is asked for.

    :ivar rejected_with: the name of each reply.
    """

    def __init__(self) -> None:
        self.rejected_with: list[str] = []

    def rejected(self, peer: Peer, sender: str | None, recipient: str, reply: Reply) -> None:
        self.rejected_with.append(name_of(reply))


class Case(SynchronousTestCase):
    """A door of ``local.test`` with one mailbox, ``agent``; 192.0.2.0/24 may relay."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(6000.0)
        self.told = Told()
        self.tally = Tally()
        self.relaying = Relaying(
            domains={"local.test": Mailboxes(frozenset({"agent"}))},
            relay_hosts={"mx": (ip_network("192.0.2.0/24"),)},
            postmaster=NULL,
        )
        self.limits = Limits(
            LimitSettings(),
            self.clock.seconds,
            trusts=self.relaying.may_relay,
            tell=lambda peer, reply: self.told.rejected(peer, None, "", reply),
        )
        self.tarpit = Tarpit(5, self.clock, self.tally)
        self.door = SmtpDoor(
            self.relaying,
            self.limits,
            cast(Events, self.told),
            cast(Any, None),
            tarpit=self.tarpit,
        )

    def rcpt(self, who: Peer, recipient: Recipient = AGENT) -> Reply | Deferred[Reply]:
        return self.door.recipient(who, MAIL, recipient)

    def name(self, answer: Reply | Deferred[Reply] | None) -> str:
        """A reply that is there, by its name."""
        if answer is None:
            return ""
        reply = self.successResultOf(answer) if isinstance(answer, Deferred) else answer
        return name_of(reply)


class ClientTests(SynchronousTestCase):
    def test_what_counts_as_one_client(self) -> None:
        for address, network in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
            ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
            ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
            ("::1", "::/64"),
            ("fe80::1%eth0", "fe80::/64"),
        ]:
            self.assertEqual(network_of(address), network)

    def test_a_window_ends(self) -> None:
        now = [600.0]
        window = Window(lambda: now[0], 60.0)
        self.assertEqual([window.add("a"), window.add("a"), window.add("b")], [1, 2, 1])
        now[0] += 59
        self.assertEqual(window.get("a"), 2)
        now[0] += 1
        self.assertEqual((window.get("a"), window.add("a"), len(window)), (0, 1, 1))

    def test_a_streak_ends_with_a_pause_and_not_before(self) -> None:
        now = [600.0]
        streaks = Streaks(lambda: now[0], 60.0)
        for count in (1, 2, 3):
            self.assertEqual(streaks.add("a"), count)
            now[0] += 59
        self.assertEqual(streaks.get("a"), 3)
        now[0] += 1
        self.assertEqual((streaks.get("a"), len(streaks)), (0, 0))

    def test_memory_is_bounded_whatever_the_number_of_addresses(self) -> None:
        window = Window(lambda: 0.0, most=100)
        streaks = Streaks(lambda: 0.0, 60.0, most=100)
        for address in ipv4(10_000):
            window.add(address)
            streaks.add(address)
            self.assertLessEqual(max(len(window), len(streaks)), 100)
        self.assertEqual([streaks.get(each) for each in ipv4(10_000)[-100:]], [1] * 100)


class ConnectionTests(Case):
    def opened(self, *addresses: str) -> list[str]:
        return [self.name(self.door.opened(peer(each))) for each in addresses]

    def test_a_network_of_ipv6_is_one_client(self) -> None:
        self.limits.settings = LimitSettings(connections_per_ip=2)
        self.assertEqual(
            self.opened("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"),
            ["", "", "too-many-connections", ""],
        )
        self.door.closed(peer("2001:db8::ffff"))  # whichever of them it was
        self.assertEqual(self.opened("2001:db8::3"), [""])

    def test_nor_is_a_wrapped_address_another_one(self) -> None:
        self.limits.settings = LimitSettings(connections_per_ip=1)
        self.assertEqual(
            self.opened("198.51.100.7", "::ffff:198.51.100.7"), ["", "too-many-connections"]
        )

    def test_0_is_no_limit(self) -> None:
        self.limits.settings = LimitSettings(connections_per_ip=0)
        self.assertEqual(self.opened(*["198.51.100.7"] * 100), [""] * 100)

    def test_new_connections_a_minute(self) -> None:
        """Those that are closed count as well."""
        self.limits.settings = LimitSettings(connections_per_ip_per_minute=2)
        for wanted in ("", "", "connecting-too-often", "connecting-too-often"):
            answer = self.door.opened(peer())
            self.assertEqual(self.name(answer), wanted)
            if answer is None:
                self.door.closed(peer())
        self.assertEqual(self.opened("198.51.100.8"), [""])
        self.clock.advance(60)
        self.assertEqual(self.opened("198.51.100.7"), [""])

    def test_a_flood_from_one_address_is_told_once_a_minute(self) -> None:
        """Ten thousand in a minute: one line, and no memory but for the fifty that are open."""
        answers = self.opened(*["198.51.100.7"] * 10_000)
        self.assertEqual(answers, [""] * 50 + ["too-many-connections"] * 9950)
        self.assertEqual(self.told.rejected_with, ["too-many-connections"])
        self.clock.advance(60)
        self.opened("198.51.100.7")
        self.assertEqual(len(self.told.rejected_with), 2)

    def test_a_flood_from_many_addresses_leaves_nothing(self) -> None:
        self.limits.settings = LimitSettings(connections_per_ip_per_minute=1)
        for address in ipv4(10_000):
            who = peer(address)
            self.assertIsNone(self.door.opened(who))
            self.rcpt(who, NOBODY)
            self.door.closed(who)
        self.assertEqual(self.limits._open_by_client, {})
        self.assertEqual(self.tarpit._by_peer, {})
        self.assertLessEqual(len(self.limits._connections), 10_000)

    def test_recipients_a_minute(self) -> None:
        self.limits.settings = LimitSettings(recipients_per_ip_per_minute=2)
        who = peer()
        self.assertEqual(
            [self.name(self.rcpt(who)) for _ in range(3)],
            ["recipient-ok", "recipient-ok", "recipients-limited"],
        )
        self.assertEqual(TABLE["recipients-limited"].code, 450)
        self.assertEqual(self.told.rejected_with, ["recipients-limited"])
        self.clock.advance(60)
        self.assertEqual(self.name(self.rcpt(who)), "recipient-ok")


class OffenceTests(Case):
    def offend(self, address: str, times: int = 1) -> None:
        for _ in range(times):
            who = peer(address)
            self.assertIsNone(self.door.opened(who))
            who.offence = "too-many-errors"
            self.door.closed(who)

    def test_who_offends_again_and_again_is_refused_for_a_while(self) -> None:
        self.offend("198.51.100.7", 5)
        self.assertEqual(self.told.rejected_with, ["too-many-errors"] * 5)
        self.assertIs(self.door.opened(peer()), TABLE["shut-out"])
        self.assertEqual(TABLE["shut-out"].code, 421)
        self.assertIsNone(self.door.opened(peer("198.51.100.8")))
        self.clock.advance(599)
        self.assertIs(self.door.opened(peer()), TABLE["shut-out"])
        self.clock.advance(1)
        self.assertIsNone(self.door.opened(peer()))

    def test_honest_connections_do_not_count(self) -> None:
        self.offend("198.51.100.7", 4)
        who = peer()
        for _ in range(100):
            self.assertIsNone(self.door.opened(who))
            self.door.closed(who)
        self.assertIsNone(self.door.opened(who))

    def test_relay_hosts_are_exempt(self) -> None:
        self.offend("192.0.2.1", 50)

    def test_0_never_refuses(self) -> None:
        self.limits.settings = LimitSettings(offences_per_ip=0)
        self.offend("198.51.100.7", 50)


class TarpitTests(Case):
    def guess(self, who: Peer, times: int) -> list[float | str]:
        """For each unknown recipient how long its answer takes, or its name where there is one at
        once."""
        said: list[float | str] = []
        for _ in range(times):
            answer = self.rcpt(who, NOBODY)
            if isinstance(answer, Reply):
                said.append(name_of(answer))
                continue
            began_at = self.clock.seconds()
            for _ in range(100):
                if answer.called:
                    break
                self.clock.advance(0.5)
            self.assertIs(self.successResultOf(answer), TABLE["no-such-user"])
            said.append(self.clock.seconds() - began_at)
        return said

    def test_a_dictionary_gets_slower_and_then_nothing(self) -> None:
        self.assertEqual(
            self.guess(peer(), 21),
            ["no-such-user"] * 5 + [1.0, 2.0, 4.0, 8.0] + [10.0] * 11 + ["too-many-unknown"],
        )
        self.assertEqual(TABLE["too-many-unknown"].code, 421)
        self.assertEqual(self.told.rejected_with, ["no-such-user"] * 20 + ["too-many-unknown"])
        self.assertEqual(
            (self.tally.recipients_delayed, self.tally.recipients_delayed_now), (15, 0)
        )

    def test_known_recipients_are_answered_at_once_all_the_same(self) -> None:
        who = peer()
        self.guess(who, 8)
        self.assertIs(self.rcpt(who, AGENT), TABLE["recipient-ok"])

    def test_a_new_connection_does_not_begin_anew(self) -> None:
        """Four connections' worth is free to an address in ten minutes."""
        said: list[float | str] = []
        for _ in range(5):
            who = peer()
            self.door.opened(who)
            said += self.guess(who, 5)
            self.door.closed(who)
        self.assertEqual(said, ["no-such-user"] * 20 + [1.0, 2.0, 4.0, 8.0, 10.0])
        self.assertEqual(self.guess(peer("198.51.100.8"), 5), ["no-such-user"] * 5)
        self.clock.advance(600)
        self.assertEqual(self.guess(peer(), 5), ["no-such-user"] * 5)

    def test_a_hang_up_ends_the_delay(self) -> None:
        who = peer()
        self.door.opened(who)
        self.guess(who, 5)
        answer = self.rcpt(who, NOBODY)
        assert isinstance(answer, Deferred)
        self.assertEqual(self.tally.recipients_delayed_now, 1)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.door.closed(who)
        self.assertEqual(self.tally.recipients_delayed_now, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_so_many_are_held_and_no_more(self) -> None:
        for address in ipv4(SLOTS):
            who = peer(address)
            self.guess(who, 5)
            self.assertIsInstance(self.rcpt(who, NOBODY), Deferred)
        late = peer("10.9.0.1")
        self.guess(late, 5)
        self.assertIs(self.rcpt(late, NOBODY), TABLE["too-many-unknown"])
        self.assertEqual(len(self.clock.getDelayedCalls()), SLOTS)

    def test_whoever_gets_that_far_again_and_again_is_shut_out(self) -> None:
        for _ in range(5):
            who = peer()
            self.assertIsNone(self.door.opened(who))
            self.guess(who, 21)
            self.door.closed(who)
        self.assertIs(self.door.opened(peer()), TABLE["shut-out"])

    def test_relay_hosts_are_exempt(self) -> None:
        self.assertEqual(self.guess(peer("192.0.2.1"), 50), ["no-such-user"] * 50)

    def test_0_never_delays(self) -> None:
        self.tarpit.free = 0
        self.assertEqual(self.guess(peer(), 50), ["no-such-user"] * 50)

    def test_attempts_to_relay_are_refused_at_once(self) -> None:
        who = peer()
        for _ in range(50):
            self.assertIs(self.rcpt(who, Recipient(Address("a@b.test"))), TABLE["no-relaying"])


ZONE = """
$TTL 60
7.100.51.198.list.example.   A 127.0.0.2
8.100.51.198.list.example.   A 127.0.0.12
9.100.51.198.list.example.   A 192.0.2.80
10.100.51.198.list.example.  A 127.255.255.254
11.100.51.198.list.example.  A 127.0.0.12
11.100.51.198.list.example.  A 127.0.0.4
7.100.51.198.other.example.  A 127.0.0.2
12.100.51.198.other.example. A 127.0.0.3
7.100.51.198.good.example.   A 127.0.0.2
13.100.51.198.good.example.  A 127.0.0.2
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.list.example. A 127.0.0.2
mx.c.example.  MX 10 c.example.
six.c.example. AAAA 2001:db8::1
c.example.     A 198.51.100.7
txt.c.example. TXT "nothing to connect to"
"""


class GuardCase(Case):
    def guard(
        self,
        *lists: DnsList,
        helo: HeloCheck = "off",
        broken: tuple[str, ...] = (),
        greylist: Greylist | None = None,
    ) -> Guard:
        self.counted: list[tuple[str, Verdict]] = []
        self.resolver = ZoneResolver(ZONE, broken=broken)
        self.door.guard = guard = Guard(
            self.resolver,
            self.clock,
            helo=helo,
            lists=DnsLists(lists, lambda zone, verdict: self.counted.append((zone, verdict)))
            if lists
            else None,
            greylist=greylist,
        )
        return guard

    def visit(
        self, address: str, recipient: Recipient = AGENT, *, helo: str = "c.example"
    ) -> Reply | Deferred[Reply]:
        """One client's first RCPT."""
        who = peer(address, helo=helo)
        self.assertIsNone(self.door.opened(who))
        self.assertIs(self.door.sender(who, MAIL), TABLE["sender-ok"])
        answer = self.rcpt(who, recipient)
        if isinstance(answer, Reply):
            self.door.closed(who)
        return answer


class DnsListTests(GuardCase):
    blocking = DnsList(LISTED, ANSWERS, refusal(LISTED, "reject"))
    other = DnsList("other.example", ANSWERS, refusal("other.example", "defer"))
    vouching = DnsList("good.example", ANSWERS)

    def test_names(self) -> None:
        """RFC 5782, 2.1 and 2.4."""
        self.assertEqual(reversed_name("192.0.2.99", "bl.example"), "99.2.0.192.bl.example")
        self.assertEqual(
            reversed_name("2001:db8:1:2:3:4:567:89ab", "bl.example"),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bl.example",
        )
        self.assertEqual(reversed_name("::ffff:192.0.2.99", "x"), "99.2.0.192.x")

    def test_the_answer_names_the_zone(self) -> None:
        self.guard(self.blocking)
        said = Reply(550, "5.7.1", ("your address is listed in list.example",))
        self.assertEqual(self.visit("198.51.100.7"), said)
        self.assertEqual(self.visit("2001:db8::1"), said)
        self.assertEqual(self.counted, [(LISTED, "listed")] * 2)
        self.assertEqual(self.told.rejected_with, ["other"] * 2)

    def test_a_list_may_defer(self) -> None:
        self.guard(self.other)
        answer = self.visit("198.51.100.12")
        assert isinstance(answer, Reply)
        self.assertEqual((answer.code, answer.enhanced), (450, "4.7.1"))

    def test_the_first_list_that_blocks_speaks(self) -> None:
        for lists, code in (((self.blocking, self.other), 550), ((self.other, self.blocking), 450)):
            self.guard(*lists)
            answer = self.visit("198.51.100.7")
            assert isinstance(answer, Reply)
            self.assertEqual(answer.code, code)

    def test_who_is_in_no_list_comes_in(self) -> None:
        self.guard(self.blocking, self.other)
        self.assertIs(self.visit("198.51.100.200"), TABLE["recipient-ok"])
        self.assertEqual(self.counted, [(LISTED, "clear"), ("other.example", "clear")])

    def test_only_the_answers_that_are_named_count(self) -> None:
        self.guard(self.blocking)
        self.assertIs(self.visit("198.51.100.8"), TABLE["recipient-ok"])
        self.assertEqual(self.name(self.visit("198.51.100.11")), "other")

    def test_a_list_that_fails_blocks_nobody_and_says_so_once(self) -> None:
        """Servers that are down, zones that were sold, and lists that will not be asked."""
        self.guard(self.blocking, broken=("50.100.51.198.list.example",))
        for address in ("198.51.100.50", "198.51.100.9", "198.51.100.10"):
            self.assertIs(self.visit(address), TABLE["recipient-ok"])
        self.assertEqual(self.counted, [(LISTED, "failed")] * 3)

    def test_being_vouched_for_outweighs_every_listing(self) -> None:
        self.guard(self.blocking, self.other, self.vouching)
        self.assertIs(self.visit("198.51.100.7"), TABLE["recipient-ok"])

    def test_postmaster_hears_who_is_listed(self) -> None:
        self.guard(self.blocking)
        self.assertIs(self.visit("198.51.100.7", POSTMASTER), TABLE["recipient-ok"])

    def test_who_is_listed_learns_no_mailboxes(self) -> None:
        self.guard(self.blocking)
        self.assertEqual(self.name(self.visit("198.51.100.7", NOBODY)), "other")

    def test_relay_hosts_are_not_asked_about(self) -> None:
        self.guard(self.blocking)
        self.visit("192.0.2.1", Recipient(Address("a@elsewhere.test")))
        self.assertEqual(self.resolver.asked, [])

    def test_all_are_asked_from_the_connection_on_and_waited_for_at_rcpt(self) -> None:
        guard = self.guard(self.blocking, self.other)
        self.resolver.is_held = True
        who = peer()
        self.assertIsNone(self.door.opened(who))
        self.assertEqual(len(self.resolver.asked), 2)
        self.assertIs(self.door.sender(who, MAIL), TABLE["sender-ok"])
        answer = self.rcpt(who)
        assert isinstance(answer, Deferred)
        self.assertNoResult(answer)
        self.resolver.release()
        self.assertEqual(self.successResultOf(answer).code, 550)
        self.assertIsInstance(self.rcpt(who), Reply)
        self.assertEqual(len(self.resolver.asked), 2)
        self.door.closed(who)
        self.assertEqual(len(guard), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_answer_that_does_not_come_is_not_waited_for_for_long(self) -> None:
        self.guard(self.blocking)
        self.resolver.is_held = True
        answer = self.visit("198.51.100.7")
        assert isinstance(answer, Deferred)
        self.clock.advance(WAIT_S - 1)
        self.assertNoResult(answer)
        self.clock.advance(1)
        self.assertIs(self.successResultOf(answer), TABLE["recipient-ok"])

    def test_a_hang_up_ends_it_all(self) -> None:
        guard = self.guard(self.blocking)
        self.resolver.is_held = True
        who = peer()
        self.door.opened(who)
        self.door.sender(who, MAIL)
        answer = self.rcpt(who)
        assert isinstance(answer, Deferred)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.door.closed(who)
        self.resolver.release()
        self.assertEqual((len(guard), self.counted, self.clock.getDelayedCalls()), (0, [], []))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_who_was_there_before_a_reload_is_left_alone(self) -> None:
        who = peer()
        self.door.opened(who)
        self.guard(self.blocking)
        self.assertIs(self.rcpt(who), TABLE["recipient-ok"])
        self.door.closed(who)


class HeloTests(GuardCase):
    def answers(self, *names: str) -> list[str]:
        return [self.name(self.visit("198.51.100.7", helo=each)) for each in names]

    def test_off_by_default(self) -> None:
        self.guard()
        self.assertEqual(self.answers("localhost", "nowhere.example"), ["recipient-ok"] * 2)

    def test_syntax(self) -> None:
        self.guard(helo="syntax")
        self.assertEqual(
            self.answers("localhost", "nowhere.example", "[198.51.100.7]", "[IPv6:2001:db8::1]"),
            ["helo-too-short"] + ["recipient-ok"] * 3,
        )
        self.assertEqual(self.resolver.asked, [])

    def test_resolves(self) -> None:
        """Any record that mail could go to will do; whose address it is is not asked."""
        self.guard(helo="resolves", broken=("broken.example",))
        self.assertEqual(
            self.answers(
                "localhost",
                "nowhere.example",
                "txt.c.example",
                "c.example",
                "six.c.example",
                "mx.c.example",
                "broken.example",
                "[198.51.100.7]",
            ),
            ["helo-too-short", "helo-unknown", "helo-unknown"] + ["recipient-ok"] * 5,
        )
        self.assertEqual(TABLE["helo-unknown"].code, 450)

    def test_the_last_name_counts(self) -> None:
        self.guard(helo="resolves")
        who = peer(helo="nowhere.example")
        self.door.opened(who)
        self.door.sender(who, MAIL)
        self.assertIs(self.rcpt(who), TABLE["helo-unknown"])
        self.assertIs(self.rcpt(who, POSTMASTER), TABLE["recipient-ok"])
        asked = len(self.resolver.asked)
        self.door.sender(who, MAIL)
        self.assertEqual(len(self.resolver.asked), asked)
        who.helo = "c.example"
        self.door.sender(who, MAIL)
        self.assertIs(self.rcpt(who), TABLE["recipient-ok"])


class GreylistTests(GuardCase):
    settings = GreylistSettings(delay_s=300, retry_s=3600, keep_s=86_400, allow_after=3)

    def setUp(self) -> None:
        super().setUp()
        self.greylist = Greylist(self.settings, self.clock.seconds)
        self.guard(DnsListTests.vouching, greylist=self.greylist)

    def came(self, address: str = "198.51.100.7", recipient: Recipient = AGENT) -> str:
        return self.name(self.visit(address, recipient))

    def test_a_newcomer_has_to_come_again(self) -> None:
        self.assertEqual(self.came("198.51.100.20"), "greylisted")
        self.clock.advance(299)
        self.assertEqual(self.came("198.51.100.20"), "greylisted")
        self.clock.advance(1)
        self.assertEqual(self.came("198.51.100.21"), "recipient-ok")  # of the same /24
        self.clock.advance(86_000)
        self.assertEqual(self.came("198.51.100.20"), "recipient-ok")
        self.clock.advance(86_400)
        self.assertEqual(self.came("198.51.100.20"), "greylisted")
        self.assertEqual(TABLE["greylisted"].code, 450)
        self.assertEqual(self.told.rejected_with, ["greylisted"] * 3)

    def test_not_too_late(self) -> None:
        self.assertEqual(self.came("2001:db8::1"), "greylisted")
        self.clock.advance(3600)
        self.assertEqual(self.came("2001:db8::2"), "greylisted")
        self.clock.advance(300)
        self.assertEqual(self.came("2001:db8::3"), "recipient-ok")

    def test_another_sender_recipient_or_network_is_new(self) -> None:
        self.came("198.51.100.20")
        self.clock.advance(300)
        self.assertEqual(self.came("198.51.100.20", POSTMASTER), "greylisted")
        self.assertEqual(self.came("198.51.101.20"), "greylisted")
        who = peer("198.51.100.20")
        self.door.opened(who)
        other = MailCommand(Envelope(Address("x@b.example"), ()))
        answer = self.door.recipient(who, other, AGENT)
        self.assertIs(answer, TABLE["greylisted"])

    def test_who_has_proved_itself_often_enough_is_waved_through(self) -> None:
        recipients = [
            Recipient(Address(text))
            for text in ("agent@local.test", "AGENT@LOCAL.TEST", "postmaster@local.test")
        ]
        self.assertEqual(
            [self.came("198.51.100.20", each) for each in recipients], ["greylisted"] * 3
        )
        self.clock.advance(300)
        for each in recipients:
            self.assertEqual(self.came("198.51.100.20", each), "recipient-ok")
        # The first two are one triplet: case tells nothing apart.
        who = peer("198.51.100.20")
        self.door.opened(who)
        mails = [MailCommand(Envelope(Address(f"{n}@b.example"), ())) for n in range(3)]
        said = [self.name(self.door.recipient(who, each, AGENT)) for each in mails]
        self.assertEqual(said, ["greylisted"] * 3)
        self.clock.advance(300)
        said = [self.name(self.door.recipient(who, each, AGENT)) for each in mails]
        self.assertEqual(said, ["recipient-ok"] * 3)
        new = MailCommand(Envelope(Address("new@b.example"), ()))
        self.assertIs(self.door.recipient(who, new, AGENT), TABLE["recipient-ok"])

    def test_who_is_vouched_for_or_may_relay_need_not_wait(self) -> None:
        self.assertEqual(self.came("198.51.100.13"), "recipient-ok")
        self.assertEqual(self.came("192.0.2.1"), "recipient-ok")

    def test_what_does_not_exist_is_refused_as_ever(self) -> None:
        self.assertEqual(self.came("198.51.100.20", NOBODY), "no-such-user")
        self.assertEqual(len(self.greylist), 0)

    def test_memory_is_bounded_and_a_flood_keeps_nobody_out(self) -> None:
        greylist = Greylist(attrs.evolve(self.settings, allow_after=0), self.clock.seconds, most=50)
        who = peer("198.51.100.20")
        senders = [Address(f"{n}@b.example") for n in range(1000)]
        judge: Callable[[Address], Reply | None] = lambda sender: greylist.judge(  # noqa: E731
            who, sender, AGENT.address
        )
        said = list(map(judge, senders))
        self.assertEqual(said, [TABLE["greylisted"]] * 50 + [None] * 950)
        self.clock.advance(300)
        self.assertEqual(list(map(judge, senders[:50])), [None] * 50)
        self.assertEqual(list(map(judge, senders[:100])), [None] * 50 + said[:50])
        self.clock.advance(300)
        self.assertEqual(set(map(judge, itertools.islice(senders, 50, 100))), {None})
        self.assertLessEqual(len(greylist), 151)
