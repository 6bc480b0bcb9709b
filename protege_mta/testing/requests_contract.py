"""What every :class:`~protege_mta.model.ports.Requests` keeps, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..model.address import Address
from ..model.envelope import Envelope, Message, Origin, Recipient
from ..model.ids import QueueId
from ..model.ports import Known, Request, Requests

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase as _TestCase
else:
    _TestCase = object

ID = QueueId("01ARZ3NDEKTSV4RRFFQ69G5FAV")
OTHER_ID = QueueId("01ARZ3NDEKTSV4RRFFQ69G5FAW")
NAMED = Origin("tunnel", "agent", request_id="one", answer="{}")


def named(origin: Origin = NAMED, id: QueueId = ID) -> Message:
    """A message with a name."""
    envelope = Envelope(Address("a@a.test"), (Recipient(Address("b@b.test")),))
    return Message(id, envelope, origin, 1000.0, 10)


class RequestsContract(_TestCase):
    """A suite; whoever mixes it into a test case says how one is made."""

    def new_requests(self) -> Requests:
        raise NotImplementedError

    def remember(self, request: Request, message: Message, then: Callable[[], None]) -> None:
        """Have it kept, to the end."""
        raise NotImplementedError

    def setUp(self) -> None:
        super().setUp()
        self.requests = self.new_requests()
        self.told: list[str] = []

    def begin(self, origin: Origin = NAMED) -> Request:
        """A name that nobody knows is reserved."""
        request = self.requests.begin(origin)
        assert not isinstance(request, Known | None), request
        return request

    def keep(self, origin: Origin = NAMED, id: QueueId = ID) -> None:
        request = self.begin(origin)
        request.settle()
        self.remember(request, named(origin, id), lambda: self.told.append(id))

    def test_known(self) -> None:
        """With the message's id and the door's answer, for ever the same."""
        self.keep()
        self.assertEqual(self.told, [ID])
        for _ in range(2):
            self.assertEqual(self.requests.begin(NAMED), Known(ID, "{}"))

    def test_names_of_others(self) -> None:
        """Each source and each identity has names of its own."""
        self.keep()
        for other in (
            Origin("http", "agent", request_id="one"),
            Origin("tunnel", "another", request_id="one"),
            Origin("tunnel", "agent", request_id="two"),
            Origin("tunnel", "agentone", request_id=""),
        ):
            self.keep(other, OTHER_ID)
        self.assertEqual(self.requests.begin(NAMED), Known(ID, "{}"))

    def test_released(self) -> None:
        """As if it had never come."""
        self.begin().release()
        self.begin().release()
        self.keep()
        self.assertEqual(self.told, [ID])

    def test_superseded(self) -> None:
        """The newer one has the name; the older one is told once and has no say any more."""
        older = self.begin()
        older.superseded = lambda: self.told.append("superseded")
        newer = self.begin()
        self.assertEqual(self.told, ["superseded"])
        older.release()
        newer.settle()
        self.assertIsNone(self.requests.begin(NAMED))
        self.remember(newer, named(), lambda: None)
        self.assertEqual(self.requests.begin(NAMED), Known(ID, "{}"))
        self.assertEqual(self.told, ["superseded"])

    def test_superseded_by_one_who_gives_up(self) -> None:
        """And gives up at once, while the older one does."""
        older = self.begin()
        older.superseded = older.release
        self.begin().release()
        self.keep()

    def test_settled(self) -> None:
        """Nobody supersedes what is being stored, until it turns out that it was not."""
        request = self.begin()
        request.superseded = lambda: self.told.append("superseded")
        request.settle()
        self.assertIsNone(self.requests.begin(NAMED))
        request.release()
        self.begin()
        self.assertEqual(self.told, [])

    def test_release_of_what_is_remembered(self) -> None:
        """Changes nothing."""
        request = self.begin()
        request.settle()
        self.remember(request, named(), lambda: None)
        request.release()
        self.assertEqual(self.requests.begin(NAMED), Known(ID, "{}"))
