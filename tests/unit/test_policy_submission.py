"""What an account may do through the submission door, and what is done to its mail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.headers import values
from protege_mta.model.account import Account, AccountLimits, ScramVerifier
from protege_mta.model.address import Address
from protege_mta.model.caller import AgentPolicy, Caller, Flaw
from protege_mta.model.envelope import Envelope, Origin, Recipient
from protege_mta.model.ids import IdSource, QueueId
from protege_mta.model.outcome import TlsFacts
from protege_mta.model.ports import Door, Intake, MailCommand, PasswordProof, Peer, Proof
from protege_mta.model.reply import TABLE, Reply
from protege_mta.observe.events import EventLines
from protege_mta.observe.metrics import Counts
from protege_mta.policy.callers import caller_of
from protege_mta.policy.limits import Limits, LimitSettings
from protege_mta.policy.relaying import Mailboxes, Relaying
from protege_mta.policy.sending import APPROVE_ALL, APPROVE_FIRST, SendingPolicy
from protege_mta.policy.submission import SubmissionDoor
from protege_mta.policy.usage import Usage
from protege_mta.schedule.intake import Acceptance
from protege_mta.spool.memory import MemorySpool
from protege_mta.testing.contacts import MemoryContacts
from protege_mta.testing.doors import FakeIntake
from protege_mta.testing.requests import MemoryRequests
from protege_mta.testing.smtp_dialog import Client
from protege_mta.wire.settings import ServerSettings

NOON = 1_790_000_000.0
NAMES = {id(reply): name for name, reply in TABLE.items()}
BOT = Account(name="bot", password_hash="", tenant="acme")
MESSAGE = b"From: bot@ours.test\r\nSubject: x\r\n\r\nbody\r\n"


@attrs.define
class FakeAccounts:
    accounts: dict[str, Account] = attrs.field(factory=dict)
    asked: int = 0

    def get(self, name: str) -> Account | None:
        self.asked += 1
        return self.accounts.get(name)


@attrs.define
class FakeLogins:
    answer: Reply | Deferred[Reply] = TABLE["logged-in"]

    def scram(self, peer: Peer, name: str) -> ScramVerifier:
        return ScramVerifier(name.encode(), 4096, b"s", b"k")

    def login(self, peer: Peer, proof: Proof) -> Reply | Deferred[Reply]:
        return self.answer


class Case(SynchronousTestCase):
    """A door, and a session of the account ``bot``."""

    def setUp(self) -> None:
        self.now = NOON
        self.lines: list[bytes] = []
        self.accounts = FakeAccounts({"bot": BOT})
        self.logins = FakeLogins()
        self.usage = Usage(lambda: self.now)
        self.contacts = MemoryContacts(lambda: self.now)
        self.keys: dict[str, Caller] = {}
        self.limits = Limits(LimitSettings(), lambda: self.now)
        self.events = EventLines(lambda: self.now, self.lines.append, Counts())
        self.intakes: list[FakeIntake] = []
        self.origins: list[Origin] = []
        self.begin: Callable[[Peer, Envelope, Origin], Intake | Reply] = self.opened
        self.door = SubmissionDoor(
            Relaying(
                domains={
                    "ours.test": Mailboxes(frozenset({"bot"})),
                    "xn--bcher-kva.test": Mailboxes(frozenset()),
                },
                relay_hosts={"submission": (ip_network("192.0.2.0/24"),)},
                postmaster=Address("admin@ours.test"),
            ),
            self.limits,
            self.events,
            lambda *arguments: self.begin(*arguments),
            caller=self.who,
            logins=self.logins,
            sending=SendingPolicy(self.usage, self.contacts, lambda: self.now),
            now=lambda: self.now,
            new_message_id=lambda: "<new@mx.ours.test>",
        )
        self.peer = self.session()

    def session(self, address: str = "198.51.100.7", identity: str = "bot") -> Peer:
        return Peer(address, 40000, "submission", "s-1", identity=identity, source="submission")

    def who(self, identity: str) -> Caller | None:
        if identity in self.keys:
            return self.keys[identity]
        account = self.accounts.get(identity)
        return None if account is None else caller_of(account)

    def opened(self, peer: Peer, envelope: Envelope, origin: Origin) -> Intake | Reply:
        self.origins.append(origin)
        self.intakes.append(FakeIntake(envelope))
        return self.intakes[-1]

    def have(self, **what: Any) -> None:
        """Give the account other properties."""
        self.accounts.accounts["bot"] = attrs.evolve(BOT, **what)

    def mail(self, sender: str, peer: Peer | None = None) -> str:
        mail = MailCommand(Envelope(Address(sender), ()))
        return NAMES[id(self.door.sender(peer or self.peer, mail))]

    def rcpt(self, *recipients: str, peer: Peer | None = None) -> list[str]:
        mail = MailCommand(Envelope(Address("bot@ours.test"), ()))
        return [
            NAMES[id(self.door.recipient(peer or self.peer, mail, Recipient(Address(one))))]
            for one in recipients
        ]

    def data(
        self, *recipients: str, sender: str = "bot@ours.test", peer: Peer | None = None
    ) -> Any:
        envelope = Envelope(Address(sender), tuple(Recipient(Address(one)) for one in recipients))
        return self.door.receive(peer or self.peer, envelope)

    def send(
        self,
        message: bytes = MESSAGE,
        sender: str = "bot@ours.test",
        recipients: tuple[str, ...] = ("a@else.test",),
        peer: Peer | None = None,
    ) -> str:
        """Send a message; the name of the reply that it ended with."""
        said = self.mail(sender, peer)
        if said != "sender-ok":
            return said
        accepted = []
        for recipient in recipients:
            (said,) = self.rcpt(recipient, peer=peer)
            if said == "recipient-ok":
                accepted.append(recipient)
        if not accepted:
            return said
        intake = self.data(*accepted, sender=sender, peer=peer)
        if isinstance(intake, Reply):
            return NAMES[id(intake)]
        self.assertIsNone(intake.write(message))
        return NAMES[id(self.successResultOf(intake.finish()))]

    def counted(self) -> list[tuple[int, int, int]]:
        """Of the account: length of the window, messages, recipients."""
        return [(length_s, m, r) for _, _, length_s, m, r in self.usage.rows()]

    def rejections(self) -> list[tuple[str, str, str, int, str]]:
        events = [json.loads(line) for line in self.lines]
        return [
            (
                e.get("identity", ""),
                e["sender"],
                e.get("recipient", ""),
                e["reply"]["code"],
                e["reply"]["text"],
            )
            for e in events
        ]


class IdentityTests(Case):
    """Who may send at all."""

    def test_is_a_door(self) -> None:
        door: Door = self.door
        self.assertIs(door, self.door)

    def test_nobody_sends_without_a_login(self) -> None:
        """Loopback is nobody either."""
        for address in ("198.51.100.7", "127.0.0.1", "::1"):
            peer = self.session(address, identity="")
            self.assertEqual(self.mail("bot@ours.test", peer), "login-required")
            self.assertEqual(self.mail("", peer), "login-required")
        self.assertEqual(self.accounts.asked, 0)

    def test_named_networks_do(self) -> None:
        """With the repairs, and without the limits of anybody."""
        peer = self.session("192.0.2.9", identity="")
        self.assertEqual(self.send(b"Subject: x\r\n\r\n", "printer@ours.test", peer=peer), "ok")
        self.assertEqual(
            self.origins, [Origin("submission", "", "192.0.2.9", may_sign=True, tenant="")]
        )
        self.assertIn(b"From: printer@ours.test\r\n", self.intakes[0].content)
        self.assertEqual(self.usage.rows(), [])

    def test_account_that_is_gone(self) -> None:
        """From one message to the next, whatever network its peer is in."""
        for peer in (self.peer, self.session("192.0.2.9")):
            self.assertEqual(self.send(peer=peer), "ok")
        self.accounts.accounts.clear()
        for peer in (self.peer, self.session("192.0.2.9")):
            self.assertEqual(self.send(peer=peer), "login-required")

    def test_account_that_goes_during_a_message(self) -> None:
        """What MAIL was said to holds until the message has ended."""
        self.mail("bot@ours.test")
        self.accounts.accounts.clear()
        self.assertEqual(self.rcpt("a@else.test"), ["recipient-ok"])
        intake = self.data("a@else.test")
        intake.write(MESSAGE)
        self.assertEqual(self.successResultOf(intake.finish()), TABLE["ok"])

    def test_origin(self) -> None:
        self.send()
        self.assertEqual(
            self.origins,
            [Origin("submission", "bot", "198.51.100.7", may_sign=True, tenant="acme")],
        )

    def test_account_is_looked_up_once_a_message(self) -> None:
        self.have(allowed_from=("ours.test",), limits=AccountLimits(recipients=10))
        self.send(recipients=("a@else.test", "b@else.test", "c@else.test"))
        self.assertEqual(self.accounts.asked, 1)

    def test_login(self) -> None:
        """Those are asked who know."""
        proof = PasswordProof("bot", "secret")
        peer = self.session(identity="")
        self.assertEqual(self.door.login(peer, proof), TABLE["logged-in"])
        later: Deferred[Reply] = Deferred()
        self.logins.answer = later
        self.assertIs(self.door.login(peer, proof), later)
        self.assertEqual(self.door.scram(peer, "bot").salt, b"bot")

    def test_connections_are_counted(self) -> None:
        self.limits.settings = LimitSettings(connections=1)
        self.assertIsNone(self.door.opened(self.peer))
        self.assertEqual(self.door.opened(self.peer), TABLE["too-many-connections"])
        self.door.closed(self.peer)
        self.assertIsNone(self.door.opened(self.peer))

    def test_refusals_are_events(self) -> None:
        self.have(allowed_from=("ours.test",), denied_to=("bad.test",))
        self.send(sender="a@else.test")
        self.send(recipients=("x@bad.test",))
        self.send(b"From: a@else.test\r\n\r\n")
        self.assertEqual(
            self.rejections(),
            [
                ("bot", "a@else.test", "", 550, TABLE["sender-not-allowed"].text),
                ("bot", "bot@ours.test", "x@bad.test", 550, TABLE["recipient-not-allowed"].text),
                ("bot", "bot@ours.test", "", 550, TABLE["from-not-allowed"].text),
            ],
        )

    def test_refusals_say_whose_and_what(self) -> None:
        """The account's tenant at each step, and the header where it has come."""
        self.have(allowed_from=("ours.test",), denied_to=("bad.test",))
        self.send(sender="a@else.test")
        self.send(recipients=("x@bad.test",))
        self.send(b"From: a@else.test\r\nSubject: hello\r\nMessage-ID: <1@else.test>\r\n\r\n")
        events = [json.loads(line) for line in self.lines]
        self.assertEqual(
            [(one["source"], one["tenant"]) for one in events], [("submission", "acme")] * 3
        )
        self.assertEqual(
            [(one.get("subject"), one.get("header_message_id")) for one in events],
            [(None, None), (None, None), ("hello", "<1@else.test>")],
        )

    def test_the_channel_goes_with_the_message(self) -> None:
        self.peer.tls = TlsFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256")
        self.assertEqual(self.send(), "ok")
        self.assertEqual([one.tls for one in self.origins], [self.peer.tls])


