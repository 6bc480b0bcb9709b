"""Contexts of our listeners: who is shown what, and what is wrong with files is said clearly."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any, Final, Literal, cast

import attrs
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.outcome import TlsFacts
from protege_mta.testing import handshakes
from protege_mta.testing.authority import Authority
from protege_mta.transport.tls_server import (
    KeyPair,
    ServerContext,
    TlsFiles,
    facts,
    server_contexts,
)

ANY_CIPHER: Final = b"ALL:@SECLEVEL=0"


def client_context(version: int = SSL.TLS1_3_VERSION, ciphers: bytes = ANY_CIPHER) -> SSL.Context:
    """A client that verifies nothing and knows one version."""
    client = SSL.Context(SSL.TLS_CLIENT_METHOD)
    client.set_cipher_list(ciphers)
    client.set_min_proto_version(version)
    client.set_max_proto_version(version)
    return client


def shake_hands(
    context: ServerContext, client: SSL.Context, name: str = ""
) -> tuple[SSL.Connection, SSL.Connection]:
    """Both ends, ours first, of a handshake in memory.

    :param name: the server's, as the client asks for it.
    :raise SSL.Error: they do not agree.
    """
    ours, theirs = context.serverConnectionForTLS(cast(Any, None)), SSL.Connection(client, None)
    if name:
        theirs.set_tlsext_host_name(name.encode())
    handshakes.shake_hands(ours, theirs)
    return ours, theirs


def shown(context: ServerContext, name: str = "", client: SSL.Context | None = None) -> str:
    """The common name of the certificate that a client is shown, and its key's algorithm."""
    _, theirs = shake_hands(context, client or client_context(), name)
    certificate = theirs.get_peer_certificate(as_cryptography=True)
    assert certificate is not None
    [common_name] = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    is_ec = isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    return f"{common_name.value!s} {'ecdsa' if is_ec else 'rsa'}"


REFUSED: Final[list[tuple[Literal["1.2", "1.3"], int]]] = [
    ("1.2", SSL.TLS1_1_VERSION),
    ("1.3", SSL.TLS1_2_VERSION),
]


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.authority = Authority(self.folder)

    def pair(self, *names: str, **options: Any) -> KeyPair:
        return KeyPair(*self.authority.issue(*names, **options))


class ServerContextTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.main = self.pair("mx.test")
        self.files = TlsFiles((self.main,))

    def complaint(self, **changes: Any) -> str:
        with self.assertRaises(ValueError) as caught:
            server_contexts(attrs.evolve(self.files, **changes))
        return str(caught.exception)

    def test_a_handshake_tells_what_was_agreed_on(self) -> None:
        context = server_contexts(self.files).public
        self.assertEqual(
            [
                facts(shake_hands(context, client_context(each))[0])
                for each in (SSL.TLS1_3_VERSION, SSL.TLS1_2_VERSION)
            ],
            [
                TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
                TlsFacts("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"),
            ],
        )

    def test_old_versions_are_refused(self) -> None:
        for least, version in REFUSED:
            context = server_contexts(attrs.evolve(self.files, min_version=least)).public
            with self.assertRaises(SSL.Error):
                shake_hands(context, client_context(version))

    def test_no_cipher_is_without_forward_secrecy(self) -> None:
        connection = server_contexts(self.files).public.serverConnectionForTLS(cast(Any, None))
        for cipher in connection.get_cipher_list():
            self.assertTrue(cipher.startswith(("TLS_", "ECDHE-")), cipher)

    def test_what_is_known_of_a_certificate(self) -> None:
        pair = self.pair("MX.two.test", "*.two.test", "192.0.2.1", algorithm="rsa", days=30)
        one, two = server_contexts(TlsFiles((self.main, pair))).certificates
        self.assertEqual((one.names, one.algorithm), (("mx.test",), "ecdsa"))
        self.assertEqual((two.names, two.algorithm), (("mx.two.test", "*.two.test"), "rsa"))
        self.assertEqual(round((two.expires_at - one.expires_at) / 86400), 29)
        self.assertFalse(one.is_self_signed)

    def test_a_context_that_was_replaced_is_gone(self) -> None:
        """What is frozen for the garbage collector has to go without it."""
        contexts = server_contexts(TlsFiles((self.main, self.pair("two.test"))))
        gone = weakref.ref(contexts.public._default)
        gc.disable()
        try:
            del contexts
            self.assertIsNone(gone())
        finally:
            gc.enable()

    def test_a_missing_file_is_named(self) -> None:
        missing = self.folder / "nothing.pem"
        expected = f"{missing}: cannot be read: No such file or directory"
        certificate, key = self.main.certificate, self.main.private_key
        self.assertEqual(self.complaint(pairs=(KeyPair(missing, key),)), expected)
        self.assertEqual(self.complaint(pairs=(KeyPair(certificate, missing),)), expected)
        self.assertEqual(self.complaint(client_ca_file=missing), expected)

    def test_a_file_of_another_kind_is_named(self) -> None:
        other = self.folder / "other.pem"
        other.write_text("this is no PEM")
        certificate, key = self.main.certificate, self.main.private_key
        said = self.complaint(pairs=(KeyPair(other, key),))
        self.assertEqual(said, f"{other}: no PEM certificate")
        said = self.complaint(pairs=(KeyPair(certificate, other),))
        self.assertEqual(said, f"{other}: no unencrypted PEM private key")
        said = self.complaint(client_ca_file=other)
        self.assertEqual(said, f"{other}: no PEM certificates")

    def test_a_key_under_a_passphrase_is_refused_and_nobody_asked_for_it(self) -> None:
        key = serialization.load_pem_private_key(self.main.private_key.read_bytes(), None)
        self.main.private_key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"secret"),
            )
        )
        expected = f"{self.main.private_key}: no unencrypted PEM private key"
        self.assertEqual(self.complaint(), expected)

    def test_the_key_of_another_certificate_is_refused(self) -> None:
        other = self.pair("other.test").private_key
        certificate = self.main.certificate
        expected = f"{other}: not the key of {certificate}"
        self.assertEqual(self.complaint(pairs=(KeyPair(certificate, other),)), expected)
        second = self.pair("second.test")
        self.assertEqual(
            self.complaint(pairs=(second, KeyPair(certificate, other))),
            expected,
        )


