"""Whatever a project's files say, the answer is settings or complaints: never another error."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.config.gateway_json import glimpse, load
from protege_mta.config.model import Settings
from protege_mta.config.toml import ConfigError

from ..unit.console import run
from ..unit.projects import keys

_SCALARS = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        2525,
        -1,
        1e300,
        "",
        "dev",
        "localhost",
        "a.test",
        "x@a.test",
        "wss://relay.a.test/ws",
        "\ud800",
        "enforce",
        keys()[0].text,
    ]
)
_NAMES = st.sampled_from(
    [
        "mode",
        "host",
        "port",
        "mailDomain",
        "relay",
        "enabled",
        "relayWsUrl",
        "reconnectBaseDelayMs",
        "transport",
        "secure",
        "auth",
        "user",
        "pass",
        "gateway_auth",
        "gateway_access",
        "trusted_relays",
        "key_id",
        "public_key_pem",
        "public_key_path",
        "deny",
        "admin_contact_email",
        "emailLocalPart",
        "aliases",
        "label",
    ]
)
_VALUES = st.recursive(
    _SCALARS,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(_NAMES, each, max_size=6),
    max_leaves=12,
)
_DOCUMENTS = st.dictionaries(_NAMES, _VALUES, max_size=8)
_RELAYS = st.fixed_dictionaries(
    {"mailDomain": st.just("a.test"), "relay": _DOCUMENTS, "transport": _VALUES}
)


class ProjectTests(SynchronousTestCase):
    @given(_DOCUMENTS | _RELAYS, _DOCUMENTS, _DOCUMENTS)
    def test_any_project(
        self, gateway: dict[str, Any], security: dict[str, Any], persona: dict[str, Any]
    ) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            for path, document in (
                ("configs/gateway.json", gateway),
                ("configs/security.json", {"gateway_auth": security, "gateway_access": security}),
                ("configs/system.json", security),
                (f"personas/{keys()[0].id}/persona.json", persona),
            ):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(json.dumps(document), "utf-8")
            (folder / "personas" / keys()[0].id / "passport.key").write_text(keys()[0].pem)
            try:
                self.assertIsInstance(load(folder), Settings)
            except ConfigError as error:
                for complaint in error.complaints:
                    self.assertTrue(str(complaint).startswith(f"{folder}/"), complaint)
                    self.assertEqual(len(str(complaint).splitlines()), 1)
            self.assertEqual(glimpse(folder).state_dir, folder / ".protege-mta")
            ran = run("setup", "--relay-ws-url", "wss://relay.b.test/ws", "--path", name)
            self.assertIn(ran.code, (0, 78), ran.err)