class ReversePathTests(Case):
    """``allowed_from`` at MAIL."""

    def allowed(self, *entries: str) -> Callable[[str], bool]:
        self.have(allowed_from=entries)
        return lambda sender: self.mail(sender) == "sender-ok"

    def test_no_list_no_limit(self) -> None:
        self.assertEqual(self.mail("anybody@else.test"), "sender-ok")

    def test_address(self) -> None:
        is_allowed = self.allowed("agent@ours.test")
        for sender in (
            "agent@ours.test",
            "AGENT@Ours.TEST",
            '"agent"@ours.test',
            r'"ag\ent"@ours.test',
        ):
            self.assertTrue(is_allowed(sender), sender)
        for sender in (
            "other@ours.test",
            "agent@else.test",
            "agent@sub.ours.test",
            "agent@ours.test.else.test",
            "agent+x@ours.test",
            '"agent@ours.test"@else.test',
            "agent%ours.test@else.test",
        ):
            self.assertFalse(is_allowed(sender), sender)

    def test_domain(self) -> None:
        is_allowed = self.allowed("ours.test")
        for sender in ("a@ours.test", "b@OURS.test", '"x@else.test"@ours.test'):
            self.assertTrue(is_allowed(sender), sender)
        for sender in ("a@sub.ours.test", "a@xours.test", "a@ours.test.x", '"a@ours.test"@x.test'):
            self.assertFalse(is_allowed(sender), sender)

    def test_subdomains(self) -> None:
        is_allowed = self.allowed(".ours.test")
        for sender in ("a@sub.ours.test", "a@SUB.sub.ours.test"):
            self.assertTrue(is_allowed(sender), sender)
        for sender in ("a@ours.test", "a@xours.test", "a@sub.ours.test.x"):
            self.assertFalse(is_allowed(sender), sender)

    def test_forms_of_a_domain(self) -> None:
        """A-labels and U-labels are the same domain."""
        for entry in ("bücher.test", "xn--bcher-kva.test", "ä@bücher.test", "ä@xn--bcher-kva.test"):
            is_allowed = self.allowed(entry)
            for domain in ("bücher.test", "BÜCHER.test", "xn--bcher-kva.test"):
                self.assertTrue(is_allowed(f"Ä@{domain}"), (entry, domain))
        self.assertTrue(self.allowed(".bücher.test")("a@x.xn--bcher-kva.test"))

    def test_letters_that_become_others_in_lower_case(self) -> None:
        """The Kelvin sign is no k."""
        is_allowed = self.allowed("k@ours.test")
        self.assertTrue(is_allowed("K@ours.test"))
        self.assertFalse(is_allowed("\u212a@ours.test"))

    def test_entry_that_is_none(self) -> None:
        """Restricts all the same."""
        is_allowed = self.allowed("@", "a b@ours.test")
        self.assertFalse(is_allowed("a@ours.test"))

    def test_null_reverse_path(self) -> None:
        """For reports (RFC 5321, 4.5.5); the From of the message is looked at all the same."""
        self.have(allowed_from=("bot@ours.test",))
        self.assertEqual(self.send(sender=""), "ok")
        self.assertEqual(
            self.send(b"From: a@else.test\r\n\r\n", sender=""),
            "from-not-allowed",
        )


