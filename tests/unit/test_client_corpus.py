"""What servers in the wild, and hostile ones, have been seen to say.

A file in ``tests/corpora/smtp_client`` is the answer to one command (``CONNECT`` for the greeting,
``DOT`` for the end of data), and its name says which, what it is, and what comes of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from protege_mta.model.outcome import Delivered, Outcome, PermanentFailure, TransientFailure
from protege_mta.testing.attempts import make_attempt
from protege_mta.testing.hosts import HANG_UP, HostNet, Script

from .test_client_transport import ONE, TransportTestCase

CORPUS: Final = Path(__file__).parent.parent / "corpora" / "smtp_client"
COMES_TO: Final[dict[str, type[Outcome]]] = {
    "delivered": Delivered,
    "transient": TransientFailure,
    "permanent": PermanentFailure,
}


class CorpusTests(TransportTestCase):
    def test_each_file(self) -> None:
        """In one read, and an octet at a time; nothing is logged as a failure of ours."""
        files = sorted(CORPUS.iterdir())
        self.assertGreater(len(files), 20)
        for path in files:
            verb, _, end = path.name.split(".")
            octets = path.read_bytes()
            for cut in (0, 1) if len(octets) < 5000 else (0, 100):
                self.net = HostNet(cut)
                self.make()
                hangs_up = HANG_UP if end == "transient" else b""
                verb = {"DOT": "."}.get(verb, verb)
                self.serve(script=Script(answers={verb: octets + hangs_up}))
                outcome = self.outcome(make_attempt(ONE))
                self.assertIsInstance(outcome, COMES_TO[end], f"{path.name} cut to {cut}")
                said = outcome.reply if isinstance(outcome, Delivered) else outcome.cause
                self.assertTrue(said.text.isascii() and said.text.isprintable(), path.name)
