"""How what ``POST /v1/message`` takes becomes messages for the queue.

No I/O: a request, who asks and the time go in, messages or flaws come out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import attrs
import msgspec

from ..message import compose, trace
from ..message.compose import Draft, Mailbox
from ..model.address import Address
from ..model.caller import Caller, Flaw
from ..model.ids import QueueId
from .filling import filled
from .mailroom import Outgoing
from .members import (
    attachments_of,
    fields_of,
    mailbox_of,
    mailboxes_of,
    pointer_to,
    subject_of,
    tags_of,
    time_of,
)
from .new_message import Correspondent, NewMessage, Unsubscribe
from .outgoing import Common, MessageLimits, outgoing
from .reading import Refused, pointer, unfit

PAST_S: Final = 300.0
"""A clock that is so much slow does no harm to ``send_at``."""


UnsubscribeUrl = Callable[[QueueId, Address, str], str]
"""The one-click URL of a message, its recipient and tenant; empty where there is none."""


@attrs.frozen(kw_only=True)
class Writer:
    """Makes messages of requests.

    :ivar limits: asked each time, since a reload may change them.
    :ivar now: POSIX seconds.
    :ivar hostname: ours, for message ids.
    """

    limits: Callable[[], MessageLimits]
    now: Callable[[], float]
    hostname: Callable[[], str]
    unsubscribe_url: UnsubscribeUrl = lambda id, address, tenant: ""

    def written(
        self, wanted: NewMessage, caller: Caller, new_id: Callable[[], QueueId], at: str = ""
    ) -> Iterator[tuple[Address, Outgoing | Flaw]]:
        """The messages that a request is for, each made when it is asked for, with its first
        recipient; a flaw where a template cannot be filled in for one.

        :param at: where the message is in the request, as a JSON pointer.
        :raise Refused:
        """
        limits = self.limits()
        author = mailbox_of(wanted.from_, at + "/from")
        to = list(mailboxes_of(wanted.to, at + "/to"))
        cc = list(mailboxes_of(wanted.cc, at + "/cc"))
        bcc = list(mailboxes_of(wanted.bcc, at + "/bcc"))
        everybody = [*to, *cc, *bcc]
        if not everybody:
            raise unfit("no-recipient", "there is no recipient", at + "/to")
        is_template = wanted.template == "jinja"
        if is_template and (cc or bcc):
            raise unfit(
                "bad-member",
                "a template makes a message for each recipient, and has no Cc and Bcc",
                at + ("/cc" if cc else "/bcc"),
            )
        if len(everybody) > limits.recipients:
            raise unfit(
                "too-many-recipients",
                f"a message has {limits.recipients} recipients at most",
                at + "/to",
            )
        sharing = self._common(wanted, caller, author, at, limits)
        if not is_template:
            if any(isinstance(one, Correspondent) and one.substitutions for one in wanted.to):
                raise unfit(
                    "bad-member",
                    "substitutions are for templates",
                    at + "/to",
                    'set "template" to "jinja"',
                )
            one = self._one(wanted, sharing, new_id(), (to, cc, bcc), at)
            yield everybody[0].address, one
            return
        for index, mailbox in enumerate(to):
            try:
                filled = _filled(wanted, index, mailbox, at)
                copy = self._one(filled, sharing, new_id(), ([mailbox], [], []), at, index)
            except Refused as refused:
                yield mailbox.address, refused.flaw
            else:
                yield mailbox.address, copy

    def _common(
        self, wanted: NewMessage, caller: Caller, author: Mailbox, at: str, limits: MessageLimits
    ) -> Common:
        """What is the same for each message of a request."""
        reply_to = wanted.reply_to
        if reply_to is None:
            reply_to = []
        elif not isinstance(reply_to, list):
            reply_to = [reply_to]
        named = {name.lower(): value for name, value in wanted.headers.items()}
        tenant = caller.tenant if wanted.tenant is None else wanted.tenant
        if tenant != caller.tenant and "admin" not in caller.scopes:
            raise Refused(
                Flaw(
                    403,
                    "tenant-not-allowed",
                    "this key may not send for this tenant",
                    at + "/tenant",
                    "leave the member out, or use a key of the tenant's",
                )
            )
        campaign = wanted.campaign or named.get("x-campaign", "").strip()
        for text, member in ((tenant, "/tenant"), (campaign, "/campaign")):
            if compose.flaw_of_text(text):
                raise unfit("bad-member", f"this text {compose.flaw_of_text(text)}", at + member)
        hold_until = 0.0
        if wanted.send_at is not None:
            hold_until = self._release_at(wanted.send_at, at + "/send_at", limits)
        return Common(
            author=author,
            reply_to=tuple(mailboxes_of(reply_to, at + "/reply_to")),
            attachments=attachments_of(wanted.attachments, at + "/attachments", limits),
            tenant=tenant,
            campaign=campaign[:200],
            tags=tags_of(wanted.tags, at),
            is_urgent=wanted.priority == "high"
            or named.get("x-type", "").strip().lower() == "transactional",
            hold_until=hold_until,
            limits=limits,
        )

    def _release_at(self, text: str, member: str, limits: MessageLimits) -> float:
        at = time_of(text)
        if at is None:
            raise unfit(
                "bad-member", "this is no time as RFC 3339 has it", member, "2026-12-01T09:00:00Z"
            )
        now = self.now()
        if at < now - PAST_S:
            raise unfit("bad-member", "this time has passed", member)
        if at > now + limits.future_release_s:
            raise unfit(
                "bad-member",
                "this is further off than messages are held",
                member,
                f"{int(limits.future_release_s)} s ahead at most",
            )
        return at if at > now else 0.0

    def _one(
        self,
        wanted: NewMessage,
        shared: Common,
        id: QueueId,
        who: tuple[Sequence[Mailbox], Sequence[Mailbox], Sequence[Mailbox]],
        at: str,
        index: int = 0,
    ) -> Outgoing:
        to, cc, bcc = who
        addresses = [one.address for one in (*to, *cc, *bcc)]
        draft = Draft(
            author=shared.author,
            to=tuple(to),
            cc=tuple(cc),
            reply_to=shared.reply_to,
            subject=subject_of(wanted.subject, at),
            text=wanted.text,
            html=wanted.html,
            attachments=shared.attachments,
            fields=self._fields(wanted, id, addresses, shared, at),
            date=trace.date(int(self.now())),
            message_id=f"<{id}@{self.hostname()}>",
            seed=id,
        )
        members = [
            pointer_to(at, name, index + number)
            for name, some in zip(("to", "cc", "bcc"), who, strict=True)
            for number in range(len(some))
        ]
        return outgoing(
            draft,
            addresses,
            id=id,
            members=tuple(members),
            from_member=at + "/from",
            shared=shared,
            at=at,
        )

    def _fields(
        self, wanted: NewMessage, id: QueueId, to: Sequence[Address], shared: Common, at: str
    ) -> tuple[tuple[str, str], ...]:
        given = tuple(fields_of(wanted.headers, at + "/headers"))
        names = {name.lower(): name for name, _ in given}
        made: list[tuple[str, str]] = []
        if shared.tags:
            made.append(("X-Tags", ", ".join(shared.tags)))
        if wanted.campaign and "x-campaign" not in names:
            made.append(("X-Campaign", wanted.campaign))
        if wanted.unsubscribe is not None:
            made += self._unsubscribe(
                wanted.unsubscribe, id, to, shared.tenant, at + "/unsubscribe"
            )
        for name, _ in made:
            if name.lower() in names:  # mail programs take no List-Unsubscribe that is there twice
                raise unfit(
                    "bad-header",
                    "this field is made of another member of the request",
                    at + pointer("headers", names[name.lower()]),
                    "leave one of the two out",
                )
        return (*given, *made)

    def _unsubscribe(
        self, wanted: Unsubscribe, id: QueueId, to: Sequence[Address], tenant: str, at: str
    ) -> tuple[tuple[str, str], ...]:
        url = wanted.url
        if wanted.one_click and not url:
            if len(to) != 1:
                raise unfit(
                    "bad-member",
                    "a link that unsubscribes is for one recipient",
                    at + "/one_click",
                    "send each recipient a message of its own",
                )
            url = self.unsubscribe_url(id, to[0], tenant)
            if not url.lower().startswith("https://"):
                raise unfit(
                    "bad-member",
                    "this server has no https address of its own for links",
                    at + "/one_click",
                    "name a URL, or have [api] public_url set to one with https",
                )
        elif wanted.one_click and not url.lower().startswith("https://"):
            raise unfit("bad-member", "one click needs an https URL", at + "/url")
        places = []
        for text, member, start in ((wanted.mailto, "/mailto", "mailto:"), (url, "/url", "http")):
            if not text:
                continue
            if not text.lower().startswith(start) or not compose.is_unsubscribe_place(text):
                raise unfit("bad-member", "this is no such URI", at + member)
            places.append(text)
        if not places:
            raise unfit("missing-member", "there is nowhere to unsubscribe", at + "/url")
        return compose.unsubscribe_fields(places, is_one_click=wanted.one_click)


def _filled(wanted: NewMessage, index: int, mailbox: Mailbox, at: str) -> NewMessage:
    """The message for one recipient."""
    given = wanted.to[index]
    own = given.substitutions if isinstance(given, Correspondent) else {}
    values = {"email": mailbox.address, "name": mailbox.name, **wanted.substitutions, **own}
    return msgspec.structs.replace(
        wanted,
        subject=filled(wanted.subject, values, at + "/subject"),
        text=None if wanted.text is None else filled(wanted.text, values, at + "/text"),
        html=None
        if wanted.html is None
        else filled(wanted.html, values, at + "/html", is_html=True),
        headers={
            name: filled(value, values, at + pointer("headers", name))
            for name, value in wanted.headers.items()
        },
    )