class FromTests(Case):
    """``allowed_from`` and the header: no reader may see another author than the account's."""

    def setUp(self) -> None:
        super().setUp()
        self.have(allowed_from=("bot@ours.test", "team.test"))

    def sent(self, header: bytes) -> str:
        return self.send(header + b"\r\nbody\r\n")

    def test_own_addresses(self) -> None:
        for header in (
            b"From: bot@ours.test\r\n",
            b"from: The Bot <BOT@Ours.Test>\r\n",
            b"From: bot@ours.test, x@team.test\r\nSender: bot@ours.test\r\n",
            b'From: "x@else.test via Bot" <bot@ours.test>\r\n',
            b'From: "bot"@ours.test\r\n',
            b"From: =?utf-8?q?B=C3=B6t=2C_the?=\r\n <bot@ours.test>\r\n",
            b"From: anybody@team.test (Any Body)\r\nReply-To: x@else.test\r\n",
            b"From: bot@ours.test\r\nResent-From: x@team.test\r\n",
        ):
            self.assertEqual(self.sent(header), "ok", header)

    def test_others(self) -> None:
        """Every one of these is spoken of as a way to get another's name past a server."""
        for header in (
            b"From: a@else.test\r\n",
            b"From: other@ours.test\r\n",
            b"From: bot@ours.test.else.test\r\n",
            b"From: bot@sub.team.test\r\n",
            b'From: "bot@ours.test" <a@else.test>\r\n',
            b"From: bot@ours.test <a@else.test>\r\n",
            b"From: a@else.test <bot@ours.test>\r\n",
            b"From: <bot@ours.test> <a@else.test>\r\n",
            b"From: bot@ours.test, a@else.test\r\n",
            b"From: a@else.test, bot@ours.test\r\n",
            b"From: bot@ours.test,\r\n a@else.test\r\n",
            b"From: bot@ours.test\r\nFrom: a@else.test\r\n",
            b"From: a@else.test\r\nFrom: bot@ours.test\r\n",
            b"From: bot@ours.test\r\nFrom: bot@ours.test\r\n",
            b"From: bot@ours.test\r\nfrom : a@else.test\r\n",
            b"From : bot@ours.test\r\n",
            b"From: bot@ours.test\r\nFrom\t: a@else.test\r\n",
            b"From: bot@ours.test (<a@else.test>)\r\n",
            b"From: (<bot@ours.test>) a@else.test\r\n",
            b"From: bot@ours.test(\\) <a@else.test>)\r\n",
            b'From: "x\\" <bot@ours.test>, \\"" <a@else.test>\r\n',
            b"From: team: bot@ours.test, a@else.test;\r\n",
            b"From: team: bot@ours.test;\r\n",
            b"From: <@else.test:bot@ours.test>\r\n",
            b"From: bot@ours.test@else.test\r\n",
            b'From: "a@else.test,"@team.test\r\n',
            b"From: bot@ours.test\0@else.test\r\n",
            b"From: =?utf-8?q?=3Ca=40else.test=3E=2C?= <bot@ours.test>\r\n",
            b"From: =?utf-8?b?YUBlbHNlLnRlc3Q=?= <bot@ours.test>\r\n",
            b"From: =?utf-8?b?YUBlbHNlLnRlc3QA?=@team.test\r\n",
            b"From: bot@ours.test\r\n .else.test\r\n",
            b"From: bot@ours.test\r\nSender: a@else.test\r\n",
            b"From: bot@ours.test\r\nSender: bot@ours.test\r\nSender: a@else.test\r\n",
            b"From: bot@ours.test\r\nSender: bot@ours.test, a@else.test\r\n",
            b"From: bot@ours.test\r\nSender:\r\n",
            b"From: bot@ours.test\r\nResent-From: a@else.test\r\n",
            b"From: bot@ours.test\r\nResent-Sender: a@else.test\r\n",
            b"From: a@else.test\r\nResent-From: bot@ours.test\r\n",
            b"From: bot\r\n",
            b"From:\r\n",
        ):
            self.assertEqual(self.sent(header), "from-not-allowed", header)
            self.assertEqual(self.intakes[-1].ended, "aborted")

    def test_field_behind_a_line_that_is_none(self) -> None:
        """It is the body's for us, and for everybody behind us."""
        self.assertEqual(self.sent(b"From: bot@ours.test\r\noops\r\nFrom: a@else.test\r\n"), "ok")
        head, _, body = self.intakes[-1].content.partition(b"\r\n\r\n")
        self.assertEqual(values(head, b"from"), [b"bot@ours.test"])
        self.assertTrue(body.startswith(b"oops\r\nFrom: a@else.test\r\n"))

    def test_no_from(self) -> None:
        """Is made of the reverse-path, which was looked at."""
        self.assertEqual(self.sent(b"Subject: x\r\n"), "ok")
        self.assertIn(b"\r\nFrom: bot@ours.test\r\n", self.intakes[-1].content)

    def test_content_is_read_to_its_end(self) -> None:
        """And nothing of it is kept."""
        self.mail("bot@ours.test")
        self.rcpt("a@else.test")
        intake = self.data("a@else.test")
        for piece in (b"From: a@else.test\r\n", b"\r\n", b"body", b"\r\n"):
            self.assertIsNone(intake.write(piece))
        self.assertEqual(self.intakes[0].content, b"")
        self.assertEqual(self.successResultOf(intake.finish()), TABLE["from-not-allowed"])

    def test_without_a_list(self) -> None:
        """Anybody may be named, if there is somebody."""
        self.have()
        for header, said in {
            b"From: a@else.test\r\nSender: b@else.test\r\n": "ok",
            b"From : A. B. <a@else.test> (x (y))\r\n": "ok",
            b"From: undisclosed:;\r\n": "ok",
            b"From: a@else.test\r\nFrom: a@else.test\r\n": "bad-author",
            b"From: Ada\r\n": "bad-author",
            b"From:\r\n": "bad-author",
        }.items():
            self.assertEqual(self.sent(header), said, header)


