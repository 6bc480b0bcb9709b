"""Spools go on when the program is replaced by a later version, or by the one before again.

``tests/corpora/spool/v2`` is a segment that :func:`fill` wrote when messages had no names, answers
and verdicts yet; ``v3`` is one of today, with a message more that has them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import attrs
import msgspec
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.batch import Append, Batch, End, Update
from protege_mta.model.envelope import Origin
from protege_mta.model.ids import QueueId
from protege_mta.model.ports import Recovered
from protege_mta.model.verdicts import Verdicts
from protege_mta.spool import record as records
from protege_mta.spool.disk import DiskSpool, direct
from protege_mta.spool.settings import SpoolSettings
from protege_mta.testing.contracts import DEFERRED, DUE, message
from protege_mta.testing.crashfs import CrashFiles
from protege_mta.testing.spools import at_once, call

CORPUS: Final = Path(__file__).parents[1] / "corpora" / "spool"
SHARD: Final = Path("/spool/0")
CONTENT: Final = b"Subject: hi\r\n\r\nthere\r\n"
FULL, ENDED, PLAIN, NAMED = (QueueId(f"01hzxw6d0b000000000000000{n}") for n in range(1, 5))

OLD_KEYS: Final = (
    *("frm", "to", "at", "size", "src", "body", "utf8", "ret", "env", "who", "peer", "sign"),
    *("tnt", "cmp", "mid", "sub", "b8", "urg", "hold", "rel", "tls"),
)
"""Of a message, as version 2 reads them."""


def new_spool(disk: CrashFiles) -> DiskSpool:
    """One that chance does not change."""
    return DiskSpool(
        Path("/spool"),
        attrs.evolve(SpoolSettings(), segment_octets=16384),
        now=lambda: 1000.0,
        in_reactor=call,
        in_thread=at_once,
        files=disk,
        line=direct,
        random_octets=lambda wanted: bytes(range(1, wanted + 1)),
    )


def fill(spool: DiskSpool) -> None:
    """A message with everything, in every state; one that has ended; a plain one."""
    for id, recipients in ((FULL, 3), (ENDED, 1)):
        one = message(CONTENT, recipients, id)
        spool.commit(Batch((Append(one, (CONTENT[:9], CONTENT[9:]), DUE),), (b"received\n",)))
    spool.commit(Batch((Update(FULL, (1,), DEFERRED), End(FULL, (0,), "delivered"))))
    spool.commit(Batch((End(ENDED, (0,), "bounced"),), (b"bounced\n",)))
    plain = attrs.evolve(message(CONTENT, 1, PLAIN), origin=Origin("smtp"))
    spool.commit(Batch((Append(plain, (CONTENT,), DUE),)))


def named() -> Append:
    """A message with what version 2 does not know."""
    origin = Origin("tunnel", "agent", "192.0.2.7", request_id="name", answer='{"n":1}')
    one = attrs.evolve(
        message(CONTENT, 1, NAMED), origin=origin, verdicts=Verdicts("pass", "fail", "none")
    )
    return Append(one, (CONTENT,), DUE)


class VersionTests(SynchronousTestCase):
    def recovered(self, version: str) -> dict[QueueId, Recovered]:
        disk = CrashFiles()
        disk.make_folder(SHARD)
        for path in (CORPUS / version).iterdir():
            disk.create(SHARD / path.name)
            disk.replaced(SHARD / path.name, path.read_bytes())
        spool = new_spool(disk)
        spool.acquire()
        found = {one.message.id: one for one in spool.recover()}
        for id in found:
            self.assertEqual(self.successResultOf(spool.open(id)).read(), CONTENT)
        return found

    def written(self, *more: Append) -> dict[str, bytes]:
        """Today's segment, by name."""
        disk = CrashFiles()
        spool = new_spool(disk)
        spool.acquire()
        self.assertEqual(list(spool.recover()), [])
        fill(spool)
        for one in more:
            self.successResultOf(spool.commit(Batch((one,))))
        self.successResultOf(spool.close())
        return {path.name: disk.content(path) for path in disk.paths() if path.suffix == ".fresh"}

    def test_read(self) -> None:
        """What an earlier version has left is taken over whole."""
        plain = attrs.evolve(message(CONTENT, 1, PLAIN), origin=Origin("smtp"))
        wanted = {
            FULL: Recovered(message(CONTENT, 3, FULL), (None, DEFERRED, DUE)),
            PLAIN: Recovered(plain, (DUE,)),
        }
        self.assertEqual(self.recovered("v2"), wanted)
        self.assertEqual(
            self.recovered("v3"), {**wanted, NAMED: Recovered(named().message, (DUE,))}
        )

    def test_written_as_ever(self) -> None:
        """A message that uses nothing new costs no octet more, and is what version 2 would have
        written."""
        self.assertEqual(
            self.written(), {path.name: path.read_bytes() for path in (CORPUS / "v2").iterdir()}
        )
        self.assertEqual(
            self.written(named()),
            {path.name: path.read_bytes() for path in (CORPUS / "v3").iterdir()},
        )

    def test_new_keys_pass_over(self) -> None:
        """Version 2 reads what it knows of a message that has more."""
        old = msgspec.defstruct("_Message", [(key, object, None) for key in OLD_KEYS])
        with_all = records.content_meta(records.draft(named()).meta).m
        plain = Append(
            attrs.evolve(
                named().message,
                origin=Origin("tunnel", "agent", "192.0.2.7"),
                verdicts=message().verdicts,
            ),
            (CONTENT,),
            DUE,
        )
        without = records.content_meta(records.draft(plain).meta).m
        self.assertNotEqual(bytes(with_all), bytes(without))
        decode = msgspec.msgpack.Decoder(old).decode
        self.assertEqual(decode(with_all), decode(without))
