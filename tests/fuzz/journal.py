"""What a broken disk, or a person, makes of the event journal."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Final

from protege_mta.observe.journal import FileJournal

from .target import Target

EVENTS: Final = [b'{"event":"x","id":"%d"}\n' % n for n in range(3)]


def recovery(data: bytes) -> None:
    """Cursor and journal, parted by a NUL; ``INODE`` in the cursor stands for the journal's own."""
    cursor, _, octets = data.partition(b"\0")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        path.write_bytes(octets)
        inode = b"%d" % path.stat().st_ino
        path.with_name("events.jsonl.cursor").write_bytes(cursor.replace(b"INODE", inode))
        journal = FileJournal(path, failed=lambda: None)
        journal.open()
        journal.recover([(EVENTS[:2], (1, 1)), (EVENTS[2:], (1, 2))])
        journal.close()
        found = path.read_bytes()
    assert found.startswith(octets[: octets.rfind(b"\n") + 1]), "lines were changed"
    assert found.endswith(b"\n")
    ids = [_id(line) for line in found.split(b"\n")]
    for number in range(3):
        assert str(number) in ids, f"event {number} is lost"


def _id(line: bytes) -> object:
    try:
        value = json.loads(line.decode("utf-8", "replace"))
    except ValueError:
        return None
    return value.get("id") if isinstance(value, dict) else None


RECOVERY: Final = Target(
    "journal",
    recovery,
    [
        b"\0",
        b'{"position":[1,1],"inode":INODE,"offset":25}\0' + EVENTS[0] + EVENTS[1] + b'{"event":',
        b'{"position":[1,1],"inode":1,"offset":0}\0' + EVENTS[2] + b"a note\n",
        b'{"position":[0,0],"inode":INODE,"offset":0}\0{"event":"y","id":"1","text":"\xc3\xb6"}\n',
    ],
    (b"\n", b"\0", b'"', b"{", b"}", b"[", b"]", b"-1", b"null", b"1e999", b"9" * 20, b"\xff", b"\\ud800",
     b'"id":"1"', b'"id":1', b'"offset":-1', b"INODE", *EVENTS),
)  # fmt: skip
