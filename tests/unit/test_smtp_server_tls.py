"""Contexts of our listeners: what is wrong with the files is said clearly."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final, Literal

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.outcome import TlsFacts
from protege_mta.testing.authority import Authority
from protege_mta.transport.tls_server import ServerContext, facts, server_context


def shake_hands(context: ServerContext, version: int) -> SSL.Connection:
    """The server's end of a handshake in memory with a client of one version.

    :raise SSL.Error: they do not agree.
    """
    client = SSL.Context(SSL.TLS_CLIENT_METHOD)
    client.set_cipher_list(b"ALL:@SECLEVEL=0")
    client.set_min_proto_version(version)
    client.set_max_proto_version(version)
    ours, theirs = SSL.Connection(context.getContext(), None), SSL.Connection(client, None)
    ours.set_accept_state()
    theirs.set_connect_state()
    for _ in range(3):
        for one, other in ((theirs, ours), (ours, theirs)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65536))
    return ours


REFUSED: Final[list[tuple[Literal["1.2", "1.3"], int]]] = [
    ("1.2", SSL.TLS1_1_VERSION),
    ("1.3", SSL.TLS1_2_VERSION),
]


class ServerContextTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority = Authority(self.folder)
        self.certificate, self.key = self.authority.issue("mx.test")

    def complaint(self, certificate: Path, key: Path) -> str:
        with self.assertRaises(ValueError) as caught:
            server_context(certificate, key)
        return str(caught.exception)

    def test_a_handshake_tells_what_was_agreed_on(self) -> None:
        context = server_context(self.certificate, self.key)
        self.assertEqual(
            [
                facts(shake_hands(context, each))
                for each in (SSL.TLS1_3_VERSION, SSL.TLS1_2_VERSION)
            ],
            [
                TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
                TlsFacts("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"),
            ],
        )

    def test_old_versions_are_refused(self) -> None:
        for least, version in REFUSED:
            context = server_context(self.certificate, self.key, least)
            with self.assertRaises(SSL.Error):
                shake_hands(context, version)

    def test_a_missing_file_is_named(self) -> None:
        missing = self.folder / "nothing.pem"
        expected = f"{missing}: cannot be read: No such file or directory"
        self.assertEqual(self.complaint(missing, self.key), expected)
        self.assertEqual(self.complaint(self.certificate, missing), expected)

    def test_a_file_of_another_kind_is_named(self) -> None:
        other = self.folder / "other.pem"
        other.write_text("this is no PEM")
        self.assertEqual(self.complaint(other, self.key), f"{other}: no PEM certificate")
        self.assertTrue(self.complaint(self.certificate, other).startswith(f"{other}: no unencr"))

    def test_the_key_of_another_certificate_is_refused(self) -> None:
        _, other = self.authority.issue("other.test")
        self.assertEqual(
            self.complaint(self.certificate, other),
            f"{other}: no unencrypted PEM private key, or not that of {self.certificate}",
        )
