"""From the greeting to the first MAIL."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.reply import Reply
from protege_mta.wire.abilities import Abilities
from protege_mta.wire.client import Awaited
from protege_mta.wire.opening import Opened, Opening
from protege_mta.wire.sasl_client import Credentials

GREETING = Reply(220, "", ("mx.test",))
NO = Reply(502, "5.5.1", ("no",))
ME = Credentials("me", "secret")


def offer(*keywords: str) -> Reply:
    return Reply(250, "", ("mx.test", *keywords))


class OpeningTests(SynchronousTestCase):
    def play(self, opening: Opening, *replies: Reply) -> list[bytes | Opened]:
        return [opening.reply(reply) for reply in replies]

    def test_ehlo(self) -> None:
        opening = Opening("me.test")
        self.assertEqual(
            self.play(opening, GREETING, offer("PIPELINING")), [b"EHLO me.test\r\n", Opened.READY]
        )
        self.assertTrue(opening.abilities.has_pipelining)

    def test_falls_back_to_helo(self) -> None:
        """RFC 5321, 3.2 and 4.1.1.1."""
        opening = Opening("me.test", tls="opportunistic")
        self.assertEqual(
            self.play(opening, GREETING, NO, offer("STARTTLS")),
            [b"EHLO me.test\r\n", b"HELO me.test\r\n", Opened.READY],
        )
        self.assertEqual(opening.abilities, Abilities())

    def test_lmtp(self) -> None:
        """LHLO, and nothing to fall back to (RFC 2033, 4.1)."""
        opening = Opening("me.test", is_lmtp=True)
        self.assertEqual(self.play(opening, GREETING, NO), [b"LHLO me.test\r\n", Opened.REFUSED])
        self.assertEqual(opening.cause, NO)

    def test_refusals(self) -> None:
        """A greeting or an answer that ends the matter at this host."""
        ok = offer()
        for replies in (
            [Reply(554, "", ("no service",))],
            [Reply(421, "4.3.2", ("later",))],
            [Reply(354, "", ("what?",))],
            [GREETING, Reply(421, "", ("later",))],
            [GREETING, Reply(450, "", ("later",))],
            [GREETING, NO, NO],
            [GREETING, NO, Reply(450, "", ("later",))],
        ):
            opening = Opening("me.test")
            self.assertIs(self.play(opening, *replies)[-1], Opened.REFUSED, replies)
            self.assertEqual(opening.cause, replies[-1])
            self.assertNotEqual(replies[-1], ok)

    def test_starttls(self) -> None:
        """After the handshake everything is asked again (RFC 3207, 4.2)."""
        opening = Opening("me.test", tls="opportunistic")
        self.assertEqual(
            self.play(opening, GREETING, offer("STARTTLS", "DSN"), Reply(220, "", ("go",))),
            [b"EHLO me.test\r\n", b"STARTTLS\r\n", Opened.START_TLS],
        )
        self.assertIs(opening.awaited, Awaited.TLS)
        self.assertEqual(opening.secured(), b"EHLO me.test\r\n")
        self.assertEqual(self.play(opening, offer("STARTTLS", "SIZE 5")), [Opened.READY])
        self.assertEqual(opening.abilities.size_octets, 5)
        self.assertFalse(opening.abilities.has_dsn)

    def test_starttls_refused_by_the_server(self) -> None:
        """Opportunistic: on in clear.  Required: not."""
        busy = Reply(454, "4.7.0", ("later",))
        opening = Opening("me.test", tls="opportunistic")
        self.assertIs(self.play(opening, GREETING, offer("STARTTLS"), busy)[-1], Opened.READY)
        opening = Opening("me.test", tls="required")
        self.assertIs(self.play(opening, GREETING, offer("STARTTLS"), busy)[-1], Opened.REFUSED)
        self.assertEqual(opening.cause, busy)

    def test_required_and_not_offered(self) -> None:
        opening = Opening("me.test", tls="required", credentials=ME)
        self.assertIs(self.play(opening, GREETING, offer("AUTH PLAIN"))[-1], Opened.REFUSED)
        self.assertEqual(str(opening.cause), "451 4.7.4 TLS is required, and not offered")

    def test_what_mail_that_requires_tls_needs(self) -> None:
        """RFC 8689, 4.2.1: TLS, and REQUIRETLS as it is offered in there; in clear it is nothing."""
        go, rest = Reply(220, "", ("go",)), (b"EHLO me.test\r\n", b"STARTTLS\r\n")
        for inside, step in ((("REQUIRETLS",), Opened.READY), ((), Opened.REFUSED)):
            opening = Opening("me.test", tls="required", requires_tls=True)
            outside = offer("STARTTLS", "REQUIRETLS")
            self.assertEqual(self.play(opening, GREETING, outside, go), [*rest, Opened.START_TLS])
            opening.secured()
            self.assertEqual(self.play(opening, offer(*inside)), [step])
        self.assertEqual(
            str(opening.cause),
            "550 5.7.30 REQUIRETLS support required: the next hop does not offer it",
        )

    def test_what_is_missing_where_tls_is_required(self) -> None:
        later = Reply(454, "4.7.0", ("later",))
        for replies, cause in (
            ([offer("REQUIRETLS")], "550 5.7.30 REQUIRETLS support required: TLS is not offered"),
            ([NO, offer()], "550 5.7.30 REQUIRETLS support required: TLS is not offered"),
            (
                [offer("STARTTLS"), NO],
                "550 5.7.30 REQUIRETLS support required: STARTTLS is refused",
            ),
            ([offer("STARTTLS"), later], str(later)),
        ):
            opening = Opening("me.test", tls="required", requires_tls=True, credentials=ME)
            self.assertIs(self.play(opening, GREETING, *replies)[-1], Opened.REFUSED)
            self.assertEqual(str(opening.cause), cause)

    def test_implicit_where_tls_is_required(self) -> None:
        opening = Opening("me.test", requires_tls=True)
        opening.secured()
        self.assertIs(self.play(opening, GREETING, offer("REQUIRETLS"))[-1], Opened.READY)

    def test_implicit(self) -> None:
        """The handshake comes before the greeting, and STARTTLS is not asked for in it."""
        opening = Opening("me.test", tls="opportunistic")
        self.assertEqual(opening.secured(), b"")
        self.assertEqual(
            self.play(opening, GREETING, offer("STARTTLS")), [b"EHLO me.test\r\n", Opened.READY]
        )

    def test_auth_plain(self) -> None:
        """RFC 4616; the first answer goes with the command (RFC 4954, 4)."""
        opening = Opening("me.test", credentials=ME, is_encrypted=True)
        self.assertEqual(
            self.play(opening, GREETING, offer("AUTH LOGIN PLAIN"), Reply(235, "2.7.0", ("ok",))),
            [b"EHLO me.test\r\n", b"AUTH PLAIN AG1lAHNlY3JldA==\r\n", Opened.READY],
        )

    def test_auth_plain_with_a_long_password(self) -> None:
        """It does not fit into a command line, and waits for the server's 334."""
        opening = Opening("me.test", credentials=Credentials("me", "x" * 400), is_encrypted=True)
        answers = self.play(opening, GREETING, offer("AUTH PLAIN"), Reply(334, "", ("",)))
        self.assertEqual(answers[1], b"AUTH PLAIN\r\n")
        assert isinstance(answers[2], bytes)
        self.assertTrue(answers[2].startswith(b"AG1lAHh4eHh4"))

    def test_auth_login(self) -> None:
        opening = Opening("me.test", credentials=ME, is_encrypted=True)
        self.assertEqual(
            self.play(
                opening,
                GREETING,
                offer("AUTH LOGIN"),
                Reply(334, "", ("VXNlcm5hbWU6",)),
                Reply(334, "", ("UGFzc3dvcmQ6",)),
                Reply(235, "", ("ok",)),
            )[1:],
            [b"AUTH LOGIN\r\n", b"bWU=\r\n", b"c2VjcmV0\r\n", Opened.READY],
        )

    def test_auth_without_end(self) -> None:
        """A server that never has enough is told once, and left."""
        opening = Opening("me.test", credentials=ME, is_encrypted=True)
        more = Reply(334, "", ("more",))
        self.assertEqual(
            self.play(opening, GREETING, offer("AUTH PLAIN"), more, more)[2:],
            [b"*\r\n", Opened.REFUSED],
        )

    def test_auth_refused(self) -> None:
        opening = Opening("me.test", credentials=ME, is_encrypted=True)
        wrong = Reply(535, "5.7.8", ("wrong",))
        self.assertIs(self.play(opening, GREETING, offer("AUTH PLAIN"), wrong)[-1], Opened.REFUSED)
        self.assertEqual((opening.cause, opening.is_auth_fault), (wrong, True))

    def test_credentials_in_clear(self) -> None:
        """Only to a peer on this machine."""
        opening = Opening("me.test", credentials=ME)
        self.assertIs(self.play(opening, GREETING, offer("AUTH PLAIN"))[-1], Opened.REFUSED)
        self.assertEqual(str(opening.cause), "451 4.7.11 credentials are not sent in clear")
        opening = Opening("me.test", credentials=ME, may_authenticate_in_clear=True)
        self.assertEqual(
            self.play(opening, GREETING, offer("AUTH PLAIN"))[-1],
            b"AUTH PLAIN AG1lAHNlY3JldA==\r\n",
        )

    def test_no_mechanism_that_we_know(self) -> None:
        opening = Opening("me.test", credentials=ME, is_encrypted=True)
        self.assertIs(self.play(opening, GREETING, offer("AUTH GSSAPI"))[-1], Opened.REFUSED)
        self.assertTrue(opening.is_auth_fault)

    def test_passwords_do_not_show(self) -> None:
        self.assertNotIn("secret", repr(Opening("me.test", credentials=ME)))
