"""The form in which a message goes to a hop."""

from __future__ import annotations

from collections.abc import Callable

import dkim  # type: ignore[import-untyped]
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.dkim import keys, record
from protege_mta.dkim.sign import Signer
from protege_mta.model.address import Address
from protege_mta.model.envelope import Envelope, Message, Origin, Recipient
from protege_mta.model.ids import QueueId
from protege_mta.model.ports import HopAbilities, Prepared
from protege_mta.model.reply import Reply
from protege_mta.schedule.prepare import Preparer
from protege_mta.spool.content import MemoryContent

KEY = keys.load(keys.generate_ed25519())
OLD_HOP = HopAbilities(has_8bitmime=False, has_smtputf8=False)
PLAIN = b"From: a@a.test\r\nSubject: x\r\n\r\nHello.\r\n"
EIGHT_BIT = (
    b"From: a@a.test\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"
)


class PreparerTests(SynchronousTestCase):
    """Signed where we may, downgraded where we must."""

    def setUp(self) -> None:
        self.work = 0
        self.preparer = Preparer({"a.test": [Signer("a.test", "ed", KEY)]}, self.in_thread)

    def in_thread(self, work: Callable[[], bytes]) -> Deferred[bytes]:
        self.work += 1
        return succeed(work())

    def prepared(
        self,
        octets: bytes,
        *,
        may_sign: bool = True,
        abilities: HopAbilities = HopAbilities(),  # noqa: B008
        recipient: str = "b@b.test",
    ) -> bytes | Reply:
        """What goes over the wire."""
        message = Message(
            QueueId("0" * 26),
            Envelope(Address("a@a.test"), (Recipient(Address(recipient)),), "8BITMIME"),
            Origin("smtp", may_sign=may_sign),
            1_700_000_000.0,
            len(octets),
            is_eight_bit=not octets.isascii(),
        )
        content = MemoryContent(message, (octets,))
        answer = self.preparer.of(content, (0,))(abilities)
        if isinstance(answer, Deferred):
            answer = self.successResultOf(answer)
        if not isinstance(answer, Prepared):
            return answer
        sent = answer.head + (answer.body or content.read(answer.skip_octets))
        self.assertEqual(answer.is_eight_bit, not sent.isascii())
        return sent

    def verifies(self, octets: bytes | Reply) -> bool:
        assert isinstance(octets, bytes)
        public = record.dns_record(KEY).encode("ascii")
        return bool(dkim.verify(octets, dnsfunc=lambda name, timeout=5: public))

    def test_signed(self) -> None:
        octets = self.prepared(PLAIN)
        self.assertTrue(self.verifies(octets))
        assert isinstance(octets, bytes)
        self.assertTrue(octets.endswith(PLAIN))

    def test_signed_once(self) -> None:
        """Other recipients and attempts get the same octets without another signature."""
        octets = PLAIN + b"A line of text.\r\n" * 1_000
        self.assertEqual(self.prepared(octets), self.prepared(octets))
        self.assertEqual(self.work, 1)

    def test_at_once(self) -> None:
        """An Ed25519 signature of little content is no work for a thread; an RSA one always is."""
        self.assertTrue(self.verifies(self.prepared(PLAIN)))
        self.assertEqual(self.work, 0)
        signer = Signer("a.test", "rsa", keys.load(keys.generate_rsa(2048)))
        self.preparer = Preparer({"a.test": [signer]}, self.in_thread)
        self.prepared(PLAIN)
        self.assertEqual(self.work, 1)

    def test_big(self) -> None:
        """Hashed in pieces, and it still verifies."""
        self.assertTrue(self.verifies(self.prepared(PLAIN + b"Many lines  of text.\r\n" * 120_000)))

    def test_not_for_those_who_may_not(self) -> None:
        """Public mail that claims our domain stays as it came, and so does mail of other domains."""
        self.assertEqual(self.prepared(PLAIN, may_sign=False), PLAIN)
        other = PLAIN.replace(b"a.test", b"c.test")
        self.assertEqual(self.prepared(other), other)
        self.assertEqual(self.work, 0)

    def test_downgraded(self) -> None:
        """Quoted-printable for a 7-bit hop, and signed in that form."""
        octets = self.prepared(EIGHT_BIT, abilities=OLD_HOP)
        assert isinstance(octets, bytes)
        self.assertIn(b"Gr=C3=BC=C3=9Fe", octets)
        self.assertTrue(self.verifies(octets))

    def test_impossible(self) -> None:
        """An address beyond US-ASCII needs SMTPUTF8 (RFC 6531, 3.2)."""
        answer = self.prepared(PLAIN, abilities=OLD_HOP, recipient="bü@b.test")
        assert isinstance(answer, Reply)
        self.assertEqual(answer.enhanced, "5.6.7")
