"""The tables about what is asked of clients, and how much is taken from them."""

from __future__ import annotations

from typing import Literal

import attrs

from .hosts import ANY_ANSWER, AnswerRange, Answers, HostName
from .kinds import SECONDS, SECONDS_ABOVE_0, Flag, ListOf, OneOf, Whole
from .schema import Table, Tables, key


@attrs.frozen(kw_only=True)
class Limits:
    """How much we take on, from everybody and from one."""

    message_octets: int = attrs.field(
        default=52_428_800,
        metadata=key(Whole(1, unit="octets"), "The largest message that is accepted."),
    )
    recipients: int = attrs.field(
        default=1000,
        metadata=key(
            Whole(1),
            "Recipients of one transaction; RFC 5321, 4.5.3.1.8, wants 100 at least.",
        ),
    )
    future_release_s: int = attrs.field(
        default=2_592_000,
        metadata=key(
            Whole(0, 999_999_999, unit="seconds"),
            "For how long at most a message is held when its sender asks for a later release "
            "(FUTURERELEASE, RFC 4865), on submission listeners; 0 = not offered.",
        ),
    )
    connections: int = attrs.field(
        default=2000, metadata=key(Whole(1), "SMTP connections at a time, all listeners together.")
    )
    connections_per_ip: int = attrs.field(
        default=50,
        metadata=key(
            Whole(0),
            "SMTP connections at a time from one IP address; 0 = unlimited. Here and below an IPv6 "
            "address stands for its /64.",
        ),
    )
    connections_per_ip_per_minute: int = attrs.field(
        default=0,
        metadata=key(Whole(0), "New SMTP connections a minute from one of them; 0 = unlimited."),
    )
    messages_per_ip_per_minute: int = attrs.field(
        default=0, metadata=key(Whole(0), "Messages a minute from one IP address; 0 = unlimited.")
    )
    recipients_per_ip_per_minute: int = attrs.field(
        default=0, metadata=key(Whole(0), "Likewise recipients, refused ones included.")
    )
    unknown_recipients: int = attrs.field(
        default=5,
        metadata=key(
            Whole(0),
            "So many recipients that do not exist are refused at once in a connection; each "
            "further one is after a delay that grows to 10 s, and after four times as many the "
            "connection is closed. 0 never delays. `relay_hosts` are exempt, here and below.",
        ),
    )
    offences_per_ip: int = attrs.field(
        default=5,
        metadata=key(
            Whole(0),
            "After so many connections that ended for too many errors, guessing at recipients or "
            "speaking before the greeting, an IP address is refused (421); 0 = never.",
        ),
    )
    shut_out_s: float = attrs.field(
        default=600.0,
        metadata=key(SECONDS_ABOVE_0, "How long it is, from its last offence on."),
    )
    free_octets: int = attrs.field(
        default=1_073_741_824,
        metadata=key(
            Whole(0, unit="octets"),
            "Mail is refused for the time being (452 4.3.1) rather than leave less free space on "
            "the spool's disk.",
        ),
    )
    free_inodes: int = attrs.field(default=10_000, metadata=key(Whole(0), "Likewise for inodes."))
    request_memory_s: float = attrs.field(
        default=691_200.0,
        metadata=key(
            SECONDS_ABOVE_0,
            "For how long it is remembered under which name a client handed in a message, so that "
            "the same again is taken once; at least while it is in the queue.",
        ),
    )
    pass_through_octets: int = attrs.field(
        default=268_435_456,
        metadata=key(
            Whole(0, unit="octets"),
            "Memory for mail that a tunnel with `store = false` passes through, all transactions "
            "together; 452 4.3.1 above it.",
        ),
    )


@attrs.frozen(kw_only=True)
class _DnsList:
    zone: str = attrs.field(metadata=key(HostName(), "Where the list is in the DNS."))
    answers: tuple[AnswerRange, ...] = attrs.field(
        default=(ANY_ANSWER,),
        metadata=key(
            ListOf(Answers(), "answers", least=1), "The answers of the list that mean a listing."
        ),
    )


