"""Responses that are broken on purpose: ``tests/corpora/dns``.

Each file says in its first line what it is, in its second what the lookup comes to, and then has
the response in hexadecimal, with an id of 0 that the test replaces by the right one.  The question
is for the A records of ``a.test``.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.ports import Answer, Found, NoSuchRecord, TryAgain
from protege_mta.testing.nameserver_script import ScriptedServers
from protege_mta.transport.dns import DnsResolver

CORPUS: Final = Path(__file__).parent.parent / "corpora" / "dns"

ENDS: Final[dict[str, type[Answer]]] = {
    "found": Found,
    "no-such-record": NoSuchRecord,
    "try-again": TryAgain,
}


class CorpusTests(SynchronousTestCase):
    def test_every_file(self) -> None:
        """By datagram and by stream alike; in time, with nothing logged and nothing left open."""
        paths = sorted(CORPUS.glob("*.hex"))
        self.assertGreater(len(paths), 30)
        for path in paths:
            _, end, *lines = path.read_text("ascii").splitlines()
            octets = bytes.fromhex("".join(lines))
            answer = self.answer(octets)
            self.assertIs(type(answer), ENDS[end.removeprefix("# ")], f"{path.name}: {answer}")
            if isinstance(answer, Found):
                self.assertEqual(answer.records, ("192.0.2.9",), path.name)

    def answer(self, octets: bytes) -> Answer:
        servers = ScriptedServers()
        resolver = DnsResolver(
            servers, [("192.0.2.1", 53)], rng=random.Random(1), open_socket=servers.open_socket
        )

        def script(query: bytes) -> list[bytes | OSError]:
            return [query[:2] + octets[2:]]

        servers.datagrams["192.0.2.1", 53] = script
        servers.streams["192.0.2.1", 53] = script
        waiting = resolver.lookup("a.test", "A")
        for _ in range(16):
            servers.deliver()
            servers.advance(1)
        self.assertEqual((servers.sockets, servers.getDelayedCalls()), ({}, []))
        return self.successResultOf(waiting)
