"""The sending APIs, as their clients use them.

requests, protege-mta send, schemathesis  -- HTTP -->  protege-mta  --  Maildir
"""

from __future__ import annotations

import base64
import email.policy
import gzip
import json
import os
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from email import message_from_bytes
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from twisted.trial.unittest import SynchronousTestCase

from .api import ApiTestCase, add_key, ask
from .service import PROGRAM, WAIT_S, Service, until


def simple(recipient: str, **more: Any) -> dict[str, Any]:
    return {"from": "me@far.test", "to": [recipient], "subject": "hi", "text": "there"} | more


def read(octets: bytes) -> EmailMessage:
    return message_from_bytes(octets, policy=email.policy.default)


class MessageTests(ApiTestCase):
    """``POST /v1/message``."""

    def test_one(self) -> None:
        answer = self.post(
            "/v1/message",
            simple("one@local.test")
            | {
                "from": "Röbin <me@far.test>",
                "subject": "Grüße",
                "html": "<img src='cid:logo'>",
                "attachments": [
                    {"filename": "ö.txt", "content_b64": base64.b64encode(b"file").decode()},
                    {"filename": "l.png", "content_type": "image/png", "content_b64": "QUJD",
                     "content_id": "logo"},
                ],
                "headers": {"X-Own": "yes"},
                "campaign": "spring",
                "tags": ["welcome", "second"],
                "unsubscribe": {"url": "https://far.test/u/1", "one_click": True},
            },
        )  # fmt: skip
        self.assertEqual(answer.status_code, 202, answer.text)
        told = answer.json()
        self.assertEqual(told["recipients"], [{"address": "one@local.test", "status": "queued"}])
        fate = self.service.fate("one@local.test")
        self.assertEqual(
            (fate["message_id"], fate["source"], fate["identity"], fate["campaign"]),
            (told["id"], "http", "key:app", "spring"),
        )
        self.assertEqual(fate["tags"], ["welcome", "second"])
        page = ask(self.service, self.secret, "GET", "/v1/messages?tag=second").json()
        [logged] = page["messages"]
        self.assertEqual((logged["id"], logged["tags"]), (told["id"], ["welcome", "second"]))
        message = read(self.service.wait_for_mail("one")[0])
        self.assertEqual(message["Subject"], "Grüße")
        self.assertEqual(str(message["From"]), "Röbin <me@far.test>")
        self.assertEqual(message["X-Own"], "yes")
        self.assertEqual(message["List-Unsubscribe"], "<https://far.test/u/1>")
        self.assertEqual(message["List-Unsubscribe-Post"], "List-Unsubscribe=One-Click")
        files = {part.get_filename(): part.get_content() for part in message.iter_attachments()}
        self.assertEqual(files["ö.txt"], b"file")

    def test_batch_has_a_result_for_each(self) -> None:
        messages = [simple(f"batch{n}@local.test") for n in range(100)]
        messages[7] = simple("no address")
        answer = self.post("/v1/message", {"messages": messages})
        self.assertEqual(answer.status_code, 202, answer.text)
        results = answer.json()["results"]
        self.assertEqual(len(results), 100)
        self.assertEqual(results[7]["error"]["member"], "/messages/7/to/0")
        self.assertEqual(len({one["id"] for one in results if "id" in one}), 99)
        self.service.fate("batch99@local.test")

    def test_template_makes_a_message_for_each(self) -> None:
        to = [
            {"address": "t1@local.test", "name": "Ann", "substitutions": {"n": 1}},
            {"address": "t2@local.test", "name": "Ben", "substitutions": {"n": 2}},
        ]
        body = simple("") | {"to": to, "template": "jinja", "text": "{{ name }} {{ n }} {{ all }}"}
        answer = self.post("/v1/message", body | {"substitutions": {"all": "x"}})
        self.assertEqual(answer.status_code, 202, answer.text)
        text = self.service.wait_for_mail("t2")[0]
        self.assertIn(b"Ben 2 x", text)
        self.assertNotIn(b"t1@", text)

    def test_later(self) -> None:
        answer = self.post("/v1/message", simple("l@local.test", send_at="2999-01-01T00:00:00Z"))
        self.assertEqual((answer.status_code, answer.json()["member"]), (422, "/send_at"))

    def test_flaws_name_the_member(self) -> None:
        for member, body in (
            ("/to/0", simple("no address")),
            ("/headers/Received", simple("a@local.test", headers={"Received": "x"})),
            ("/headers/X-A", simple("a@local.test", headers={"X-A": "a\r\nBcc: b@far.test"})),
            ("/subject", simple("a@local.test", subject="a\nb")),
            ("/nonsense", simple("a@local.test", nonsense=1)),
            ("/from", {"to": ["a@local.test"]}),
            ("/attachments/0/content_b64", simple("a@local.test", attachments=[{"content_b64": "!"}])),
            ("/text", simple("a@local.test", template="jinja", text="{{ nothing }}")),
            ("/to/0", simple("a@local.test", to=[1])),
        ):  # fmt: skip
            answer = self.post("/v1/message", body)
            self.assertEqual((answer.status_code, answer.json()["member"]), (422, member))
            self.assertEqual(answer.headers["Content-Type"], "application/problem+json")

    def test_not_json(self) -> None:
        for body, status in (
            (b"{", 400),
            (b'{"from": 1, "from": 2}', 400),
            (b"[" * 50 + b"]" * 50, 400),
            (b"[" * 100_000, 400),
            (b"\xff", 400),
        ):
            answer = ask(
                self.service, self.secret, "POST", "/v1/message",
                data=body, headers={"Content-Type": "application/json"},
            )  # fmt: skip
            self.assertEqual(answer.status_code, status, answer.text)
        self.assertEqual(
            ask(self.service, self.secret, "POST", "/v1/message", data=b"{}").status_code, 415
        )

    def test_idempotency(self) -> None:
        first = self.post("/v1/message", simple("idem@local.test"), Idempotency_Key="k")
        again = self.post("/v1/message", simple("idem@local.test"), Idempotency_Key="k")
        other = self.post("/v1/message", simple("else@local.test"), Idempotency_Key="k")
        self.assertEqual((again.status_code, again.text), (202, first.text))
        self.assertEqual(again.headers["Idempotent-Replayed"], "true")
        self.assertNotIn("Idempotent-Replayed", first.headers)
        self.assertEqual(other.status_code, 409)
        self.service.fate("idem@local.test")
        self.assertEqual(len(self.service.wait_for_mail("idem")), 1)

    def test_without_a_key(self) -> None:
        answer = requests.post(
            f"http://127.0.0.1:{self.service.port('http')}/v1/message", json={}, timeout=WAIT_S
        )
        self.assertEqual(answer.status_code, 401)

    def test_a_key_in_basic(self) -> None:
        """For programs that know nothing else, by either name."""
        url = f"http://127.0.0.1:{self.service.port('http')}/v1/message"
        told = [
            requests.post(
                url, json=simple("basic@local.test"), auth=(name, self.secret), timeout=WAIT_S
            )
            for name in ("apikey", "app", "another")
        ]
        self.assertEqual([one.status_code for one in told], [202, 202, 401])


