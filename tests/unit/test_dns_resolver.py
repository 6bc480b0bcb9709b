"""The resolver against name servers that say what they are told."""

from __future__ import annotations

import errno
import random
from collections.abc import Sequence

import dns.flags
import dns.message
import dns.rcode
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.ports import Answer, Found, NoSuchName, NoSuchRecord, TryAgain
from protege_mta.testing.nameserver_script import Script, ScriptedServers, reply
from protege_mta.transport.dns import DnsResolver
from protege_mta.transport.dns_exchange import Server, Socket

FIRST: Server = ("192.0.2.1", 53)
SECOND: Server = ("2001:db8::2", 53)

SOA = "test. 600 IN SOA ns.test. hostmaster.test. 1 3600 600 86400 60"


def saying(*answer: str, authority: Sequence[str] = (), **more: int) -> Script:
    """One good response."""
    return lambda query: [reply(query, answer, authority, **more)]  # type: ignore[arg-type]


class Case(SynchronousTestCase):
    """One resolver with two servers."""

    trust_ad = False

    def setUp(self) -> None:
        self.servers = ScriptedServers()
        self.resolver = self.new_resolver()

    def new_resolver(self) -> DnsResolver:
        return DnsResolver(
            self.servers,
            [FIRST, SECOND],
            trust_ad=self.trust_ad,
            rng=random.Random(1),
            open_socket=self.servers.open_socket,
        )

    def tearDown(self) -> None:
        """Whatever happened, no socket and no timer is left over."""
        self.resolver.close()
        self.assertEqual(self.servers.sockets, {})
        self.assertEqual(self.servers.getReaders(), [])
        self.assertEqual(self.servers.getDelayedCalls(), [])

    def ask(self, name: str = "a.test", kind: str = "A") -> Answer:
        """Look up, with everything answering at once."""
        waiting = self.resolver.lookup(name, kind)  # type: ignore[arg-type]
        self.servers.deliver()
        return self.successResultOf(waiting)

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds * 4)):
            self.servers.advance(0.25)
            self.servers.deliver()


class QueryTests(Case):
    """What goes out."""

    def test_shape(self) -> None:
        """Recursion desired, EDNS with 1232 octets, no AD bit unless it is to be believed."""
        self.servers.datagrams[FIRST] = saying("a.test. 300 IN A 192.0.2.9")
        self.ask("A.test")
        [query] = self.servers.queries
        self.assertEqual(str(query.question[0]), "a.test. IN A")
        self.assertEqual(query.flags, dns.flags.RD)
        self.assertEqual((query.edns, query.payload), (0, 1232))

    def test_ids_differ(self) -> None:
        self.servers.datagrams[FIRST] = saying(authority=[SOA])
        for name in ("a.test", "b.test", "c.test", "d.test"):
            self.ask(name)
        self.assertEqual(len({query.id for query in self.servers.queries}), 4)


