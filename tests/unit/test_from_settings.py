"""What the parts go by, made of what the configuration says."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from protege_mta import from_settings, relay_server
from protege_mta.config.model import Settings
from protege_mta.policy.greylist import GreylistSettings
from protege_mta.policy.guessing import LoginSettings
from protege_mta.policy.limits import LimitSettings
from protege_mta.schedule.backoff import RetrySchedule
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
