"""The portal's endpoint and the same request again, as its clients use it.

requests  -- HTTP -->  protege-mta  --  Maildir: local.test
                                    -- LMTP -->  slow.test: answers when a test lets it
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import ClassVar, Final

from .api import ApiTestCase, add_key
from .lmtp_peer import LmtpPeer
from .service import WAIT_S, until

LMTP: Final = """\
[domains."slow.test"]
deliver = "lmtp"
lmtp = "127.0.0.1:{port}"

[retry]
first_s = 2
"""


class PortalAgainTests(ApiTestCase):
    """The portal's requests with an Idempotency-Key, over a server that says when, and what."""

    peer: ClassVar[LmtpPeer]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.peer = stack.enter_context(LmtpPeer())
        cls.service = cls.started(stack, LMTP.format(port=cls.peer.port))
        cls.secret = add_key(cls.service)

    def send(self, name: str, recipient: str, query: str = "") -> tuple[int, bool]:
        """Status, and whether it is the answer to a request that came before."""
        body = {"from_email": "me@far.test", "to": recipient, "subject": name, "text": "t"}
        answer = self.post(f"/api/send{query}", body, Idempotency_Key=name)
        self.assertEqual(answer.json()["ok"], answer.status_code == 200)
        return answer.status_code, "Idempotent-Replayed" in answer.headers

    def again(self, name: str, recipient: str) -> int:
        """The status of the same request, whether its client would wait or not."""
        told = {self.send(name, recipient, query) for query in ("", "?wait=0")}
        self.assertEqual(len(told), 1, told)
        [(status, is_again)] = told
        self.assertTrue(is_again)
        return status

    def test_failed(self) -> None:
        """Whatever dies in between; and what was delivered is not delivered again."""
        self.assertEqual(self.send("bad", "x@nowhere.invalid"), (502, False))
        self.assertEqual(self.send("good", "p4@local.test"), (200, False))
        for _ in range(2):
            self.assertEqual(self.again("bad", "x@nowhere.invalid"), 502)
            self.assertEqual(self.again("good", "p4@local.test"), 200)
            self.service.kill()
            self.service.start()
        self.assertEqual(len(self.service.maildir("local.test", "p4")), 1)

    def test_waited_for(self) -> None:
        """By the first request, and by the same again, while the recipient's server thinks."""
        self.wait_for("taken", b"250 2.0.0 taken", 200)
        self.wait_for("refused", b"550 5.7.1 no", 502)

    def wait_for(self, name: str, final: bytes, status: int) -> None:
        recipient = f"{name}@slow.test"
        self.peer.final = final
        self.peer.goes_on.clear()
        with ThreadPoolExecutor(2) as pool:
            try:
                first = pool.submit(self.send, name, recipient)
                self.service.event("received", recipient=recipient)
                # For a moment its name is still being stored, which is a 409.
                until(lambda: self.send(name, recipient, "?wait=0") == (200, True), "its name")
                second = pool.submit(self.send, name, recipient)
                self.assertFalse(first.done() or second.done())
            finally:
                self.peer.goes_on.set()
            self.assertEqual(first.result(WAIT_S), (status, False))
            self.assertEqual(second.result(WAIT_S), (status, True))
        self.assertEqual(self.again(name, recipient), status)

    def test_failed_since(self) -> None:
        """What waits in the queue has not failed; once it has, nobody is told otherwise."""
        recipient = "later@slow.test"
        self.peer.final = b"450 4.2.1 not now"
        self.assertEqual(self.send("later", recipient), (200, False))
        self.assertEqual(self.again("later", recipient), 200)
        self.peer.final = b"550 5.7.1 no"
        self.service.event("bounced", recipient=recipient)
        self.assertEqual(self.again("later", recipient), 502)
