"""``resolv.conf`` and ``hosts``."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.transport.addresses import has_global_ipv6, is_local
from protege_mta.transport.dns_system import HostsFile, SystemNameservers


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.path = Path(self.mktemp())

    def write(self, text: str, written_at: int = 1) -> None:
        self.path.write_text(text)
        os.utime(self.path, (written_at, written_at))


class SystemNameserversTests(Case):
    def nameservers(self) -> SystemNameservers:
        return SystemNameservers(self.clock.seconds, self.path)

    def test_three_at_most_and_nonsense_left_out(self) -> None:
        self.write(
            "# comment\nsearch a.test\nnameserver 192.0.2.1\nnameserver  2001:db8::1 # here\n"
            "nameserver\nnameserver nonsense\nnameserver fe80::1%eth0\nnameserver 192.0.2.4\n"
        )
        self.assertEqual(
            self.nameservers()(), (("192.0.2.1", 53), ("2001:db8::1", 53), ("fe80::1%eth0", 53))
        )

    def test_this_machine_where_none_is_named(self) -> None:
        """As resolv.conf(5) says; the same where there is no such file."""
        self.assertEqual(self.nameservers()(), (("127.0.0.1", 53),))
        self.write("search a.test\n")
        self.assertEqual(self.nameservers()(), (("127.0.0.1", 53),))

    def test_read_again_when_it_changes(self) -> None:
        """It is looked at every five seconds, and may go and come back."""
        self.write("nameserver 192.0.2.1\n", written_at=1)
        nameservers = self.nameservers()
        self.assertEqual(nameservers(), (("192.0.2.1", 53),))
        self.write("nameserver 192.0.2.2\n", written_at=2)
        self.clock.advance(4)
        self.assertEqual(nameservers(), (("192.0.2.1", 53),))
        self.clock.advance(1)
        self.assertEqual(nameservers(), (("192.0.2.2", 53),))
        self.path.unlink()
        self.clock.advance(5)
        self.assertEqual(nameservers(), (("127.0.0.1", 53),))
        self.write("nameserver 192.0.2.2\n", written_at=2)
        self.clock.advance(5)
        self.assertEqual(nameservers(), (("192.0.2.2", 53),))


class HostsFileTests(Case):
    def test_names_and_aliases(self) -> None:
        self.write(
            "127.0.0.1 localhost # not this\n::1\tlocalhost ip6-localhost\n"
            "192.0.2.7 Smart.test smart\nnonsense smart\n\n192.0.2.8\n"
        )
        hosts = HostsFile(self.clock.seconds, self.path)
        self.assertEqual(hosts.addresses("localhost"), ("127.0.0.1", "::1"))
        self.assertEqual(hosts.addresses("SMART.test."), ("192.0.2.7",))
        self.assertEqual(hosts.addresses("smart"), ("192.0.2.7",))
        self.assertEqual(hosts.addresses("not"), ())

    def test_no_file(self) -> None:
        self.assertEqual(HostsFile(self.clock.seconds, self.path).addresses("localhost"), ())


class LocalAddressTests(SynchronousTestCase):
    """The kernel's word, as far as it is the same on every machine."""

    def test_loopback_is_here_and_documentation_is_not(self) -> None:
        for address, expected in [
            ("127.0.0.1", True),
            ("127.255.0.9", True),
            ("::1", True),
            ("198.51.100.99", False),
            ("2001:db8:ffff::99", False),
            ("255.255.255.255", False),
        ]:
            self.assertEqual(is_local(address), expected, address)

    def test_global_ipv6_is_yes_or_no(self) -> None:
        self.assertIn(has_global_ipv6(), (True, False))
