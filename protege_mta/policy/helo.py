"""Whether a client's name in HELO or EHLO can be one (RFC 5321, 4.1.4).

That it is the client's own is not asked: mail must not be refused for that.
"""

from __future__ import annotations

import attrs

from ..model.ports import Answer, Found, TryAgain
from ..model.reply import TABLE, Reply
from .lookups import Lookups


def is_full(name: str) -> bool:
    """Whether it is an address literal, or a host name with a domain.

    :param name: as the machine has let it through.
    """
    return name.startswith("[") or "." in name


@attrs.define
class Name:
    """One name that a client has given.

    :ivar may_exist: whether a record of it was found, or could not be asked for.
    """

    text: str
    may_exist: bool = False

    def ask(self, lookups: Lookups) -> None:
        """Begin to look for it; the answer is there once ``lookups`` is complete."""
        if self.text.startswith("["):
            self.may_exist = True
            return
        lookups.ask(self.text, "A", self._heard)
        lookups.ask(self.text, "AAAA", self._heard)
        lookups.ask(self.text, "MX", self._heard)

    def _heard(self, answer: Answer) -> None:
        if isinstance(answer, Found | TryAgain):
            self.may_exist = True

    @property
    def refusal(self) -> Reply | None:
        """What to say to who gave it; None where nothing is wrong."""
        if not is_full(self.text):
            return TABLE["helo-too-short"]
        return None if self.may_exist else TABLE["helo-unknown"]
