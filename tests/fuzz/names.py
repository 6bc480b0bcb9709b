"""What name servers, and those who pretend to be one, send us."""

from __future__ import annotations

import ipaddress
import random
from typing import Final

import dns.flags
import dns.rcode

from protege_mta.model.ports import Answer, Found, NoSuchName, NoSuchRecord, TryAgain
from protege_mta.testing.nameserver_script import ScriptedServers, reply
from protege_mta.transport.dns import DnsResolver
from protege_mta.transport.dns_messages import (
    Elsewhere,
    Kind,
    Question,
    Settled,
    ask,
    read,
    to_name,
    to_text,
)

from .target import Target, nothing_logged

KINDS: Final[tuple[Kind, ...]] = ("MX", "A", "AAAA", "TXT", "PTR", "TLSA")
SERVER: Final = ("192.0.2.1", 53)
SOA: Final = "test. 600 IN SOA ns.test. hostmaster.test. 1 3600 600 86400 60"


def _question(name: str, kind: Kind) -> Question:
    absolute = to_name(name)
    assert absolute is not None
    return ask(absolute, kind, 4711, trust_ad=False)


OURS: Final = {kind: _question("a.test", kind) for kind in KINDS}
OTHER: Final = {kind: _question("b.test", kind) for kind in KINDS}


def message(data: bytes) -> None:
    """One octet for the kind of record; then a response, whose id is made right."""
    if len(data) < 3:
        return
    kind = KINDS[data[0] % len(KINDS)]
    octets = OURS[kind].octets[:2] + data[3:]
    reading = read(octets, OURS[kind], trust_ad=False)
    is_ours = isinstance(reading, (Settled, Elsewhere))
    if isinstance(reading, Settled):
        assert 0 <= reading.ttl_s <= 2**31, reading
        assert reading.size_octets >= 0
        _looked_at(kind, reading.answer)
    if isinstance(reading, Elsewhere):
        assert to_name(to_text(reading.name)) == reading.name, reading
    if is_ours:
        theirs = read(octets, OTHER[kind], trust_ad=False)
        assert not isinstance(theirs, (Settled, Elsewhere)), "an answer to two questions"
    servers = ScriptedServers()
    servers.datagrams[SERVER] = lambda query: [query[:2] + octets[2:]]
    servers.streams[SERVER] = lambda query: [query[:2] + octets[2:]]
    with nothing_logged():
        resolver = DnsResolver(
            servers, [SERVER], rng=random.Random(1), open_socket=servers.open_socket
        )
        answers: list[Answer] = []
        resolver.lookup("a.test", kind).addCallback(answers.append)
        for _ in range(60):
            servers.deliver()
            if answers:
                break
            servers.advance(0.25)
    assert len(answers) == 1, "no answer within fifteen seconds"
    assert (servers.sockets, servers.getDelayedCalls()) == ({}, []), "something is left open"
    _looked_at(kind, answers[0])


def _looked_at(kind: Kind, answer: Answer) -> None:
    assert isinstance(answer, (Found, NoSuchName, NoSuchRecord, TryAgain)), answer
    if isinstance(answer, TryAgain):
        assert answer.cause
    if not isinstance(answer, Found):
        return
    assert answer.records, "found, and nothing is there"
    for record in answer.records:
        if kind == "MX":
            assert isinstance(record, tuple)
            preference, host = record
            assert 0 <= preference <= 65535
            assert host, "a host without a name"
            assert host.isascii(), host
            assert not set(host) & set("\r\n\0 "), host
        else:
            assert isinstance(record, str)
        if kind == "A":
            ipaddress.IPv4Address(record)
        elif kind == "AAAA":
            ipaddress.IPv6Address(record)


def _seed(kind: Kind, *answer: str, **more: object) -> bytes:
    number = bytes([KINDS.index(kind)])
    return number + reply(OURS[kind].octets, answer, **more)  # type: ignore[arg-type]


MESSAGE: Final = Target(
    "dns_message",
    message,
    [
        _seed("MX", "a.test. 300 IN MX 10 b.test.", "a.test. 300 IN MX 20 c.test."),
        _seed("MX", "a.test. 5 IN CNAME b.test.", "b.test. 300 IN MX 0 ."),
        _seed("A", "a.test. 5 IN A 192.0.2.9"),
        _seed("A", "a.test. 5 IN CNAME b.other."),
        _seed("AAAA", "a.test. 5 IN AAAA 2001:db8::9"),
        _seed("TXT", 'a.test. 5 IN TXT "v=DKIM1" "p="'),
        _seed("PTR", "a.test. 5 IN PTR b.test."),
        _seed("TLSA", "a.test. 5 IN TLSA 3 1 1 " + "00" * 32),
        _seed("MX", authority=[SOA], rcode=dns.rcode.NXDOMAIN),
        _seed("MX", authority=[SOA]),
        _seed("MX", flags=dns.flags.TC),
    ],
    (
        b"\xc0\x0c", b"\xc0\x00", b"\x00\x01\x00\x01", b"\x00\x0f", b"\x00\x05", b"\x00\x06", b"\xff\xff",
        b"\x00\x00\x29\x04\xd0", b"\x01a\x04test\x00", b"\x3f" + b"a" * 63, b"\x80\x00\x00\x00",
        b"\x07in valid", b"\x02\r\n",
    ),
)  # fmt: skip