class NameTests(Case):
    """SNI: who asks for a name is shown the certificate that has it."""

    def context(self, *pairs: KeyPair) -> ServerContext:
        return server_contexts(TlsFiles(pairs)).public

    def test_the_main_certificate_is_for_who_asks_for_nothing_else(self) -> None:
        context = self.context(self.pair("mx.test"), self.pair("other.test"))
        for name in (
            "",
            "mx.test",
            "third.test",
            "sub.other.test",
            "192.0.2.1",
            "xn--bcher-kva.test",
        ):
            self.assertEqual(shown(context, name), "mx.test ecdsa")

    def test_every_name_of_a_certificate_leads_to_it_in_any_case(self) -> None:
        second = self.pair("second.test", "2.test", "192.0.2.1")
        context = self.context(self.pair("mx.test"), second, self.pair("third.test"))
        for name in ("second.test", "2.test", "SECOND.Test"):
            self.assertEqual(shown(context, name), "second.test ecdsa")
        self.assertEqual(shown(context, "third.test"), "third.test ecdsa")

    def test_both_versions(self) -> None:
        context = self.context(self.pair("mx.test"), self.pair("second.test"))
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            client = client_context(version)
            self.assertEqual(shown(context, "second.test", client), "second.test ecdsa")

    def test_a_wildcard_stands_for_one_label(self) -> None:
        context = self.context(self.pair("mx.test"), self.pair("*.wild.test"))
        self.assertEqual(shown(context, "a.wild.test"), "*.wild.test ecdsa")
        for name in ("wild.test", "a.b.wild.test", "awild.test"):
            self.assertEqual(shown(context, name), "mx.test ecdsa")

    def test_the_very_name_goes_before_a_wildcard(self) -> None:
        """Also where it is the main certificate that has it."""
        context = self.context(self.pair("a.test"), self.pair("*.test"), self.pair("b.test"))
        self.assertEqual(shown(context, "a.test"), "a.test ecdsa")
        self.assertEqual(shown(context, "b.test"), "b.test ecdsa")
        self.assertEqual(shown(context, "c.test"), "*.test ecdsa")

    def test_the_first_of_one_algorithm_goes_before_the_next(self) -> None:
        first, second = self.pair("x.test", "a.test"), self.pair("y.test", "a.test")
        context = self.context(self.pair("mx.test"), first, second)
        self.assertEqual(shown(context, "a.test"), "x.test ecdsa")
        self.assertEqual(shown(context, "y.test"), "y.test ecdsa")

    def test_ecdsa_where_the_client_can_and_rsa_where_it_cannot(self) -> None:
        """For the main name, and another's, whichever was named first."""
        pairs = [
            self.pair("mx.test", algorithm="rsa", file="mx-rsa"),
            self.pair("mx.test"),
            self.pair("two.test"),
            self.pair("two.test", algorithm="rsa", file="two-rsa"),
        ]
        context = self.context(*pairs)
        old = client_context(SSL.TLS1_2_VERSION, b"ECDHE-RSA-AES128-GCM-SHA256")
        new = client_context(SSL.TLS1_2_VERSION, b"ECDHE+AESGCM")
        for asked, name in (("", "mx"), ("mx.test", "mx"), ("two.test", "two")):
            self.assertEqual(shown(context, asked, old), f"{name}.test rsa")
            self.assertEqual(shown(context, asked, new), f"{name}.test ecdsa")
            self.assertEqual(shown(context, asked), f"{name}.test ecdsa")

    def test_one_of_another_name_does_not_help_out(self) -> None:
        """An RSA certificate for another name is no use to a client that cannot do ECDSA."""
        context = self.context(self.pair("mx.test"), self.pair("two.test", algorithm="rsa"))
        old = client_context(SSL.TLS1_2_VERSION, b"ECDHE-RSA-AES128-GCM-SHA256")
        self.assertRaises(SSL.Error, shown, context, "mx.test", old)
        self.assertEqual(shown(context, "two.test", old), "two.test rsa")


class ClientCertificateTests(Case):
    """Asked for where our users come in, and nowhere else."""

    def setUp(self) -> None:
        super().setUp()
        self.main = self.pair("mx.test")
        files = TlsFiles((self.main, self.pair("two.test")), client_ca_file=self.authority.ca_file)
        self.contexts = server_contexts(files)

    def facts(self, context: ServerContext, pair: KeyPair | None, name: str = "") -> list[TlsFacts]:
        """What our side knows of a client with that certificate, in each version.

        :raise SSL.Error: we do not take it.
        """
        found = []
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            client = client_context(version)
            if pair is not None:
                client.use_certificate_file(str(pair.certificate))
                client.use_privatekey_file(str(pair.private_key))
            found.append(facts(shake_hands(context, client, name)[0]))
        return found

    def test_one_that_verifies(self) -> None:
        """Whichever of our certificates is shown."""
        pair = self.pair("client.test")
        for name in ("", "two.test"):
            found = self.facts(self.contexts.submission, pair, name)
            self.assertEqual([each.is_verified for each in found], [True, True])

    def test_none_is_no_fault(self) -> None:
        found = self.facts(self.contexts.submission, None)
        self.assertEqual([each.is_verified for each in found], [False, False])

    def test_one_that_does_not_verify(self) -> None:
        """A stranger's, and one that has expired."""
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        strange = KeyPair(*Authority(elsewhere).issue("client.test"))
        old = self.pair("old.test", days=-1)
        for pair in (strange, old):
            for name in ("", "two.test"):
                with self.assertRaises(SSL.Error):
                    self.facts(self.contexts.submission, pair, name)

    def test_other_servers_are_not_asked(self) -> None:
        """Some would show what we could not verify, and their mail would not come."""
        found = self.facts(self.contexts.public, self.pair("client.test"))
        self.assertEqual([each.is_verified for each in found], [False, False])

    def test_without_an_authority_nobody_is_asked(self) -> None:
        contexts = server_contexts(TlsFiles((self.main,)))
        self.assertIs(contexts.submission, contexts.public)
