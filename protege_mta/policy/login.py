"""Whether a client is who it says (RFC 4954): the part of :class:`~..model.ports.Door` about AUTH.

A wrong proof and a name that nobody has get the same reply in the same time.  Passwords are hashed
in threads, two at a time; up to :data:`LINE` proofs stand in line, and others are told to come back.
A proof whose client hangs up leaves the line.  What a password was found to be is remembered for
five minutes, under a keyed hash of it with the name and the account's revision, so that a change of
the account ends it: a program that logs in for each message costs one hash in that time, and a
device that repeats an old password costs none and makes no new guess.

Waits and locks are those of :mod:`.guessing`.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal
from urllib.parse import quote

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.account import (
    NAME_CHARACTERS,
    Account,
    ScramVerifier,
    account_name,
    prepared_password,
)
from ..model.ports import (
    Accounts,
    Events,
    LoggedIn,
    PasswordProof,
    Peer,
    Proof,
    ResponseProof,
    ScramProof,
    StateFailed,
)
from ..model.reply import TABLE, Reply
from ..model.tally import Tally
from . import password as passwords
from .clients import network_of
from .guessing import Guesser, Guesses, LoginSettings, Recent

AT_ONCE: Final = 2
"""Hashes at a time; each takes 19 MiB and a processor for some 30 ms."""

LINE: Final = 64
REMEMBER_S: Final = 300.0

InThread = Callable[[Callable[[], Any]], "Deferred[Any]"]

Reason = Literal["no-such-account", "wrong-password", "not-for-account", "locked"]
"""Why a login failed, for the log alone; ``not-for-account``: the account keeps nothing to check
such a proof by."""


@attrs.frozen
class _Login:
    """:ivar name: as the client gave it.  :ivar account: as it is now; None where there is none."""

    peer: Peer
    name: str
    who: Guesser
    account: Account | None


@attrs.define(eq=False)
class _Check:
    """A password on its way through the line.

    :ivar digest: stands for it in memory.
    """

    login: _Login
    password: str = attrs.field(repr=False)
    digest: bytes = attrs.field(repr=False)
    answer: Deferred[Reply]


class Logins:
    """Checks proofs.

    :param renew: keeps an account with fresher hashes; never fails.
    :param clock: for waits.
    :param now: seconds that never jump.
    :param in_thread: runs a function in a thread, of which :data:`AT_ONCE` are enough.
    :param random_octets: so many, from the system's secure source.
    :param key_holder: the identity of the API key that a password is a secret of, if the name goes
        with it; None for any other.
    :ivar made_up_key: a secret that outlives restarts, for the verifiers of names that nobody has;
        may be replaced until the first client comes.
    """

    log = Logger()

    def __init__(
        self,
        accounts: Accounts,
        events: Events,
        tally: Tally,
        settings: LoginSettings,
        *,
        renew: Callable[[Account], object],
        clock: IReactorTime,
        now: Callable[[], float],
        in_thread: InThread,
        random_octets: passwords.RandomOctets,
        made_up_key: bytes,
        key_holder: Callable[[PasswordProof], str | None] = lambda proof: None,
    ) -> None:
        self._accounts = accounts
        self._events = events
        self._tally = tally
        self._renew = renew
        self._clock = clock
        self._now = now
        self._in_thread = in_thread
        self._random_octets = random_octets
        self.made_up_key = made_up_key
        self._key_holder = key_holder
        self._key = random_octets(32)
        self._guesses = Guesses(settings, now)
        # When each was found.  Apart, so that wrong ones cannot push out right ones.
        self._right_ones: Recent[bytes, float] = Recent()
        self._wrong_ones: Recent[bytes, float] = Recent()
        self._line: deque[_Check] = deque()
        self._running = 0

    def configure(self, settings: LoginSettings) -> None:
        """Put other settings into force; what is remembered stays."""
        self._guesses.settings = settings

    def scram(self, peer: Peer, name: str) -> ScramVerifier:
        """As :meth:`~..model.ports.Door.scram`.  While the accounts cannot be read every verifier is
        made up, and :meth:`login` says why nobody gets in."""
        made_up = passwords.made_up_verifier(self.made_up_key, name)
        try:
            account = self._accounts.get(name)
        except StateFailed:
            return made_up
        return made_up if account is None or account.scram is None else account.scram

    def login(self, peer: Peer, proof: Proof) -> LoggedIn | Reply | Deferred[Reply]:
        """As :meth:`~..model.ports.Door.login`.  The secret of a key cannot be guessed, and so gets in
        at any time; what looks like one and is none is a wrong password."""
        if isinstance(proof, PasswordProof):
            try:
                identity = self._key_holder(proof)
            except StateFailed:
                return self._not_checked(peer, "unavailable")
            if identity is not None:
                self._tally.logins["succeeded"] += 1
                return LoggedIn(identity)
        login = self._begin(peer, proof.name)
        if login is None:
            return self._not_checked(peer, "unavailable")
        wait_s = self._guesses.wait_s(login.who)
        if wait_s is None:
            return self._locked(login)
        if wait_s:
            return Deferred.fromCoroutine(self._judge_after(wait_s, peer, proof))
        return self._judge(login, proof)

    def _begin(self, peer: Peer, given: str) -> _Login | None:
        """None where the accounts cannot be read."""
        name = given if account_name(given) == given else ""
        try:
            account = self._accounts.get(name)
        except StateFailed:
            return None
        revision = 0 if account is None else account.revision
        return _Login(peer, given, Guesser(name, network_of(peer.address), revision), account)

    async def _judge_after(self, wait_s: float, peer: Peer, proof: Proof) -> Reply:
        await deferLater(self._clock, wait_s)
        login = self._begin(peer, proof.name)  # anew: it may have been changed since
        if login is None:
            return self._not_checked(peer, "unavailable")
        if self._guesses.is_locked(login.who):
            return self._locked(login)
        answer = self._judge(login, proof)
        return answer if isinstance(answer, Reply) else await answer

    def _judge(self, login: _Login, proof: Proof) -> Reply | Deferred[Reply]:
        account = login.account
        match proof:
            case PasswordProof():
                return self._check_password(login, proof.password)
            case ResponseProof():
                is_kept = account is not None and account.cram_secret is not None
                is_right = _is_right_response(account, proof)
            case ScramProof():
                is_kept = account is not None and account.scram is not None
                is_right = proof.is_right and is_kept
        if is_right:
            return self._succeeded(login)
        self._guesses.failed(login.who)
        return self._wrong(login, is_kept=is_kept)

    # --- passwords -------------------------------------------------------------------------------

    def _check_password(self, login: _Login, text: str) -> Reply | Deferred[Reply]:
        password = prepared_password(text)
        if password is None:  # nobody's, and takes as long as any other
            login, password = attrs.evolve(login, account=None), "\0"
        told = f"{login.name}\0{login.who.revision}\0{password}".encode("utf-8", "replace")
        digest = hmac.digest(self._key, told, "sha256")
        check = _Check(login, password, digest, Deferred(self._cancel))
        found = self._remembered(check)
        if found is not None:
            return found
        if len(self._line) >= LINE:
            return self._not_checked(login.peer, "busy")
        self._line.append(check)
        self._go_on()
        return check.answer

    def _cancel(self, answer: Deferred[Reply]) -> None:
        """The client went away.  A hash that is being computed is computed to its end, and its turn
        is not another's before: else clients that come and go could have any number at work."""
        self._line = deque(check for check in self._line if check.answer is not answer)

    def _remembered(self, check: _Check) -> Reply | None:
        """What needs no hash."""
        if self._is_in(self._right_ones, check.digest):
            return self._succeeded(check.login)
        if self._is_in(self._wrong_ones, check.digest):
            return self._wrong(check.login)
        return None

    def _is_in(self, table: Recent[bytes, float], digest: bytes) -> bool:
        at = table.get(digest)
        return at is not None and self._now() - at < REMEMBER_S

    def _go_on(self) -> None:
        """Begin what there are turns for; others may have settled it while it stood in line."""
        while self._line and self._running < AT_ONCE:
            check = self._line.popleft()
            if self._guesses.is_locked(check.login.who):
                check.answer.callback(self._locked(check.login))
            elif (reply := self._remembered(check)) is not None:
                check.answer.callback(reply)
            else:
                self._running += 1
                self._in_thread(partial(self._work, check)).addBoth(self._worked, check)

    def _work(self, check: _Check) -> tuple[bool, Account | None]:
        """In a thread.  :return: whether it is right, and the account where it needs to be renewed."""
        account, password = check.login.account, check.password
        if account is None:
            passwords.matches(passwords.NOBODYS_HASH, password)
            return False, None
        if not passwords.matches(account.password_hash, password):
            return False, None
        if not passwords.is_outdated(account):
            return True, None
        return True, passwords.renewed(account, password, self._random_octets)

    def _worked(self, result: tuple[bool, Account | None] | Failure, check: _Check) -> None:
        self._running -= 1
        if isinstance(result, Failure):
            self.log.failure("a password could not be checked", failure=result)
            reply = self._not_checked(check.login.peer, "unavailable")
        else:
            reply = self._found(check, *result)
        if not check.answer.called:
            check.answer.callback(reply)
        self._go_on()

    def _found(self, check: _Check, is_right: bool, fresh: Account | None) -> Reply:
        (self._right_ones if is_right else self._wrong_ones).put(check.digest, self._now())
        if fresh is not None:
            self._renew(fresh)
        if is_right:
            return self._succeeded(check.login)
        self._guesses.failed(check.login.who)
        return self._wrong(check.login)

    # --- ends ------------------------------------------------------------------------------------

    def _succeeded(self, login: _Login) -> Reply:
        self._guesses.succeeded(login.who)
        self._tally.logins["succeeded"] += 1
        return TABLE["logged-in"]

    def _wrong(self, login: _Login, *, is_kept: bool = True) -> Reply:
        """:param is_kept: whether the account has what such a proof is checked by."""
        self._tally.logins["failed"] += 1
        reason: Reason = "wrong-password" if is_kept else "not-for-account"
        if not login.who.revision:
            reason = "no-such-account"
        return self._refused(login, "login-failed", reason)

    def _locked(self, login: _Login) -> Reply:
        self._tally.logins["locked"] += 1
        return self._refused(login, "login-locked", "locked")

    def _refused(self, login: _Login, reply_name: str, reason: Reason) -> Reply:
        """Log the line that fail2ban reads.  The name comes last and cannot hold a space, so that
        no client writes another's address into it."""
        self.log.info(
            "login failed session_id={session_id} peer={peer} reason={reason} name={name}",
            session_id=login.peer.session_id,
            peer=login.peer.address,
            reason=reason,
            name=quote(login.name[:NAME_CHARACTERS], safe="@+", errors="replace"),
        )
        return self._told(login.peer, TABLE[reply_name])

    def _not_checked(self, peer: Peer, reason: Literal["busy", "unavailable"]) -> Reply:
        """Our own trouble, which nobody is to be banned for: the line of the log is another."""
        self._tally.logins["later"] += 1
        self.log.warn(
            "login not checked session_id={session_id} peer={peer} reason={reason}",
            session_id=peer.session_id,
            peer=peer.address,
            reason=reason,
        )
        return self._told(peer, TABLE["login-later"])

    def _told(self, peer: Peer, reply: Reply) -> Reply:
        self._events.rejected(peer, "", "", reply)
        return reply


def _is_right_response(account: Account | None, proof: ResponseProof) -> bool:
    """CRAM-MD5 (RFC 2195, 2); for an account without its secret as long as for one with it."""
    secret = None if account is None else account.cram_secret
    right = hmac.new((secret or "\0").encode(), proof.challenge, "md5").hexdigest()
    given = proof.digest.encode("utf-8", "replace")
    return hmac.compare_digest(right.encode(), given) and secret is not None