class PortalTests(ApiTestCase):
    """What the original portal's client does."""

    def send(self, path: str = "/api/send", **members: Any) -> tuple[int, Any]:
        body = {"from_email": "me@far.test", "subject": "s", "text": "t"} | members
        answer = self.post(path, body)
        return answer.status_code, answer.json()

    def test_sent(self) -> None:
        attachment = {"filename": "a.pdf", "mime_type": "pdf", "content_b64": "QUJD"}
        told = self.send(
            to="p1@local.test; p2@local.test",
            html="<p>t",
            from_name="Me",
            reply_to="r@far.test",
            reply_to_name="R",
            attachments=[attachment, {"filename": "empty"}],
        )
        self.assertEqual(told, (200, {"ok": True}))
        message = read(self.service.wait_for_mail("p2")[0])
        self.assertEqual(message["From"], "Me <me@far.test>")
        self.assertEqual(message["Reply-To"], "R <r@far.test>")
        (part,) = message.iter_attachments()
        self.assertEqual(part.get_content_type(), "application/octet-stream")

    def test_rules(self) -> None:
        for status, members in (
            (400, {"to": []}),
            (400, {"to": "x@local.test", "from_email": None}),
            (400, {"to": ["x@local.test"] * 101}),
            (400, {"to": ["x@local.test"], "attachments": [{"content_b64": "!"}]}),
            (400, {"to": ["no address"]}),
            (502, {"to": ["x@nowhere.invalid"]}),
        ):
            found, told = self.send(**members)
            self.assertEqual((found, told["ok"]), (status, False), members)
            self.assertIn("error", told)
        self.assertEqual(self.send("/api/send?wait=0", to=["x@nowhere.invalid"])[0], 200)
        self.assertEqual(self.post("/api/send", []).status_code, 400)

    def test_key(self) -> None:
        url = f"http://127.0.0.1:{self.service.port('http')}"
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            for answer in (
                requests.post(f"{url}/api/send", data=b"{", headers=headers, timeout=WAIT_S),
                requests.get(f"{url}/api/health", headers=headers, timeout=WAIT_S),
            ):
                self.assertEqual((answer.status_code, answer.json()["ok"]), (401, False))
        strict = add_key(self.service, "strict", allowed_from=("good.test",))
        body = {"from_email": "a@bad.test", "to": ["p@local.test"], "subject": "", "text": ""}
        answer = ask(self.service, strict, "POST", "/api/send", json=body)
        self.assertEqual((answer.status_code, answer.json()["ok"]), (403, False))
        body["from_email"] = "a@GOOD.test"
        answer = ask(self.service, strict, "POST", "/api/send", json=body)
        self.assertEqual(answer.status_code, 200)

    def test_health(self) -> None:
        answer = ask(self.service, self.secret, "GET", "/api/health")
        self.assertEqual(answer.json(), {"ok": True, "configured": True})
        answer = requests.get(
            f"http://127.0.0.1:{self.service.port('http')}/healthz", timeout=WAIT_S
        )
        self.assertEqual(answer.json(), {"ok": True})


