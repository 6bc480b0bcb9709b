"""What comes back to signed return paths, and to addresses named for reports: read, matched to what was sent, told, and handed on to
the original's sender (RFC 3464; RFC 5965).

Everything that is done here may be done again after a crash: an event told twice has one id, an
entry of the suppression list takes its own place, and a report may reach the sender twice, as any
mail may whose delivery was not written down yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from ..message.report import REPORT_OCTETS, Complaint, Notification, Status, read
from ..model.address import NULL, Address, domain_of
from ..model.batch import Batch
from ..model.envelope import Envelope, Origin, Recipient
from ..model.ids import QueueId
from ..model.outcome import Contact, Delivered, Outcome, Scope, TransientFailure
from ..model.ports import Arrival, Attempt, Content, Events, SpoolFailed, SpoolFull, StateFailed
from ..model.reply import TABLE, Reply
from ..model.return_path import Returned, Sent
from ..model.suppression import of_address
from .suppression import Suppression

_CHUNK_OCTETS: Final = 262_144
_COMPLAINTS: Final = frozenset(("abuse", "fraud", "opt-out", "opt-out-list", "complaint"))
"""What those say who want no more mail; ``not-spam`` and reports of failed authentication do not."""

_TAKEN: Final = Delivered(Contact("returns"), TABLE["delivered"], is_final=True)
_LATER: Final = TransientFailure(Scope.MESSAGE, TABLE["local-error"])

Forward = Callable[[Envelope, Origin], Arrival | Reply]
"""Opens the way into the queue for a report on its way to the original's sender."""


