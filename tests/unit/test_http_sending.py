"""Tests of what the sending endpoints read, and of the templates that they fill in."""

from __future__ import annotations

import gzip
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import msgspec
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IRequest

from protege_mta.http import reference
from protege_mta.http.catalogue import ENDPOINTS
from protege_mta.http.credentials import BY_NETWORK
from protege_mta.http.openapi import document, page
from protege_mta.http.reading import (
    ReadLimits,
    Refused,
    body_of,
    octets_of,
    typed,
    value_of,
)
from protege_mta.message.compose import flaw_of_field
from protege_mta.message.templates import BadTemplate, template

ROOT = Path(__file__).parents[2]


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    numbers: list[int] = []


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner
    more: list[Inner] = []


class ReadingTests(SynchronousTestCase):
    def refused(self, octets: bytes, depth: int = 4) -> tuple[int, str]:
        limits = ReadLimits(depth=depth)
        with self.assertRaises(Refused) as told:
            typed(value_of(octets, limits), Outer)
        return told.exception.flaw.status, told.exception.flaw.member

    def test_member_at_fault(self) -> None:
        self.assertEqual(self.refused(b"{}"), (422, "/inner"))
        self.assertEqual(self.refused(b'{"inner":{"numbers":[1,"x"]}}'), (422, "/inner/numbers/1"))
        self.assertEqual(
            self.refused(b'{"inner":{},"more":[{},{"a/b~c":1}]}'), (422, "/more/1/a~1b~0c")
        )

    def test_not_json(self) -> None:
        for octets in (b"", b"{", b"\xff", b'{"inner":NaN}', b"[-1e999]", b"[" * 100_000):
            self.assertEqual(self.refused(octets), (400, ""))

    def test_duplicate_members(self) -> None:
        """Wherever they are: readers differ about which one counts."""
        self.assertEqual(self.refused(b'{"inner":{"numbers":[1],"numbers":[]}}'), (400, "/numbers"))

    def test_depth(self) -> None:
        self.assertEqual(value_of(b"[[[1]]]", ReadLimits(depth=3)), [[[1]]])
        with self.assertRaises(Refused):
            value_of(b"[[[1]]]", ReadLimits(depth=2))

    def test_half_a_character(self) -> None:
        """Wherever it is, in a name too; whole ones are as good in escapes as without."""
        for text in (rb'{"inner":{"\udfff":1}}', rb'{"inner":"\uD83D"}', rb'["\ude00\ud83d"]'):
            self.assertEqual(self.refused(text), (422, ""))
        self.assertEqual(value_of(rb'["\ud83d\uDE00", "\\ud83d"]', ReadLimits()), ["😀", r"\ud83d"])


class PackedTests(SynchronousTestCase):
    """Bodies with a Content-Encoding."""

    def read(self, octets: bytes, encoding: str, most: int = 1000) -> bytes:
        self.request = Packed(encoding, octets)
        return octets_of(cast(IRequest, self.request), ReadLimits(body_octets=most))

    def refused(self, octets: bytes, encoding: str, most: int = 1000) -> int:
        with self.assertRaises(Refused) as told:
            self.read(octets, encoding, most)
        status: int = told.exception.flaw.status
        return status

    def test_unpacked(self) -> None:
        self.assertEqual(self.read(gzip.compress(b"{}"), "GZIP"), b"{}")
        self.assertEqual(self.read(zlib.compress(b"{}"), "deflate"), b"{}")
        self.assertEqual(self.read(b"{}", "identity"), b"{}")

    def test_limit_is_for_what_comes_out(self) -> None:
        self.assertEqual(len(self.read(gzip.compress(b" " * 1000), "gzip")), 1000)
        self.assertEqual(self.refused(gzip.compress(b" " * 1001), "gzip"), 413)
        self.assertEqual(self.refused(gzip.compress(b" " * 10_000_000), "gzip"), 413)

    def test_damaged(self) -> None:
        whole = gzip.compress(b"{}")
        for octets in (b"", b"{}", whole[:-1], whole + b"x"):
            self.assertEqual(self.refused(octets, "gzip"), 400)

    def test_unknown(self) -> None:
        """The client is told which ones are known."""
        self.assertEqual(self.refused(b"{}", "br"), 415)
        self.assertEqual(self.request.told, {b"Accept-Encoding": b"gzip, deflate"})


class CharsetTests(SynchronousTestCase):
    """What a Content-Type says of the body's charset."""

    def test_utf_8_by_any_of_its_names(self) -> None:
        for kind in (
            "application/json",
            "application/json;charset=utf-8",
            'Application/JSON ; Charset="UTF-8"; x=y',
            "application/json; charset=utf8",
            "application/json; charset=us-ascii",
            'application/problem+json; x="a;charset=utf-16"',
        ):
            self.assertEqual(body_of(cast(IRequest, Said(kind)), ReadLimits()), b"{}", kind)

    def test_no_other_is_taken_for_it(self) -> None:
        for charset in ("iso-8859-1", '"UTF-16"', "utf-7", "none"):
            with self.assertRaises(Refused) as told:
                body_of(cast(IRequest, Said(f"application/json; charset={charset}")), ReadLimits())
            flaw = told.exception.flaw
            self.assertEqual((flaw.status, flaw.kind), (415, "not-utf-8"), charset)


