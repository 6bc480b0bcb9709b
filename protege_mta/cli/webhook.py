"""``webhook``: how the endpoints of ``[[webhook]]`` are, and what they would not have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .faults import Fault
from .options import config_option, json_option, settings_from
from .terminal import (
    Column,
    harmless,
    moment,
    write,
    write_facts,
    write_json,
    write_json_rows,
    write_table,
)

if TYPE_CHECKING:
    from ..config.http import Webhook
    from ..config.model import Settings
    from ..state.hooks import HookStore
    from ..transport.poster import Answered, Unanswered


@click.group("webhook")
def command() -> None:
    """Endpoints that are told of events.

    Works while the service runs, which sees a change within a second, and while it does not.
    """


@command.command("list")
@config_option
@json_option
def _list(config: Path | None, as_json: bool) -> None:
    """List the webhooks."""
    settings = settings_from(config)
    with _store(settings) as store:
        rows = [_row(one, store) for one in settings.webhooks]
    if as_json:
        write_json_rows(rows)
        return
    write_table(
        [
            Column("NAME", lambda row: row["name"]),
            Column("STATE", lambda row: row["state"]),
            Column("DELIVERED", lambda row: str(row["delivered"])),
            Column("LAG", lambda row: str(row["lag_events"])),
            Column("DEAD", lambda row: str(row["dead"])),
            Column("URL", lambda row: row["url"]),
        ],
        rows,
    )


@command.command("show")
@click.argument("name")
@config_option
@json_option
def _show(name: str, config: Path | None, as_json: bool) -> None:
    """Show how a webhook is; lag and state as the service last knew them."""
    settings = settings_from(config)
    webhook = _named(settings, name)
    with _store(settings) as store:
        row = _row(webhook, store)
    if as_json:
        write_json(row)
        return
    write_facts((key.replace("_", " "), _text(key, value)) for key, value in row.items())


@command.command("dead")
@click.argument("name")
@config_option
@json_option
def _dead(name: str, config: Path | None, as_json: bool) -> None:
    """List the requests that were given up, the oldest first, with their events."""
    settings = settings_from(config)
    _named(settings, name)
    with _store(settings) as store:
        rows = (
            {
                "number": letter.number,
                "id": letter.id,
                "at": letter.at,
                "tries": letter.tries,
                "cause": letter.cause,
                "is_wanted": letter.is_wanted,
                "events": [_event(line) for line in letter.lines],
            }
            for letter in store.letters(name)
        )
        if as_json:
            write_json_rows(rows)
            return
        write_table(
            [
                Column("SINCE", lambda row: moment(row["at"])),
                Column("ID", lambda row: harmless(row["id"])),
                Column("EVENTS", lambda row: str(len(row["events"]))),
                Column("TRIES", lambda row: str(row["tries"])),
                Column("CAUSE", lambda row: harmless(row["cause"])),
            ],
            rows,
        )


@command.command("replay")
@click.argument("name")
@click.option("--after", metavar="CURSOR", help="Send again all events behind this cursor.")
@click.option("--dead", "of_dead", is_flag=True, help="Send the dead letters again.")
@config_option
@json_option
def _replay(
    name: str, after: str | None, of_dead: bool, config: Path | None, as_json: bool
) -> None:
    """Send again: the dead letters, or all events behind a cursor.

    What was sent before has the ids that it had.  An empty cursor stands for the oldest event.
    """
    from ..model.ports import CursorGone
    from ..observe.segments import SegmentReader

    if of_dead == (after is not None):
        raise click.UsageError("give either --dead or --after CURSOR")
    settings = settings_from(config)
    _named(settings, name)
    with _store(settings) as store:
        if after is None:
            answer = {"name": name, "dead": store.want(name)}
            text = f"{answer['dead']} dead letters of {name} are sent again"
        else:
            reader = SegmentReader(settings.journal_dir)
            try:
                reader.read(after, 1)
            except CursorGone as gone:
                raise Fault(
                    str(gone),
                    os.EX_DATAERR,
                    remedy=f"The oldest cursor is {gone.oldest}." if gone.oldest else "",
                ) from gone
            store.begin(name, after)
            store.move(name, after)
            answer = {"name": name, "after": after}
            text = f"{name} goes on behind {after}" if after else f"{name} begins anew"
    if as_json:
        write_json(answer)
    else:
        write(text)


@command.command("test")
@click.argument("name")
@config_option
@json_option
def _test(name: str, config: Path | None, as_json: bool) -> int:
    """Post an event named "test", from here, and say what came of it."""
    from ..transport.poster import Answered

    webhook = _named(settings_from(config), name)
    answer = _posted(webhook)
    if isinstance(answer, Answered):
        is_taken, text = 200 <= answer.status < 300, f"status {answer.status}"
    else:
        is_taken, text = False, answer.cause
    if as_json:
        write_json({"name": name, "is_taken": is_taken, "answer": text})
    else:
        write(f"{name}: {harmless(text)}")
    return os.EX_OK if is_taken else os.EX_UNAVAILABLE


def _posted(webhook: Webhook) -> Answered | Unanswered:
    import time
    from datetime import UTC, datetime

    from twisted.internet import reactor as it

    from ..notifier import poster, posting

    reactor: Any = it
    try:
        post_by = poster(reactor, webhook)
        post = posting(webhook, post_by, time.time)
    except (OSError, ValueError) as error:
        raise Fault(str(error), os.EX_CONFIG) from error
    now = time.time()
    at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    body = b'{"event":"test","id":"test.%d","at":"%b"}' % (
        int(now * 1000),
        at.replace("+00:00", "Z").encode(),
    )
    answers: list[Any] = []

    def begin() -> None:
        done = post(f"test.{int(now * 1000)}", b"[" + body + b"]" if webhook.batch > 1 else body)
        done.addBoth(answers.append).addCallback(lambda _: post_by.close())
        done.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()
    [answer] = answers
    if hasattr(answer, "raiseException"):
        answer.raiseException()
    found: Answered | Unanswered = answer
    return found


# --- rows ----------------------------------------------------------------------------------------


@contextmanager
def _store(settings: Settings) -> Iterator[HookStore]:
    from ..model.ports import StateFailed
    from ..spool.lock import ForeignOwner, check_owner
    from ..state.hooks import HookStore

    folder = settings.state_dir
    if not folder.is_dir():
        raise Fault(f"{folder}: there is nothing yet; has the service run?", os.EX_NOINPUT)
    try:
        check_owner(folder)
        store = HookStore(folder)
    except ForeignOwner as error:
        raise Fault(str(error), os.EX_NOPERM) from error
    except OSError as error:
        raise Fault(str(error), os.EX_IOERR) from error
    try:
        yield store
    except StateFailed as error:
        raise Fault(str(error), os.EX_IOERR) from error
    finally:
        store.close()


def _named(settings: Settings, name: str) -> Webhook:
    for one in settings.webhooks:
        if one.name == name:
            return one
    names = ", ".join(one.name for one in settings.webhooks)
    raise Fault(
        f"{name}: no such webhook",
        os.EX_NOINPUT,
        remedy=f"There are {names}." if names else "The configuration has no [[webhook]].",
    )


def _row(webhook: Webhook, store: HookStore) -> dict[str, Any]:
    import msgspec

    from ..model.webhook import Figures

    standing = store.standing(webhook.name)
    figures = Figures(name=webhook.name)
    if standing is not None:
        if standing.told:
            figures = msgspec.json.decode(standing.told, type=Figures)
        figures = msgspec.structs.replace(
            figures,
            cursor=standing.cursor,
            delivered=standing.delivered,
            failed=standing.failed,
            lost=standing.lost,
            dead=store.dead(webhook.name),
        )
    row: dict[str, Any] = {"name": webhook.name, "url": webhook.url}
    row |= msgspec.structs.asdict(figures)
    return row | {"told_at": standing.told_at if standing is not None else 0.0}


def _text(key: str, value: Any) -> str:
    if key.endswith("_at"):
        return moment(value) if value else "never"
    return harmless(str(value)) or "-"


def _event(line: bytes) -> Any:
    import msgspec

    return msgspec.json.decode(line)
