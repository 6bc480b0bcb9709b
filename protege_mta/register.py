"""The register of submission accounts and API keys as the service has it open: who there is, who
checks what they say, what they may send, and what they have sent."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any, Final, Literal

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from . import from_settings
from .config.model import Settings
from .http.credentials import LISTENER, Credentials
from .model.account import AccountLimits
from .model.account import Usage as Row
from .model.envelope import Message
from .model.outcome import Fate
from .model.ports import Events, Peer, StateFailed
from .model.reply import TABLE
from .model.tally import Tally
from .policy import login
from .policy.callers import KnownCallers, Tries, key_holder
from .policy.clients import Window, network_of
from .policy.login import Logins
from .policy.sending import SendingPolicy
from .policy.usage import Usage
from .state.accounts import StoredAccounts
from .state.apikeys import StoredKeys
from .state.contacts import StoredContacts
from .state.database import Database
from .state.usage import StoredUsage
from .transport.crew import Crew

LOOK_S: Final = 0.5
"""How often accounts are looked at that nobody has asked for."""

SAVE_S: Final = 1.0
"""How often counts are kept where they have changed; a crash forgets what was sent since."""


class Register:
    """:param database: opened before :meth:`start`, and closed after :meth:`stop`, by its owner.
    :param changed: called when :attr:`takes_cram_md5` is another one.
    :param new_session_id: names requests over HTTP.
    :ivar takes_cram_md5: whether any account has what CRAM-MD5 needs.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        database: Database,
        events: Events,
        tally: Tally,
        settings: Settings,
        changed: Callable[[], None],
        new_session_id: Callable[[], str],
    ) -> None:
        self._crew = Crew(login.AT_ONCE, reactor.callFromThread, "hasher")
        self._database = database
        self._stored_usage = StoredUsage(self._database)
        self._changed = changed
        self._saved: list[Row] = []
        self.accounts = StoredAccounts(self._database)
        self.usage = Usage(time.time)
        self.logins = Logins(
            self.accounts,
            events,
            tally,
            from_settings.login(settings),
            renew=self.accounts.renew,
            clock=reactor,
            now=time.monotonic,
            in_thread=self._crew,
            random_octets=secrets.token_bytes,
            made_up_key=b"",  # until it has been read
            key_holder=lambda proof: key_holder(self.keys, proof),
        )
        self.keys = StoredKeys(database, time.time)
        self.contacts = StoredContacts(database, now=time.time, random_octets=secrets.token_bytes)
        self._let_go = ""
        self._events = events
        self._new_session_id = new_session_id
        self._turned_away = Window(time.monotonic)
        self.sending = SendingPolicy(self.usage, self.contacts, time.time)
        self.callers = KnownCallers(self.keys, self.accounts, self.logins)
        self.credentials = Credentials(
            self.callers,
            Tries(time.monotonic),
            events,
            new_session_id=new_session_id,
            empty_hands=Tries(time.monotonic),
        )
        self.takes_cram_md5 = False
        self._calls = [LoopingCall(self._look), LoopingCall(self._save)]
        for call in self._calls:
            call.clock = reactor

    def settled(self, message: Message, fate: Fate | Literal["deferred"]) -> None:
        """Whoever had to release a message for its recipients has done so, where it is on its way:
        those need nobody's word any more."""
        if message.id == self._let_go or fate not in ("delivered", "relayed", "deferred"):
            return
        self._let_go = message.id  # once for all of its recipients, if they end together
        addresses = [one.address for one in message.envelope.recipients]
        try:
            self.contacts.add(message.origin.identity, addresses, is_known=True)
        except Exception:
            # What is noted here must not keep a fate from being recorded.
            self.log.failure("the recipients of {id} stay strangers", id=message.id)

    def place_s(self, address: str, identity: str, per_hour: int) -> float:
        """Take a place among the requests of one address in an hour.

        Of those that find none, the first of each address in a minute is told, lest a broken client
        fills the journal.

        :param identity: who asks.
        :return: 0, or how long there is none, in seconds.
        """
        if not per_hour:
            return 0.0
        limits = AccountLimits(messages_per_hour=per_hour)
        network = network_of(address)
        name = f"address:{network}"  # a colon is in no account's name
        place = self.usage.begin(name, limits)
        if place is None:
            if self._turned_away.add(network) == 1:
                peer = Peer(address, 0, LISTENER, self._new_session_id(), identity=identity)
                self._events.rejected(peer, None, "", TABLE["rate-limited"])
            return max(1.0, self.usage.wait_s(name, limits, 0) or 0.0)
        place.settle()
        return 0.0

    def configure(self, settings: Settings) -> None:
        """Put other settings into force."""
        self.logins.configure(from_settings.login(settings))

    def start(self) -> None:
        """Read what is there; blocks.  :raise StateFailed:"""
        self.accounts.load()
        self.keys.load()
        self.contacts.load()
        self.logins.made_up_key = self._database.secret("scram", secrets.token_bytes(32))
        self.usage.restore(self._stored_usage.load())
        self._saved = self.usage.rows()
        for call, each_s in zip(self._calls, (LOOK_S, SAVE_S), strict=True):
            call.start(each_s).addErrback(self._broken)

    async def stop(self) -> None:
        """Keep the counts."""
        running = [call for call in self._calls if call.running]
        for call in running:
            call.stop()
        if running:
            await self._save()
        self._crew.stop()

    def _look(self) -> None:
        try:
            takes = self.accounts.takes_cram_md5()
        except StateFailed:
            return  # a login will say so
        if takes != self.takes_cram_md5:
            self.takes_cram_md5 = takes
            self._changed()

    def _save(self) -> Deferred[None]:
        rows = self.usage.rows()
        if rows == self._saved:
            return succeed(None)
        self._saved = rows
        return self._stored_usage.save(rows).addErrback(self._not_saved)

    def _not_saved(self, failure: Failure) -> None:
        self._saved = []
        self.log.error("what accounts have sent is not kept: {why}", why=failure.getErrorMessage())

    def _broken(self, failure: Failure) -> None:
        self.log.failure("the register is not looked after", failure)
