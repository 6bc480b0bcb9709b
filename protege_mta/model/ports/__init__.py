"""What one side needs of another, where both may not know each other.

One module a subject; everybody asks this one.  Implementations are chosen in ``compose`` alone.
``Deferred`` appears here as a type only: the one word that every side of a Twisted program shares.
"""

from __future__ import annotations

from .authentication import Authentication, Authenticator
from .delivery import Attempt, HopAbilities, Prepare, Prepared, Transport
from .events import NOTHING_MORE, About, CursorGone, Events, JournalReader, Page
from .http import Callers, Contacts, Permit, Sending
from .names import Answer, Found, NoSuchName, NoSuchRecord, RecordKind, Resolver, TryAgain
from .reception import (
    Arrival,
    Door,
    Intake,
    LoggedIn,
    MailCommand,
    PasswordProof,
    Peer,
    Proof,
    ResponseProof,
    ScramProof,
)
from .state import Accounts, Known, Request, Requests, StateFailed
from .storage import (
    Content,
    Damaged,
    Held,
    Incoming,
    Journal,
    NoSuchMessage,
    Octets,
    Position,
    Recovered,
    Spool,
    SpoolFailed,
    SpoolFull,
    SpoolLocked,
    Stats,
)
from .suppression import SignsReturnPath, Suppressed, Suppressions, Withholding
from .threads import InThread
from .tunnels import Agents, Session, Sessions, StreamDoor

__all__ = [
    "NOTHING_MORE",
    "About",
    "Accounts",
    "Agents",
    "Answer",
    "Arrival",
    "Attempt",
    "Authentication",
    "Authenticator",
    "Callers",
    "Contacts",
    "Content",
    "CursorGone",
    "Damaged",
    "Door",
    "Events",
    "Found",
    "Held",
    "HopAbilities",
    "InThread",
    "Incoming",
    "Intake",
    "Journal",
    "JournalReader",
    "Known",
    "LoggedIn",
    "MailCommand",
    "NoSuchMessage",
    "NoSuchName",
    "NoSuchRecord",
    "Octets",
    "Page",
    "PasswordProof",
    "Peer",
    "Permit",
    "Position",
    "Prepare",
    "Prepared",
    "Proof",
    "RecordKind",
    "Recovered",
    "Request",
    "Requests",
    "Resolver",
    "ResponseProof",
    "ScramProof",
    "Sending",
    "Session",
    "Sessions",
    "SignsReturnPath",
    "Spool",
    "SpoolFailed",
    "SpoolFull",
    "SpoolLocked",
    "StateFailed",
    "Stats",
    "StreamDoor",
    "Suppressed",
    "Suppressions",
    "Transport",
    "TryAgain",
    "Withholding",
]
