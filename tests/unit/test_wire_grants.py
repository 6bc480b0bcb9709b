"""What MAIL may ask for beyond what is offered to everybody."""

from __future__ import annotations

from typing import Any, Final

import attrs
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import NULL
from protege_mta.model.envelope import Envelope
from protege_mta.model.reply import TABLE, Reply
from protege_mta.wire.grants import granted
from protege_mta.wire.settings import ServerSettings

NOW: Final = 1_700_000_042.5
SUBMISSION: Final = ServerSettings("mx.test", is_submission=True, future_release_s=3600)
MX: Final = ServerSettings("mx.test", future_release_s=3600)


def ask(settings: ServerSettings = SUBMISSION, **wanted: Any) -> Envelope | Reply:
    has_tls = wanted.pop("has_tls", True)
    is_encrypted = wanted.pop("is_encrypted", True)
    envelope = Envelope(NULL, (), **wanted)
    return granted(envelope, settings, has_tls=has_tls, is_encrypted=is_encrypted, now=lambda: NOW)


class GrantTests(SynchronousTestCase):
    def test_a_release_within_the_limit_is_the_time_that_was_asked_for(self) -> None:
        found = ask(future_release="for;3600")
        self.assertIsInstance(found, Envelope)
        self.assertEqual(attrs.asdict(found)["hold_until"], NOW + 3600)

    def test_a_release_out_of_the_limits_is_refused(self) -> None:
        self.assertEqual(ask(future_release="for;3601"), TABLE["release-too-late"])
        self.assertEqual(ask(future_release="for;0"), TABLE["release-passed"])

    def test_a_release_is_chosen_in_submission_alone(self) -> None:
        self.assertEqual(ask(MX, future_release="for;60"), TABLE["unknown-parameter"])

    def test_requiretls_is_for_an_encrypted_channel(self) -> None:
        self.assertIsInstance(ask(requires_tls=True), Envelope)
        self.assertEqual(ask(requires_tls=True, is_encrypted=False), TABLE["requiretls-in-clear"])
        self.assertEqual(
            ask(requires_tls=True, is_encrypted=False, has_tls=False), TABLE["unknown-parameter"]
        )