class KumoTests(ApiTestCase):
    """The request forms of KumoMTA's documentation."""

    def test_whole_message(self) -> None:
        answer = self.post(
            "/api/inject/v1",
            {
                "envelope_sender": "noreply@far.test",
                "content": "Subject: hello\n\nHello there",
                "recipients": [{"email": "k1@local.test"}],
            },
        )
        told = answer.json()
        ids = told.pop("message_ids")
        self.assertEqual(
            told, {"success_count": 1, "fail_count": 0, "failed_recipients": [], "errors": []}
        )
        self.assertEqual(self.service.fate("k1@local.test")["message_id"], ids[0])
        self.assertEqual(read(self.service.wait_for_mail("k1")[0])["Subject"], "hello")

    def test_parts_and_substitutions(self) -> None:
        answer = self.post(
            "/api/inject/v1",
            {
                "envelope_sender": "noreply@far.test",
                "content": {
                    "text_body": "This is the plain text part, {{ name }} of {{ company }}.",
                    "html_body": "<h1>{{ name }}</h1>",
                    "attachments": [
                        {"data": "QUJD", "base64": True, "content_type": "image/png",
                         "content_id": "my-image"},
                        {"data": "plain", "content_type": "text/plain", "file_name": "p.txt"},
                    ],
                    "headers": {"X-Something": "value"},
                    "from": {"email": "info@far.test", "name": "Info"},
                    "subject": "This is the subject",
                    "reply_to": {"email": "help@far.test"},
                },
                "recipients": [
                    {"email": "k2@local.test", "name": "<John>", "substitutions": {"x": 1}},
                    {"email": "broken"},
                ],
                "substitutions": {"company": "ACME"},
            },
        )  # fmt: skip
        told = answer.json()
        self.assertEqual((told["success_count"], told["fail_count"]), (1, 1))
        self.assertEqual(told["failed_recipients"], ["broken"])
        self.assertEqual(told["message_ids"][1], None)
        message = read(self.service.wait_for_mail("k2")[0])
        self.assertEqual(message["To"], '"<John>" <k2@local.test>')
        text, html = message.get_body(("plain",)), message.get_body(("html",))
        assert text is not None and html is not None  # noqa: PT018
        self.assertIn("<John> of ACME", text.get_content())
        self.assertIn("&lt;John&gt;", html.get_content())

    def test_smuggling(self) -> None:
        """A bare CR is refused; a bare LF ends a line, and is a CRLF from there on."""
        body = {"envelope_sender": "a@far.test", "recipients": [{"email": "k3@local.test"}]}
        answer = self.post("/api/inject/v1", body | {"content": "Subject: x\n\na\rb"})
        self.assertEqual(answer.json()["fail_count"], 1)

    def inject(self, **more: Any) -> tuple[int, Any]:
        body = {
            "envelope_sender": "a@far.test",
            "content": "Subject: x\n\nx",
            "recipients": [{"email": "k4@local.test"}],
        }
        answer = self.post("/api/inject/v1", body | more)
        return answer.status_code, answer.json()

    def test_deferred_generation_counts_no_successes(self) -> None:
        status, told = self.inject(
            deferred_generation=True, recipients=[{"email": "k5@local.test"}]
        )
        self.assertEqual((status, told["success_count"], told["fail_count"]), (200, 0, 0))
        self.assertEqual(self.service.fate("k5@local.test")["message_id"], told["message_ids"][0])

    def test_what_is_no_template(self) -> None:
        """It would fail for every recipient alike."""
        parts = {"from": {"email": "a@far.test"}, "html_body": "{% if %}"}
        for content, member in (("{{ x", "/content"), (parts, "/content/html_body")):
            status, told = self.inject(content=content)
            self.assertEqual((status, told["member"]), (422, member))
        self.assertEqual(
            self.inject(content="Subject: x\n\n{{ x", template_dialect="Static")[0], 200
        )

    def test_handlebars(self) -> None:
        parts = {
            "from": {"email": "a@far.test", "name": "{{shop}}"},
            "subject": "{{shop}}: {{items.length}}",
            "text_body": "{{#each items}}\n{{@index}} {{title}}\n{{/each}}\n{{name}}",
            "html_body": "{{#if items}}<p>{{name}} {{{mark}}}{{else}}none{{/if}}",
            "headers": {"X-Name": "{{name}}"},
        }
        status, told = self.inject(
            content=parts,
            template_dialect="Handlebars",
            substitutions={"shop": "A & B", "mark": "<b>", "items": [{"title": "<x>"}]},
            recipients=[{"email": "k9@local.test", "name": "Ann <3"}],
        )
        self.assertEqual((status, told["success_count"]), (200, 1), told)
        message = read(self.service.wait_for_mail("k9")[0])
        self.assertEqual(message["Subject"], "A & B: 1")
        self.assertEqual(message["From"], "A & B <a@far.test>")
        self.assertEqual(message["X-Name"], "Ann <3")
        text, html = message.get_body(("plain",)), message.get_body(("html",))
        assert text is not None and html is not None  # noqa: PT018
        self.assertEqual(text.get_content(), "0 <x>\nAnn <3")
        self.assertEqual(html.get_content(), "<p>Ann &lt;3 <b>")
        whole = "Subject: {{subject}}\n\n{{#unless gone}}{{subject}}{{/unless}}"
        told = self.inject(
            content=whole,
            template_dialect="Handlebars",
            recipients=[{"email": "k10@local.test", "substitutions": {"subject": "a & b"}}],
        )[1]
        self.assertEqual(told["success_count"], 1, told)
        self.assertEqual(read(self.service.wait_for_mail("k10")[0])["Subject"], "a & b")
        parts["html_body"] = "{{> footer}}"
        status, told = self.inject(content=parts, template_dialect="Handlebars")
        self.assertEqual(
            (status, told["member"], told["hint"]),
            (422, "/content/html_body", "there are no partials here, line 1"),
        )

    def test_trace_headers(self) -> None:
        """Who asks for them finds recipient and metadata in reports about the message."""
        asked = {"include_meta_names": ["order", "absent"]}
        parts = {
            "from": {"email": "a@far.test"},
            "headers": {"Date": "Thu, 1 Jan 2026 00:00:00 +0000"},
        }
        for name, content in (("k7", "Subject: x\n\nx"), ("k8", parts)):
            recipient = {"email": f"{name}@local.test", "metadata": {"order": "7" * 200, "b": 1}}
            status, told = self.inject(content=content, recipients=[recipient], trace_headers=asked)
            self.assertEqual((status, told["success_count"]), (200, 1), told)
            message = read(self.service.wait_for_mail(name)[0])
            said = json.loads(base64.b64decode("".join(message["X-KumoRef"].split())))
            self.assertEqual(
                said, {"_@_": "\\_/", "recipient": f"{name}@local.test", "order": "7" * 200}
            )
        self.assertEqual(message["Date"], "Thu, 01 Jan 2026 00:00:00 +0000")
        bad = {"header_name": "Received"}
        self.assertEqual(self.inject(trace_headers=bad)[1]["fail_count"], 1)

    def test_sender_of_somebody_else(self) -> None:
        strict = add_key(self.service, "kumo", allowed_from=("good.test",))
        body = {
            "envelope_sender": "a@bad.test",
            "content": "Subject: x\n\nx",
            "recipients": [{"email": "k4@local.test"}],
        }
        answer = ask(self.service, strict, "POST", "/api/inject/v1", json=body)
        told = answer.status_code, answer.json()["member"]
        self.assertEqual(told, (403, "/envelope_sender"))

    def test_packed(self) -> None:
        body = json.dumps({"from": "a@far.test", "to": ["k6@local.test"]}).encode()
        named = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        answer = ask(
            self.service,
            self.secret,
            "POST",
            "/v1/message",
            data=gzip.compress(body),
            headers=named,
        )
        self.assertEqual(answer.status_code, 202)
        self.service.wait_for_mail("k6")

    def test_packed_import(self) -> None:
        admin = add_key(self.service, "list", scopes=frozenset(("admin", "send")))
        lines = b"address,reason\r\npacked@far.test,manual\r\n"
        named = {"Content-Type": "text/csv", "Content-Encoding": "gzip"}
        for body, status in ((gzip.compress(lines), 200), (lines, 400)):
            answer = ask(self.service, admin, "POST", "/v1/suppressions", data=body, headers=named)
            self.assertEqual(answer.status_code, status, answer.text)
        said = self.service.cli("suppression", "check", "packed@far.test").stdout
        self.assertIn(b"manual", said)