class AnswerTests(Case):
    """What comes back."""

    def test_chain_within_one_answer(self) -> None:
        """In whatever order its links are written."""
        self.servers.datagrams[FIRST] = saying(
            "c.test. 300 IN A 192.0.2.9",
            "b.test. 300 IN CNAME C.test.",
            "A.test. 300 IN CNAME b.test.",
        )
        self.assertEqual(self.ask(), Found(("192.0.2.9",)))

    def test_records_of_other_names_are_ignored(self) -> None:
        self.servers.datagrams[FIRST] = saying(
            "a.test. 300 IN A 192.0.2.9", "evil.test. 300 IN A 192.0.2.66"
        )
        self.assertEqual(self.ask(), Found(("192.0.2.9",)))
        self.servers.datagrams[FIRST] = saying("evil.test. 300 IN A 192.0.2.66", authority=[SOA])
        self.assertEqual(self.ask("other.test"), NoSuchRecord())

    def test_chain_over_several_answers(self) -> None:
        """A server that knows only the first link makes us ask for the second."""

        def script(query: bytes) -> list[bytes | OSError]:
            name = dns.message.from_wire(query).question[0].name.to_text()
            return [
                reply(query, ["a.test. 300 IN CNAME b.test.", "b.test. 300 IN CNAME c.other."])
                if name == "a.test."
                else reply(query, ["c.other. 300 IN A 192.0.2.9"])
            ]

        self.servers.datagrams[FIRST] = script
        self.assertEqual(self.ask(), Found(("192.0.2.9",)))
        self.assertEqual(len(self.servers.queries), 2)

    def test_endless_chain(self) -> None:
        """One link an answer, for ever: ten are followed."""
        numbers = iter(range(1000))

        def script(query: bytes) -> list[bytes | OSError]:
            name = dns.message.from_wire(query).question[0].name
            return [reply(query, [f"{name} 300 IN CNAME n{next(numbers)}.test."])]

        self.servers.datagrams[FIRST] = script
        self.assertEqual(self.ask(), TryAgain("CNAME loop"))
        self.assertEqual(len(self.servers.queries), 11)

    def test_name_error_is_of_the_end_of_the_chain(self) -> None:
        self.servers.datagrams[FIRST] = saying(
            "a.test. 300 IN CNAME b.test.", authority=[SOA], rcode=dns.rcode.NXDOMAIN
        )
        self.assertEqual(self.ask(), NoSuchName())

    def test_referral_is_no_answer(self) -> None:
        """A server that does not recurse for us has told nothing."""
        for server in (FIRST, SECOND):
            self.servers.datagrams[server] = saying(authority=["test. 300 IN NS ns.test."])
        self.assertEqual(
            self.ask(),
            TryAgain(
                "192.0.2.1: referral instead of an answer; "
                "2001:db8::2: referral instead of an answer"
            ),
        )

    def test_authentic_only_from_trusted_servers(self) -> None:
        self.servers.datagrams[FIRST] = saying("a.test. 300 IN A 192.0.2.9", flags=dns.flags.AD)
        self.assertEqual(self.ask(), Found(("192.0.2.9",), is_authentic=False))


class TrustedTests(Case):
    """With ``trust_ad``."""

    trust_ad = True

    def test_authentic(self) -> None:
        self.servers.datagrams[FIRST] = saying("a.test. 300 IN A 192.0.2.9", flags=dns.flags.AD)
        self.assertEqual(self.ask(), Found(("192.0.2.9",), is_authentic=True))
        self.assertEqual(self.servers.queries[0].flags, dns.flags.RD | dns.flags.AD)

    def test_chain_is_as_authentic_as_its_weakest_link(self) -> None:
        def script(query: bytes) -> list[bytes | OSError]:
            if dns.message.from_wire(query).question[0].name.to_text() == "a.test.":
                return [reply(query, ["a.test. 300 IN CNAME b.test."])]
            return [reply(query, ["b.test. 300 IN A 192.0.2.9"], flags=dns.flags.AD)]

        self.servers.datagrams[FIRST] = script
        self.assertEqual(self.ask(), Found(("192.0.2.9",), is_authentic=False))


class ForgeryTests(Case):
    """What is not the answer to our question is not there (RFC 5452)."""

    def test_forgeries_before_the_answer(self) -> None:
        def script(query: bytes) -> list[bytes | OSError]:
            evil = ["a.test. 300 IN A 192.0.2.66"]
            forged = reply(query, evil)
            other = dns.message.make_query("b.test", "A", id=dns.message.from_wire(query).id)
            return [
                bytes([forged[0] ^ 1]) + forged[1:],  # another id
                forged[:2] + bytes([forged[2] ^ 0x80]) + forged[3:],  # a query, not a response
                reply(other.to_wire(), evil),  # another question
                forged[:-3],  # cut off
                b"",
                query[:2],
                reply(query, ["a.test. 300 IN A 192.0.2.9"]),
            ]

        self.servers.datagrams[FIRST] = script
        self.assertEqual(self.ask(), Found(("192.0.2.9",)))

    def test_guessing_is_answered_by_a_stream(self) -> None:
        """A hundred wrong datagrams, and TCP decides."""
        self.servers.datagrams[FIRST] = lambda query: [b"\0\0" + query[2:]] * 100
        self.servers.streams[FIRST] = saying("a.test. 300 IN A 192.0.2.9")
        self.assertEqual(self.ask(), Found(("192.0.2.9",)))