class RecipientTests(Case):
    """``allowed_to`` and ``denied_to``."""

    def test_anybody(self) -> None:
        self.mail("bot@ours.test")
        self.assertEqual(
            self.rcpt("a@else.test", "a@[192.0.2.1]", "bot@ours.test"), ["recipient-ok"] * 3
        )

    def test_unknown_mailboxes_of_our_own(self) -> None:
        """In whatever form the domain is written."""
        self.mail("bot@ours.test")
        self.assertEqual(
            self.rcpt("nobody@ours.test", "x@bücher.test", "x@XN--BCHER-KVA.test"),
            ["no-such-user"] * 3,
        )

    def test_allowed(self) -> None:
        self.have(allowed_to=("a@else.test", "good.test", ".good.test"))
        self.mail("bot@ours.test")
        self.assertEqual(
            self.rcpt("A@else.test", "x@good.test", "x@sub.good.test"), ["recipient-ok"] * 3
        )
        self.assertEqual(
            self.rcpt("b@else.test", "bot@ours.test", '"a@else.test"@x.test'),
            ["recipient-not-allowed"] * 3,
        )

    def test_denied(self) -> None:
        """Whatever is allowed."""
        self.have(allowed_to=("else.test",), denied_to=("b@else.test", "bücher.example"))
        self.mail("bot@ours.test")
        self.assertEqual(
            self.rcpt("a@else.test", "B@Else.Test", '"b"@else.test'),
            ["recipient-ok", "recipient-not-allowed", "recipient-not-allowed"],
        )
        self.have(denied_to=("bücher.example",))
        self.mail("bot@ours.test")
        self.assertEqual(
            self.rcpt("x@xn--bcher-kva.example", "x@BÜCHER.example", "x@else.test"),
            ["recipient-not-allowed", "recipient-not-allowed", "recipient-ok"],
        )

    def test_suppressed(self) -> None:
        """Refused, and counted in no limit; the tenant is the account's."""
        asked: list[tuple[str, str]] = []

        def is_suppressed(address: Address, tenant: str) -> Reply | None:
            asked.append((address, tenant))
            return TABLE["suppressed-complaint"] if address == "b@x.test" else None

        self.door.is_suppressed = is_suppressed
        self.have(tenant="t", limits=AccountLimits(recipients_per_hour=1))
        self.mail("bot@ours.test")
        self.assertEqual(
            self.rcpt("b@x.test", "c@x.test"), ["suppressed-complaint", "recipient-ok"]
        )
        self.assertEqual(asked, [("b@x.test", "t"), ("c@x.test", "t")])

    def test_postmaster_goes_where_it_is_configured(self) -> None:
        self.send(recipients=("postmaster@ours.test",))
        self.assertEqual(
            [one.address for one in self.intakes[0].envelope.recipients], ["admin@ours.test"]
        )


