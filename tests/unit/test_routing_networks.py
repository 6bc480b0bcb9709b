"""Addresses that mail is never sent to."""

from __future__ import annotations

from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.networks import PROHIBITED
from protege_mta.routing.networks import OwnListeners, Prohibited

REFUSED: Final = """0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 127.9.9.9 169.254.169.254
172.16.0.1 172.31.255.255 192.0.0.1 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1
198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255
:: ::1 100::1 2001::1 2001:db8::1 3fff::1 5f00::1 fc00::1 fd12::1 fe80::1 fe80::1%eth0
fec0::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.1.1.1 ::127.0.0.1 64:ff9b::127.0.0.1
64:ff9b::a00:1 64:ff9b:1::1 2002:7f00:1:: 2002:c0a8:101::1 nonsense 127.1 0x7f000001
"""

INTERNET: Final = """1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0
172.15.255.255 172.32.0.0 192.0.3.0 198.17.255.255 198.20.0.0 223.255.255.255
2001:200::1 2a00:1450:4010::1b 2606:4700::1 ::ffff:1.1.1.1 64:ff9b::1.1.1.1
2002:101:101::1
"""


class ProhibitedTests(SynchronousTestCase):
    def test_default(self) -> None:
        """Loopback, private, shared, link-local, multicast, reserved; wrapped in IPv6 too."""
        prohibited = Prohibited(PROHIBITED)
        for address in REFUSED.split():
            self.assertIn(address, prohibited)

    def test_the_internet(self) -> None:
        prohibited = Prohibited(PROHIBITED)
        for address in INTERNET.split():
            self.assertNotIn(address, prohibited)

    def test_configured(self) -> None:
        """What is configured replaces the default; host bits do not matter."""
        prohibited = Prohibited(["192.0.2.77/24", "2001:db8::/32"])
        self.assertIn("192.0.2.1", prohibited)
        self.assertIn("::ffff:192.0.2.1", prohibited)
        self.assertIn("2001:db8::1", prohibited)
        self.assertNotIn("127.0.0.1", prohibited)

    def test_none(self) -> None:
        prohibited = Prohibited([])
        for address in ("127.0.0.1", "::1", "::ffff:10.0.0.1"):
            self.assertNotIn(address, prohibited)

    def test_no_network(self) -> None:
        self.assertRaises(ValueError, Prohibited, ["nonsense"])


class OwnListenersTests(SynchronousTestCase):
    """Our own doors, by address and port."""

    def own(self, *listeners: tuple[str, int]) -> OwnListeners:
        own = OwnListeners(is_local=lambda address: address in ("192.0.2.5", "127.0.0.1"))
        for address, port in listeners:
            own.add(address, port)
        return own

    def test_one_address(self) -> None:
        own = self.own(("192.0.2.1", 25))
        for address, port, expected in [
            ("192.0.2.1", 25, True),
            ("::ffff:192.0.2.1", 25, True),
            ("192.0.2.1", 26, False),
            ("192.0.2.2", 25, False),
            ("0.0.0.0", 25, True),  # leads to any listener of this machine
        ]:
            self.assertEqual(own.is_own(address, port), expected, (address, port))

    def test_all_addresses(self) -> None:
        for everywhere in ("", "0.0.0.0", "::"):
            own = self.own((everywhere, 25))
            for address, port, expected in [
                ("192.0.2.5", 25, True),
                ("127.0.0.1", 25, True),
                ("0.0.0.0", 25, True),
                ("192.0.2.5", 587, False),
                ("192.0.2.6", 25, False),
            ]:
                self.assertEqual(own.is_own(address, port), expected, (everywhere, address, port))

    def test_none(self) -> None:
        self.assertFalse(self.own().is_own("127.0.0.1", 25))
