"""SPF with answers at hand: the public test suite of RFC 7208, and what strangers may try."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import NULL, Address
from protege_mta.model.ports import (
    Answer,
    Found,
    NoSuchName,
    NoSuchRecord,
    RecordKind,
    TryAgain,
)
from protege_mta.model.verdicts import Result
from protege_mta.policy.authentication.spf import (
    LOOKUPS,
    Needed,
    Question,
    evaluate,
    identity,
)

SUITE: Final = Path(__file__).parents[1] / "corpora/spf/rfc7208.json"
"""The test suite of openspf.org, release 2014.04, in JSON; its licence lies beside it."""


class Zone:
    """Answers from the suite's records: names to ``[type, value]`` pairs."""

    def __init__(self, records: dict[str, list[list[Any]]]) -> None:
        self._records = records

    def answer(self, name: str, kind: RecordKind, links: int = 0) -> Answer:
        rows = self._records.get(name.lower())
        if rows is None:
            return TryAgain("timeout") if name.startswith("error.") else NoSuchName()
        found: list[Any] = []
        for type, value in rows:
            if value == "TIMEOUT" and type == kind:
                return TryAgain("timeout")
            if type == "TIMEOUT":
                return TryAgain("timeout") if not found else Found(tuple(found))
            if type == "CNAME" and links < 10:
                return self.answer(value, kind, links + 1)
            if type == kind:
                found.append(tuple(value) if kind == "MX" else value)
        return Found(tuple(found)) if found else NoSuchRecord()


def checked(
    zone: Zone, host: str, mailfrom: str, helo: str
) -> tuple[Result, dict[Question, Answer]]:
    """The result, and what was asked for it."""
    answers: dict[Question, Answer] = {}
    who = identity(Address(mailfrom), helo)
    for _ in range(LOOKUPS):
        found = evaluate(host, who, answers)
        if not isinstance(found, Needed):
            return found, answers
        answers[found.question] = zone.answer(*found.question)
    raise AssertionError("too many lookups")


class SuiteTests(SynchronousTestCase):
    def test_suite(self) -> None:
        """Every test of every scenario."""
        wrong = []
        count = 0
        for scenario in json.loads(SUITE.read_text("utf-8")):
            zone = Zone(scenario["zone"])
            for name, test in scenario["tests"].items():
                result, _ = checked(zone, test["host"], test["mailfrom"], test["helo"])
                count += 1
                if result not in test["result"]:
                    wrong.append((name, result, test["result"]))
        self.assertEqual(wrong, [])
        self.assertGreater(count, 150)


class IdentityTests(SynchronousTestCase):
    def test_null_reverse_path(self) -> None:
        """HELO's name stands in (RFC 7208, 2.4)."""
        who = identity(NULL, "MX.example.org")
        self.assertEqual((who.domain, who.sender, who.is_helo), ("mx.example.org", "postmaster@mx.example.org", True))  # fmt: skip

    def test_no_domain(self) -> None:
        """Nothing is asked about what is no domain (RFC 7208, 4.3)."""
        for sender, helo in (
            (NULL, "[192.0.2.1]"),
            (NULL, "localhost"),
            (NULL, ""),
            (Address("a@[192.0.2.1]"), "mx.example.org"),
            (Address("a@localhost"), "mx.example.org"),
        ):
            who = identity(sender, helo)
            self.assertEqual(who.domain, "")
            self.assertEqual(evaluate("192.0.2.1", who, {}), "none")

    def test_beyond_ascii(self) -> None:
        """The DNS is asked about A-labels."""
        who = identity(Address("jürgen@bücher.example"), "mx.example.org")
        self.assertEqual(who.domain, "xn--bcher-kva.example")


class HostileTests(SynchronousTestCase):
    def result(self, record: str, host: str = "192.0.2.1") -> str:
        return checked(Zone({"a.example": [["TXT", record]]}), host, "x@a.example", "h.example")[0]

    def test_a_record_without_end(self) -> None:
        self.assertEqual(self.result("v=spf1 " + "ip4:192.0.2.1 " * 400), "permerror")

    def test_long_text_that_is_no_record(self) -> None:
        self.assertEqual(self.result("x" * 60_000), "none")

    def test_an_address_behind_ipv6(self) -> None:
        self.assertEqual(self.result("v=spf1 ip4:192.0.2.1 -all", "::ffff:192.0.2.1"), "pass")

    def test_no_explanation_is_fetched(self) -> None:
        zone = Zone({"a.example": [["TXT", "v=spf1 -all exp=why.a.example"]]})
        result, asked = checked(zone, "192.0.2.1", "x@a.example", "h.example")
        self.assertEqual((result, list(asked)), ("fail", [("a.example", "TXT")]))

    def test_pointers_that_nobody_has(self) -> None:
        """A name server that does not answer about addresses is no reason to wait (5.5)."""

        class Broken(Zone):
            def answer(self, name: str, kind: RecordKind, links: int = 0) -> Answer:
                return TryAgain("SERVFAIL") if kind == "PTR" else super().answer(name, kind)

        zone = Broken({"a.example": [["TXT", "v=spf1 ptr -all"]]})
        self.assertEqual(checked(zone, "192.0.2.1", "x@a.example", "h.example")[0], "fail")
