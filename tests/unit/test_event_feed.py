"""Tests of the service's half of webhooks: its child is there when it should be, and only then."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.child import ChildLink
from protege_mta.config.domains import WebhookDomain
from protege_mta.config.http import Api, InboundHook, Webhook
from protege_mta.config.model import Settings
from protege_mta.event_feed import SILENT_S, Webhooks
from protege_mta.inbound_hooks import endpoints
from protege_mta.model.webhook import Figures
from protege_mta.notifier import Hooks
from protege_mta.observe.segments import SegmentReader, Segments
from protege_mta.state.hooks import HookStore
from protege_mta.transport.link import Leave, Ready, Setup, encode, to_child
from protege_mta.webhook.messages import Told


class Child:
    """A process as far as its parent sees it."""

    def __init__(self, received: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        self.tell, self.die = received, lost
        self.heard: list[Any] = []
        self.is_dropped = self.is_killed = False

    def send(self, frame: bytes) -> None:
        said = to_child(frame)
        self.heard.append(pickle.loads(said.settings) if isinstance(said, Setup) else said)

    def drop(self) -> None:
        self.is_dropped = True

    def kill(self) -> None:
        self.is_killed = True
        self.die()


class Sayings:
    """A log of which webhooks errors name."""

    def __init__(self, said: list[str]) -> None:
        self._said = said

    def error(self, format: str, *, name: str) -> None:
        self._said.append(name)

    def info(self, format: str, **facts: object) -> None: ...


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        (self.folder / "secret").write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
        self.clock = Clock()
        self.children: list[Child] = []
        self.webhooks = Webhooks(self.spawn, self.clock)

    def spawn(self, received: Callable[[bytes], None], lost: Callable[[], None]) -> ChildLink:
        self.children.append(Child(received, lost))
        return cast(ChildLink, self.children[-1])

    def hooks(self, *names: str) -> Hooks:
        hooks = [
            Webhook(name=name, url="http://127.0.0.1:1/", secret_file=self.folder / "secret")
            for name in names
        ]
        return Hooks(self.folder, self.folder / "journal", tuple(hooks))


class ChildTests(Case):
    def test_none_without_webhooks(self) -> None:
        self.webhooks.set_up(self.hooks())
        self.assertEqual(self.children, [])
        self.successResultOf(self.webhooks.close())
        self.assertFalse((self.folder / "webhooks.sqlite").exists())

    def test_a_reload(self) -> None:
        """The child there is hears of it; without webhooks it goes, and with some it comes back."""
        self.webhooks.set_up(self.hooks("a"))
        self.webhooks.set_up(self.hooks("a", "b"))
        [child] = self.children
        self.assertEqual([len(said.webhooks) for said in child.heard], [1, 2])
        self.webhooks.set_up(self.hooks())
        self.assertEqual(child.heard[2], Leave())
        self.webhooks.set_up(self.hooks("c"))
        self.assertEqual(len(child.heard), 3)
        child.die()
        self.assertEqual([one.name for one in self.children[1].heard[0].webhooks], ["c"])

    def test_a_child_that_is_lost(self) -> None:
        """Another one comes after a second, later where it never gets ready."""
        self.webhooks.set_up(self.hooks("a"))
        self.children[0].tell(encode(Ready(1)))
        began_at = []
        for _ in range(3):
            self.children[-1].die()
            count = len(self.children)
            for _ in range(10):
                self.clock.advance(1)
                if len(self.children) > count:
                    break
            began_at.append(self.clock.seconds())
        self.assertEqual(began_at, [1, 3, 7])

    def test_a_child_that_hangs(self) -> None:
        """Whoever says nothing for long is killed, and another one comes; what is said keeps it."""
        self.webhooks.set_up(self.hooks("a"))
        [child] = self.children
        for _ in range(10):
            self.clock.advance(SILENT_S - 1)
            child.tell(encode(Told([])))
        self.assertFalse(child.is_killed)
        self.clock.advance(SILENT_S)
        self.assertTrue(child.is_killed)
        self.clock.advance(1)
        self.assertEqual(len(self.children), 2)
        closing = self.webhooks.close()
        self.children[1].die()
        self.successResultOf(closing)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_settled(self) -> None:
        """A change is there once the child says so of the last one, or is gone."""
        self.successResultOf(self.webhooks.settled())
        self.webhooks.set_up(self.hooks("a"))
        self.webhooks.set_up(self.hooks("b"))
        [child] = self.children
        settled = self.webhooks.settled()
        child.tell(encode(Ready(1)))
        self.assertNoResult(settled)
        child.tell(encode(Ready(1)))
        self.successResultOf(settled)
        self.successResultOf(self.webhooks.settled())
        self.webhooks.set_up(self.hooks("c"))
        settled = self.webhooks.settled()
        child.die()
        self.successResultOf(settled)
        self.clock.advance(1)
        self.webhooks.set_up(self.hooks())
        settled = self.webhooks.settled()
        self.children[1].tell(encode(Ready(2)))  # of its first settings
        self.assertNoResult(settled)
        self.children[1].die()
        self.successResultOf(settled)

    def test_too_far_behind(self) -> None:
        """Is said when retention takes what a webhook has not had, once."""
        journal = self.folder / "journal"
        journal.mkdir()
        (journal / "00000000000009.jsonl").write_bytes(b"")
        (journal / "00000000000008-0000000500.pruned").write_bytes(b"")
        said: list[str] = []
        self.webhooks.log = cast(Any, Sayings(said))
        self.webhooks.set_up(self.hooks("a", "b"))
        behind = Figures(name="a", cursor="00000000000008-0000000000")
        here = Figures(name="b", cursor="00000000000009-0000000000")
        had_all = Figures(name="c", cursor="00000000000008-0000000500")
        for _ in range(3):
            self.children[0].tell(encode(Told([behind, here, had_all])))
        self.assertEqual(said, ["a"])

    def test_the_end(self) -> None:
        self.webhooks.set_up(self.hooks("a"))
        closing = self.webhooks.close()
        self.assertNoResult(closing)
        self.assertEqual(self.children[0].heard[-1], Leave())
        self.children[0].die()
        self.successResultOf(closing)
        self.clock.advance(100)
        self.assertEqual(len(self.children), 1)

    def test_figures(self) -> None:
        self.webhooks.set_up(self.hooks("a"))
        told = Figures(name="a", state="down", delivered=3)
        self.children[0].tell(encode(Told([told])))
        self.assertEqual(self.webhooks.figures(), [told])
        self.webhooks.set_up(self.hooks())
        self.assertEqual(list(self.webhooks.figures()), [])


class PlaceTests(Case):
    def test_begins_with_what_comes(self) -> None:
        """A new webhook has its place before the child is there; one that has been is where it was."""
        self.webhooks.set_up(self.hooks("early"))
        segments = Segments(
            self.folder / "journal",
            now=lambda: 1_800_000_000.0,
            failed=self.fail,
            keep_octets=1_000_000,
            keep_s=1e6,
        )
        segments.open(0)
        self.addCleanup(segments.close)
        segments.add([b'{"event":"received","id":"a"}\n'], 30)
        segments.write()
        self.webhooks.set_up(self.hooks("early", "late"))
        store = HookStore(self.folder)
        self.addCleanup(store.close)
        early, late = store.standing("early"), store.standing("late")
        assert early is not None
        assert late is not None
        self.assertEqual(early.cursor, "")
        self.assertEqual(late.cursor, SegmentReader(self.folder / "journal").end())

    def test_what_cannot_be_used(self) -> None:
        """A secret or certificate that is none changes nothing."""
        self.webhooks.set_up(self.hooks("a"))
        (self.folder / "secret").write_text("no secret")
        self.assertRaises(ValueError, self.webhooks.set_up, self.hooks("a", "b"))
        (self.folder / "secret").unlink()
        self.assertRaises(OSError, self.webhooks.set_up, self.hooks("a", "b"))
        self.assertEqual(len(self.children[0].heard), 1)

    def test_octets_of_a_secret(self) -> None:
        """No complaint has them."""
        (self.folder / "secret").write_bytes(b"whsec_MfKQ\xff\n")
        hook = InboundHook(url="http://127.0.0.1:1/", secret_file=self.folder / "secret")
        domain = WebhookDomain(webhook=hook)
        settings = cast(
            Settings,
            SimpleNamespace(domains={"y.test": domain}, api=Api()),
        )
        for read in (
            lambda: self.webhooks.set_up(self.hooks("a")),
            lambda: endpoints(settings),
        ):
            error = self.assertRaises(ValueError, read)
            self.assertNotIn("xff", str(error))
            self.assertIn("secret: it is not ASCII", str(error))
