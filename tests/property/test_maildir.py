"""Properties of Maildir names and of the line ends in the files."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import execute
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import Address
from protege_mta.model.envelope import Envelope, Message, Origin, Recipient
from protege_mta.model.hop import Site
from protege_mta.model.ids import QueueId
from protege_mta.model.ports import Attempt
from protege_mta.transport.maildir import MaildirTransport, folder_name, resolver

from ..unit.test_maildir import Octets, unprepared

NASTY = st.text(alphabet=st.sampled_from("./%\0~ aA2EFé%sh-+_\\\n\udc80"), max_size=12)
LONG = st.text(min_size=60, max_size=300)


class FolderNameTests(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(st.one_of(NASTY, st.text(max_size=20), LONG))
    def test_one_harmless_component(self, text: str) -> None:
        """Nothing that a peer can say leaves the folder, hides, or is too long for a file name."""
        name = folder_name(text)
        self.assertRegex(name, r"\A[A-Za-z0-9_+%-][A-Za-z0-9_+.%-]*\Z")
        self.assertLessEqual(len(name), 200)
        path = resolver({"b.test": "/mail/{domain}/{local_part}"})("b.test", text)
        self.assertEqual(path.parent, Path("/mail/b.test"))
        self.assertEqual(len(PurePosixPath(name).parts), 1)

    @settings(max_examples=300, deadline=None)
    @given(st.one_of(NASTY, LONG), st.one_of(NASTY, LONG))
    def test_different_mailboxes_stay_apart(self, one: str, other: str) -> None:
        self.assertEqual(folder_name(one) == folder_name(other), one.lower() == other.lower())


class LineEndTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"a", b"\xff\x00"]), max_size=12),
        st.integers(1, 5),
    )
    def test_pieces_are_invisible(self, parts: list[bytes], most: int) -> None:
        """However content is read, each CRLF becomes LF and nothing else changes."""
        octets = b"".join(parts)
        transport = MaildirTransport(
            lambda domain, local_part: self.folder,
            in_thread=execute,
            hostname="h",
            started_at=0.0,
        )
        message = Message(
            QueueId("x"),
            Envelope(Address("a@a.test"), (Recipient(Address("b@b.test")),)),
            Origin("smtp"),
            1.0,
            len(octets),
        )
        content = Octets(message, octets, most)
        attempt = Attempt(Site("s", "maildir"), "b.test", content, (0,), unprepared)
        self.successResultOf(transport.deliver(attempt))
        stored = (self.folder / "new" / "1.xR0.h").read_bytes()
        self.assertEqual(
            stored,
            b"Return-Path: <a@a.test>\nDelivered-To: b@b.test\n" + octets.replace(b"\r\n", b"\n"),
        )
