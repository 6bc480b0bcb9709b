"""The checks of one message, in the right order and within their time.

What takes the processor long goes to threads; what waits for the network waits here, and no longer
than :data:`DEADLINE_S` in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...dkim import verify as dkim
from ...message.authres import ResInfo, field
from ...message.repair import HeaderReader
from ...model.address import Address
from ...model.ports import (
    Answer,
    Authentication,
    Found,
    InThread,
    NoSuchName,
    NoSuchRecord,
    Octets,
    Peer,
    Resolver,
    TryAgain,
)
from ...model.verdicts import Result, Verdicts
from ..header_first import HEADER_OCTETS
from . import dmarc, spf
from .names import Lane, Names

DEADLINE_S: Final = 10.0
"""What the DNS has not said by then counts as not to be found out for now.  Clients wait ten
minutes for the answer to their data (RFC 5321, 4.5.3.2.6), and impatient ones half of one."""

MOST: Final = 500
"""So many messages are checked at a time; others are taken as if the DNS did not answer."""

LOOKUPS: Final = 100
"""Lookups at a time: strangers choose what they are about, and routing needs some as well."""


@attrs.frozen
class _Read:
    """What a message says of itself.

    :ivar authors: the domains in From, each with its organisational domain.
    :ivar claims: its signatures.  :ivar bodies: what they are to match.
    """

    authors: Sequence[tuple[str, str]]
    claims: Sequence[dkim.Claim | dkim.Finding]
    bodies: dict[dkim.Form, dkim.Body]


class SenderChecks:
    """:class:`~...model.ports.Authenticator` over one resolver.

    :param clock: for the deadline.
    :param now: POSIX seconds, for signatures that expire.
    :param chance: a number from 0 to 1, for policies that want a part of the mail only.
    :param organisation: gives a domain's organisational domain; called in threads.
    :param counted: told of each result, by method.
    :param skipped: told of each message that there was no room to check.
    :param most: messages that are checked at a time.
    :ivar hostname: our authserv-id; replaced when the configuration is read again.
    """

    log = Logger()

    def __init__(
        self,
        resolver: Resolver,
        *,
        hostname: str,
        clock: IReactorTime,
        now: Callable[[], float],
        chance: Callable[[], float],
        in_thread: InThread,
        organisation: Callable[[str], str],
        counted: Callable[[Verdicts], None],
        skipped: Callable[[], None],
        most: int = MOST,
    ) -> None:
        self.hostname = hostname
        self._clock = clock
        self._now = now
        self._chance = chance
        self._in_thread = in_thread
        self._organisation = organisation
        self._counted = counted
        self._skipped = skipped
        self._lane = Lane(resolver, LOOKUPS)
        self._most = most
        self._under_way = 0

    def check(self, peer: Peer, sender: Address, octets: Octets) -> Deferred[Authentication]:
        if self._under_way >= self._most:
            self._skipped()
            return succeed(self._unknown())
        self._under_way += 1
        work = Deferred.fromCoroutine(self._check(peer, sender, octets))
        return work.addErrback(self._failed).addBoth(self._done)

    def _failed(self, failure: Failure) -> Authentication:
        self.log.failure("a message's sender could not be checked", failure)
        return self._unknown()

    def _done(self, found: Authentication) -> Authentication:
        self._under_way -= 1
        self._counted(found.verdicts)
        return found

    def _unknown(self) -> Authentication:
        results = [ResInfo(method, "temperror") for method in ("spf", "dkim", "dmarc")]
        verdicts = Verdicts("temperror", "temperror", "temperror")
        return Authentication(verdicts, field(self.hostname, results))

    async def _check(self, peer: Peer, sender: Address, octets: Octets) -> Authentication:
        names = Names(self._lane, self._clock, DEADLINE_S)
        try:
            who = spf.identity(sender, peer.helo)
            if who.domain:
                names.ask((who.domain, "TXT"))
            read = await self._in_thread(
                partial(_read, octets, self._now(), self._organisation, names.is_late)
            )
            if read is None:
                self._skipped()
                return self._unknown()
            for one in read.claims:
                if isinstance(one, dkim.Claim):
                    names.ask((one.key_name, "TXT"))
            for author in read.authors[: dmarc.AUTHORS]:
                for domain in author:
                    names.ask((f"_dmarc.{domain}", "TXT"))
            spf_result = await self._spf(peer.address, who, names)
            findings = await self._dkim(read, names)
            evidence = dmarc.Evidence(
                spf_result, who.domain, [(one.result, one.domain) for one in findings]
            )
            ruling = await self._ruling(read, evidence, names)
        finally:
            names.close()
        results = [_spf_info(spf_result, sender, who)]
        results += [_dkim_info(one) for one in findings] or [ResInfo("dkim", "none")]
        results.append(_dmarc_info(ruling))
        verdicts = Verdicts(spf_result, dkim.best(findings), ruling.result)
        return Authentication(verdicts, field(self.hostname, results), ruling.wish)

    async def _spf(self, peer_address: str, who: spf.SpfIdentity, names: Names) -> Result:
        if who.domain:
            await names.get((who.domain, "TXT"))
        for _ in range(spf.LOOKUPS):
            work = partial(spf.evaluate, peer_address, who, names.known)
            found = await self._in_thread(work)
            if not isinstance(found, spf.Needed):
                return found
            await names.get(found.question)
        return "permerror"

    async def _dkim(self, read: _Read, names: Names) -> list[dkim.Finding]:
        answers = [
            await names.get((one.key_name, "TXT")) if isinstance(one, dkim.Claim) else None
            for one in read.claims
        ]
        if not any(answers):
            return [one for one in read.claims if isinstance(one, dkim.Finding)]
        return await self._in_thread(partial(_judged, read, answers))

    async def _ruling(self, read: _Read, evidence: dmarc.Evidence, names: Names) -> dmarc.Ruling:
        if len(read.authors) > dmarc.AUTHORS:
            return dmarc.TOO_MANY
        return dmarc.together(
            [await self._dmarc(*author, evidence, names) for author in read.authors]
        )

    async def _dmarc(
        self, author: str, organisation: str, evidence: dmarc.Evidence, names: Names
    ) -> dmarc.Ruling:
        """Find the policy of the domain or its organisation, and go by it (RFC 7489, 6.6.3)."""
        for domain in dict.fromkeys((author, organisation)):
            answer = await names.get((f"_dmarc.{domain}", "TXT"))
            match answer:
                case TryAgain():
                    return dmarc.Ruling("temperror", author, reason="no answer about the policy")
                case Found(records=records):
                    record = dmarc.read(one for one in records if isinstance(one, str))
                case NoSuchName() | NoSuchRecord():
                    record = None
            if record is not None:
                return dmarc.ruled(
                    author,
                    record,
                    is_subdomain=domain != author,
                    evidence=evidence,
                    organisation=self._organisation,
                    chance=self._chance(),
                )
        return dmarc.Ruling("none", author)


# --- in threads ----------------------------------------------------------------------------------


def _read(
    octets: Octets,
    now: float,
    organisation: Callable[[str], str],
    is_late: Callable[[], bool],
) -> _Read | None:
    """None where others kept the threads busy until time was up."""
    if is_late():
        return None
    head = octets.read(0, HEADER_OCTETS)
    reader = HeaderReader(HEADER_OCTETS)
    parts = reader.feed(head)
    if parts is None:
        if octets.size_octets > len(head):
            return _Read([], [dkim.Finding("permerror", reason="header section is too long")], {})
        parts = reader.end()
    fields, body = parts
    claims = dkim.claims(fields, now)
    bodies = dkim.bodies(octets, len(head) - len(body), claims)
    domains = dmarc.author_domains(fields)[: dmarc.AUTHORS + 1]
    authors = [(domain, organisation(domain)) for domain in domains]
    return _Read(authors, claims, bodies)


def _judged(read: _Read, answers: Sequence[Answer | None]) -> list[dkim.Finding]:
    found = []
    for one, answer in zip(read.claims, answers, strict=True):
        if isinstance(one, dkim.Finding):
            found.append(one)
        elif answer is not None:
            found.append(dkim.judged(one, read.bodies[one.form], answer))
    return found


# --- words ---------------------------------------------------------------------------------------


def _spf_info(result: Result, sender: Address, who: spf.SpfIdentity) -> ResInfo:
    if who.is_helo:
        return ResInfo("spf", result, "", (("smtp.helo", who.helo),))
    # The field is US-ASCII, and a local-part that wants quotes tells little.
    shown = sender if sender.isascii() and '"' not in sender else who.domain
    return ResInfo("spf", result, "", (("smtp.mailfrom", shown),))


def _dkim_info(one: dkim.Finding) -> ResInfo:
    properties = (("header.d", one.domain), ("header.s", one.selector), ("header.b", one.prefix))
    return ResInfo("dkim", one.result, one.reason, properties)


def _dmarc_info(ruling: dmarc.Ruling) -> ResInfo:
    wish = ruling.wish if ruling.result == "fail" else ""
    properties = (("policy.dmarc", wish), ("header.from", ruling.domain))
    return ResInfo("dmarc", ruling.result, ruling.reason, properties)