class LimitTests(Case):
    """How much an account may send; what is over is put off, never lost."""

    def limit(self, **limits: int) -> None:
        self.have(limits=AccountLimits(**limits))

    def test_recipients_of_a_message(self) -> None:
        """One that is named again is the same one."""
        self.limit(recipients=2)
        self.mail("bot@ours.test")
        self.assertEqual(
            self.rcpt("a@else.test", "b@else.test", "a@else.test", "c@else.test", "b@else.test"),
            ["recipient-ok", "recipient-ok", "recipient-ok", "too-many-recipients", "recipient-ok"],
        )

    def test_messages_an_hour(self) -> None:
        self.limit(messages_per_hour=2)
        self.assertEqual([self.send() for _ in range(3)], ["ok", "ok", "rate-limited"])
        self.now += 3599
        self.assertEqual(self.send(), "rate-limited")
        self.now += 1
        self.assertEqual(self.send(), "ok")

    def test_messages_a_day(self) -> None:
        self.limit(messages_per_hour=2, messages_per_day=3)
        for said in ("ok", "ok", "rate-limited"):
            self.assertEqual(self.send(), said)
        self.now += 3600
        for said in ("ok", "rate-limited"):
            self.assertEqual(self.send(), said)
        self.now += 82800
        self.assertEqual(self.send(), "ok")

    def test_connections_at_a_time(self) -> None:
        """Those that have sent something; one that is over makes room."""
        self.limit(connections=2)
        peers = [self.session() for _ in range(3)]
        for peer in peers:
            self.door.opened(peer)
        said = [self.send(peer=peer) for peer in peers]
        self.assertEqual(said, ["ok", "ok", "too-many-connections"])
        self.assertEqual(self.send(peer=peers[0]), "ok")
        self.door.closed(peers[0])
        self.assertEqual(self.send(peer=peers[2]), "ok")

    def test_recipients_an_hour(self) -> None:
        """Those that fit are sent to."""
        self.limit(recipients_per_hour=3)
        self.assertEqual(self.send(recipients=("a@else.test", "b@else.test")), "ok")
        self.mail("bot@ours.test")
        self.assertEqual(self.rcpt("a@else.test", "b@else.test"), ["recipient-ok", "rate-limited"])

    def test_recipients_a_day(self) -> None:
        self.limit(recipients_per_day=1)
        self.assertEqual(self.send(), "ok")
        self.now += 4000
        self.assertEqual(self.send(), "rate-limited")

    def test_recipients_of_one_address(self) -> None:
        """Whatever the account."""
        self.limits.settings = LimitSettings(recipients_per_ip_per_minute=1)
        self.mail("bot@ours.test")
        said = self.rcpt("a@else.test", "b@else.test")
        self.assertEqual(said, ["recipient-ok", "recipients-limited"])

    def test_each_account_for_itself(self) -> None:
        self.limit(messages_per_hour=1)
        self.accounts.accounts["other"] = attrs.evolve(BOT, name="other")
        self.assertEqual([self.send(), self.send()], ["ok", "rate-limited"])
        self.assertEqual(self.send(peer=self.session(identity="other")), "ok")

    def test_what_an_address_may(self) -> None:
        """Holds for accounts too."""
        self.limits.settings = LimitSettings(messages_per_ip_per_minute=1)
        self.assertEqual([self.send(), self.send()], ["ok", "rate-limited"])
        self.assertEqual(self.counted(), [(3600, 1, 1), (86400, 1, 1)])

    def test_what_is_counted_is_what_was_accepted(self) -> None:
        """Refused, broken off, or never ended: as if it had not been."""
        self.have(allowed_from=("ours.test",), limits=AccountLimits(messages_per_hour=1))
        self.assertEqual(self.send(b"From: a@else.test\r\n\r\n"), "from-not-allowed")
        self.assertEqual(self.send(recipients=("nobody@ours.test",)), "no-such-user")
        self.begin = lambda *arguments: TABLE["spool-full"]
        self.assertEqual(self.send(), "spool-full")
        self.begin = self.opened
        self.assertEqual(self.mail("bot@ours.test"), "sender-ok")  # and RSET
        for end in (lambda intake: None, lambda intake: intake.write(MESSAGE)):
            self.assertEqual(self.mail("bot@ours.test"), "sender-ok")
            self.rcpt("a@else.test")
            intake = self.data("a@else.test")
            end(intake)
            intake.abort()
        self.assertEqual(self.counted(), [])
        self.assertEqual(self.send(recipients=("a@else.test", "b@else.test", "a@else.test")), "ok")
        self.assertEqual(self.counted(), [(3600, 1, 2), (86400, 1, 2)])
        self.assertEqual(self.send(), "rate-limited")

    def test_data_may_be_said_again(self) -> None:
        """Where there was no room the first time."""
        self.limit(messages_per_hour=1)
        self.mail("bot@ours.test")
        self.rcpt("a@else.test")
        self.begin = lambda *arguments: TABLE["spool-full"]
        self.assertEqual(self.data("a@else.test"), TABLE["spool-full"])
        self.begin = self.opened
        intake = self.data("a@else.test")
        intake.write(MESSAGE)
        self.assertEqual(self.successResultOf(intake.finish()), TABLE["ok"])
        self.assertEqual(self.counted(), [(3600, 1, 1), (86400, 1, 1)])

    def test_sessions_at_once(self) -> None:
        """Get no more together than one after the other; what one gives up the next may have."""
        self.limit(messages_per_hour=2, recipients_per_hour=2)
        first, second, third = (self.session() for _ in range(3))
        self.assertEqual(self.mail("bot@ours.test", first), "sender-ok")
        self.assertEqual(self.mail("bot@ours.test", second), "sender-ok")
        self.assertEqual(self.mail("bot@ours.test", third), "rate-limited")
        self.assertEqual(self.rcpt("a@else.test", "b@else.test", peer=first), ["recipient-ok"] * 2)
        self.assertEqual(self.rcpt("a@else.test", peer=second), ["rate-limited"])
        self.close(first)
        self.assertEqual(self.rcpt("a@else.test", peer=second), ["recipient-ok"])
        self.assertEqual(self.mail("bot@ours.test", third), "sender-ok")

    def close(self, peer: Peer) -> None:
        self.door.opened(peer)
        self.door.closed(peer)

    def test_client_that_hangs_up_while_its_message_is_stored(self) -> None:
        """The message is taken, and counted (RFC 1047)."""
        self.mail("bot@ours.test")
        self.rcpt("a@else.test")
        intake = self.data("a@else.test")
        fate: Deferred[Reply] = Deferred()
        self.intakes[0].fate = fate
        intake.write(MESSAGE)
        answer = intake.finish()
        self.close(self.peer)
        self.assertEqual(self.counted(), [])
        fate.callback(TABLE["ok"])
        self.assertEqual(self.successResultOf(answer), TABLE["ok"])
        self.assertEqual(self.counted(), [(3600, 1, 1), (86400, 1, 1)])

    def test_message_that_cannot_be_stored(self) -> None:
        self.limit(messages_per_hour=1)
        self.mail("bot@ours.test")
        self.rcpt("a@else.test")
        intake = self.data("a@else.test")
        self.intakes[0].fate = succeed(TABLE["spool-failed"])
        intake.write(MESSAGE)
        self.assertEqual(self.successResultOf(intake.finish()), TABLE["spool-failed"])
        self.assertEqual(self.rejections()[-1][3], 451)
        self.assertEqual(self.send(), "ok")


