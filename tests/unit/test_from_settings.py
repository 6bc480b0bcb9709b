"""What the parts go by, made of what the configuration says."""

from __future__ import annotations

from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.trial.unittest import SynchronousTestCase

from protege_mta import from_settings, relay_server
from protege_mta.config.domains import MaildirDomain
from protege_mta.config.model import Settings
from protege_mta.model.address import Address
from protege_mta.model.envelope import Envelope, Message, Origin, Recipient
from protege_mta.model.identity import Identity, identity_of
from protege_mta.model.ids import QueueId
from protege_mta.policy.greylist import GreylistSettings
from protege_mta.policy.guessing import LoginSettings
from protege_mta.policy.limits import LimitSettings
from protege_mta.schedule.backoff import RetrySchedule
from protege_mta.schedule.bounces import Reporter
from protege_mta.spool.settings import SpoolSettings
from protege_mta.tunnel.limits import TunnelLimits
from protege_mta.tunnel.passports import Passport, Passports


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
    """Whom a report is from."""

    def reporter(
        self,
        mode: Literal["local", "relay"],
        origin: Origin,
        sender: str = "x@far.test",
        passports: Passports | None = None,
    ) -> Reporter | None:
        recipients = (Recipient(Address("one@other.test")), Recipient(Address("alias@home.test")))
        envelope = Envelope(Address(sender), recipients)
        message = Message(QueueId("0" * 26), envelope, origin, 0.0, 1)
        settings = Settings(
            mode=mode,
            domains={
                "Jürgen.test": MaildirDomain(maildir="m", recipients=("*",)),
                "shared.test": MaildirDomain(maildir="m", recipients=("bo",), shared=True),
            },
        )
        return from_settings.reporter(settings, lambda: passports or Passports({}), message, 1)

    def test_the_agent_at_the_domain_that_the_relay_knows(self) -> None:
        """A relay lets an agent be nobody but itself, in reports as well."""
        key = "a" * 51 + "q"
        self.assertEqual(
            self.reporter("relay", Origin("tunnel", key)),
            Reporter(Address(f"{key}@home.test"), Identity(key)),
        )

    def test_the_agent_whose_session_other_mail_takes(self) -> None:
        """At the first of our domains: its own for its aliases, the first one for everybody else."""
        ann, ben = (Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32) for seed in (1, 2))
        a, b = (identity_of(key.public_key().public_bytes_raw()) for key in (ann, ben))
        keys = Passports(
            {a: Passport(a, "ann", ann), b: Passport(b, "ben", ben, ("ben@shop.test",))}
        )
        for sender, identity in (
            ("x@far.test", a),
            ("al@shared.test", a),
            ("ben@shop.test", b),
            (f"{b}@other.test", b),
        ):
            self.assertEqual(
                self.reporter("relay", Origin("submission", "bo"), sender, keys),
                Reporter(Address(f"{identity}@xn--jrgen-kva.test"), identity),
            )
            self.assertIsNone(self.reporter("local", Origin("submission", "bo"), sender, keys))
        for sender in ("x@xn--jrgen-kva.test", "bo@shared.test", f"{b}@jürgen.test"):
            self.assertIsNone(self.reporter("relay", Origin("submission", "bo"), sender, keys))

    def test_the_system_where_there_is_no_agent_and_at_a_relay_server(self) -> None:
        self.assertIsNone(self.reporter("relay", Origin("submission", "bo")))
        self.assertIsNone(self.reporter("local", Origin("tunnel", "a" * 51 + "q")))