class StreamTests(Case):
    """What is too big for a datagram (RFC 7766)."""

    def test_truncated(self) -> None:
        self.servers.datagrams[FIRST] = saying(flags=dns.flags.TC)
        self.servers.streams[FIRST] = saying("a.test. 300 IN A 192.0.2.9")
        self.assertEqual(self.ask(), Found(("192.0.2.9",)))
        self.assertEqual(self.servers.asked, [("192.0.2.1", "udp"), ("192.0.2.1", "tcp")])

    def test_truncated_in_the_middle_of_a_record(self) -> None:
        self.servers.datagrams[FIRST] = lambda query: [
            reply(query, ["a.test. 300 IN A 192.0.2.66"], flags=dns.flags.TC)[:-13]
        ]
        self.servers.streams[FIRST] = saying("a.test. 300 IN A 192.0.2.9")
        self.assertEqual(self.ask(), Found(("192.0.2.9",)))

    def test_no_stream_to_be_had(self) -> None:
        """Refused, cut, or full of nonsense: the next server is asked."""
        self.servers.datagrams[FIRST] = saying(flags=dns.flags.TC)
        self.servers.datagrams[SECOND] = saying("a.test. 1 IN A 192.0.2.9")
        scripts: list[Script | None] = [
            None,
            lambda query: [OSError(errno.ECONNRESET, "cut")],
            lambda query: [b""],
            lambda query: [b"nonsense" * 8000],
            saying(flags=dns.flags.TC),
        ]
        for script in scripts:
            self.resolver = self.new_resolver()
            if script is not None:
                self.servers.streams[FIRST] = script
            self.assertEqual(self.ask(), Found(("192.0.2.9",)))

    def test_stream_that_says_nothing(self) -> None:
        self.servers.datagrams[FIRST] = saying(flags=dns.flags.TC)
        self.servers.datagrams[SECOND] = saying("a.test. 300 IN A 192.0.2.9")
        self.servers.streams[FIRST] = lambda query: []
        waiting = self.resolver.lookup("a.test", "A")
        self.servers.deliver()
        self.wait(3.75)
        self.assertNoResult(waiting)
        self.wait(0.25)
        self.assertEqual(self.successResultOf(waiting), Found(("192.0.2.9",)))