class KeyTests(Case):
    """What an API key may not do over HTTP it may not do here, and both count together."""

    FROM = "agent@ours.test"
    TO_A = b"From: agent@ours.test\r\nTo: a@else.test\r\n\r\nbody\r\n"

    def setUp(self) -> None:
        super().setUp()
        self.peer = self.session(identity="key:k")
        self.may()

    def may(self, **what: Any) -> None:
        what.setdefault("scopes", frozenset({"send"}))
        self.keys["key:k"] = Caller(identity="key:k", **what)

    def ask(self, *recipients: str, content: bytes = TO_A) -> str:
        return self.send(content, self.FROM, recipients or ("a@else.test",), self.peer)

    def test_origin(self) -> None:
        self.may(tenant="acme", is_sandbox=True, policy=AgentPolicy(approval="all"))
        self.assertEqual(self.ask(), "ok")
        [origin] = self.origins
        self.assertEqual(
            (origin.identity, origin.tenant, origin.hold, origin.is_sandbox),
            ("key:k", "acme", APPROVE_ALL, True),
        )

    def test_without_the_right_to_send(self) -> None:
        self.may(scopes=frozenset({"read"}))
        self.assertEqual(self.ask(), "scope-missing")

    def test_as_somebody_else(self) -> None:
        self.may(allowed_from=("agent@ours.test",))
        self.assertEqual(self.mail("boss@ours.test", self.peer), "sender-not-allowed")
        forged = b"From: boss@ours.test\r\nTo: a@else.test\r\n\r\n"
        self.assertEqual(self.ask(content=forged), "from-not-allowed")
        self.assertEqual(self.usage.rows(), [])

    def test_recipients(self) -> None:
        self.may(allowed_to=("else.test",), denied_to=("eve@else.test",))
        self.assertEqual(self.ask("a@third.test"), "recipient-not-allowed")
        self.assertEqual(self.ask("eve@else.test"), "recipient-not-allowed")
        self.assertEqual(self.ask(), "ok")

    def test_hidden_recipients(self) -> None:
        """Are found when the header is there, and nothing of the message is kept."""
        self.may(policy=AgentPolicy(may_bcc=False), limits=AccountLimits(messages_per_hour=1))
        self.assertEqual(self.ask("a@else.test", "b@else.test"), "bcc-not-allowed")
        self.assertEqual(self.intakes[0].ended, "aborted")
        self.assertEqual(self.ask(), "ok")

    def test_strangers(self) -> None:
        """The budget is spent by what is under way too, here as over HTTP."""
        self.may(policy=AgentPolicy(first_time_per_day=2))
        other = self.session(identity="key:k")
        self.door.opened(other)
        self.mail(self.FROM, other)
        self.assertEqual(self.rcpt("a@else.test", peer=other), ["recipient-ok"])
        self.mail(self.FROM)
        self.assertEqual(
            self.rcpt("b@else.test", "c@else.test", "a@else.test"),
            ["recipient-ok", "first-time-limit", "recipient-ok"],
        )
        self.door.closed(other)
        self.assertEqual(self.rcpt("c@else.test"), ["first-time-limit"])
        self.mail(self.FROM)
        self.assertEqual(self.rcpt("c@else.test"), ["recipient-ok"])
        self.assertEqual(self.contacts.since_at, {})

    def test_the_first_mail_to_somebody_waits(self) -> None:
        self.may(policy=AgentPolicy(approval="first_time"))
        for _ in range(2):
            self.assertEqual(self.ask(), "ok")
        self.contacts.add("key:k", [Address("a@else.test")], is_known=True)
        self.assertEqual(self.ask(), "ok")
        self.assertEqual(
            [origin.hold for origin in self.origins], [APPROVE_FIRST, APPROVE_FIRST, ""]
        )

    def test_one_count_for_every_door(self) -> None:
        self.may(limits=AccountLimits(messages_per_hour=2))
        over_http = self.door._sending.judge(
            self.keys["key:k"],
            Envelope(Address(self.FROM), (Recipient(Address("a@else.test")),)),
            self.TO_A,
        )
        self.assertEqual(self.ask(), "ok")
        self.assertEqual(self.ask(), "rate-limited")
        assert not isinstance(over_http, Flaw)
        over_http.release()
        self.assertEqual(self.ask(), "ok")

    def test_fifty_sessions_at_the_edge(self) -> None:
        """Let exactly the limit through."""
        self.may(limits=AccountLimits(messages_per_hour=10, recipients_per_hour=15))
        peers = [self.session(identity="key:k") for _ in range(50)]
        said = [self.mail(self.FROM, peer) for peer in peers]
        self.assertEqual(said.count("sender-ok"), 10)
        sending = [peer for peer, reply in zip(peers, said, strict=True) if reply == "sender-ok"]
        replies = [self.rcpt("a@else.test", "b@else.test", peer=peer) for peer in sending]
        self.assertEqual(sum(each.count("recipient-ok") for each in replies), 15)

    def test_state_that_cannot_be_read(self) -> None:
        self.may(policy=AgentPolicy(first_time_per_day=2))
        self.contacts.is_broken = True
        self.assertEqual(self.ask(), "local-error")

    def test_a_key_that_is_gone(self) -> None:
        del self.keys["key:k"]
        self.assertEqual(self.ask(), "login-required")

    def test_the_sandbox_has_no_suppressed_recipients(self) -> None:
        self.door.is_suppressed = lambda address, tenant: TABLE["suppressed-manual"]
        self.assertEqual(self.ask(), "suppressed-manual")
        self.may(is_sandbox=True)
        self.assertEqual(self.ask(), "ok")

    def test_why_is_an_event(self) -> None:
        self.may(policy=AgentPolicy(may_bcc=False))
        self.ask("b@else.test")
        self.assertEqual(
            self.rejections(),
            [("key:k", self.FROM, "", 550, str(TABLE["bcc-not-allowed"].text))],
        )


