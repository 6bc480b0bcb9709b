"""The page that describes the API, as a browser shows it.

Chromium  -- HTTP -->  protege-mta
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, ClassVar

import requests

from .browser import Browser
from .service import WAIT_S, ServiceTestCase

OPERATIONS = """
    [...document.querySelectorAll("article > h3 > .method")].map((method) => {
        const box = method.parentElement.getBoundingClientRect()
        return {
            method: method.innerText,
            path: method.parentElement.querySelector("code").innerText,
            shown: box.width > 0 && box.height > 0 && method.checkVisibility(),
        }
    })
"""

SIDEWAYS = """
    [...document.querySelectorAll("body *")].filter((one) => {
        const box = one.getBoundingClientRect()
        return box.right > innerWidth + 0.5 || box.left < -0.5 || one.scrollWidth > one.clientWidth + 1
            && getComputedStyle(one).display != "inline"
    }).map((one) => one.outerHTML.slice(0, 200))
"""
"""Elements that reach out of the window, or whose text reaches out of them."""

NARROW_CELLS = """
    [...document.querySelectorAll("td")].filter((one) =>
        one.innerText.trim() && one.clientWidth < 60
    ).map((one) => one.outerHTML.slice(0, 200))
"""

SMALL_TEXT = """
    [...document.querySelectorAll("body *")].filter((one) =>
        one.innerText && parseFloat(getComputedStyle(one).fontSize) < 12
    ).map((one) => one.outerHTML.slice(0, 200))
"""

DEAD_LINKS = """
    [...document.querySelectorAll('a[href^="#"]')].map((one) => one.getAttribute("href").slice(1))
        .filter((id) => !document.getElementById(id))
"""

BREACH = """
    new Promise((resolve) => {
        const found = []
        document.addEventListener("securitypolicyviolation", (event) => {
            found.push(event.effectiveDirective)
            if (found.length == 5) resolve([...new Set(found)].sort())
        })
        const add = (name, members) =>
            document.body.append(Object.assign(document.createElement(name), members))
        add("script", {textContent: "window.wasRun = true"})
        add("script", {src: "/openapi.json"})
        add("style", {textContent: "body { display: none }"})
        add("img", {src: "http://192.0.2.1/x.png"})
        fetch("http://192.0.2.1/").catch(() => {})
    })
"""
"""What an injected text would try; each try is reported to the page."""


class ApiPageTests(ServiceTestCase):
    timeout = 120
    browser: ClassVar[Browser]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.browser = Browser()
        stack.callback(cls.browser.close)
        super().begin(stack)

    def setUp(self) -> None:
        super().setUp()
        self.origin = f"http://127.0.0.1:{self.service.port('http')}"
        self.browser.forget()

    def show(self, width: int, height: int, *, is_mobile: bool = False) -> None:
        self.browser.resize(width, height, is_mobile=is_mobile)
        self.browser.open(f"{self.origin}/docs")

    def operations(self) -> set[tuple[str, str]]:
        """As the page shows them."""
        told: list[dict[str, Any]] = self.browser.evaluate(OPERATIONS)
        return {(one["method"], one["path"]) for one in told if one["shown"]}

    def described(self) -> set[tuple[str, str]]:
        document = requests.get(f"{self.origin}/openapi.json", timeout=WAIT_S).json()
        return {
            (method.upper(), path)
            for path, methods in document["paths"].items()
            for method in methods
        }

    def test_every_operation_is_shown(self) -> None:
        """And nothing is asked of another host, and nothing goes wrong."""
        self.show(1280, 800)
        self.assertEqual(self.operations(), self.described())
        self.assertEqual(self.browser.evaluate(DEAD_LINKS), [])
        self.assertEqual(self.browser.requests, [f"{self.origin}/docs"])
        self.assertEqual(self.browser.complaints, [])

    def test_the_style_is_in_force(self) -> None:
        """The policy lets in the style that the page brings, by its digest."""
        self.show(1280, 800)
        width = self.browser.evaluate("document.body.getBoundingClientRect().width")
        self.assertLess(width, 1100)  # 60rem and its padding

    def test_the_policy_holds(self) -> None:
        """Nothing that got into the page could run, change how it looks, or call out."""
        self.show(1280, 800)
        self.assertEqual(
            self.browser.evaluate(BREACH),
            ["connect-src", "img-src", "script-src-elem", "style-src-elem"],
        )
        self.assertFalse(self.browser.evaluate("'wasRun' in window"))
        self.assertNotEqual(
            self.browser.evaluate("getComputedStyle(document.body).display"), "none"
        )
        foreign = [one for one in self.browser.requests if not one.startswith(self.origin)]
        self.assertEqual(foreign, [])

    def test_on_a_phone(self) -> None:
        """All of it is there without scrolling sideways, and large enough to read."""
        self.show(360, 740, is_mobile=True)
        self.assertEqual(self.browser.evaluate("innerWidth"), 360)
        self.assertEqual(self.operations(), self.described())
        self.assertEqual(self.browser.evaluate("document.documentElement.scrollWidth"), 360)
        for what in (SIDEWAYS, NARROW_CELLS, SMALL_TEXT):
            self.assertEqual(self.browser.evaluate(what), [], what)
        self.assertEqual(self.browser.complaints, [])

    def test_a_link_leads_to_its_type(self) -> None:
        """With a tap, as a person does it."""
        self.show(360, 740, is_mobile=True)
        self.browser.evaluate("document.querySelector('a[href=\"#type-NewMessage\"]').click()")
        top = self.browser.evaluate(
            "document.getElementById('type-NewMessage').getBoundingClientRect().top"
        )
        self.assertLess(abs(top), 740)
