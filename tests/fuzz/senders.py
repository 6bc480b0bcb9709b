"""What strangers say of who they are: headers, signatures, keys, SPF and DMARC records."""

from __future__ import annotations

import re
import time
from typing import Final, get_args

from protege_mta.dkim.sign import sign
from protege_mta.dkim.verify import SIGNATURES, Claim, bodies, claims, judged
from protege_mta.message.authres import ResInfo, field, without_foreign
from protege_mta.message.headers import is_well_formed
from protege_mta.message.repair import split
from protege_mta.model.address import Address
from protege_mta.model.ports import Answer, Found, NoSuchName
from protege_mta.model.verdicts import Result
from protege_mta.policy.authentication import dmarc
from protege_mta.policy.authentication.spf import LOOKUPS, Needed, Question, evaluate, identity
from protege_mta.spool.content import MemoryOctets
from tests.unit.test_dkim_verify import PLAIN, RECORDS, RSA

from .target import Target

AT: Final = 1_700_000_000
OURS: Final = "mx.local.test"
LONG_S: Final = 2.0
"""No input, however it is made, is to take longer than this."""

_NAME: Final = re.compile(r"[a-z0-9_.-]*")


def message(data: bytes) -> None:
    """Two octets say how long the key record is that everybody gets; then a message."""
    if len(data) < 2:
        return
    began = time.process_time()
    length = int.from_bytes(data[:2], "big") % 512
    record, octets = data[2 : 2 + length].decode("utf-8", "replace"), data[2 + length :]
    fields, body = split(octets)
    found = claims(fields, AT)
    assert len(found) <= SIGNATURES, "too many are looked at"
    content = MemoryOctets((fields, b"\r\n", body))
    hashed = bodies(content, len(fields) + 2, found)
    outcomes = []
    for one in found:
        if isinstance(one, Claim):
            assert _NAME.fullmatch(one.key_name), one
            one = judged(one, hashed[one.form], Found((record,)))
        assert one.result in get_args(Result), one
        assert _NAME.fullmatch(one.domain) and _NAME.fullmatch(one.selector), one  # noqa: PT018
        assert (one.result == "pass") == (not one.reason), one
        names = (("header.d", one.domain), ("header.s", one.selector), ("header.b", one.prefix))
        outcomes.append(ResInfo("dkim", one.result, one.reason, names))
    ours = field(OURS, outcomes)
    assert ours.isascii() and is_well_formed(ours), ours  # noqa: PT018
    assert all(_NAME.fullmatch(domain) for domain in dmarc.author_domains(fields))
    kept = without_foreign(fields, OURS)
    assert without_foreign(kept, OURS) == kept, "something was left"
    assert without_foreign(ours + fields, OURS) == kept, "our own name is not known"
    assert time.process_time() - began < LONG_S, "that took long"


def record(data: bytes) -> None:
    """Lines of records, one name each: SPF records of a.test, b.test and so on, DMARC all of them."""
    began = time.process_time()
    lines = data.decode("utf-8", "replace").split("\n")[:8]
    answers: dict[Question, Answer] = {}
    who = identity(Address("local-part@a.test"), "helo.test")
    for _ in range(LOOKUPS):
        result = evaluate("192.0.2.1", who, answers)
        if not isinstance(result, Needed):
            assert result in get_args(Result), result
            break
        name, kind = result.question
        number = ord(name[0]) - ord("a") if name[:1].isascii() else 99
        is_there = kind == "TXT" and 0 <= number < len(lines)
        answers[result.question] = Found((lines[number],)) if is_there else NoSuchName()
    policy = dmarc.read(lines)
    if policy is not None:
        assert 0 <= policy.percent <= 100, policy
        assert {policy.wish, policy.subdomains_wish} <= set(dmarc.WISHES), policy
    assert time.process_time() - began < LONG_S, "that took long"


_KEY: Final = next(iter(RECORDS.values())).encode()


def _seed(octets: bytes, key: bytes = _KEY) -> bytes:
    return len(key).to_bytes(2, "big") + key + octets


MESSAGE: Final = Target(
    "sender_message",
    message,
    [
        _seed(sign(PLAIN, [RSA], AT) + PLAIN),
        _seed(PLAIN, b""),
        _seed(b"Authentication-Results: mx.local.test 1; spf=pass\r\n" + PLAIN, b"v=DKIM1; p="),
        _seed(b"From: a@b.test, (c@d.test) e <f@g.test>\r\nX-Protege-Quarantine: no\r\n\r\n"),
    ],
    (
        b"DKIM-Signature: ", b"; l=", b"; x=", b"c=simple/simple", b"c=relaxed/simple", b"h=from:from:to",
        b"a=ed25519-sha256", b"k=ed25519", b"\r\n ", b"\r\n\t", b"t=s", b"i=@", b"=?utf-8?q?",
        b"Authentication-Results:", b"MX.local.test", b"(", b")", b'"', b"From: ",
    ),
)  # fmt: skip

RECORD: Final = Target(
    "sender_record",
    record,
    [
        b"v=spf1 include:b.test mx a:c.test ip4:192.0.2.0/24 -all\nv=spf1 redirect=%{d2}.d.test",
        b"v=spf1 exists:%{ir}.%{v}._spf.%{d} exists:%{l1r+-}.%{o} ?all exp=e.test",
        b"v=spf1 ip6:2001:db8::/32 ptr:b.test ~all",
        b"v=DMARC1; p=reject; sp=none; pct=20; adkim=s; rua=mailto:a@b.test",
    ],
    (b"%{", b"%%", b"/32//128", b"include:", b"redirect=", b"ip4:", b"%{p}", b"v=spf1 ", b"v=DMARC1; p="),
)  # fmt: skip
