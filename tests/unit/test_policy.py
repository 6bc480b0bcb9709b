"""Who may send what to whom through the public door."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import Address
from protege_mta.model.envelope import Recipient
from protege_mta.model.ports import Door, PasswordProof, Peer
from protege_mta.model.reply import TABLE
from protege_mta.policy.door import SmtpDoor
from protege_mta.policy.limits import Limits, LimitSettings
from protege_mta.policy.relaying import Mailboxes, Relaying


def peer(address: str = "198.51.100.7", listener: str = "mx", identity: str = "") -> Peer:
    return Peer(address, 40000, listener, "s-1", identity=identity)


class RelayingTests(SynchronousTestCase):
    """Our own mailboxes from anybody; the rest from those who are named."""

    relaying = Relaying(
        domains={
            "local.test": Mailboxes(frozenset({"agent"})),
            "any.test": Mailboxes(frozenset({"*"})),
            "mx.local.test": Mailboxes(frozenset()),
        },
        relay_hosts={"mx": (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))},
        postmaster=Address("admin@any.test"),
    )

    def answers(self, who: Peer, *addresses: str) -> list[str]:
        names = {id(reply): name for name, reply in TABLE.items()}
        return [names[id(self.relaying.judge(who, Address(each)))] for each in addresses]

    def test_own_mailboxes(self) -> None:
        """Case does not matter; what is not listed does not exist."""
        self.assertEqual(
            self.answers(
                peer(), "agent@local.test", "AGENT@Local.Test", "x@any.test", "x@local.test"
            ),
            ["recipient-ok", "recipient-ok", "recipient-ok", "no-such-user"],
        )

    def test_postmaster_is_always_there(self) -> None:
        self.assertEqual(
            self.answers(peer(), "PostMaster@local.test", "postmaster@mx.local.test"),
            ["recipient-ok", "recipient-ok"],
        )

    def test_nobody_relays(self) -> None:
        """Loopback is not a credential, and no local-part is looked into."""
        for address in ("127.0.0.1", "::1", "198.51.100.7", "::ffff:127.0.0.1"):
            self.assertEqual(
                self.answers(
                    peer(address),
                    "a@elsewhere.test",
                    "a%elsewhere.test@local.test",
                    "elsewhere.test!a@local.test",
                    '"a@elsewhere.test"@local.test',
                    "a@[192.0.2.9]",
                    "a@sub.local.test",
                    "a@local.test.elsewhere.test",
                    "postmaster@elsewhere.test",
                ),
                ["no-relaying"]
                + ["no-such-user"] * 3
                + ["no-relaying", "no-relaying", "no-relaying", "no-relaying"],
            )

    def test_named_networks_relay(self) -> None:
        """On the listener that names them, mapped addresses included; not on another."""
        for address in ("192.0.2.200", "::ffff:192.0.2.1", "2001:db8:1::1"):
            self.assertEqual(
                self.answers(peer(address), "a@elsewhere.test", "x@local.test"),
                ["recipient-ok", "no-such-user"],
            )
        self.assertEqual(
            self.answers(peer("192.0.2.200", listener="other"), "a@elsewhere.test"),
            ["no-relaying"],
        )

    def test_who_authenticated_relays(self) -> None:
        self.assertEqual(
            self.answers(peer("203.0.113.1", identity="bot"), "a@elsewhere.test"), ["recipient-ok"]
        )

    def test_u_labels(self) -> None:
        """One of our own domains is our own in either form."""
        relaying = Relaying(
            {"xn--bcher-kva.test": Mailboxes(frozenset({"agent"}))}, {}, Address("agent@any.test")
        )
        for address, name in {
            "agent@bücher.test": "recipient-ok",
            "x@BÜCHER.test": "no-such-user",
            "x@xn--bcher-kva.test": "no-such-user",
            "x@büch.test": "no-relaying",
        }.items():
            self.assertEqual(relaying.judge(peer(), Address(address)), TABLE[name], address)
        self.assertEqual(
            relaying.redirected(Recipient(Address("postmaster@bücher.test"))).address,
            "agent@any.test",
        )

    def test_postmaster_without_a_mailbox_is_redirected(self) -> None:
        self.assertEqual(
            [
                self.relaying.redirected(Recipient(Address(text))).address
                for text in ("postmaster@local.test", "postmaster@any.test", "agent@local.test")
            ],
            ["admin@any.test", "postmaster@any.test", "agent@local.test"],
        )


class SmtpDoorTests(SynchronousTestCase):
    """What the public door has no key to."""

    def test_nobody_logs_in(self) -> None:
        """AUTH is not offered; where it is said all the same, it is no command."""
        nothing: Any = None
        door: Door = SmtpDoor(RelayingTests.relaying, nothing, nothing, nothing, tarpit=nothing)
        self.assertEqual(
            door.login(peer(), PasswordProof("bot", "secret")), TABLE["not-implemented"]
        )
        self.assertRaises(RuntimeError, door.scram, peer(), "bot")


class LimitsTests(SynchronousTestCase):
    """What one address may take."""

    def setUp(self) -> None:
        self.now = 600.0
        self.limits = Limits(LimitSettings(3, 2, 2), lambda: self.now)

    def test_connections(self) -> None:
        """Two an address, three in all; what is closed is free again."""
        first, second, third = peer("192.0.2.1"), peer("192.0.2.1"), peer("192.0.2.2")
        self.assertEqual([self.limits.opened(each) for each in (first, second)], [None, None])
        refusal = TABLE["too-many-connections"]
        self.assertEqual(self.limits.opened(peer("192.0.2.1")), refusal)
        self.assertIsNone(self.limits.opened(third))
        self.assertEqual(self.limits.opened(peer("192.0.2.3")), refusal)
        self.limits.closed(first)
        self.assertIsNone(self.limits.opened(peer("192.0.2.1")))

    def test_messages(self) -> None:
        """Two a minute, each address for itself."""
        answers = [self.limits.message(peer("192.0.2.1")) for _ in range(3)]
        self.assertEqual(answers, [None, None, TABLE["rate-limited"]])
        self.assertIsNone(self.limits.message(peer("192.0.2.2")))
        self.now += 60
        self.assertIsNone(self.limits.message(peer("192.0.2.1")))