class ReturnsTransport:
    """A :class:`~..model.ports.Transport` for what is addressed to signed return paths.

    :param returned: what an address says that is a return path of ours, good or not any more; None
        for any other, which is one for reports.
    :param find: what is kept of a message; None where nothing is.
    :param commit: makes event lines durable.
    :param has_mailbox: whether mail for an address at a domain of ours would be taken, and not come
        here again.
    """

    log = Logger()

    def __init__(
        self,
        returned: Callable[[Address], Returned | None],
        *,
        find: Callable[[QueueId], Sent | None],
        events: Events,
        commit: Callable[[Batch], Deferred[None]],
        suppression: Suppression,
        forward: Forward,
        has_mailbox: Callable[[Address], bool],
    ) -> None:
        self._returned = returned
        self._find = find
        self._events = events
        self._commit = commit
        self._suppression = suppression
        self._forward = forward
        self._has_mailbox = has_mailbox

    def deliver(self, attempt: Attempt) -> Deferred[Sequence[tuple[int, Outcome]]]:
        return Deferred.fromCoroutine(self._deliver(attempt))

    def close(self) -> Deferred[None]:
        return succeed(None)

    async def _deliver(self, attempt: Attempt) -> Sequence[tuple[int, Outcome]]:
        content, outcomes = attempt.content, list[tuple[int, Outcome]]()
        for index in attempt.recipients:
            address = content.message.envelope.recipients[index].address
            try:
                outcomes.append((index, await self._take(content, address)))
            except (StateFailed, SpoolFull, SpoolFailed) as error:
                self.log.error("a report has to wait: {error}", error=error)
                outcomes.append((index, _LATER))
        return outcomes

    async def _take(self, content: Content, address: Address) -> Outcome:
        returned = self._returned(address)
        report = read(content.read(0, REPORT_OCTETS))
        if isinstance(report, Complaint):
            # The original's own return path tells more than the one that all reports come to.
            named = (self._returned(path) for path in report.return_paths)
            returned = next((one for one in named if one is not None), returned)
        if returned is None:  # what anybody could have written, a Message-ID too, proves nothing
            return await self._hand_on(content, Sent(content.message.id), domain_of(address))
        sent = self._find(returned.id) or Sent(returned.id)
        match report:
            case Notification():
                await self._notified(content, sent, returned, report)
            case Complaint():
                await self._complained(content, sent, returned, report)
        return await self._hand_on(content, sent, domain_of(address))

    # --- what it means ---------------------------------------------------------------------------

    async def _notified(
        self, content: Content, sent: Sent, returned: Returned, report: Notification
    ) -> None:
        lines: dict[int, bytes] = {}  # one for each, since its id has the recipient and the report
        for status in report.statuses:
            index, address = _about(sent, returned, status, is_alone=len(report.statuses) == 1)
            if not address or index in lines:
                continue
            # Only what is known to have been sent under this return path is suppressed: a report is
            # the words of anybody who has got the message.
            if status.action == "failed" and sent.recipients[index : index + 1] == (address,):
                learning = self._suppression.hard_bounce(
                    address, sent.tenant, status.reply, sent.id
                )
                if learning is not None:
                    await learning
            lines[index] = self._events.returned(
                sent,
                index,
                address,
                status.action,
                status.reply,
                report=content.message.id,
                reporting_mta=report.reporting_mta,
            )
        if lines:
            await self._commit(Batch((), tuple(lines.values())))

    async def _complained(
        self, content: Content, sent: Sent, returned: Returned, report: Complaint
    ) -> None:
        index = returned.recipient
        if index is None or index >= len(sent.recipients):
            known = {of_address(one): n for n, one in reversed(list(enumerate(sent.recipients)))}
            named = [
                known[of_address(one)] for one in report.recipients if of_address(one) in known
            ]
            index = named[0] if named else 0 if len(sent.recipients) == 1 else None
        address = NULL
        if index is not None and index < len(sent.recipients):
            address = sent.recipients[index]
        elif report.recipients and not sent.recipients:
            address = report.recipients[0]
        if report.kind in _COMPLAINTS and address in sent.recipients:
            await self._suppression.complained(address, sent.tenant, sent.id)
        line = self._events.feedback(
            sent,
            index or 0,
            address,
            report.kind,
            report=content.message.id,
            user_agent=report.user_agent,
        )
        await self._commit(Batch((), (line,)))

    # --- to the sender ---------------------------------------------------------------------------

    async def _hand_on(self, content: Content, sent: Sent, domain: str) -> Outcome:
        """Whoever sent the original has the report, whatever it is, where there is a mailbox."""
        to = sent.sender or Address(f"postmaster@{domain}")
        if not self._has_mailbox(to):
            return _TAKEN
        message = content.message
        envelope = attrs.evolve(message.envelope, sender=NULL, recipients=(Recipient(to),))
        arriving = self._forward(envelope, Origin("internal", tenant=sent.tenant))
        if isinstance(arriving, Reply):
            return TransientFailure(Scope.MESSAGE, arriving)
        for offset in range(0, content.size_octets, _CHUNK_OCTETS):
            waiting = arriving.write(content.read(offset, _CHUNK_OCTETS))
            if waiting is not None:
                await waiting
        reply = await arriving.finish()
        if reply.code < 300 or reply.code >= 500:  # a loop is not to be tried again
            return _TAKEN
        return TransientFailure(Scope.MESSAGE, reply)


def _about(
    sent: Sent, returned: Returned, status: Status, *, is_alone: bool
) -> tuple[int, Address]:
    """Which recipient of the original, and its address.

    The address is empty where nobody knows, and for whom the original did not go to: whatever a
    report says of others may be made up.
    """
    named = [one for one in (status.original, status.recipient) if one is not None]
    known = {
        of_address(one): n
        for n, one in reversed(list(enumerate(sent.recipients)))
        if returned.recipient in (None, n)
    }
    for one in named:
        index = known.get(of_address(one))
        if index is not None:
            return index, sent.recipients[index]
    if is_alone:
        # Forwarded: the report names whom the recipient's mail goes on to.
        only = 0 if len(sent.recipients) == 1 else None
        index = returned.recipient if returned.recipient is not None else only
        if index is not None and index < len(sent.recipients):
            return index, sent.recipients[index]
    return returned.recipient or 0, named[0] if named and not sent.recipients else NULL