class PortalLimitTests(ApiTestCase):
    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.service = cls.started(stack, "[api]\nsend_per_hour = 2\n")
        cls.secret = add_key(cls.service)

    def test_requests_of_one_address(self) -> None:
        """Whatever keys they come with, and only those to ``/api/send``."""
        body = {"from_email": "a@far.test", "to": "p9@local.test", "subject": "", "text": ""}
        second = add_key(self.service, "second")
        told = [
            ask(self.service, key, "POST", "/api/send?wait=0", json=body)
            for key in (self.secret, second, second, self.secret)
        ]
        self.assertEqual([one.status_code for one in told], [200, 200, 429, 429])
        self.assertFalse(told[2].json()["ok"])
        self.assertGreater(int(told[2].headers["Retry-After"]), 3000)

        def refused() -> list[Any]:
            return [one for one in self.service.events() if one["event"] == "rejected"]

        until(lambda: bool(refused()), "the event")
        rejected = refused()
        self.assertEqual(
            [(one["identity"], one["peer_address"], one["reply"]["code"]) for one in rejected][:1],
            [("key:second", "127.0.0.1", 450)],
        )
        self.assertLessEqual(len(rejected), 2)  # a minute may have ended in between
        self.assertEqual(self.post("/v1/message", simple("p9@local.test")).status_code, 202)

    def test_suppressed(self) -> None:
        """Counts as failed, for nobody will write there; its message's events say why."""
        self.service.cli("suppression", "add", "gone@far.test")
        body = {
            "envelope_sender": "me@far.test",
            "content": {"subject": "hi", "text_body": "there"},
            "recipients": [
                {"email": "gone@far.test"},
                {"email": "kept@local.test"},
                {"email": "no address"},
            ],
        }
        answer = self.post("/api/inject/v1", body)
        self.assertEqual(answer.status_code, 200, answer.text)
        told = answer.json()
        self.assertEqual((told["success_count"], told["fail_count"]), (1, 2))
        self.assertEqual(told["failed_recipients"], ["gone@far.test", "no address"])
        self.assertRegex(told["errors"][0], "^/recipients/0/email: .*suppress")
        self.assertEqual(len(told["errors"]), 2)
        self.assertEqual([bool(one) for one in told["message_ids"]], [True, True, False])
        self.service.event("suppressed", message_id=told["message_ids"][0])
        self.service.event("delivered", message_id=told["message_ids"][1])

    def test_suppressed_alone(self) -> None:
        """Is told of likewise, and the same request again is answered as at first."""
        self.service.cli("suppression", "add", "alone@far.test")
        body = {
            "envelope_sender": "me@far.test",
            "content": "Subject: hi\r\n\r\nthere\r\n",
            "recipients": [{"email": "alone@far.test"}],
        }
        told = self.post("/api/inject/v1", body, Idempotency_Key="suppressed").json()
        self.assertEqual((told["success_count"], told["fail_count"]), (0, 1))
        self.service.event("suppressed", message_id=told["message_ids"][0])
        again = self.post("/api/inject/v1", body, Idempotency_Key="suppressed")
        self.assertEqual(again.headers["Idempotent-Replayed"], "true")
        self.assertEqual(again.json(), told)


