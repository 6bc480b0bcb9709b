"""A message with a name, of which a crash has left nothing but its content.

spool on the disk --recovery--> state.sqlite --> Maildir
"""

from __future__ import annotations

from contextlib import closing

import attrs
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import Address
from protege_mta.model.batch import Append, Batch
from protege_mta.model.envelope import Envelope, Origin, Recipient
from protege_mta.model.ids import QueueId
from protege_mta.model.status import RecipientStatus
from protege_mta.spool.files import Files
from protege_mta.state.database import connect
from protege_mta.testing.contracts import message
from protege_mta.testing.spools import disk_spool

from .service import Service

ID = QueueId("01hzxw6d0b0000000000000001")
CONTENT = b"Subject: hi\r\n\r\nthere\r\n"


class NamedMessageTests(SynchronousTestCase):
    timeout = 120

    def test_name_is_known_after_a_crash(self) -> None:
        """And still is when the message is delivered, and the service started again."""
        service = Service("")
        self.addCleanup(service.close)
        state = service.folder / "state"
        state.mkdir(mode=0o700, exist_ok=True)
        spool = disk_spool(Files(), folder=state / "spool")
        spool.acquire()
        self.assertEqual(list(spool.recover()), [])
        one = attrs.evolve(
            message(CONTENT, 1, ID),
            envelope=Envelope(Address(""), (Recipient(Address("b@local.test")),)),
            origin=Origin("tunnel", "agent", request_id="name", answer="{}"),
        )
        self.successResultOf(
            spool.commit(Batch((Append(one, (CONTENT,), RecipientStatus(due_at=0.0)),)))
        )
        self.successResultOf(spool.close())
        for _ in range(2):
            service.start()
            self.assertEqual(service.fate("b@local.test")["event"], "delivered")
            service.terminate()
            with closing(connect(state)) as connection:
                rows = connection.execute(
                    "SELECT source, identity, request_id, message_id, answer FROM request"
                ).fetchall()
            self.assertEqual(rows, [("tunnel", "agent", "name", ID, "{}")])