class RepairTests(Case):
    """RFC 6409, section 8, on its way through the door."""

    def test_repaired(self) -> None:
        self.assertEqual(
            self.send(
                b"Bcc: c@else.test,\r\n d@else.test\r\nDKIM-Signature: a;\r\n\tb\r\n\r\nhi\r\n"
            ),
            "ok",
        )
        self.assertEqual(
            self.intakes[0].content,
            b"DKIM-Signature: a;\r\n\tb\r\n"
            b"Date: Mon, 21 Sep 2026 14:13:20 +0000\r\n"
            b"From: bot@ours.test\r\n"
            b"Message-ID: <new@mx.ours.test>\r\n"
            b"\r\nhi\r\n",
        )

    def test_whole_message_stays_as_it_is(self) -> None:
        message = (
            b"Message-Id: <1@ours.test>\r\nFROM: bot@ours.test\r\nX: \xff \r\n \r\n\tz\r\n"
            b"date: 21 Sep 2026 14:13 +0200\r\n\r\nBcc: body\r\n\xff\r\n"
        )
        self.send(message)
        self.assertEqual(self.intakes[0].content, message)

    def test_no_header_no_body(self) -> None:
        for message, rest in {
            b"": b"",
            b"\r\n": b"",
            b"Hello\r\n": b"Hello\r\n",
            b"\r\nFrom: a\r\n": b"From: a\r\n",
            b" From: a\r\n": b" From: a\r\n",
        }.items():
            self.assertEqual(self.send(message), "ok", message)
            head, blank, body = self.intakes[-1].content.partition(b"\r\n\r\n")
            self.assertEqual((blank, body), (b"\r\n\r\n", rest), message)
            self.assertEqual(values(head, b"from"), [b"bot@ours.test"])

    def test_nobody_to_make_an_author_of(self) -> None:
        self.assertEqual(self.send(b"Subject: x\r\n\r\n", sender=""), "no-author")

    def test_header_without_end(self) -> None:
        self.assertEqual(self.send(b"X: y\r\n" * 50_000), "header-too-long")
        self.assertEqual(self.intakes[0].ended, "aborted")
        self.assertEqual(self.send(MESSAGE + b"X: y\r\n" * 50_000), "ok")

    def test_queue_and_event_show_the_repaired_header(self) -> None:
        spool = MemorySpool()
        spool.acquire()
        self.assertEqual(list(spool.recover()), [])
        acceptance = Acceptance(
            spool,
            self.events,
            requests=MemoryRequests(),
            now=lambda: self.now,
            new_id=IdSource(lambda: self.now, lambda wanted: b"\1" * wanted),
            first_s=lambda: 300.0,
            accepted=lambda message, status: queued.append(message),
            took=lambda seconds: None,
        )
        queued: list[Any] = []

        def trace(id: QueueId, at: float) -> bytes:
            return b"Received: by mx.ours.test\r\n"

        self.begin = lambda peer, envelope, origin: acceptance.begin(envelope, origin, trace)
        self.mail("bot@ours.test")
        self.rcpt("a@else.test")
        intake = self.data("a@else.test")
        for piece in pieces(b"Subject: hello\r\n\r\nbody\r\n"):
            intake.write(piece)
        self.assertEqual(self.successResultOf(intake.finish()).code, 250)
        (message,) = queued
        self.assertEqual(
            (message.header_message_id, message.subject), ("<new@mx.ours.test>", "hello")
        )
        content = self.successResultOf(spool.open(message.id)).read()
        self.assertTrue(
            content.startswith(b"Received: by mx.ours.test\r\nSubject: hello\r\nDate: ")
        )
        self.assertEqual(len(content), message.size_octets)


