"""Addresses and links that only we can have made."""

from __future__ import annotations

from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import Address, parse
from protege_mta.model.ids import QueueId
from protege_mta.model.return_path import (
    DAYS,
    Returned,
    ReturnPaths,
    Subscription,
    UnsubscribeLinks,
)

ID: Final = QueueId("01k5vz4m00abcdefgh00000001")
NOW: Final = 1_790_000_000.0
DAY_S: Final = 86_400


class ReturnPathTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.paths = ReturnPaths(b"secret")
        self.path = self.paths.address(ID, 7, "ours.test", NOW)

    def test_an_address_like_any_other(self) -> None:
        self.assertEqual(parse(self.path), self.path)
        self.assertEqual(len(self.path), 52 + len("@ours.test"))

    def test_says_what_it_is_about(self) -> None:
        self.assertEqual(self.paths.read(self.path, NOW), Returned(ID, 7))
        whole = self.paths.address(ID, None, "ours.test", NOW)
        self.assertEqual(self.paths.read(whole, NOW), Returned(ID, None))

    def test_case_does_not_matter(self) -> None:
        self.assertEqual(self.paths.read(Address(self.path.upper()), NOW), Returned(ID, 7))

    def test_it_is_good_for_a_month(self) -> None:
        self.assertIsNotNone(self.paths.read(self.path, NOW + DAYS * DAY_S))
        self.assertIsNone(self.paths.read(self.path, NOW + (DAYS + 1) * DAY_S))
        self.assertIsNotNone(self.paths.read(self.path, None))

    def test_every_character_is_sealed(self) -> None:
        for at in range(2, 52):
            other = "0" if self.path[at] != "0" else "1"
            forged = Address(self.path[:at] + other + self.path[at + 1 :])
            self.assertIsNone(self.paths.read(forged, None), at)

    def test_another_domain_or_secret(self) -> None:
        self.assertIsNone(self.paths.read(Address(self.path.replace("ours", "other")), NOW))
        self.assertIsNone(ReturnPaths(b"other").read(self.path, NOW))

    def test_ordinary_mailboxes_have_another_shape(self) -> None:
        for address in ("b@ours.test", "b+tag@ours.test", "b+" + "u" * 50 + "@ours.test", ""):
            self.assertIsNone(self.paths.shape(Address(address)))


class UnsubscribeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.links = UnsubscribeLinks(b"secret")
        self.wanted = Subscription("jörg@b.test", "tenant", ID)

    def test_says_who_wants_no_more(self) -> None:
        url = self.links.url("https://mail.test/", self.wanted)
        self.assertTrue(url.startswith("https://mail.test/u/"))
        self.assertRegex(url, r"^[!-~]+$")
        self.assertEqual(self.links.read(url.rpartition("/")[2]), self.wanted)

    def test_forged(self) -> None:
        token = self.links.token(self.wanted)
        self.assertIsNone(UnsubscribeLinks(b"other").read(token))
        for text in ("", "x", token[:-2], "A" + token[1:], token + "====", "\udcff", "ü" * 40):
            self.assertIsNone(self.links.read(text), text)