class _AnyName(HTTPAdapter):
    """Trusts a certificate whatever host it names."""

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        super().init_poolmanager(*arguments, **more, assert_hostname=False)


class HttpsTests(ApiTestCase):
    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        tables = '[[listener]]\nname = "https"\nkind = "http"\nport = 0\ntls = true\n'
        cls.service = cls.started(stack, tables)
        cls.secret = add_key(cls.service)

    def test_events_tell_of_the_channel(self) -> None:
        """Of what is taken and of what is refused, with several requests on one connection."""
        certificate = ssl.get_server_certificate(("127.0.0.1", self.service.port("https")))
        file = self.service.folder / "peer.pem"
        file.write_text(certificate, "ascii")
        url = f"https://127.0.0.1:{self.service.port('https')}/v1/message"
        with requests.Session() as session:
            session.mount("https://", _AnyName())
            for secret, status in ((self.secret, 202), (self.secret, 202), ("pmta_x", 401)):
                answer = session.post(
                    url,
                    json=simple("secure@local.test"),
                    headers={"Authorization": f"Bearer {secret}"},
                    verify=str(file),
                    timeout=WAIT_S,
                )
                self.assertEqual(answer.status_code, status, answer.text)
        for event in (
            self.service.event("received", recipient="secure@local.test"),
            self.service.event("rejected"),
        ):
            self.assertEqual((event["source"], event["tls"]["protocol"]), ("http", "TLSv1.3"))


