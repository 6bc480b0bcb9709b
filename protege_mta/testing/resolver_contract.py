"""What every :class:`~protege_mta.model.ports.Resolver` must answer, shown on one zone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..model.ports import Answer, Found, NoSuchName, NoSuchRecord, Resolver, TryAgain
from ..transport.dns_messages import Kind

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as _TestCase
else:
    _TestCase = object

ORIGIN: Final = "test."

ZONE: Final = """\
$ORIGIN test.
$TTL 300
@               SOA     ns hostmaster 1 3600 600 86400 60
@               NS      ns
ns              A       127.0.0.1

; an ordinary domain: equal preferences in the middle, the first host dead
several         MX      10 dead.several
                MX      20 a.several
                MX      20 b.several
                MX      30 C.several
dead.several    A       127.0.0.9
a.several       A       127.0.0.10
                AAAA    ::1
b.several       A       127.0.0.11
c.several       A       127.0.0.12

null            MX      0 .
implicit        A       127.0.0.13
only-ipv6       AAAA    2001:db8::25
alias           CNAME   several
aliased-host    MX      10 alias-of-a
alias-of-a      CNAME   a.several
dangling        MX      10 nowhere
dangling-alias  CNAME   nowhere
alias-no-mx     CNAME   b.several
loop-1          CNAME   loop-2
loop-2          CNAME   loop-1
outside         CNAME   host.refused.example.
below.empty     A       127.0.0.14
long-text       TXT     ( "v=DKIM1; p="
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
                "ccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc" )
many-text       TXT     "first"
                TXT     "second"
xn--bcher-kva   MX      10 a.several
1.reverse       PTR     A.several
_25._tcp.a.several TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
""" + "".join(
    f"big MX {number} host-{number:03}.of-a-rather-long-name.big\n" for number in range(200)
)
"""Zone ``test.``; the answer for ``big`` fits in no datagram."""


class ResolverContract(_TestCase):
    """Mix into a ``TestCase`` whose ``setUp`` makes :attr:`resolver` answer from :data:`ZONE`."""

    resolver: Resolver

    async def answer(self, name: str, kind: Kind) -> Answer:
        return await self.resolver.lookup(name, kind)

    async def records(self, name: str, kind: Kind) -> list[Any]:
        answer = await self.answer(name, kind)
        assert isinstance(answer, Found), answer
        records: list[Any] = list(answer.records)
        return sorted(records)

    async def test_mx_set(self) -> None:
        """Preferences and lower-case host names without a final dot, the root being a dot."""
        self.assertEqual(
            await self.records("several.test", "MX"),
            [
                (10, "dead.several.test"),
                (20, "a.several.test"),
                (20, "b.several.test"),
                (30, "c.several.test"),
            ],
        )
        self.assertEqual(await self.records("null.test", "MX"), [(0, ".")])

    async def test_addresses(self) -> None:
        self.assertEqual(await self.records("a.several.test", "A"), ["127.0.0.10"])
        self.assertEqual(await self.records("a.several.test", "AAAA"), ["::1"])
        self.assertEqual(await self.records("only-ipv6.test", "AAAA"), ["2001:db8::25"])

    async def test_other_types(self) -> None:
        self.assertEqual(await self.records("1.reverse.test", "PTR"), ["a.several.test"])
        self.assertEqual(
            await self.records("_25._tcp.a.several.test", "TLSA"),
            ["3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"],
        )

    async def test_strings_of_one_text_are_joined(self) -> None:
        """And several texts are several (RFC 7208, 3.3; RFC 6376, 3.6.2.2)."""
        self.assertEqual(
            await self.records("long-text.test", "TXT"),
            ["v=DKIM1; p=" + "a" * 95 + "b" * 95 + "c" * 95],
        )
        self.assertEqual(await self.records("many-text.test", "TXT"), ["first", "second"])

    async def test_answer_too_big_for_a_datagram(self) -> None:
        found = await self.records("big.test", "MX")
        self.assertEqual(len(found), 200)
        self.assertEqual(found[199], (199, "host-199.of-a-rather-long-name.big.test"))

    async def test_name_that_does_not_exist(self) -> None:
        self.assertEqual(await self.answer("nowhere.test", "MX"), NoSuchName())
        self.assertEqual(await self.answer("dangling-alias.test", "A"), NoSuchName())

    async def test_name_without_such_records(self) -> None:
        """It has others, or stands above one that has (RFC 8020)."""
        self.assertEqual(await self.answer("implicit.test", "MX"), NoSuchRecord())
        self.assertEqual(await self.answer("alias-no-mx.test", "MX"), NoSuchRecord())
        self.assertEqual(await self.answer("empty.test", "MX"), NoSuchRecord())

    async def test_aliases_are_followed(self) -> None:
        self.assertEqual(len(await self.records("alias.test", "MX")), 4)
        self.assertEqual(await self.records("alias-of-a.test", "A"), ["127.0.0.10"])

    async def test_alias_loop(self) -> None:
        self.assertIsInstance(await self.answer("loop-1.test", "A"), TryAgain)

    async def test_refused_is_not_absent(self) -> None:
        """A server that will not answer has said nothing about the name."""
        self.assertIsInstance(await self.answer("host.refused.example", "A"), TryAgain)
        self.assertIsInstance(await self.answer("outside.test", "A"), TryAgain)

    async def test_spelling_of_names(self) -> None:
        """Case, a final dot and U-labels make no difference (RFC 4343; RFC 5891)."""
        for name in ("SEVERAL.Test", "several.test."):
            self.assertEqual(len(await self.records(name, "MX")), 4)
        for name in ("bücher.test", "BÜCHER.test", "XN--BCHER-kva.test"):
            self.assertEqual(await self.records(name, "MX"), [(10, "a.several.test")])

    async def test_names_that_cannot_be(self) -> None:
        for name in ("", "a..test", "x" * 64 + ".test", "\u00ad.test", ".".join(["x" * 60] * 5)):
            self.assertEqual(await self.answer(name, "MX"), NoSuchName(), name)
