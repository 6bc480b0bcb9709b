"""Reading what is not in memory: what counts as damage, and what does not."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred, execute
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.ids import QueueId
from protege_mta.model.ports import Damaged, NoSuchMessage
from protege_mta.spool.cold import Cold
from protege_mta.spool.corrupt import Corrupt
from protege_mta.spool.fetch import Fetcher, Mismatch
from protege_mta.spool.files import Files
from protege_mta.spool.index import Index
from protege_mta.spool.segment import Segment

ID = QueueId("0AAAAAAAAAAAAAAAAA")


class Broken:
    """A :class:`~protege_mta.spool.fetch.Fetcher` that only finds trouble.

    :ivar asked: the places that were read.
    """

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.asked: list[int] = []
        self.before: Any = lambda: None

    def content(self, segment: Segment, offset: int, octets: int, id: QueueId) -> object:
        self.asked.append(offset)
        self.before()
        raise self.errors.pop(0)


class ColdTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.index = Index()
        self.index.use(Segment(1, 7, "fresh"))
        self.corrupt = Corrupt(Files(), self.folder)
        self.fetcher = Broken()
        self.cold = Cold(
            cast(Fetcher, self.fetcher), self.index, self.corrupt, lambda work: execute(work)
        )

    def put(self, offset: int) -> None:
        self.index.put(ID, (1, offset, 100), b"")

    def failed(self, reading: Deferred[Any]) -> Exception:
        error = self.failureResultOf(reading).value
        assert isinstance(error, Exception)
        return error

    def test_who_is_not_there_is_not_looked_for(self) -> None:
        self.assertIsInstance(self.failed(self.cold.content(ID)), NoSuchMessage)
        self.assertEqual(self.fetcher.asked, [])

    def test_what_does_not_match_is_kept_and_offered_to_nobody(self) -> None:
        self.put(64)
        self.fetcher.errors = [Mismatch("rot", b"what is left")]
        self.assertIsInstance(self.failed(self.cold.content(ID)), Damaged)
        self.assertEqual((self.folder / ID).read_bytes(), b"what is left")
        self.assertIsInstance(self.failed(self.cold.content(ID)), Damaged)
        self.assertEqual(self.fetcher.asked, [64])

    def test_a_disk_that_cannot_read_leaves_nothing_to_keep(self) -> None:
        self.put(64)
        self.fetcher.errors = [OSError(errno.EIO, "I/O error")]
        self.assertIsInstance(self.failed(self.cold.content(ID)), Damaged)
        self.assertEqual(list(self.folder.iterdir()), [])
        self.assertEqual(self.corrupt.ids, {ID})

    def test_trouble_that_is_not_the_contents_condemns_nothing(self) -> None:
        self.put(64)
        self.fetcher.errors = [OSError(errno.EMFILE, "too many open files")]
        self.assertIsInstance(self.failed(self.cold.content(ID)), OSError)
        self.assertEqual(self.corrupt.ids, set())

    def test_what_was_carried_forward_meanwhile_is_read_where_it_is_now(self) -> None:
        self.put(64)
        self.fetcher.errors = [OSError(errno.ENOENT, "gone"), OSError(errno.EMFILE, "later")]
        self.fetcher.before = lambda: self.put(512)
        self.assertIsInstance(self.failed(self.cold.content(ID)), OSError)
        self.assertEqual(self.fetcher.asked, [64, 512])
        self.assertEqual(self.corrupt.ids, set())