class CommandTests(ApiTestCase):
    def run_send(self, *more: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
        path = Path(self.mktemp())
        path.write_text(f"{key or self.secret}\n", "utf-8")
        return subprocess.run(
            [
                PROGRAM, "send", "--from", "a@far.test", "--subject", "s", "--text", "-",
                "--key-file", path, "--url", f"http://127.0.0.1:{self.service.port('http')}", *more,
            ],
            input="typed\n", capture_output=True, text=True, timeout=WAIT_S, check=False,
        )  # fmt: skip

    def test_sent(self) -> None:
        file = Path(self.mktemp())
        file.write_bytes(b"x")
        done = self.run_send("--to", "c1@local.test", "--attach", str(file))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("c1@local.test: queued", done.stdout)
        self.assertIn(b"typed", self.service.wait_for_mail("c1")[0])

    def test_refused(self) -> None:
        self.assertEqual(self.run_send("--to", "no address").returncode, os.EX_DATAERR)
        self.assertEqual(self.run_send("--to", "a@b.c", key="wrong").returncode, os.EX_NOPERM)
        nobody = self.run_send("--to", "a@b.c", "--url", "http://127.0.0.1:9")
        self.assertEqual(nobody.returncode, os.EX_UNAVAILABLE)


class DescriptionTests(ApiTestCase):
    def test_schemathesis_finds_nothing(self) -> None:
        """No server error, and no answer that the description does not have."""
        done = subprocess.run(
            [
                PROGRAM.with_name("schemathesis"), "run",
                f"http://127.0.0.1:{self.service.port('http')}/openapi.json",
                "--header", f"Authorization: Bearer {self.secret}",
                "--max-examples", "15", "--seed", "1", "--exclude-path", "/metrics",
                "--checks", "not_a_server_error,status_code_conformance,"
                "content_type_conformance,response_schema_conformance",
            ],
            capture_output=True, text=True, timeout=240, check=False, cwd=self.service.folder,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stdout[-4000:] + done.stderr[-1000:])

    def test_page(self) -> None:
        url = f"http://127.0.0.1:{self.service.port('http')}/docs"
        answer = requests.get(url, timeout=WAIT_S)
        self.assertIn("/v1/message", answer.text)
        self.assertIn("default-src 'none'", answer.headers["Content-Security-Policy"])
        self.assertNotRegex(answer.text, r'(?:src|href)="(?!/|#)')


class UnderFireTests(SynchronousTestCase):
    timeout = 120

    def test_one_message_and_one_answer(self) -> None:
        """The same key 50 times at once, and the process killed in the middle."""
        # What a crash finds in the spool is tried when it was due next, not at once.
        service = Service("[retry]\nfirst_s = 2\n")
        self.addCleanup(service.close)
        service.start()
        secret = add_key(service)
        answers: set[str] = set()

        def hand_in(_: int) -> int:
            try:
                found = ask(
                    service, secret, "POST", "/v1/message",
                    json=simple("fire@local.test"), headers={"Idempotency-Key": "fire"},
                )  # fmt: skip
            except requests.RequestException:
                return 0
            if found.status_code == 202:
                answers.add(found.text)
            return found.status_code

        with ThreadPoolExecutor(50) as pool:
            first = [pool.submit(hand_in, n) for n in range(50)]
            until(lambda: any(one.done() for one in first), "the first answer")
            service.kill()
            statuses = {one.result() for one in first}
        self.assertLessEqual(statuses, {0, 202, 409})
        service.start()
        with ThreadPoolExecutor(50) as pool:
            statuses = set(pool.map(hand_in, range(50)))
        self.assertLessEqual(statuses, {202, 409})
        self.assertEqual(hand_in(0), 202)
        self.assertEqual(len(answers), 1)
        service.fate("fire@local.test")
        self.assertEqual(len(service.maildir("local.test", "fire")), 1)
        ids = {one["message_id"] for one in service.told() if one["event"] == "received"}
        self.assertEqual(len(ids), 1)
