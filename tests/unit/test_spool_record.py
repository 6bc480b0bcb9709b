"""Tests of the records that segments are made of."""

from __future__ import annotations

import attrs
import msgspec
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.batch import BigFile, End
from protege_mta.model.envelope import Origin
from protege_mta.spool import record as records
from protege_mta.spool.record import CommitMeta, ContentMeta, EndMeta
from protege_mta.testing.contracts import append


class MetaTests(SynchronousTestCase):
    """What is written without the structs is what they would have made."""

    def test_content(self) -> None:
        for content in ((b"one", b"two"), BigFile("name", 5, 7)):
            draft = records.draft(attrs.evolve(append(), content=content))
            meta = records.content_meta(draft.meta)
            self.assertEqual(msgspec.msgpack.encode(meta), draft.meta)
            self.assertEqual(bytes(meta.s), draft.states)
            one = append()
            self.assertEqual(records.message_of(one.message.id, meta).envelope.envid, "id+2B1")
        self.assertEqual((meta.big, meta.sum), ("name", 7))

    def test_origin(self) -> None:
        """What says that a message has to wait, or never leaves, is kept like all else of it."""
        origin = Origin(
            *("http", "key:bot", "192.0.2.7", True, "tenant", "campaign"),
            *("request", "answer", "a reason to hold it", True, ("a tag", "another")),
        )
        one = append()
        one = attrs.evolve(one, message=attrs.evolve(one.message, origin=origin))
        meta = records.content_meta(records.draft(one).meta)
        self.assertEqual(records.message_of(one.message.id, meta).origin, origin)

    def test_end(self) -> None:
        draft = records.draft(End(append().message.id, (0, 3), "bounced"))
        self.assertEqual(draft.meta, msgspec.msgpack.encode(EndMeta((0, 3), "bounced")))

    def test_commit(self) -> None:
        draft = records.commit_draft(64, 2, b"{}\n{}\n")
        self.assertEqual(draft.meta, msgspec.msgpack.encode(CommitMeta(64, 2)))
        self.assertEqual((draft.body, draft.body_octets), ((b"{}\n{}\n",), 6))

    def test_written(self) -> None:
        """What is written can be read, and is as long as it says."""
        for draft in (records.draft(append(b"x" * 101)), records.commit_draft(64, 1, b"")):
            pieces: list[bytes] = []
            octets = records.write(draft, epoch=5, sequence=6, to=pieces)
            whole = b"".join(pieces)
            self.assertEqual((octets, octets % 8), (len(whole), 0))
            self.assertEqual(octets, draft.octets)
            found = records.read(whole, 0, 0, 5)
            assert found is not None
            self.assertEqual(
                (found.kind, found.sequence, found.octets, found.meta, found.body_octets),
                (draft.kind, 6, octets, draft.meta, draft.body_octets),
            )
            self.assertIsNone(records.read(whole, 0, 0, 4))


class ContentMetaTests(SynchronousTestCase):
    def test_members(self) -> None:
        """Records are read by these names for ever."""
        self.assertEqual(ContentMeta.__struct_fields__, ("m", "s", "big", "sum"))