@attrs.frozen(kw_only=True)
class DnsBlockList(_DnsList):
    """A list in the DNS of addresses that mail is not wanted from (RFC 5782); asked for each
    client that is not in `relay_hosts`. One that fails blocks nobody."""

    action: Literal["reject", "defer"] = attrs.field(
        default="reject",
        metadata=key(
            OneOf(("reject", "defer")),
            "RCPT is answered with 550 5.7.1 or with 450 4.7.1, and the zone's name.",
        ),
    )


@attrs.frozen(kw_only=True)
class DnsAllowList(_DnsList):
    """A list of addresses that are vouched for: no block list, HELO check or greylist counts for
    them."""


@attrs.frozen(kw_only=True)
class Greylist:
    """Recipients are refused for the time being (450 4.7.1) until the sender has come again. What
    it knows is in memory: after a restart some mail is late once more."""

    enabled: bool = attrs.field(default=False, metadata=key(Flag(), "Whether there is one."))
    delay_s: float = attrs.field(
        default=300.0,
        metadata=key(
            SECONDS,
            "How long after its first try a triplet of network (/24, /64), sender and recipient "
            "may come in.",
        ),
    )
    retry_s: float = attrs.field(
        default=172_800.0,
        metadata=key(SECONDS_ABOVE_0, "How long the first try is remembered."),
    )
    keep_s: float = attrs.field(
        default=3_024_000.0,
        metadata=key(SECONDS_ABOVE_0, "How long it may come at once, from the last time on."),
    )
    allow_after: int = attrs.field(
        default=5,
        metadata=key(
            Whole(0),
            "A network of which so many triplets have come again may send anything at once; "
            "0 = never.",
        ),
    )


@attrs.frozen(kw_only=True)
class Policy:
    """What is asked of clients of `smtp` listeners that are not in `relay_hosts`. All but
    `authenticate` is off by default."""

    authenticate: bool = attrs.field(
        default=True,
        metadata=key(
            Flag(),
            "Check SPF, DKIM and DMARC of their mail, once and before it is accepted, and write "
            "the results into `Authentication-Results`. What the DNS does not say within 10 seconds "
            "counts as unknown.",
        ),
    )
    helo: Literal["off", "syntax", "resolves"] = attrs.field(
        default="off",
        metadata=key(
            OneOf(("off", "syntax", "resolves")),
            "What the name in HELO or EHLO has to be: `syntax` wants an address literal or a host "
            "name with a dot (else 550 5.7.1), `resolves` one that is in the DNS too (else "
            "450 4.7.1).",
        ),
    )
    dnsbl: tuple[DnsBlockList, ...] = attrs.field(
        default=(), metadata=key(Tables(Table(DnsBlockList)))
    )
    allowlist: tuple[DnsAllowList, ...] = attrs.field(
        default=(), metadata=key(Tables(Table(DnsAllowList)))
    )
    greylist: Greylist = attrs.field(factory=Greylist, metadata=key(Table(Greylist)))


@attrs.frozen(kw_only=True)
class Login:
    """How failed logins of submission clients are answered.

    A place is an IPv4 address, or the /64 of an IPv6 one.
    """

    delay_s: float = attrs.field(
        default=1.0,
        metadata=key(
            SECONDS,
            "What the answer waits after one failure; each further one doubles it, up to 16 "
            "seconds. 0 = no waits.",
        ),
    )
    failures: int = attrs.field(
        default=10,
        metadata=key(
            Whole(1),
            "So many failures for one name at one place lock it there; three times as many for any "
            "names lock the place, but for names that have logged in from it before.",
        ),
    )
    window_s: float = attrs.field(
        default=600.0,
        metadata=key(SECONDS_ABOVE_0, "The time within which failures are counted."),
    )
    lock_s: float = attrs.field(
        default=900.0, metadata=key(SECONDS, "How long a lock lasts; 0 = no locks.")
    )
