"""Certificates that are renewed without a word to us, half written, expired; and those of our own."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

from cryptography import x509
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.testing.authority import Authority
from protege_mta.transport.certificates import (
    DAY_S,
    LOOK_S,
    TICKETS_S,
    Certificates,
    load,
)
from protege_mta.transport.self_signed import DAYS, RENEW_DAYS, kept, self_signed
from protege_mta.transport.tls_server import KeyPair, ServerContexts, TlsFiles

_T = TypeVar("_T")

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class LogCase(SynchronousTestCase):
    """Keeps what is logged."""

    def setUp(self) -> None:
        self.logged: list[LogEvent] = []
        observer = cast(ILogObserver, self.logged.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def said(self) -> list[str]:
        """Level and text of what was logged since the last call."""
        said = [
            f"{event['log_level'].name} {formatEvent(event)}"
            for event in self.logged
            if str(event.get("log_namespace", "")).startswith("protege_mta")
        ]
        self.logged.clear()
        return said


class WatchTests(LogCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.authority = Authority(self.folder)
        self.pair = KeyPair(self.folder / "live.pem", self.folder / "live.key")
        self.write()
        self.clock = Clock()
        self.put: list[ServerContexts | None] = []
        self.threads: list[Callable[[], object]] = []
        self.is_slow = False
        self.certificates = Certificates(
            self.put.append,
            clock=self.clock,
            now=lambda: datetime.now(UTC).timestamp(),
            in_thread=self.in_thread,
        )
        self.use()
        self.certificates.start()
        self.addCleanup(self.certificates.stop)
        self.said()

    def in_thread(self, work: Callable[[], _T]) -> Deferred[_T]:
        """At once; or when a test says so."""
        if not self.is_slow:
            return execute(work)
        waiting: Deferred[_T] = Deferred()

        def later() -> None:
            execute(work).chainDeferred(waiting)

        self.threads.append(later)
        return waiting

    def source(self) -> TlsFiles:
        return TlsFiles((self.pair,))

    def use(self) -> None:
        self.certificates.use(self.source, load(self.source))

    def write(self, **options: Any) -> None:
        """Put another certificate and its key in place."""
        certificate, key = self.authority.issue("mx.test", file="fresh", **options)
        certificate.replace(self.pair.certificate)
        key.replace(self.pair.private_key)

    def look(self) -> None:
        self.clock.advance(LOOK_S)

    def test_what_has_not_changed_is_left_alone(self) -> None:
        for _ in range(10):
            self.look()
        self.assertEqual((len(self.put), self.said()), (1, []))

    def test_a_renewed_certificate_is_used(self) -> None:
        self.write()
        self.look()
        self.assertEqual(len(self.put), 2)
        self.assertIsNot(self.put[0], self.put[1])
        [line] = self.said()
        self.assertRegex(
            line, r"^warn TLS certificate of mx\.test \(ecdsa, /.*/live\.pem\) is not renewed"
        )
        self.look()
        self.assertEqual(len(self.put), 2)

    def test_links_are_followed(self) -> None:
        """As certbot has it: what lies in ``live`` are links, and they are made anew."""
        archive = self.folder / "archive"
        archive.mkdir()
        for number in (1, 2):
            certificate, key = self.authority.issue("mx.test", file=f"archive/{number}")
            shutil.copystat(self.pair.certificate, certificate)  # not even the time tells
            shutil.copystat(self.pair.certificate, key)
        for path in (self.pair.certificate, self.pair.private_key):
            path.unlink()
            path.symlink_to(archive / f"1{path.suffix}")
        self.use()
        for path in (self.pair.certificate, self.pair.private_key):
            path.unlink()
            path.symlink_to(archive / f"2{path.suffix}")
        self.look()
        self.assertEqual(len(self.put), 3)

    def test_half_a_pair_changes_nothing_and_is_told_of_once(self) -> None:
        certificate, key = self.authority.issue("mx.test", file="fresh")
        certificate.replace(self.pair.certificate)
        for _ in range(5):
            self.look()
        self.assertEqual(len(self.put), 1)
        self.assertEqual(
            self.said(),
            [
                "error certificates have changed but cannot be used: "
                f"{self.pair.private_key}: not the key of {self.pair.certificate}"
            ],
        )
        self.pair.private_key.unlink()
        self.look()
        self.assertEqual(len(self.said()), 1)  # another fault
        key.replace(self.pair.private_key)
        self.look()
        self.assertEqual(len(self.put), 2)

    def test_a_file_that_is_cut_in_the_midst_changes_nothing(self) -> None:
        octets = self.pair.certificate.read_bytes()
        for part in (b"", octets[:100], octets[:-20]):
            self.pair.certificate.write_bytes(part)
            self.look()
            [line] = self.said()
            self.assertIn(f"{self.pair.certificate}: no PEM certificate", line)
        self.assertEqual(len(self.put), 1)

    def test_what_was_put_back_is_no_trouble_any_more(self) -> None:
        self.pair.certificate.rename(self.folder / "aside")
        self.look()
        (self.folder / "aside").rename(self.pair.certificate)
        self.look()
        self.assertEqual((len(self.put), len(self.said())), (1, 1))
        self.pair.certificate.rename(self.folder / "aside")
        self.look()
        self.assertEqual(len(self.said()), 1)

    def test_files_that_change_while_they_are_read(self) -> None:
        """What is read might be neither the old nor the new."""

        def changing() -> TlsFiles:
            return TlsFiles((self.pair,), client_ca_file=self.Changing(self.authority.ca_file))

        with self.assertRaisesRegex(ValueError, "is being replaced just now"):
            load(changing)

    class Changing(type(Path())):  # type: ignore[misc]
        """A file that is another one whenever it is looked at."""

        times = 0

        def stat(self, **options: Any) -> os.stat_result:
            type(self).times += 1
            os.utime(self, ns=(self.times, self.times))
            return os.stat(self, **options)

    def test_one_look_at_a_time_however_long_it_takes(self) -> None:
        self.is_slow = True
        self.write()
        for _ in range(5):
            self.look()
        [thread] = self.threads
        self.assertEqual(len(self.put), 1)
        thread()
        self.assertEqual(len(self.put), 2)

    def test_a_reload_is_newer_than_a_look_that_began_before(self) -> None:
        self.is_slow = True
        self.write()
        self.look()
        self.use()
        [thread] = self.threads
        thread()
        self.assertEqual(len(self.put), 2)

    def test_a_look_that_ends_after_the_stop_changes_nothing(self) -> None:
        self.is_slow = True
        self.write()
        self.look()
        self.certificates.stop()
        [thread] = self.threads
        thread()
        self.assertEqual(len(self.put), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_keys_of_tickets_grow_half_a_day_old(self) -> None:
        self.clock.advance(TICKETS_S - LOOK_S)
        self.look()
        self.assertEqual(len(self.put), 2)
        self.assertEqual(self.said(), [])
        self.look()
        self.assertEqual(len(self.put), 2)

    def test_no_certificates_no_looks(self) -> None:
        self.certificates.use(None, None)
        self.look()
        self.assertEqual(self.put[1:], [None])
        self.assertEqual(self.certificates.ends(), {})

    def test_a_fault_of_ours_does_not_end_the_watch(self) -> None:
        def broken() -> TlsFiles:
            raise RuntimeError("a bug")

        self.certificates.use(broken, load(self.source))
        self.write()
        self.look()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.use()
        self.write()
        self.look()
        self.assertEqual(len(self.put), 4)

    def test_one_that_ends_soon_is_told_of_every_day(self) -> None:
        """And no other."""
        for days, expected in (
            (-1, "error TLS certificate of mx.test .* has expired on "),
            (13, "warn TLS certificate of mx.test .* is not renewed and expires on "),
            (15, ""),
        ):
            self.write(days=days)
            self.look()
            [first] = self.said()
            if not expected:
                self.assertRegex(first, "^info TLS certificate of mx.test .* is good until ")
            self.clock.advance(DAY_S - LOOK_S)
            self.look()
            self.assertRegex("\n".join(self.said()), f"^{expected}")
            self.look()
            self.assertEqual(self.said(), [])

    def test_ends(self) -> None:
        """By name and algorithm; of two that have both in common, the first to end."""
        pairs = [
            KeyPair(*self.authority.issue("mx.test", "a.test", days=3, file="a")),
            KeyPair(*self.authority.issue("mx.test", days=2, file="b")),
            KeyPair(*self.authority.issue("mx.test", days=1, file="c", algorithm="rsa")),
            KeyPair(*self.authority.issue("192.0.2.1", days=4, file="d")),
        ]
        self.certificates.use(self.source, load(lambda: TlsFiles(tuple(pairs))))
        now = datetime.now(UTC).timestamp()
        days = {key: round((at - now) / DAY_S) for key, at in self.certificates.ends().items()}
        expected = {("mx.test", "ecdsa"): 2, ("mx.test", "rsa"): 1, ("d.pem", "ecdsa"): 4}
        self.assertEqual(days, expected)


class SelfSignedTests(LogCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp()).absolute() / "state" / "tls"

    def kept(self, *names: str, days: float = 0) -> bytes:
        """The certificate, for a start so many days after the first."""
        pair = kept(self.folder, names or ("mx.test",), NOW + timedelta(days=days))
        load(lambda: TlsFiles((pair,)))  # fit for use
        return pair.certificate.read_bytes()

    def test_certificate(self) -> None:
        """P-256, for the host's names, even where one is too long for a common name."""
        name = ".".join(["a" * 60, "b" * 60, "test"])
        pem, key = self_signed([name, "localhost", "127.0.0.1", "::1"], NOW)
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), [name, "localhost"])
        addresses = names.get_values_for_type(x509.IPAddress)
        self.assertEqual(list(map(str, addresses)), ["127.0.0.1", "::1"])
        self.assertEqual(certificate.not_valid_before_utc.isoformat(), "2025-12-31T23:00:00+00:00")
        self.assertTrue(key.startswith(b"-----BEGIN PRIVATE KEY-----"))

    def test_it_is_made_once_and_kept(self) -> None:
        first = self.kept()
        [line] = self.said()
        self.assertEqual(
            line, f"info made a self-signed certificate for mx.test: {self.folder}/cert.pem"
        )
        self.assertEqual(self.kept(), first)
        self.assertEqual(self.kept(days=DAYS - RENEW_DAYS - 1), first)
        self.assertEqual(self.said(), [])

    def test_it_is_ours_alone(self) -> None:
        self.kept()
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode)
            for path in (self.folder, *self.folder.iterdir())
        }
        self.assertEqual(modes, {"tls": 0o700, "cert.pem": 0o600, "key.pem": 0o600})

    def test_it_is_made_anew_when_it_nears_its_end(self) -> None:
        first = self.kept()
        self.assertNotEqual(self.kept(days=DAYS - RENEW_DAYS + 1), first)

    def test_it_is_made_anew_for_another_name(self) -> None:
        first = self.kept()
        self.assertNotEqual(self.kept("mail.test"), first)
        self.assertNotEqual(self.kept("mail.test", "localhost"), self.kept("mail.test"))

    def test_what_a_crash_has_left_is_made_anew(self) -> None:
        """A key that is not the certificate's, half a file, none."""
        for path in (self.folder / "cert.pem", self.folder / "key.pem"):
            before = self.kept()
            path.write_bytes(path.read_bytes()[:50])
            self.assertNotEqual(self.kept(), before)
            before = self.kept()
            path.unlink()
            self.assertNotEqual(self.kept(), before)
        before = self.kept()
        (self.folder / "key.pem").write_bytes(self_signed(["mx.test"], NOW)[1])
        self.assertNotEqual(self.kept(), before)
        self.assertEqual({path.name for path in self.folder.iterdir()}, {"cert.pem", "key.pem"})

    def test_the_log_tells_whose_it_is(self) -> None:
        certificates = Certificates(
            lambda contexts: None,
            clock=Clock(),
            now=NOW.timestamp,
            in_thread=lambda work: execute(work),
        )
        files = TlsFiles((kept(self.folder, ["mx.test"], NOW),))
        certificates.use(lambda: files, load(lambda: files))
        self.assertIn("mx.test (self-signed, ecdsa, ", self.said()[-1])
