"""Keys and contacts in ``state.sqlite``: followed, written, and read while they are written."""

from __future__ import annotations

from typing import Final
from unittest.mock import patch

import attrs

from protege_mta.model.account import AccountLimits
from protege_mta.model.address import Address
from protege_mta.model.apikey import ApiKey, KeySecret
from protege_mta.model.caller import AgentPolicy
from protege_mta.model.ports import StateFailed
from protege_mta.state.apikeys import StoredKeys, every, find, put, remove, uses
from protege_mta.state.contacts import KEPT_S, StoredContacts
from protege_mta.state.database import LOOK_S

from .test_state import StateTestCase

NOON: Final = 1_790_000_000.0
BOB: Final = Address("bob@b.test")
EVE: Final = Address("eve@b.test")


def secret(number: int) -> KeySecret:
    return KeySecret(digest=bytes([number]) * 32, created_at=NOON)


FULL: Final = ApiKey(
    name="bot",
    secrets=(secret(1), attrs.evolve(secret(2), expires_at=NOON + 60)),
    scopes=frozenset({"send", "read"}),
    allowed_from=("bot@a.test",),
    allowed_to=("b.test",),
    denied_to=("c@b.test",),
    tenant="t",
    limits=AccountLimits(messages_per_hour=5),
    policy=AgentPolicy(approval="first_time", may_bcc=False, first_time_per_day=3),
    is_sandbox=True,
    waits=False,
    created_at=NOON,
    expires_at=NOON + 1000,
)


