"""Our listeners' TLS as OpenSSL's own client sees it.

openssl s_client -- STARTTLS, or TLS from the first octet --> SmtpServerFactory
"""

from __future__ import annotations

import re
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any

from protege_mta.testing.authority import Authority
from protege_mta.transport.tls_server import KeyPair, TlsFiles, server_contexts

from ..e2e.service import needs
from .test_smtp_server_peers import Case


class ClientCase(Case):
    """Certificates of an authority that the client trusts."""

    def setUp(self) -> None:
        super().setUp()
        self.openssl = needs("openssl")
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.authority = Authority(self.folder)

    def pair(self, *names: str, **options: Any) -> KeyPair:
        return KeyPair(*self.authority.issue(*names, **options))

    def s_client(self, port: int, *arguments: str, is_first: bool = False) -> str:
        """What the client tells of a session that ends with QUIT.

        :param is_first: whether TLS begins with the first octet.
        """
        done = subprocess.run(
            [
                self.openssl,
                *("s_client", "-connect", f"127.0.0.1:{port}", "-ign_eof"),
                *("-CAfile", str(self.authority.ca_file)),
                *(() if is_first else ("-starttls", "smtp", "-name", "client.test")),
                *arguments,
            ],
            input=b"QUIT\r\n",
            capture_output=True,
            timeout=25,
        )
        return (done.stdout + done.stderr).decode("utf-8", "replace")

    async def says(self, files: TlsFiles, *dialogues: tuple[str, ...], **options: Any) -> list[str]:
        """What the client tells of each session with the same server."""
        contexts = server_contexts(files)
        is_first = options.get("is_tls_first", False)

        def talk(port: int) -> list[str]:
            return [self.s_client(port, *each, is_first=is_first) for each in dialogues]

        return await self.serve(talk, contexts.submission, **options)


def subject(said: str) -> str:
    """The common name of the certificate that the client was shown."""
    match = re.search(r"^subject=CN ?= ?(.*)$", said, re.MULTILINE)
    return match[1] if match else ""


class VersionTests(ClientCase):
    async def test_the_new_ones(self) -> None:
        """Verified, and to the end of the session."""
        for is_first in (False, True):
            for flag, version, cipher in (
                ("-tls1_2", "TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"),
                ("-tls1_3", "TLSv1.3", "TLS_AES_256_GCM_SHA384"),
            ):
                [said] = await self.says(
                    TlsFiles((self.pair("mx.test"),)), (flag,), is_tls_first=is_first
                )
                self.assertIn(f"New, {version}, Cipher is {cipher}", said)
                self.assertIn("Verify return code: 0 (ok)", said)
                self.assertIn("221 2.0.0", said)

    async def test_the_old_ones_are_refused_by_us(self) -> None:
        dialogues = [(flag, "-cipher", "ALL:@SECLEVEL=0") for flag in ("-tls1", "-tls1_1")]
        for said in await self.says(TlsFiles((self.pair("mx.test"),)), *dialogues):
            self.assertIn("alert protocol version", said)
            self.assertIn("Cipher is (NONE)", said)

    async def test_1_2_is_refused_where_1_3_is_wanted(self) -> None:
        files = TlsFiles((self.pair("mx.test"),), min_version="1.3")
        old, new = await self.says(files, ("-tls1_2",), ("-tls1_3",))
        self.assertIn("alert protocol version", old)
        self.assertIn("New, TLSv1.3", new)

    async def test_ssl_is_refused(self) -> None:
        """No client speaks it any more; this is how one began."""
        hello = struct.pack(">H32sBHHBB", 0x300, bytes(32), 0, 2, 0x2F, 1, 0)
        message = b"\x01" + len(hello).to_bytes(3, "big") + hello
        record = b"\x16\x03\x00" + len(message).to_bytes(2, "big") + message

        def talk(port: int) -> bytes:
            with socket.create_connection(("127.0.0.1", port), 10) as channel:
                channel.sendall(record)
                heard = b""
                while piece := channel.recv(999):
                    heard += piece
                return heard

        context = server_contexts(TlsFiles((self.pair("mx.test"),))).public
        heard = await self.serve(talk, context, is_tls_first=True)
        self.assertEqual(heard[:1] + heard[5:], b"\x15\x02\x46")  # fatal, protocol_version

    async def test_no_renegotiation(self) -> None:
        [said] = await self.says(TlsFiles((self.pair("mx.test"),)), ("-tls1_2",))
        self.assertIn("Compression: NONE", said)
        self.assertIn("Secure Renegotiation IS supported", said)

    async def test_ciphers_without_forward_secrecy_are_refused(self) -> None:
        pairs = (self.pair("mx.test", algorithm="rsa"),)
        offers = ("AES256-GCM-SHA384", "DHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-SHA")
        dialogues = [("-tls1_2", "-cipher", f"{offer}:@SECLEVEL=0") for offer in offers]
        for said in await self.says(TlsFiles(pairs), *dialogues):
            self.assertIn("alert handshake failure", said)