class Said:
    """:ivar kind: what Content-Type says."""

    def __init__(self, kind: str) -> None:
        self.kind = kind.encode("ascii")
        self.content = BytesIO(b"{}")

    def getHeader(self, name: bytes) -> bytes | None:
        return self.kind if name == b"Content-Type" else None


class Packed:
    """:ivar told: the fields of the answer."""

    def __init__(self, encoding: str, octets: bytes) -> None:
        self.encoding = encoding.encode("ascii")
        self.content = BytesIO(octets)
        self.told: dict[bytes, bytes] = {}

    def getHeader(self, name: bytes) -> bytes:
        return self.encoding

    def setHeader(self, name: bytes, value: bytes) -> None:
        self.told[name] = value


class FieldTests(SynchronousTestCase):
    def test_structure_and_trace_are_ours(self) -> None:
        for name in (
            "Received",
            "from",
            "BCC",
            "Content-Type",
            "Return-Path",
            "ARC-Seal",
            "a b",
            "",
        ):
            self.assertTrue(flaw_of_field(name, "x"), name)

    def test_no_line_ends(self) -> None:
        for value in ("a\r\nb", "a\nb", "a\0", "a\x85b", "a\u2028b"):
            self.assertTrue(flaw_of_field("X-A", value))
        self.assertEqual(flaw_of_field("X-A", "tab\tand ü"), "")


class TemplateTests(SynchronousTestCase):
    def bad(self, text: str, **values: Any) -> None:
        with self.assertRaises(BadTemplate):
            template(text).rendered(values)

    def test_filled_in(self) -> None:
        text = "{{ name|upper }}{% for n in items if n %} {{ loop.index }}:{{ n }}{% endfor %}"
        self.assertEqual(template(text).rendered({"name": "a", "items": [0, 5]}), "A 1:5")
        self.assertEqual(template("{{ x }}", is_html=True).rendered({"x": "<"}), "&lt;")
        self.assertEqual(template("a{{ x }}", is_strict=False).rendered({}), "a")

    def test_python_is_out_of_reach(self) -> None:
        for text in (
            "{{ ''.__class__ }}",
            "{{ x.upper() }}",
            "{% import 'a' as b %}",
            "{% macro m() %}{% endmacro %}",
            "{% set x = 1 %}",
            "{{ _budget }}",
            "{{ nothing }}",
        ):
            self.bad(text, x="a")

    def test_work_is_bounded(self) -> None:
        many = list(range(2000))
        self.bad("{% for a in l %}{% for b in l %}{% for c in l %}{% endfor %}{% endfor %}{% endfor %}", l=many)  # fmt: skip
        self.bad("{{ 'a' * 1000000000 }}")
        self.bad("{{ 9 ** 9 ** 9 }}")
        self.bad("{{ x|replace('a', x) }}", x="a" * 10_000)
        self.bad("{{ l|join(x) }}", l=many, x="a" * 10_000)
        self.bad("{{ x ~ x ~ x }}", x="a" * 400_000)
        self.bad("{% for a in l %}{{ x }}{% endfor %}", l=many, x="a" * 100_000)
        self.bad("{{ " + "(" * 500 + "1" + ")" * 500 + " }}")
        self.bad("{{ x }}" * 5000, x="")


class DescriptionTests(SynchronousTestCase):
    def test_every_name_is_there(self) -> None:
        described = document(ENDPOINTS, version="1")
        text = msgspec.json.encode(described).decode("utf-8")
        for name in described["components"]["schemas"]:
            self.assertIn(f'"#/components/schemas/{name}"', text)
        paths = {(one.method.lower(), one.path) for one in ENDPOINTS}
        found = {(method, path) for path, some in described["paths"].items() for method in some}
        self.assertEqual(found, paths)
        self.assertIn("/v1/message", page(described))

    def test_who_needs_no_key(self) -> None:
        """What is said of a trusted network is what its clients are let in to."""
        described = document(ENDPOINTS, version="1")
        for one in ENDPOINTS:
            operation = described["paths"][one.path][one.method.lower()]
            ways = operation.get("security", [{}])
            is_open = one.scope is None or one.path.encode().startswith(BY_NETWORK)
            self.assertEqual({} in ways, is_open, one.path)
        for path in BY_NETWORK:
            self.assertTrue(any(one.path.encode().startswith(path) for one in ENDPOINTS))

    def test_both_ways_of_a_key(self) -> None:
        """Bearer, and Basic for programs that know nothing else, on both pages."""
        described = document(ENDPOINTS, version="1")
        for text in (page(described), reference.page()):
            self.assertIn("Bearer", text)
            self.assertIn("apikey", text)

    def test_reference_is_current(self) -> None:
        """``make docs`` was run."""
        self.assertEqual((ROOT / "docs/reference/http.md").read_text("utf-8"), reference.page())
