"""Who the client is, behind proxies."""

from __future__ import annotations

from ipaddress import ip_network

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.http.forwarded import client_of

TRUSTED = (ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))


class ClientTests(SynchronousTestCase):
    def test_last_untrusted_address(self) -> None:
        for peer, fields, client in (
            ("198.51.100.7", [], "198.51.100.7"),
            ("198.51.100.7", ["192.0.2.1"], "198.51.100.7"),  # says a stranger
            ("127.0.0.1", [], "127.0.0.1"),
            ("127.0.0.1", ["192.0.2.1"], "192.0.2.1"),
            ("127.0.0.1", ["203.0.113.9, 192.0.2.1"], "192.0.2.1"),
            ("127.0.0.1", ["203.0.113.9", "192.0.2.1"], "192.0.2.1"),
            ("127.0.0.1", ["203.0.113.9, 192.0.2.1, 10.1.2.3"], "192.0.2.1"),
            ("127.0.0.1", ["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
            ("127.0.0.1", ["192.0.2.1:50000"], "192.0.2.1"),
            ("127.0.0.1", ["[2001:4860::1]:50000"], "2001:4860::1"),
            ("127.0.0.1", ["2001:4860::1"], "2001:4860::1"),
            ("::ffff:127.0.0.1", ["192.0.2.1"], "192.0.2.1"),
            ("2001:db8::1", ["::ffff:192.0.2.1"], "192.0.2.1"),
            ("127.0.0.1", ["192.0.2.1, unknown"], "127.0.0.1"),
            ("127.0.0.1", ["192.0.2.1,,10.0.0.1"], "10.0.0.1"),
            ("127.0.0.1", [""], "127.0.0.1"),
        ):
            self.assertEqual(client_of(peer, fields, TRUSTED), client, (peer, fields))

    def test_nobody_is_trusted_by_default(self) -> None:
        self.assertEqual(client_of("127.0.0.1", ["192.0.2.1"], ()), "127.0.0.1")
