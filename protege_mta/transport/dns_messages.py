"""DNS messages: the question to ask, and what a response says of it (RFC 1035, RFC 2308, RFC 6891).

Octets in, values out; no socket, no clock.  Whatever a server sends, :func:`read` returns.
"""

from __future__ import annotations

from typing import Final, Literal

import attrs
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.rrset

from ..model.ports import Found, NoSuchName, NoSuchRecord, RecordKind

Kind = RecordKind

EDNS_OCTETS: Final = 1232
"""The UDP payload we offer to take: what passes every path unfragmented (DNS flag day 2020)."""

CHAIN_LIMIT: Final = 10
"""How many CNAMEs are followed for one question."""


@attrs.frozen
class Question:
    """A query as it goes out.

    :ivar octets: the message on the wire.
    """

    message: dns.message.QueryMessage
    name: dns.name.Name
    kind: Kind
    octets: bytes


@attrs.frozen
class Settled:
    """The question is answered.

    :ivar ttl_s: how long that holds; 0 where it must not be kept.
    :ivar size_octets: roughly what keeping it costs.
    """

    answer: Found | NoSuchName | NoSuchRecord
    ttl_s: int
    size_octets: int


@attrs.frozen
class Elsewhere:
    """A CNAME whose target the server has not looked up for us; ask again for that.

    :ivar links: how many CNAMEs led there.
    """

    name: dns.name.Name
    ttl_s: int
    is_authentic: bool
    links: int


@attrs.frozen
class Truncated:
    """The whole answer is to be had by TCP."""


@attrs.frozen
class Useless:
    """This server cannot or will not answer; another may.

    :ivar cause: for the log and the queue.
    :ivar reason: ``silent`` is worth another try, ``edns`` one without the EDNS record (RFC 6891,
        section 7).
    """

    cause: str
    reason: Literal["silent", "edns", "other"] = "other"


Reading = Settled | Elsewhere | Truncated | Useless


def to_name(text: str) -> dns.name.Name | None:
    """The absolute name for what a person or a message wrote, in lower case; U-labels become
    A-labels (RFC 5891).  None where no such name can be in the DNS."""
    if not text:
        return None
    try:
        return dns.name.from_text(
            text, dns.name.root, idna_codec=dns.name.IDNA_2008_Practical
        ).canonicalize()
    except (dns.exception.DNSException, ValueError):  # idna's own errors are ValueErrors
        return None


def to_text(name: dns.name.Name) -> str:
    """A name as :class:`~protege_mta.model.ports.Found` has it: lower case, no final dot; the root
    alone is ``.``."""
    return name.canonicalize().to_text(omit_final_dot=True)


def ask(
    name: dns.name.Name, kind: Kind, id: int, *, trust_ad: bool, has_edns: bool = True
) -> Question:
    """A recursive query.

    :param id: 0 to 65535, not to be guessed (RFC 5452, 9.2).
    :param trust_ad: ask the server whether the answer is authentic (RFC 6840, 5.7).
    """
    message = dns.message.make_query(
        name,
        kind,
        use_edns=0 if has_edns else None,
        payload=EDNS_OCTETS if has_edns else None,
        id=id,
        flags=dns.flags.RD | (dns.flags.AD if trust_ad else 0),
    )
    return Question(message, name, kind, message.to_wire())


def read(octets: bytes, question: Question, *, trust_ad: bool) -> Reading | None:
    """What a response says, or None where it is no response to ``question``: forged, broken, or
    late (RFC 5452, section 3)."""
    # The id is compared first: a flood of forgeries is not worth parsing.
    if len(octets) < 12 or octets[:2] != question.octets[:2]:
        return None
    try:
        response = dns.message.from_wire(octets, ignore_trailing=True)
    except Exception:
        # Whatever a hostile message makes the parser stumble over, it is no answer.
        if octets[2] & 0x82 == 0x82 and _echoes(octets, question):
            return Truncated()  # cut in the middle of a record
        return None
    if not question.message.is_response(response):
        return None
    rcode = response.rcode()
    if response.flags & dns.flags.TC:
        return Truncated()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        is_edns_fault = rcode in (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS)
        return Useless(dns.rcode.to_text(rcode), "edns" if is_edns_fault else "other")
    return _read_answer(response, question, len(octets), trust_ad)


def _echoes(octets: bytes, question: Question) -> bool:
    """Whether the question section is ours, byte for byte but for case."""
    ours = question.message.question[0].name.to_wire() or b""
    return octets[12 : 12 + len(ours)].lower() == ours.lower()


def _read_answer(
    response: dns.message.Message, question: Question, size_octets: int, trust_ad: bool
) -> Reading:
    is_authentic = trust_ad and bool(response.flags & dns.flags.AD)
    wanted = dns.rdatatype.from_text(question.kind)
    name, ttl_s, links, seen = question.name, 2**31, 0, {question.name}
    while True:
        found = _records(response, name, wanted)
        if found is not None:
            answer = Found(records(found, question.kind), is_authentic)
            return Settled(answer, min(ttl_s, found.ttl), size_octets)
        alias = _records(response, name, dns.rdatatype.CNAME)
        if alias is None:
            break
        name, ttl_s, links = alias[0].target.canonicalize(), min(ttl_s, alias.ttl), links + 1
        if name in seen or links > CHAIN_LIMIT:
            return Useless("CNAME loop")
        seen.add(name)
    authority = {rrset.rdtype: rrset for rrset in response.authority}
    soa = authority.get(dns.rdatatype.SOA)
    # A negative answer without an SOA is not to be kept (RFC 2308, section 5).
    negative_ttl_s = min(ttl_s, soa.ttl, soa[0].minimum) if soa else 0
    if response.rcode() == dns.rcode.NXDOMAIN:  # of the chain's end (RFC 6604, section 3)
        return Settled(NoSuchName(), negative_ttl_s, 0)
    if soa is not None and name.is_subdomain(soa.name):
        return Settled(NoSuchRecord(), negative_ttl_s, 0)
    if links:
        return Elsewhere(name, ttl_s, is_authentic, links)
    if dns.rdatatype.NS in authority and not response.flags & dns.flags.AA:
        return Useless("referral instead of an answer")
    return Settled(NoSuchRecord(), negative_ttl_s, 0)


def _records(
    response: dns.message.Message, name: dns.name.Name, rdtype: dns.rdatatype.RdataType
) -> dns.rrset.RRset | None:
    rrset = response.get_rrset(response.answer, name, dns.rdataclass.IN, rdtype)
    return rrset or None


def records(
    rdataset: dns.rdataset.Rdataset, kind: Kind
) -> tuple[tuple[int, str], ...] | tuple[str, ...]:
    """Records as :class:`~protege_mta.model.ports.Found` has them."""
    if kind == "MX":
        return tuple((item.preference, to_text(item.exchange)) for item in rdataset)
    if kind == "TXT":
        return tuple(b"".join(item.strings).decode("utf-8", "replace") for item in rdataset)
    if kind == "PTR":
        return tuple(to_text(item.target) for item in rdataset)
    return tuple(item.to_text() for item in rdataset)
