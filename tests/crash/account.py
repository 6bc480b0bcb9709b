"""Every 250 accounted for: what was sent, what a sink took, and what the event log tells."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any, Final

import attrs

from .load import Sent

FINAL: Final = frozenset({"delivered", "relayed", "bounced", "expired", "suppressed", "removed"})
LATE_S: Final = 1.0
"""A delivery is synced 50 ms after it at most, and what does that may have to wait for a processor
and a disk that others are busy with."""

LAG_S: Final = 0.5
"""What the kernel has of a message that was cut by a kill, the sink may take after it."""

Line = dict[str, Any]
Stall = tuple[float, float]
"""Its beginning and its end, POSIX seconds."""


@attrs.define
class Account:
    """Figures, and what is wrong.

    :ivar promised: messages for which there was a 250.
    :ivar unpromised: those that were begun, and cut before it.
    :ivar deliveries: to a recipient each.
    :ivar cut_duplicates: deliveries that the sink had taken before and could not say so.
    :ivar kill_duplicates: deliveries that were repeated since the service was killed.
    :ivar latest_s: the longest time between such a delivery and the kill.
    """

    promised: int = 0
    unpromised: int = 0
    deliveries: int = 0
    bounces: int = 0
    cut_duplicates: int = 0
    kill_duplicates: int = 0
    latest_s: float = 0.0
    faults: list[str] = attrs.field(factory=list)

    def __str__(self) -> str:
        return (
            f"{self.promised} messages got their 250, {self.unpromised} were cut before it; "
            f"{self.deliveries} deliveries, {self.bounces} bounces; "
            f"duplicates: {self.cut_duplicates} by cuts after the final dot, "
            f"{self.kill_duplicates} by kills within {self.latest_s:.2f} s; {len(self.faults)} faults"
        )


def settle(
    sent: Mapping[str, Sent],
    taken: Sequence[Line],
    events: Sequence[Line],
    kills: Sequence[float],
    stalls: Sequence[Stall] = (),
) -> Account:
    """Compare.

    :param taken: the sink's record.
    :param events: the whole event log.
    :param kills: when the service was killed, POSIX seconds.
    :param stalls: when the sink did not run; what it had just taken it said afterwards.
    """
    account = Account()
    account.promised = sum(one.is_promised for one in sent.values())
    account.unpromised = len(sent) - account.promised
    fates = _fates(account, sent, events)
    reached, bounces = _deliveries(account, sent, taken, kills, stalls)
    for key, one in sent.items():
        ends = fates.get(key, {})
        if one.is_promised:
            _promise(account, key, one, ends, bounces.get(one.sender, set()))
        for recipient, fate in ends.items():
            if fate["event"] == "delivered" and (key, recipient) not in reached:
                account.faults.append(f"{key} never reached {recipient}: {fate}")
    return account


def lines_of(path: Path) -> list[Line]:
    """A file of JSON lines."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def _fates(
    account: Account, sent: Mapping[str, Sent], events: Sequence[Line]
) -> dict[str, dict[str, Line]]:
    """Each recipient's final event, by key; unique ids, one message a key, one fate a recipient."""
    faults = account.faults
    for id, count in Counter(event["id"] for event in events).items():
        if count > 1:
            faults.append(f"{count} events have the id {id}")
    told: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for event in events:
        if event["event"] != "rejected":
            told[event["message_id"], event["id"].split(".")[1]].append(event)
    fates: dict[str, dict[str, Line]] = defaultdict(dict)
    queued: dict[str, str] = {}
    for (id, _), story in told.items():
        ends = [event for event in story if event["event"] in FINAL]
        if len(ends) != 1:
            faults.append(f"{len(ends)} fates of {story[0]['recipient']} of {id}: {story}")
            continue
        if story[0]["event"] != "received":
            faults.append(f"the story of {id} begins with {story[0]}")
        transitions = [int(event["id"].split(".")[2]) for event in story]
        if transitions != sorted(transitions):
            faults.append(f"transitions of {id} are told out of order: {transitions}")
        if story[0]["source"] == "internal":
            continue
        key = story[0]["sender"].partition("@")[0]
        if key not in sent:
            faults.append(f"{id} was never sent")
        if queued.setdefault(key, id) != id:
            faults.append(f"{key} was accepted twice, as {queued[key]} and {id}")
        fates[key][ends[0]["recipient"]] = ends[0]
    return fates


def _deliveries(
    account: Account,
    sent: Mapping[str, Sent],
    taken: Sequence[Line],
    kills: Sequence[float],
    stalls: Sequence[Stall],
) -> tuple[Set[tuple[str, str]], dict[str, set[str]]]:
    """Nothing altered, nothing invented, nothing twice without a reason.

    :return: which key reached which recipient, and the Message-IDs of the bounces that each sender
        got.
    """
    faults = account.faults
    bounces: dict[str, set[str]] = defaultdict(set)
    times: dict[tuple[str, str], list[Line]] = defaultdict(list)

    def killed(after: float) -> float:
        return next((at for at in kills if at >= after), inf)

    def told(at: float) -> float:
        """When the service was told at the latest, if it was, of what the sink took then."""
        return next((end for began, end in stalls if began - LAG_S <= at <= end), at)

    for line in taken:
        key = line["key"]
        one = sent.get(key)
        if one is None:
            faults.append(f"{key!r} was delivered and never sent")
            continue
        own = line["message_ids"][0]
        if line["sender"] == "":
            if line["recipients"] != [one.sender]:
                faults.append(f"a bounce of {key} went to {line['recipients']}")
            bounces[one.sender].add(own)
            times[own, one.sender].append(line)
            continue
        if line["digest"] != one.digest:
            faults.append(f"{key} was altered on its way to {line['recipients']}")
        if not line["before"].startswith("Received: ") or line["before"].count("Received:") != 1:
            faults.append(f"{key} came with {line['before']!r} above it")
        for recipient in line["recipients"]:
            if recipient not in one.recipients:
                faults.append(f"{key} was delivered to {recipient}")
            times[key, recipient].append(line)
    for (what, recipient), story in times.items():
        account.deliveries += 1
        for first, second in pairwise(story):
            if first["is_cut"]:
                account.cut_duplicates += 1
            elif (at := killed(first["at"] - LAG_S)) <= told(first["at"]) + LATE_S:
                account.kill_duplicates += 1
                account.latest_s = max(account.latest_s, at - told(first["at"]))
            else:
                faults.append(
                    f"{what} was delivered to {recipient} at {first['at']} and {second['at']}, "
                    "with nothing in between"
                )
    account.bounces = sum(map(len, bounces.values()))
    return times.keys(), bounces


def _promise(
    account: Account, key: str, one: Sent, fates: Mapping[str, Line], bounces: set[str]
) -> None:
    """One message that had its 250."""
    dsns = set()
    for recipient in one.recipients:
        fate = fates.get(recipient)
        if fate is None:
            account.faults.append(f"{key}: the log tells no fate of {recipient}")
            continue
        wanted = "bounced" if recipient.startswith("no-") else "delivered"
        if fate["event"] != wanted:
            account.faults.append(f"{key}: {recipient} was {fate['event']}, not {wanted}")
        if wanted == "bounced":
            dsns.add(fate["dsn"])
    if {found.partition("@")[0].strip("<") for found in bounces} != dsns:
        account.faults.append(f"{key}: the log tells of bounces {dsns}, the sink got {bounces}")