class TroubleTests(Case):
    """Servers that fail."""

    def test_silent_first_server(self) -> None:
        """The second is asked after two seconds, and first the next time."""
        self.servers.datagrams[SECOND] = saying("a.test. 300 IN A 192.0.2.9")
        waiting = self.resolver.lookup("a.test", "A")
        self.wait(1.75)
        self.assertNoResult(waiting)
        self.wait(0.25)
        self.assertEqual(self.successResultOf(waiting), Found(("192.0.2.9",)))
        self.servers.datagrams[SECOND] = saying("b.test. 300 IN A 192.0.2.10")
        self.assertEqual(self.ask("b.test"), Found(("192.0.2.10",)))

    def test_silence_everywhere(self) -> None:
        """Two rounds; the second without EDNS, which some middleboxes swallow."""
        waiting = self.resolver.lookup("a.test", "A")
        self.wait(7.75)
        self.assertNoResult(waiting)
        self.wait(0.25)
        self.assertEqual(
            self.successResultOf(waiting),
            TryAgain("192.0.2.1: no answer within 2 s; 2001:db8::2: no answer within 2 s"),
        )
        self.assertEqual([query.edns for query in self.servers.queries], [0, 0, -1, -1])

    def test_refused_connection_is_known_at_once(self) -> None:
        error = OSError(errno.ECONNREFUSED, "Connection refused")
        self.servers.datagrams[FIRST] = lambda query: [error]
        self.servers.datagrams[SECOND] = saying("a.test. 300 IN A 192.0.2.9")
        self.assertEqual(self.ask(), Found(("192.0.2.9",)))

    def test_failing_server_is_asked_once(self) -> None:
        for server in (FIRST, SECOND):
            self.servers.datagrams[server] = saying(rcode=dns.rcode.SERVFAIL)
        self.assertEqual(self.ask(), TryAgain("192.0.2.1: SERVFAIL; 2001:db8::2: SERVFAIL"))
        self.assertEqual(self.servers.asked, [("192.0.2.1", "udp"), ("2001:db8::2", "udp")])

    def test_server_without_edns(self) -> None:
        """FORMERR, perhaps without the question, is for the EDNS record (RFC 6891, section 7)."""

        def script(query: bytes) -> list[bytes | OSError]:
            if dns.message.from_wire(query).edns >= 0:
                return [query[:2] + b"\x80\x01" + bytes(8)]
            return [reply(query, ["a.test. 300 IN A 192.0.2.9"])]

        self.servers.datagrams[FIRST] = script
        self.assertEqual(self.ask(), Found(("192.0.2.9",)))

    def test_no_sockets_left(self) -> None:
        """Our own trouble is nobody's fault: try again."""

        def fail(server: Server) -> Socket:
            raise OSError(errno.EMFILE, "Too many open files")

        resolver = DnsResolver(self.servers, [FIRST], rng=random.Random(1), open_socket=fail)
        waiting = resolver.lookup("a.test", "A")
        self.servers.advance(0)
        self.assertEqual(
            self.successResultOf(waiting), TryAgain("192.0.2.1: no socket: Too many open files")
        )

    def test_whole_lookup_is_bounded(self) -> None:
        """Four silent servers would take 16 seconds."""
        silent = [("192.0.2.1", port) for port in range(1, 5)]
        resolver = DnsResolver(
            self.servers, silent, rng=random.Random(1), open_socket=self.servers.open_socket
        )
        waiting = resolver.lookup("a.test", "A")
        self.wait(15)
        self.assertEqual(self.successResultOf(waiting), TryAgain("no answer within 15 s"))

    def test_bug_is_a_reason_to_try_again(self) -> None:
        """Whatever breaks, a lookup does not fail; the log has it."""

        def broken(server: Server) -> Socket:
            raise ZeroDivisionError

        resolver = DnsResolver(self.servers, [FIRST], rng=random.Random(1), open_socket=broken)
        self.assertEqual(
            self.successResultOf(resolver.lookup("a.test", "A")), TryAgain("local error")
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class CacheTests(Case):
    """Answers are kept while they hold."""

    def queries_after(self, seconds: float, name: str = "a.test") -> int:
        """How many questions there have been, once the name is asked for again."""
        self.servers.advance(seconds)
        self.ask(name)
        return len(self.servers.queries)

    def test_until_the_ttl(self) -> None:
        """The shortest of a chain's."""
        self.servers.datagrams[FIRST] = saying(
            "a.test. 100 IN CNAME b.test.", "b.test. 300 IN A 192.0.2.9"
        )
        self.ask()
        self.assertEqual(self.queries_after(99, "A.TEST."), 1)
        self.assertEqual(self.queries_after(2), 2)

    def test_types_apart(self) -> None:
        self.servers.datagrams[FIRST] = saying("a.test. 100 IN A 192.0.2.9", authority=[SOA])
        self.assertEqual(self.ask(), Found(("192.0.2.9",)))
        self.assertEqual(self.ask(kind="MX"), NoSuchRecord())

    def test_zero_is_not_kept(self) -> None:
        self.servers.datagrams[FIRST] = saying("a.test. 0 IN A 192.0.2.9")
        self.ask()
        self.assertEqual(self.queries_after(0), 2)

    def test_a_day_at_most(self) -> None:
        self.servers.datagrams[FIRST] = saying("a.test. 604800 IN A 192.0.2.9")
        self.ask()
        self.assertEqual(self.queries_after(86_399), 1)
        self.assertEqual(self.queries_after(2), 2)

    def test_absence_as_long_as_the_soa_says(self) -> None:
        """The lesser of its TTL and its last field (RFC 2308, section 5)."""
        self.servers.datagrams[FIRST] = saying(authority=[SOA], rcode=dns.rcode.NXDOMAIN)
        self.ask()
        self.assertEqual(self.queries_after(59), 1)
        self.assertEqual(self.queries_after(2), 2)

    def test_absence_a_quarter_of_an_hour_at_most(self) -> None:
        long = SOA.replace(" 600 IN", " 86400 IN").replace(" 60", " 86400")
        self.servers.datagrams[FIRST] = saying(authority=[long])
        self.ask()
        self.assertEqual(self.queries_after(899), 1)
        self.assertEqual(self.queries_after(2), 2)

    def test_absence_without_soa_is_not_kept(self) -> None:
        self.servers.datagrams[FIRST] = saying(rcode=dns.rcode.NXDOMAIN)
        self.ask()
        self.assertEqual(self.queries_after(0), 2)

    def test_failure_for_five_seconds(self) -> None:
        for server in (FIRST, SECOND):
            self.servers.datagrams[server] = saying(rcode=dns.rcode.SERVFAIL)
        self.ask()
        self.assertEqual(self.queries_after(4), 2)
        self.assertEqual(self.queries_after(2), 4)


class WaitingTests(Case):
    """Several callers, one question."""

    def test_one_query_for_all(self) -> None:
        self.servers.datagrams[FIRST] = saying("a.test. 0 IN A 192.0.2.9")
        waiting = [self.resolver.lookup(name, "A") for name in ("a.test", "A.test", "a.test.")]
        self.servers.deliver()
        for each in waiting:
            self.assertEqual(self.successResultOf(each), Found(("192.0.2.9",)))
        self.assertEqual(len(self.servers.queries), 1)

    def test_cancelling_forgets_one_caller(self) -> None:
        self.servers.datagrams[FIRST] = saying("a.test. 300 IN A 192.0.2.9")
        first, second = self.resolver.lookup("a.test", "A"), self.resolver.lookup("a.test", "A")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.servers.deliver()
        self.assertEqual(self.successResultOf(second), Found(("192.0.2.9",)))

    def test_two_hundred_sockets_at_most(self) -> None:
        self.servers.datagrams[FIRST] = saying(rcode=dns.rcode.NXDOMAIN)
        waiting = [self.resolver.lookup(f"n{number}.test", "A") for number in range(300)]
        self.assertEqual(len(self.servers.sockets), 200)
        self.servers.deliver()
        for each in waiting:
            self.assertEqual(self.successResultOf(each), NoSuchName())

    def test_sockets_run_out_with_thousands_waiting(self) -> None:
        """One failure after the other does not deepen the stack."""

        def open_socket(server: Server) -> Socket:
            if opened:
                raise OSError(errno.EMFILE, "Too many open files")
            return self.servers.open_socket(server)

        opened: list[str] = []
        resolver = DnsResolver(self.servers, [FIRST], rng=random.Random(1), open_socket=open_socket)
        self.servers.datagrams[FIRST] = saying(rcode=dns.rcode.NXDOMAIN)
        waiting = [resolver.lookup(f"n{number}.test", "A") for number in range(3000)]
        opened.append("enough")
        self.servers.deliver()
        for _ in range(20):
            self.servers.advance(0)
        answers = [self.successResultOf(each) for each in waiting]
        self.assertEqual(answers.count(NoSuchName()), 200)
        self.assertEqual(answers.count(TryAgain("192.0.2.1: no socket: Too many open files")), 2800)

    def test_closing_answers_all(self) -> None:
        waiting = [self.resolver.lookup(f"n{number}.test", "A") for number in range(300)]
        self.resolver.close()
        for each in [*waiting, self.resolver.lookup("late.test", "A")]:
            self.assertEqual(self.successResultOf(each), TryAgain("shutting down"))

    def test_closing_while_a_stream_is_open(self) -> None:
        self.servers.datagrams[FIRST] = saying(flags=dns.flags.TC)
        self.servers.streams[FIRST] = lambda query: []
        waiting = self.resolver.lookup("a.test", "A")
        self.servers.deliver()
        self.resolver.close()
        self.assertEqual(self.successResultOf(waiting), TryAgain("shutting down"))
