"""Whatever the file says, the answer is settings or complaints: never another error."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.config.model import Settings
from protege_mta.config.toml import ConfigError, glimpse, load

FILES = Path(__file__).parents[1] / "badconfig/files"

_KEYS = st.sampled_from(
    [
        "mode",
        "hostname",
        "state_dir",
        "run_dir",
        "drain_s",
        "postmaster",
        "listener",
        "tls",
        "domains",
        "outbound",
        "dns",
        "dkim",
        "retry",
        "limits",
        "workers",
        "events",
        "name",
        "kind",
        "address",
        "port",
        "relay_hosts",
        "certificate",
        "private_key",
        "certificates",
        "client_ca_file",
        "hide_client",
        "min_version",
        "deliver",
        "maildir",
        "recipients",
        "lmtp",
        "route",
        "mx_port",
        "smarthost",
        "source_addresses",
        "prohibited_networks",
        "host",
        "username",
        "password_file",
        "ca_file",
        "nameservers",
        "trust_ad",
        "selectors",
        "first_s",
        "factor",
        "jitter",
        "message_octets",
        "count",
        "log",
        "local.test",
        "tunnel_server",
    ]
) | st.text(max_size=6)

_WORDS = st.sampled_from(
    [
        "local",
        "smtp",
        "http",
        "maildir",
        "lmtp",
        "mx",
        "smarthost",
        "127.0.0.1",
        "::1",
        "[::1]:25",
        "10.0.0.0/8",
        "unix:/x",
        "unix:",
        "mail/{local_part}",
        "{",
        "1.3",
        ".",
        "..",
        "",
        "*",
        str(FILES / "key.pem"),
        str(FILES / "cert.pem"),
        str(FILES / "ed25519.pem"),
        str(FILES / "garbage.pem"),
        str(FILES),
        "x" * 5000,
    ]
)
_PLAIN = st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | _WORDS
_VALUES = st.recursive(
    _PLAIN,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(_KEYS, below, max_size=4),
    max_leaves=12,
)
_DOCUMENTS = st.dictionaries(_KEYS, _VALUES, max_size=6)


def toml(value: Any) -> str:
    """A value as TOML writes it inline."""
    match value:
        case bool():
            return "true" if value else "false"
        case float() if math.isnan(value) or math.isinf(value):
            return str(value)
        case float():
            return repr(value) if "." in repr(value) else f"{value:e}"
        case int():
            return str(value)
        case str():
            return json.dumps(value, ensure_ascii=True).replace("\x7f", "\\u007f")
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"
    raise AssertionError(value)


class ConfigProperties(SynchronousTestCase):
    def answers(self, octets: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "c.toml"
            path.write_bytes(octets)
            for read in (load, glimpse):
                try:
                    self.assertIsInstance(read(path), Settings)
                except ConfigError as error:
                    self.assertTrue(error.complaints)
                    for complaint in error.complaints:
                        self.assertLess(len(str(complaint)), 1000)
                        self.assertEqual(len(str(complaint).splitlines()), 1)

    @settings(max_examples=300, deadline=None)
    @given(document=_DOCUMENTS)
    def test_any_document(self, document: dict[str, Any]) -> None:
        text = "".join(f"{toml(key)} = {toml(value)}\n" for key, value in document.items())
        self.answers(text.encode("utf-8", "surrogatepass"))

    @settings(max_examples=100, deadline=None)
    @given(octets=st.binary(max_size=60))
    def test_any_octets(self, octets: bytes) -> None:
        self.answers(octets)
