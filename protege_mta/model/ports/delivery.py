"""Between the schedule and what carries mail on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import attrs

from ..hop import Site
from ..outcome import Outcome
from ..reply import Reply
from ..value import value
from .storage import Content

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


@value
class Attempt:
    """One message for one site.

    :ivar content: the octets to send, signed and downgraded as need be *by the transport's hook*
        :attr:`prepare`, since only the hop's own EHLO says what it can take.
    :ivar recipients: indexes into ``content.message.envelope.recipients``.
    :ivar domain: the recipient domain whose TLS policy holds; recipients of other domains are in
        other attempts.
    :ivar failures: attempts before this one, as far as the transport has a use for it.
    """

    site: Site
    domain: str
    content: Content
    recipients: tuple[int, ...]
    prepare: Prepare
    failures: int = 0


@attrs.frozen
class HopAbilities:
    """What a hop said it can do, as far as it changes what is sent."""

    has_8bitmime: bool = True
    has_smtputf8: bool = True


@value
class Prepared:
    """A message in the form for one hop.

    :ivar head: octets that come first (signatures, and the header fields where they changed).
    :ivar skip_octets: how many octets of the content ``head`` stands in for.
    :ivar body: the whole rest where it was recoded; None to go on with the content itself.
    :ivar is_eight_bit: whether BODY=8BITMIME has to be said.
    """

    head: bytes = b""
    skip_octets: int = 0
    body: bytes | None = None
    is_eight_bit: bool = False


class Prepare(Protocol):
    def __call__(self, abilities: HopAbilities) -> Prepared | Deferred[Prepared | Reply] | Reply:
        """The octets for such a hop, or a 5yz reply where no form of them would do (5.6.3, 5.6.7)."""


class Transport(Protocol):
    """Takes an attempt and gives back an outcome for each of its recipients."""

    def deliver(self, attempt: Attempt) -> Deferred[Sequence[tuple[int, Outcome]]]:
        """Never fails: what goes wrong here is a :class:`~..outcome.TransientFailure`."""

    def close(self) -> Deferred[None]:
        """Say QUIT to idle connections; those at work end their message first."""
