"""Clients that come through a real proxy.

smtplib in a thread  -- loopback -->  HAProxy  -- PROXY header -->  ProxiedFactory, SmtpServerFactory
"""

from __future__ import annotations

import smtplib
import socket
import ssl
import time
from collections.abc import Callable
from ipaddress import ip_network
from typing import TypeVar, cast
from unittest import SkipTest

from twisted.internet import reactor as _reactor
from twisted.internet.interfaces import IProtocolFactory, IReactorTime

from protege_mta.testing.peers import HaProxy
from protege_mta.transport.proxied import ProxiedFactory
from protege_mta.transport.smtp_factory import SmtpServerFactory
from protege_mta.wire.proxy import SIGNATURE

from . import test_smtp_server_peers

reactor = cast(IReactorTime, _reactor)
BODY = b"Subject: x\r\n\r\n" + b".a dot and more\r\n" * 5_000
OPTIONS = (
    "send-proxy",
    "send-proxy-v2",
    "send-proxy-v2 proxy-v2-options crc32c,authority",
    "send-proxy-v2-ssl-cn",
)
Result = TypeVar("Result")


class Case(test_smtp_server_peers.Case):
    """Behind proxies in one network."""

    timeout = 60
    network = "127.0.0.0/8"

    def in_front(self, factory: SmtpServerFactory) -> IProtocolFactory:
        return ProxiedFactory(factory, [ip_network(self.network)], tally=self.tally, clock=reactor)


def send(client: smtplib.SMTP) -> tuple[str, int]:
    """Send a message.  :return: whence, as the client's own kernel has it."""
    with client:
        assert client.sock is not None
        host, port = client.sock.getsockname()[:2]
        client.sendmail("a@b.example", ["c@d.example"], BODY)
        return host, port


class HaProxyTests(Case):
    def through(self, option: str, *, is_ipv6: bool = False) -> Callable[[int], tuple[str, int]]:
        def talk(port: int) -> tuple[str, int]:
            proxy = HaProxy(port, option)
            try:
                if is_ipv6 and not proxy.port6:
                    raise SkipTest("no IPv6 on this machine")
                host, port = ("::1", proxy.port6) if is_ipv6 else ("127.0.0.1", proxy.port)
                return send(smtplib.SMTP(host, port, "client.test", 10))
            finally:
                proxy.stop()

        return talk

    async def test_the_client_is_who_connected_to_the_proxy(self) -> None:
        for option in OPTIONS:
            self.peers.clear()
            said = await self.serve(self.through(option))
            self.assertEqual([(one.address, one.port) for one in self.peers], [said], option)
            self.assertEqual(self.door.intakes[-1].content, BODY)

    async def test_over_ipv6_too(self) -> None:
        for option in OPTIONS[:2]:
            self.peers.clear()
            said = await self.serve(self.through(option, is_ipv6=True))
            self.assertEqual([(one.address, one.port) for one in self.peers], [said], option)

    async def test_starttls(self) -> None:
        def talk(port: int) -> None:
            proxy = HaProxy(port, "send-proxy-v2")
            try:
                with smtplib.SMTP("127.0.0.1", proxy.port, "client.test", 10) as client:
                    client.starttls(context=self.trusting)
                    client.sendmail("a@b.example", ["c@d.example"], BODY)
            finally:
                proxy.stop()

        await self.serve(talk, self.context())
        self.assertEqual([message.content for message in self.door.messages], [BODY])

    async def test_tls_from_the_first_octet(self) -> None:
        """The header comes before the handshake, and often in one segment with its beginning."""

        def talk_through(option: str) -> Callable[[int], tuple[str, int]]:
            def talk(port: int) -> tuple[str, int]:
                proxy = HaProxy(port, option)
                try:
                    return send(
                        smtplib.SMTP_SSL(
                            *("127.0.0.1", proxy.port, "client.test"),
                            timeout=10,
                            context=self.trusting,
                        )
                    )
                finally:
                    proxy.stop()

            return talk

        context = self.context()
        for option in OPTIONS:
            self.peers.clear()
            said = await self.serve(talk_through(option), context, is_tls_first=True)
            (peer,) = self.peers
            self.assertEqual((peer.address, peer.port), said)
            assert peer.tls is not None

    async def test_a_health_check_is_the_proxys_own(self) -> None:
        def talk(port: int) -> None:
            proxy = HaProxy(port, "send-proxy-v2 check inter 50 check-send-proxy")
            try:
                give_up_at = time.monotonic() + 20
                while not self.peers and time.monotonic() < give_up_at:
                    time.sleep(0.02)
            finally:
                proxy.stop()

        await self.serve(talk)
        self.assertEqual(self.peers[0].address, "127.0.0.1")
        self.assertEqual(self.tally.proxy_headers_refused, 0)


LINE = b"PROXY TCP4 198.51.100.7 192.0.2.25 1025 25\r\n"
BLOCK = SIGNATURE + b"\x21\x11\x00\x0c" + bytes([198, 51, 100, 7, 192, 0, 2, 25, 4, 1, 0, 25])


class HandMadeTests(Case):
    """What HAProxy does not do."""

    async def test_header_and_client_hello_in_one_segment_or_octet_by_octet(self) -> None:
        context = self.context()
        for header in (LINE, BLOCK):
            for is_cut in (False, True):

                def talk(port: int, header: bytes = header, is_cut: bool = is_cut) -> bytes:
                    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                    tls = self.trusting.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
                    with socket.create_connection(("127.0.0.1", port), 10) as channel:
                        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        unsent = header
                        heard = b""
                        while not heard:
                            try:
                                heard = tls.read(100)
                            except ssl.SSLWantReadError:
                                unsent += outgoing.read()
                                for piece in unsent if is_cut else ():
                                    channel.sendall(bytes([piece]))
                                if not is_cut and unsent:
                                    channel.sendall(unsent)
                                unsent = b""
                                incoming.write(channel.recv(65536))
                        return heard

                heard = await self.serve(talk, context, is_tls_first=True)
                self.assertEqual(heard, b"220 mx.test ESMTP ready\r\n")
                self.assertEqual(self.peers[-1].address, "198.51.100.7")

    async def test_no_header_no_service(self) -> None:
        for octets in (b"EHLO c.example\r\n", b"\x16\x03\x01\x02\x00", b"PROXY x\r\n"):
            self.assertEqual(await self.serve(lambda port, say=octets: exchange(port, say)), b"")  # type: ignore[misc]
        self.assertEqual((self.peers, self.tally.proxy_headers_refused), ([], 3))

    async def test_from_elsewhere_it_is_a_bad_command(self) -> None:
        self.network = "192.0.2.0/24"
        heard = await self.serve(lambda port: exchange(port, LINE + b"QUIT\r\n"))
        self.assertEqual(
            heard,
            b"220 mx.test ESMTP ready\r\n500 5.5.2 command not recognized\r\n"
            b"221 2.0.0 closing channel\r\n",
        )
        self.assertEqual(self.peers[0].address, "127.0.0.1")


def exchange(port: int, say: bytes) -> bytes:
    """Say it, and hear everything."""
    with socket.create_connection(("127.0.0.1", port), 10) as channel:
        channel.sendall(say)
        heard = b""
        try:
            while piece := channel.recv(65536):
                heard += piece
        except ConnectionResetError:
            pass
        return heard


class StockHaProxyTests(HaProxyTests):
    """The same where only Twisted's stock classes serve."""

    is_fast = False


class StockHandMadeTests(HandMadeTests):
    """The same where only Twisted's stock classes serve."""

    is_fast = False
