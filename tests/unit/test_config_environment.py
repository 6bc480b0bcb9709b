"""Tests of what the environment says of settings."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.config.embedded import embedded
from protege_mta.config.environment import data_folder, log_level, with_environment
from protege_mta.config.listeners import HttpListener
from protege_mta.config.model import Settings
from protege_mta.config.toml import ConfigError


class EnvironmentTests(SynchronousTestCase):
    """The names that TS Pro Relay has."""

    def setUp(self) -> None:
        self.settings = embedded(Path("/srv/data"))

    def refused(self, name: str, value: str) -> str:
        with self.assertRaises(ConfigError) as told:
            with_environment(self.settings, {name: value})
        return str(told.exception)

    def proxies(self, settings: Settings) -> list[object]:
        return [one.trusted_proxies for one in settings.listeners if isinstance(one, HttpListener)]

    def test_nothing_is_said(self) -> None:
        for environment in ({}, {"RELAY_SEND_PER_HOUR": "", "RELAY_TRUSTED_PROXIES": ""}):
            self.assertEqual(with_environment(self.settings, environment), self.settings)
        self.assertEqual(self.settings.api.send_per_hour, 60)

    def test_limit(self) -> None:
        for value, most in (("0", 0), ("120", 120), (" 5 ", 5)):
            found = with_environment(self.settings, {"RELAY_SEND_PER_HOUR": value})
            self.assertEqual(found.api.send_per_hour, most)
        for value in ("-1", "many", "1.5"):
            self.assertEqual(
                self.refused("RELAY_SEND_PER_HOUR", value),
                f"$RELAY_SEND_PER_HOUR: wanted a whole number, 0 or more, got {value!r}",
            )

    def test_proxies(self) -> None:
        said = {"RELAY_TRUSTED_PROXIES": "192.0.2.1, 2001:db8::/32,"}
        self.assertEqual(
            self.proxies(with_environment(self.settings, said)),
            [(ip_network("192.0.2.1/32"), ip_network("2001:db8::/32"))],
        )
        self.assertIn("$RELAY_TRUSTED_PROXIES: wanted", self.refused("RELAY_TRUSTED_PROXIES", "x"))

    def test_folder(self) -> None:
        self.assertEqual(data_folder({}), Path("protege-mta-data"))
        self.assertEqual(data_folder({"RELAY_DATA_DIR": "/data"}), Path("/data"))

    def test_log_level(self) -> None:
        for value, level in (("", "info"), ("WARNING", "warn"), ("Debug", "debug")):
            self.assertEqual(log_level({"RELAY_LOG_LEVEL": value}), level)
        with self.assertRaises(ConfigError):
            log_level({"RELAY_LOG_LEVEL": "loud"})
