"""The commands of ``control.sock``, carried out at the :class:`~.schedule.desk.Desk`.

The same whether they come over the socket or, while no service runs, from a command's own process.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred

from .model.ports import Damaged, Recovered
from .schedule.desk import Change, Chosen, Desk, NotFound
from .transport.control import ControlFault, Done, Handler, Row

CAT_OCTETS: Final = 65_536
STATES: Final = ("incoming", "scheduled", "active", "deferred", "held", "corrupt")

Answer = AsyncGenerator[Row | Done, None]


class Clerk:
    """Understands commands.

    :param status: the service's one row for ``status``.
    :param reload: reads the configuration again; raises with the reason where it cannot be used.
    :param pause: lets others have their turn.
    :param told: waits until those who read the log of events find there what has been done.
    """

    def __init__(
        self,
        desk: Desk,
        status: Callable[[], Row],
        reload: Callable[[], Awaitable[None]],
        pause: Callable[[], Awaitable[None]],
        told: Callable[[], Awaitable[object]],
    ) -> None:
        self._desk = desk
        self._status = status
        self._reload = reload
        self._pause = pause
        self._told = told

    def handlers(self) -> Mapping[str, Handler]:
        """By command name."""
        desk = self._desk
        return {
            "status": self._answer_status,
            "reload": self._answer_reload,
            "explain": self._explain,
            "queue.list": self._list,
            "queue.show": self._show,
            "queue.cat": self._cat,
            "queue.retry": self._retry,
            "queue.hold": self._changing(desk.hold),
            "queue.release": self._changing(desk.release),
            "queue.bounce": self._changing(desk.bounce),
            "queue.remove": self._changing(desk.remove),
        }

    async def _answer_status(self, arguments: Mapping[str, Any]) -> Answer:
        yield self._status()

    async def _answer_reload(self, arguments: Mapping[str, Any]) -> Answer:
        await self._reload()
        yield Done({"reloaded": True})

    async def _list(self, arguments: Mapping[str, Any]) -> Answer:
        limit = arguments.get("limit")
        choice = _choice(arguments)
        shown = 0
        if not choice.domain and choice.state in ("", "incoming"):
            for row in self._desk.incoming()[:limit]:
                yield row
                shown += 1
        async for found in self._found(choice):
            if limit is not None and shown >= limit:
                break
            yield self._desk.row(found)
            shown += 1
        yield Done({"count": shown})

    async def _show(self, arguments: Mapping[str, Any]) -> Answer:
        async for found in self._found(_one(arguments)):
            yield self._desk.row(found)

    async def _explain(self, arguments: Mapping[str, Any]) -> Answer:
        async for found in self._found(_one(arguments)):
            yield {**self._desk.row(found), "standing": self._desk.standing(found)}

    async def _cat(self, arguments: Mapping[str, Any]) -> Answer:
        try:
            content = await self._desk.open(_one(arguments).ids[0])
        except NotFound as error:
            raise ControlFault("not-found", str(error)) from error
        except Damaged as error:
            raise ControlFault("unavailable", "the message is damaged; see corrupt/") from error
        try:
            for offset in range(0, content.size_octets, CAT_OCTETS):
                octets = content.read(offset, CAT_OCTETS)
                yield {"octets_b64": base64.b64encode(octets).decode("ascii")}
        finally:
            content.close()

    async def _retry(self, arguments: Mapping[str, Any]) -> Answer:
        choice = _choice(arguments)
        is_all = bool(arguments.get("all")) and choice == Chosen()
        slices = self._desk.retry_all() if is_all else None
        if slices is None:
            # Who names a message means it; who names a domain does not mean what is sent next week.
            retry = self._desk.retry if choice.ids else self._desk.retry_released
            async for row in self._changing(retry)(arguments):
                yield row
            return
        count = 0
        for tried in slices:
            count += tried
            await self._pause()
        yield Done({"count": count})

    def _changing(self, change: Callable[[Recovered], Deferred[Change]]) -> Handler:
        async def handle(arguments: Mapping[str, Any]) -> Answer:
            choice = _choice(arguments)
            if not (choice.ids or choice.domain or choice.state or arguments.get("all")):
                raise ControlFault("usage", "name messages by id, domain or state, or say all")
            count = later = 0
            async for found in self._found(choice):
                came_to = await change(found)
                count += Change.DONE in came_to
                later += Change.LATER in came_to
            await self._told()
            yield Done({"count": count, "later": later} if later else {"count": count})

        return handle

    async def _found(self, choice: Chosen) -> AsyncGenerator[Recovered, None]:
        try:
            for looking in self._desk.chosen(choice):
                found = await looking
                if found is not None:
                    yield found
        except NotFound as error:
            raise ControlFault("not-found", str(error)) from error


def _choice(arguments: Mapping[str, Any]) -> Chosen:
    """:raise ControlFault: what the arguments say makes no sense."""
    ids, domain, state = (arguments.get(name) or "" for name in ("ids", "domain", "state"))
    if not isinstance(ids or [], list) or not isinstance(domain, str) or not isinstance(state, str):
        raise ControlFault("usage", "wanted a list of ids, and texts for domain and state")
    if state and state not in STATES:
        raise ControlFault("usage", f"no such state {state!r}; there are {', '.join(STATES)}")
    return Chosen(tuple(str(id) for id in ids), domain, state)


def _one(arguments: Mapping[str, Any]) -> Chosen:
    id = arguments.get("id")
    if not isinstance(id, str):
        raise ControlFault("usage", "wanted a message id")
    return Chosen((id,))
