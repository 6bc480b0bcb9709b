"""What the parts go by, made of what the configuration says."""

from __future__ import annotations

from typing import Literal

from twisted.trial.unittest import SynchronousTestCase

from protege_mta import from_settings, relay_server
from protege_mta.config.model import Settings
from protege_mta.model.address import Address
from protege_mta.model.envelope import Envelope, Message, Origin, Recipient
from protege_mta.model.identity import Identity
from protege_mta.model.ids import QueueId
from protege_mta.policy.greylist import GreylistSettings
from protege_mta.policy.guessing import LoginSettings
from protege_mta.policy.limits import LimitSettings
from protege_mta.schedule.backoff import RetrySchedule
from protege_mta.schedule.bounces import Reporter
from protege_mta.spool.settings import SpoolSettings
from protege_mta.tunnel.limits import TunnelLimits


class DefaultsTests(SynchronousTestCase):
    def test_a_part_by_itself_does_as_the_configuration_would_have_it(self) -> None:
        """The defaults are the same, wherever they are written."""
        settings = Settings()
        for made, itself in (
            (from_settings.limits(settings), LimitSettings()),
            (from_settings.greylist(settings), GreylistSettings()),
            (from_settings.login(settings), LoginSettings()),
            (from_settings.retry(settings), RetrySchedule()),
            (from_settings.spool(settings), SpoolSettings()),
            (relay_server.tunnel_limits(settings), TunnelLimits()),
        ):
            self.assertEqual(made, itself)


class ReporterTests(SynchronousTestCase):
    """Whom a report is from, of mail that came by a tunnel."""

    def reporter(self, mode: Literal["local", "relay"], origin: Origin) -> Reporter | None:
        recipients = (Recipient(Address("one@other.test")), Recipient(Address("alias@home.test")))
        envelope = Envelope(Address("x@far.test"), recipients)
        message = Message(QueueId("0" * 26), envelope, origin, 0.0, 1)
        return from_settings.reporter(Settings(mode=mode), message, 1)

    def test_the_agent_at_the_domain_that_the_relay_knows(self) -> None:
        """A relay lets an agent be nobody but itself, in reports as well."""
        key = "a" * 51 + "q"
        self.assertEqual(
            self.reporter("relay", Origin("tunnel", key)),
            Reporter(Address(f"{key}@home.test"), Identity(key)),
        )

    def test_the_system_for_other_mail_and_at_a_relay_server(self) -> None:
        self.assertIsNone(self.reporter("relay", Origin("submission", "bo")))
        self.assertIsNone(self.reporter("local", Origin("tunnel", "a" * 51 + "q")))
