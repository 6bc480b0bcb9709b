"""Who an identity stands for, and which names go with a key where a password is asked for."""

from __future__ import annotations

from typing import Final

import attrs
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.account import Account
from protege_mta.model.caller import Caller
from protege_mta.model.ports import LoggedIn, PasswordProof, Peer, Proof
from protege_mta.model.reply import Reply
from protege_mta.policy.callers import KnownCallers, key_holder

from .test_http_credentials import OTHER, SECRET, TYPO, House, Keys

PEER: Final = Peer("192.0.2.7", 0, "http", "s-1")


class HolderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.keys = Keys()

    def holder(self, name: str, password: str) -> str | None:
        return key_holder(self.keys, PasswordProof(name, password))

    def test_names(self) -> None:
        for name in ("apikey", "ApiKey", "bot", "key:bot", "Key:Bot"):
            self.assertEqual(self.holder(name, SECRET), "key:bot", name)
        self.assertEqual(self.keys.used_by, ["bot"] * 5)

    def test_others_are_not_let_in(self) -> None:
        for name, password in (
            ("alice", SECRET),
            ("", SECRET),
            ("apikey", OTHER),
            ("apikey", TYPO),
            ("apikey", ""),
            ("bot", "correct horse"),
        ):
            self.assertIsNone(self.holder(name, password), (name, password))
        self.assertEqual(self.keys.used_by, [])


class IdentityTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.keys, self.house = Keys(), House()
        self.callers = KnownCallers(self.keys, self.house, self.house)

    def test_as_they_are_now(self) -> None:
        alice = self.callers.of("alice")
        assert alice is not None
        self.assertEqual((alice.identity, alice.tenant), ("alice", "t"))
        self.keys.key = attrs.evolve(self.keys.key, is_sandbox=True, tenant="u")
        bot = self.callers.of("key:bot")
        assert bot is not None
        self.assertEqual((bot.identity, bot.tenant, bot.is_sandbox), ("key:bot", "u", True))
        self.assertIsNone(self.callers.of("key:other"))
        self.house.account = None
        self.assertIsNone(self.callers.of("alice"))

    def test_an_account_that_is_called_like_a_key(self) -> None:
        """Is somebody else: no account has a colon in its name."""
        self.house.account = Account(name="bot", password_hash="", tenant="account")
        bot = self.callers.of("bot")
        assert bot is not None
        self.assertEqual((bot.identity, bot.tenant), ("bot", "account"))

    def test_basic(self) -> None:
        """Takes a key as AUTH does."""

        class KnowsKeys(House):
            def login(  # type: ignore[override]
                self, peer: Peer, proof: Proof
            ) -> LoggedIn | Reply | Deferred[Reply]:
                return LoggedIn("key:bot")

        callers = KnownCallers(self.keys, self.house, KnowsKeys())
        found = self.successResultOf(callers.basic("apikey", SECRET, PEER))
        assert isinstance(found, Caller)
        self.assertEqual(found.identity, "key:bot")