class DialogTests(Case):
    """Behind the SMTP server."""

    TRANSACTION = b"MAIL FROM:<bot@ours.test>\r\nRCPT TO:<a@else.test>\r\n"

    def setUp(self) -> None:
        super().setUp()
        self.have(allowed_from=("bot@ours.test",), limits=AccountLimits(messages_per_hour=1))
        self.client = self.connected()

    def connected(self) -> Client:
        client = Client(self.door, ServerSettings("mx.ours.test", message_octets=1000))
        client.codes(b"EHLO c.test\r\n")
        client.connection._peer.identity = "bot"
        return client

    def test_from_is_judged_at_the_end_of_the_content(self) -> None:
        """However it comes, and the session goes on."""
        message = b"From: bot@ours.test\r\nSender: a@else.test\r\n\r\nbody\r\n"
        refusal = TABLE["from-not-allowed"].octets()
        self.client.codes(self.TRANSACTION + b"DATA\r\n")
        self.assertEqual(self.client.say(message), b"")
        self.assertEqual(self.client.say(b".\r\n", cut=pieces), refusal)
        chunk = b"BDAT %d LAST\r\n" % len(message) + message
        self.assertEqual(self.client.codes(self.TRANSACTION + chunk), [250, 250, 550])
        self.assertEqual(
            self.client.codes(self.TRANSACTION + b"DATA\r\n" + MESSAGE + b".\r\n"),
            [250, 250, 354, 250],
        )
        self.assertEqual(self.client.codes(b"MAIL FROM:<bot@ours.test>\r\n"), [450])

    def test_a_place_is_given_back(self) -> None:
        """By a session that is reset, one that is cut off, and a message that is too big."""
        self.client.codes(self.TRANSACTION + b"RSET\r\n")
        self.assertEqual(self.client.codes(self.TRANSACTION + b"DATA\r\n"), [250, 250, 354])
        self.client.say(MESSAGE)
        self.client.connection.connectionLost()
        self.client = self.connected()
        big = b"x" * 70 + b"\r\n"
        self.assertEqual(
            self.client.codes(self.TRANSACTION + b"DATA\r\n" + MESSAGE + big * 20 + b".\r\n"),
            [250, 250, 354, 552],
        )
        self.client.codes(self.TRANSACTION)
        self.client.connection.connectionLost()
        self.assertEqual(self.connected().codes(self.TRANSACTION), [250, 250])


def pieces(octets: bytes) -> Iterator[bytes]:
    return (octets[n : n + 1] for n in range(len(octets)))
