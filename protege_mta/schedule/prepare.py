"""A message in the form for one hop: downgraded where the hop is old, signed where we may."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from twisted.internet.defer import Deferred

from ..dkim.canonical import BodyHash
from ..dkim.sign import Signer, sign, sign_header
from ..message.downgrade import Recoded, Refused, for_hop, is_fit
from ..message.headers import from_domain, header_end
from ..model.envelope import Message
from ..model.ids import QueueId
from ..model.ports import Content, HopAbilities, Prepare, Prepared
from ..model.reply import Reply

InThread = Callable[[Callable[[], bytes]], Deferred[bytes]]
"""Runs what takes the processor for long in a thread: RSA and hashing let go of the interpreter."""

PIECE_OCTETS: Final = 1_048_576
"""Content is hashed in such pieces; a header section longer than one is not signed."""

AT_ONCE_OCTETS: Final = 16_384
"""Up to this size an Ed25519 signature takes less time than the way to a thread and back."""

KEPT: Final = 512
"""So many messages' signatures are remembered for their other recipients and attempts."""


class Preparer:
    """Makes the octets that a transport sends.

    :param signers: the keys by From domain, lower case.
    :param in_thread: a small pool of its own, so that slow disks do not hold up signatures.
    """

    def __init__(self, signers: Mapping[str, Sequence[Signer]], in_thread: InThread) -> None:
        self._signers = signers
        self._in_thread = in_thread
        self._signed: OrderedDict[QueueId, bytes] = OrderedDict()

    def of(self, content: Content, recipients: Sequence[int]) -> Prepare:
        """The hook that a transport calls when it knows what the hop can do."""
        message = content.message

        def prepare(abilities: HopAbilities) -> Prepared | Deferred[Prepared | Reply] | Reply:
            if not is_fit(message, recipients, abilities):
                return self._downgraded(content, recipients, abilities)
            known = self._signed.get(message.id)
            if known is not None:
                return Prepared(known, is_eight_bit=message.is_eight_bit)
            if not (message.origin.may_sign and self._signers):
                return Prepared(is_eight_bit=message.is_eight_bit)
            signers = self._signers_of(message, content.read(0, PIECE_OCTETS))
            if not signers:
                return Prepared(is_eight_bit=message.is_eight_bit)

            def signed(fields: bytes) -> Prepared:
                self._signed[message.id] = fields
                if len(self._signed) > KEPT:
                    self._signed.popitem(last=False)
                return Prepared(fields, is_eight_bit=message.is_eight_bit)

            if content.size_octets <= AT_ONCE_OCTETS and _are_quick(signers):
                return signed(_signature(content, signers))
            return self._in_thread(lambda: _signature(content, signers)).addCallback(signed)

        return prepare

    def _downgraded(
        self, content: Content, recipients: Sequence[int], abilities: HopAbilities
    ) -> Deferred[Prepared | Reply]:
        """Recode the whole, and sign it in that form.  Rare, so it may take memory."""
        message = content.message
        refused: list[Reply] = []

        def recode() -> bytes:
            form = for_hop(content.read(), message.envelope, recipients, abilities)
            if isinstance(form, Refused):
                refused.append(form.reply)
                return b""
            octets = form.octets if isinstance(form, Recoded) else content.read()
            signers = self._signers_of(message, octets)
            return sign(octets, signers, int(message.arrived_at)) + octets

        def recoded(octets: bytes) -> Prepared | Reply:
            if refused:
                return refused[0]
            return Prepared(
                skip_octets=content.size_octets,
                body=octets,
                is_eight_bit=not octets.isascii(),
            )

        return self._in_thread(recode).addCallback(recoded)

    def _signers_of(self, message: Message, first: bytes) -> Sequence[Signer]:
        """Our keys for a message; none where its source may not use the From domain.

        :param first: at least the header section.
        """
        if not message.origin.may_sign:
            return ()
        return self._signers.get(from_domain(first[: header_end(first)]), ())


def _are_quick(signers: Sequence[Signer]) -> bool:
    return all(signer.key.algorithm == "ed25519-sha256" for signer in signers)


def _signature(content: Content, signers: Sequence[Signer]) -> bytes:
    """Our DKIM-Signature fields, whatever the size of the content."""
    first = content.read(0, PIECE_OCTETS)
    end = header_end(first)
    body = BodyHash()
    body.update(first[end:])
    for offset in range(PIECE_OCTETS, content.size_octets, PIECE_OCTETS):
        body.update(content.read(offset, PIECE_OCTETS))
    return sign_header(first[:end], body.digest(), signers, int(content.message.arrived_at))