class NameTests(ClientCase):
    async def test_the_certificate_is_that_of_the_name(self) -> None:
        files = TlsFiles(
            (self.pair("mx.test"), self.pair("two.test", "*.two.test"), self.pair("three.test"))
        )
        names = ("two.test", "a.two.test", "a.b.two.test", "three.test", "four.test")
        flags = ("-tls1_2", "-tls1_3")
        dialogues = [(flag, "-servername", name) for flag in flags for name in names]
        said = await self.says(files, ("-noservername",), *dialogues)
        expected = ["two.test", "two.test", "mx.test", "three.test", "mx.test"]
        self.assertEqual([subject(each) for each in said], ["mx.test", *expected, *expected])

    async def test_ecdsa_before_rsa_as_the_client_can(self) -> None:
        """Even where the client would rather have RSA."""
        files = TlsFiles(
            (
                self.pair("mx.test", algorithm="rsa", file="rsa"),
                self.pair("mx.test"),
                self.pair("two.test", algorithm="rsa"),
            )
        )
        rsa = ("-sigalgs", "RSA-PSS+SHA256:RSA+SHA256")
        both = ("-sigalgs", "RSA-PSS+SHA256:RSA+SHA256:ECDSA+SHA256")
        for flag in ("-tls1_2", "-tls1_3"):
            said = await self.says(files, (flag, *both), (flag, *rsa), (flag,))
            bits = [re.findall(r"Server public key is (\d+) bit", each) for each in said]
            self.assertEqual(bits, [["256"], ["2048"], ["256"]], flag)

    async def test_the_whole_chain_is_that_of_the_certificate_shown(self) -> None:
        """Though two lie in one context."""
        pairs = []
        for algorithm in ("ecdsa", "rsa"):
            pair = self.pair("mx.test", algorithm=algorithm, file=algorithm)
            other = self.pair(f"{algorithm}.intermediate.test")
            with pair.certificate.open("ab") as chain:
                chain.write(other.certificate.read_bytes())
            pairs.append(pair)
        said = await self.says(
            TlsFiles(tuple(pairs)),
            ("-tls1_3", "-showcerts"),
            ("-tls1_3", "-showcerts", "-sigalgs", "RSA-PSS+SHA256"),
        )
        for algorithm, each in zip(("ecdsa", "rsa"), said, strict=True):
            self.assertEqual(each.count("BEGIN CERTIFICATE"), 2)
            self.assertIn(f"{algorithm}.intermediate.test", each)


class ResumptionTests(ClientCase):
    """A client that comes back saves a signature, ours and its own check of it."""

    def setUp(self) -> None:
        super().setUp()
        self.files = TlsFiles((self.pair("mx.test"), self.pair("two.test")))
        self.session = str(self.folder / "session")

    def out(self, *arguments: str) -> tuple[str, ...]:
        return (*arguments, "-sess_out", self.session)

    def back(self, *arguments: str) -> tuple[str, ...]:
        return (*arguments, "-sess_in", self.session)

    async def test_both_versions_with_and_without_a_name(self) -> None:
        for flag in ("-tls1_2", "-tls1_3"):
            for name in (
                ("-noservername",),
                ("-servername", "mx.test"),
                ("-servername", "two.test"),
            ):
                first, second = await self.says(
                    self.files, self.out(flag, *name), self.back(flag, *name)
                )
                self.assertIn("\nNew, TLS", first)
                self.assertIn("\nReused, TLS", second, (flag, name))
                self.assertIn("221 2.0.0", second)

    async def test_again_and_again(self) -> None:
        [said] = await self.says(self.files, ("-tls1_2", "-reconnect"), is_tls_first=True)
        self.assertEqual((said.count("\nNew, TLS"), said.count("\nReused, TLS")), (1, 5))

    async def test_a_session_goes_with_its_context(self) -> None:
        """So the keys of tickets are as young as that; the client has but to shake hands."""
        for flag in ("-tls1_2", "-tls1_3"):
            await self.says(self.files, self.out(flag))
            [said] = await self.says(self.files, self.back(flag))
            self.assertIn("\nNew, TLS", said)
            self.assertIn("221 2.0.0", said)

    async def test_a_client_is_known_again(self) -> None:
        """It does not show its certificate twice."""
        client = self.pair("client.test")
        shown = ("-cert", str(client.certificate), "-key", str(client.private_key))
        files = TlsFiles(self.files.pairs, client_ca_file=self.authority.ca_file)
        for flag in ("-tls1_2", "-tls1_3"):
            _, second = await self.says(files, self.out(flag, *shown), self.back(flag, *shown))
            self.assertIn("\nReused, TLS", second)
            self.assertEqual([self.is_verified(peer) for peer in self.peers[-2:]], [True, True])

    def is_verified(self, peer: Any) -> bool:
        assert peer.tls is not None
        return bool(peer.tls.is_verified)


class ClientCertificateTests(ClientCase):
    async def talk(self, *arguments: str) -> str:
        files = TlsFiles((self.pair("mx.test"),), client_ca_file=self.authority.ca_file)
        [said] = await self.says(files, arguments)
        return said

    def shown(self, pair: KeyPair) -> tuple[str, ...]:
        return ("-cert", str(pair.certificate), "-key", str(pair.private_key))

    async def test_one_that_verifies(self) -> None:
        for flag in ("-tls1_2", "-tls1_3"):
            said = await self.talk(flag, *self.shown(self.pair("client.test")))
            self.assertIn("Acceptable client certificate CA names\nCN = a test authority", said)
            self.assertIn("221 2.0.0", said)
            tls = self.peers[-1].tls
            assert tls is not None
            self.assertTrue(tls.is_verified)

    async def test_none(self) -> None:
        for flag in ("-tls1_2", "-tls1_3"):
            self.assertIn("221 2.0.0", await self.talk(flag))
            tls = self.peers[-1].tls
            assert tls is not None
            self.assertFalse(tls.is_verified)

    async def test_one_that_does_not_verify(self) -> None:
        """The handshake fails, and nothing that the client says is heard."""
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        strange = KeyPair(*Authority(elsewhere, "another").issue("client.test"))
        for flag in ("-tls1_2", "-tls1_3"):
            said = await self.talk(flag, *self.shown(strange))
            self.assertIn("alert unknown ca", said)
            self.assertNotIn("221 2.0.0", said)
            self.assertIsNone(self.peers[-1].tls)
        self.assertEqual(self.tally.tls_failures_in, 2)
        self.assertEqual(self.flushLoggedErrors(), [])