class KeysTests(StateTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = NOON
        self.connection = self.other()
        self.base = self.database()
        self.keys = StoredKeys(self.base, lambda: self.now)
        self.keys.load()

    def look(self) -> None:
        self.clock.advance(LOOK_S)

    def test_what_is_put_is_found(self) -> None:
        put(self.connection, FULL)
        self.assertEqual(find(self.connection, "bot"), FULL)
        self.assertEqual(list(every(self.connection)), [FULL])

    def test_a_change_by_another_process_shows(self) -> None:
        self.assertIsNone(self.keys.find(bytes([1]) * 32))
        put(self.connection, FULL)
        self.look()
        self.assertEqual(self.keys.find(bytes([1]) * 32), FULL)
        put(self.connection, attrs.evolve(FULL, tenant="u"))
        self.look()
        found = self.keys.find(bytes([2]) * 32)
        assert found is not None
        self.assertEqual(found.tenant, "u")
        remove(self.connection, "bot")
        self.look()
        self.assertIsNone(self.keys.find(bytes([1]) * 32))

    def test_each_secret_has_its_end(self) -> None:
        put(self.connection, FULL)
        self.look()
        self.now = NOON + 60
        self.assertIsNone(self.keys.find(bytes([2]) * 32))
        self.assertIsNotNone(self.keys.find(bytes([1]) * 32))
        self.now = NOON + 1000
        self.assertIsNone(self.keys.find(bytes([1]) * 32))

    def test_all_of_a_digest_counts(self) -> None:
        put(self.connection, FULL)
        self.look()
        self.assertIsNone(self.keys.find(bytes([1]) * 31 + b"\2"))

    def test_each_question_compares_once(self) -> None:
        """Whether there is such a key or not: its time says nothing."""
        put(self.connection, FULL)
        self.look()
        self.keys.find(bytes(32))
        with patch("protege_mta.state.apikeys.hmac.compare_digest", return_value=False) as compare:
            for digest in (bytes([1]) * 32, bytes([9]) * 32, bytes([1]) * 31 + b"\2"):
                self.keys.find(digest)
        self.assertEqual(
            [list(map(len, call.args)) for call in compare.call_args_list], [[32, 32]] * 3
        )

    def test_by_name(self) -> None:
        """As long as one of its secrets opens something."""
        put(self.connection, FULL)
        self.look()
        self.assertIsNone(self.keys.get("other"))
        self.assertEqual(self.keys.get("bot"), FULL)
        put(self.connection, attrs.evolve(FULL, secrets=FULL.secrets[1:]))
        self.look()
        self.assertIsNotNone(self.keys.get("bot"))
        self.now = NOON + 60
        self.assertIsNone(self.keys.get("bot"))

    def test_last_use(self) -> None:
        """Is kept to within a minute, so that no request costs a write."""
        put(self.connection, FULL)
        self.keys.used("bot")
        self.now += 59
        self.keys.used("bot")
        self.wait_for(self.base.write(lambda connection: None))
        self.assertEqual(uses(self.connection), {"bot": NOON})
        self.now += 1
        self.keys.used("bot")
        self.keys.used("nobody")
        self.wait_for(self.base.write(lambda connection: None))
        self.assertEqual(uses(self.connection), {"bot": NOON + 60})

    def test_a_row_that_nobody_wrote(self) -> None:
        self.connection.execute("INSERT INTO api_key (name, document) VALUES ('x', '{}')")
        self.look()
        error = self.assertRaises(StateFailed, self.keys.find, bytes(32))
        self.assertIn("'x' cannot be read", str(error))


class ContactsTests(StateTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = NOON
        self.base = self.database()
        self.contacts = self.made()

    def made(self) -> StoredContacts:
        contacts = StoredContacts(self.base, now=lambda: self.now, random_octets=bytes)
        contacts.load()
        return contacts

    def written(self) -> None:
        self.wait_for(self.base.write(lambda connection: None))

    def test_counts_before_it_is_written_and_after(self) -> None:
        self.contacts.add("key:bot", [BOB], is_known=True)
        for _ in range(2):
            self.assertEqual(self.contacts.strangers("key:bot", [BOB, EVE]), [EVE])
            self.assertEqual(self.contacts.since("key:bot", NOON - 1), 1)
            self.assertEqual(self.contacts.strangers("key:other", [BOB]), [BOB])
            self.written()

    def test_outlives_a_restart(self) -> None:
        self.contacts.add("key:bot", [BOB], is_known=True)
        self.written()
        self.assertEqual(self.made().strangers("key:bot", [BOB, EVE]), [EVE])

    def test_case_makes_no_stranger(self) -> None:
        self.contacts.add("key:bot", [BOB], is_known=True)
        self.assertEqual(self.contacts.strangers("key:bot", [Address("Bob@b.test")]), [])

    def test_who_waits_for_a_person_is_not_known_yet(self) -> None:
        self.contacts.add("key:bot", [BOB], is_known=False)
        for _ in range(2):
            self.assertEqual(self.contacts.strangers("key:bot", [BOB]), [])
            self.assertEqual(self.contacts.strangers("key:bot", [BOB], is_known=True), [BOB])
            self.written()
        self.contacts.add("key:bot", [BOB], is_known=True)
        for _ in range(2):
            self.assertEqual(self.contacts.strangers("key:bot", [BOB], is_known=True), [])
            self.written()
        self.contacts.add("key:bot", [BOB], is_known=False)
        self.assertEqual(self.contacts.strangers("key:bot", [BOB], is_known=True), [])

    def test_the_first_time_is_the_first(self) -> None:
        """Writing to somebody again is no new contact."""
        self.contacts.add("key:bot", [BOB], is_known=True)
        self.written()
        self.now += 100
        self.contacts.add("key:bot", [BOB, EVE], is_known=True)
        for _ in range(2):
            self.assertEqual(self.contacts.since("key:bot", NOON + 1), 1)
            self.assertEqual(self.contacts.since("key:bot", NOON - 1), 2)
            self.written()

    def test_a_clock_that_was_wrong(self) -> None:
        """What it said of the future takes nothing from the day that it is, written or not."""
        self.now = NOON + 10**9
        self.contacts.add("key:bot", [BOB], is_known=True)
        self.now = NOON
        for _ in range(2):
            self.assertEqual(self.contacts.since("key:bot", NOON - 86_400), 0)
            self.assertEqual(self.contacts.strangers("key:bot", [BOB]), [])
            self.written()

    def test_the_long_forgotten_go(self) -> None:
        self.contacts.add("key:bot", [BOB], is_known=True)
        self.written()
        self.now += KEPT_S + 1
        self.assertEqual(self.contacts.strangers("key:bot", [BOB]), [BOB])
        self.contacts.add("key:bot", [EVE], is_known=True)
        self.written()
        [(count,)] = self.other().execute("SELECT count(*) FROM contact")
        self.assertEqual(count, 1)

    def test_no_address_is_in_the_file(self) -> None:
        self.contacts.add("key:bot", [BOB], is_known=True)
        self.written()
        rows = self.other().execute("SELECT * FROM contact").fetchall()
        self.assertNotIn("bob", repr(rows))

    def test_revoked_and_made_again(self) -> None:
        """Another key of the same name knows nobody."""
        self.contacts.add("key:bot", [BOB], is_known=True)
        self.written()
        remove(self.other(), "bot")
        self.assertEqual(self.contacts.strangers("key:bot", [BOB]), [BOB])
