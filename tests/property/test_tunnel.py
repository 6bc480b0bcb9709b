"""The tunnel's protocol for any octets, any cut of them, and any loss of the connection."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Final

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.outcome import Delivered, Outcome
from protege_mta.model.reply import Reply
from protege_mta.model.stream import REQUEST_ID_CHARACTERS, Attestation, DeliveryState, Stream
from protege_mta.testing.tunnels import HouseIntake, Net, OctetsInMemory, Pair, frame_parts
from protege_mta.tunnel.limits import TunnelLimits
from protege_mta.wire.tunnel.bodies import StartBody, format_start, parse_start
from protege_mta.wire.tunnel.frames import (
    BadFrame,
    End,
    FramePart,
    Kind,
    Piece,
    Start,
    encode,
)
from protege_mta.wire.tunnel.messages import (
    AuthError,
    AuthOk,
    Challenge,
    ChallengeRequest,
    ChallengeResponse,
    Credit,
    DeliveryResult,
    Message,
    StreamCancel,
    StreamResult,
    StreamResume,
    Terms,
    format_message,
    parse,
    stamp,
)

# --- frames --------------------------------------------------------------------------------------

TEXTS: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
BODIES: Final = st.binary(max_size=300)
CUTS: Final = st.lists(st.integers(0, 400), max_size=8)


def parts(octets: bytes, cuts: list[int]) -> list[FramePart]:
    """What is read of one message that is cut there."""
    edges = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    return frame_parts(octets[at:to] for at, to in pairwise(edges))


class FrameTests(SynchronousTestCase):
    @given(st.sampled_from(Kind), TEXTS, BODIES, CUTS)
    def test_frames_come_back(self, kind: Kind, name: str, body: bytes, cuts: list[int]) -> None:
        expected: list[FramePart]
        match kind:
            case Kind.START:
                expected = [Start(name, body)]
            case Kind.CHUNK:
                expected = [Piece(name, body)] if body else []
            case Kind.END:
                expected = [End(name, body)]
        self.assertEqual(parts(encode(kind, name, body), cuts), expected)

    @given(st.binary(max_size=40) | st.builds(lambda kind, rest: bytes([1, kind, 1, 0, 0, 0]) + rest,
           st.integers(0, 4), st.binary(max_size=20)), CUTS)  # fmt: skip
    def test_pieces_are_not_seen(self, octets: bytes, cuts: list[int]) -> None:
        """What a message comes to is no matter of how it comes, but for how far it got."""
        whole, cut = parts(octets, []), parts(octets, cuts)
        if isinstance(whole[-1] if whole else None, BadFrame):
            self.assertEqual(cut[-1], whole[-1])
        else:
            self.assertEqual(cut, whole)


# --- messages ------------------------------------------------------------------------------------

NUMBERS: Final = st.integers(0, 2**53 - 1)
TERMS: Final = st.builds(Terms, st.integers(16_384, 2**40), st.integers(1, 2**40))
ROLES: Final = st.sampled_from(["inbound", "outbound", None])
TIMES: Final = st.integers(0, 4_000_000_000_000).map(lambda ms: ms / 1000)
REQUEST_IDS: Final = st.text(
    st.characters(min_codepoint=33, max_codepoint=126),
    min_size=1,
    max_size=REQUEST_ID_CHARACTERS,
)
MESSAGES: Final[st.SearchStrategy[Message]] = st.one_of(
    st.builds(ChallengeRequest, TEXTS, ROLES),
    st.builds(Challenge, TEXTS, TEXTS, TEXTS, TIMES, st.just((1,)) | st.just(())),
    st.builds(ChallengeResponse, TEXTS, TEXTS, TEXTS, ROLES, st.none() | TERMS),
    st.builds(
        lambda key, role, replaced, terms, is_on: AuthOk(
            key, role or "inbound", replaced, (1,), terms if is_on else None, terms
        ),
        TEXTS, ROLES, st.none() | TEXTS, TERMS, st.booleans(),
    ),
    st.builds(AuthError, TEXTS),
    st.builds(lambda name, id_: DeliveryResult(name, None, id_), TEXTS, st.none() | TEXTS),
    st.builds(DeliveryResult, TEXTS, TEXTS),
    st.builds(StreamResume, TEXTS, NUMBERS),
    st.builds(StreamResult, TEXTS, TEXTS, st.booleans(), TEXTS, TEXTS, st.booleans()),
    st.builds(Credit, NUMBERS.map(lambda n: n or 1)),
    st.builds(StreamCancel, TEXTS),
    st.builds(
        DeliveryState, TEXTS, st.sampled_from(["sent", "deferred", "failed"]), TEXTS, TEXTS,
        st.none() | TIMES,
    ),
)  # fmt: skip
ATTESTATIONS: Final = st.builds(
    Attestation, TEXTS.filter(str.strip), st.binary(min_size=1, max_size=80), st.binary(min_size=1)
)


class MessageTests(SynchronousTestCase):
    @given(MESSAGES)
    def test_messages_come_back(self, message: Message) -> None:
        self.assertEqual(parse(format_message(message)), message)

    @given(st.binary(max_size=80))
    def test_anything_may_come(self, octets: bytes) -> None:
        parse(octets)
        parse_start(octets, "s", is_reliable=True)

    @given(TEXTS, TEXTS, st.none() | ATTESTATIONS, REQUEST_IDS, NUMBERS, st.booleans())
    def test_starts_come_back(
        self,
        sender: str,
        recipient: str,
        attestation: Attestation | None,
        request_id: str,
        size: int,
        is_resume: bool,
    ) -> None:
        stream = Stream(sender, recipient, attestation, request_id, size, "s")
        body = format_start(stream, is_reliable=True, is_resume=is_resume)
        self.assertEqual(parse_start(body, "s", is_reliable=True), StartBody(stream, is_resume))
        plain = attrs.evolve(stream, request_id="", size_octets=None)
        body = format_start(plain, is_reliable=False)
        self.assertEqual(parse_start(body, "s", is_reliable=False), StartBody(plain))

    @given(TIMES)
    def test_times_have_one_length(self, at: float) -> None:
        self.assertEqual(len(stamp(at)), len("1970-01-01T00:00:00.000Z"))


# --- worlds --------------------------------------------------------------------------------------

KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LIMITS: Final = TunnelLimits(window_octets=16_384, message_octets=200_000)


@attrs.define(eq=False)
class Mail:
    """A message that has to get through.

    :ivar delivered: how often its sender was told that it had.
    :ivar under_way: sends without an outcome.
    """

    number: int
    content: bytes
    delivered: int = 0
    under_way: int = 0

    @property
    def stream(self) -> Stream:
        return Stream("a@b.test", f"{self.number}@d.test", request_id=f"r-{self.number}")


class World:
    """An agent that sends, a relay that takes, and everything between them that can go wrong."""

    def __init__(self, random: Random, *, is_reliable: bool) -> None:
        self.random = random
        self.net = Net(
            limits=LIMITS,
            seed=random.getrandbits(32),
            piece_octets=lambda: random.choice([1, 700, 65_536]),
            has_extension=is_reliable,
        )
        self.house = self.net.relay_house
        self.house.on_finish = self._finish
        self.house.on_write = self._write
        self.held: list[tuple[HouseIntake, Deferred[Reply]]] = []
        self.slow: list[Deferred[None]] = []
        self.is_kind = False
        self.mail = [
            Mail(n, random.randbytes(random.choice([0, 1, 5_000, 40_000]))) for n in range(4)
        ]
        self.pairs: list[Pair] = []

    def _finish(self, intake: HouseIntake) -> Deferred[Reply]:
        stored: Deferred[Reply] = Deferred()
        if self.is_kind or self.random.random() < 0.5:
            stored.callback(self.house.keep(intake))
        else:
            self.held.append((intake, stored))
        return stored

    def _write(self, intake: HouseIntake) -> Deferred[None] | None:
        if self.is_kind or self.random.random() < 0.8:
            return None
        self.slow.append(Deferred())
        return self.slow[-1]

    def step(self) -> None:
        self.random.choice(
            [self.send, self.flow, self.flow, self.flow, self.flow, self.cut, self.freeze,
             self.connect, self.store, self.wait, self.cancel]
        )()  # fmt: skip
        for pair in self.pairs:
            kept = pair.relay.connection._queue
            assert sum(len(item) for item in kept if isinstance(item, bytes)) <= 2 * 65_536
        assert self.net.relay.unfinished.octets <= 4 * 40_000

    def connect(self) -> None:
        if len(self.pairs) < 3:
            role = self.random.choice(["inbound", "outbound"])
            pair = self.net.connect(KEY, "inbound" if role == "inbound" else "outbound")
            if pair.watch.session is not None:
                self.pairs.append(pair)

    def send(self) -> None:
        if not self.pairs:
            return
        mail = self.random.choice(self.mail)
        self._send(mail, self.random.choice(self.pairs))

    def _send(self, mail: Mail, pair: Pair) -> None:
        def over(outcome: Outcome | Failure) -> None:
            mail.under_way -= 1
            if isinstance(outcome, Delivered):
                mail.delivered += 1
                self.check(mail)

        mail.under_way += 1
        self.last = pair.session.send(mail.stream, OctetsInMemory(mail.content))
        self.last.addBoth(over)

    last: Deferred[Outcome] | None = None

    def cancel(self) -> None:
        if self.last is not None and not self.last.called:
            self.last.cancel()

    def flow(self) -> None:
        for pair in self.pairs:
            end = self.random.choice([pair.relay, pair.agent])
            for _ in range(self.random.choice([1, 10, 100])):
                end.flow()

    def cut(self) -> None:
        if self.pairs:
            pair = self.pairs.pop(self.random.randrange(len(self.pairs)))
            pair.relay.is_frozen = pair.agent.is_frozen = False
            pair.relay.cut()

    def freeze(self) -> None:
        if self.pairs:
            pair = self.random.choice(self.pairs)
            pair.relay.is_frozen = not pair.relay.is_frozen

    def store(self) -> None:
        if self.slow:
            self.slow.pop().callback(None)
        if self.held:
            intake, stored = self.held.pop(self.random.randrange(len(self.held)))
            stored.callback(self.house.keep(intake))

    def wait(self) -> None:
        self.net.clock.advance(self.random.choice([0, 1, 40]))
        self.pairs = [pair for pair in self.pairs if not pair.watch.ends]

    def check(self, mail: Mail) -> None:
        """What its sender takes as delivered is there."""
        recipient = mail.stream.recipient
        found = [
            content for _, stream, content in self.house.taken if stream.recipient == recipient
        ]
        assert set(found) == {mail.content}, f"{mail.number} is lost"

    def heal(self) -> None:
        """Nothing goes wrong any more: every message gets through."""
        self.is_kind = True
        while self.slow or self.held:
            self.store()
        for pair in self.pairs:
            pair.relay.is_frozen = False
        self.net.flow()
        while self.pairs:
            self.cut()
        for mail in self.mail:
            assert not mail.under_way, f"nobody says what became of {mail.number}"
            while not mail.delivered:
                if not self.pairs:
                    self.pairs.append(self.net.connect(KEY))
                self._send(mail, self.pairs[0])
                self.net.flow()
            self.check(mail)


class WorldTests(SynchronousTestCase):
    @settings(max_examples=150)
    @given(st.integers(0, 2**32), st.integers(1, 120))
    def test_reliable(self, seed: int, steps: int) -> None:
        """What is taken as delivered is there, once; and everything can be delivered."""
        world = World(Random(seed), is_reliable=True)
        for _ in range(steps):
            world.step()
        world.heal()
        self.assertEqual(world.house.doubles, 0)
        names = [stream.request_id for _, stream, _ in world.house.taken]
        self.assertEqual(sorted(names), sorted({f"r-{mail.number}" for mail in world.mail}))
        self.assertEqual(self.flushLoggedErrors(), [])
        for pair in world.pairs:
            pair.relay.cut()
        world.net.relay.unfinished.close()
        self.assertEqual(world.house.open, [])

    @settings(max_examples=80)
    @given(st.integers(0, 2**32), st.integers(1, 120))
    def test_original(self, seed: int, steps: int) -> None:
        """Without the extension: what is taken as delivered is there, perhaps more than once."""
        world = World(Random(seed), is_reliable=False)
        for _ in range(steps):
            world.step()
        world.heal()
        self.assertEqual(self.flushLoggedErrors(), [])
        for pair in world.pairs:
            pair.relay.cut()
        self.assertEqual(world.house.open, [])
