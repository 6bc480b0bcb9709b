"""Tests of Handlebars, as templates of mail have it.

What is expected here is what Handlebars.js makes of the same, but where a test says otherwise.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.templates import BadTemplate, template

VALUES: dict[str, Any] = {
    "name": "Ann <a@b> & \"C\" 'd' `e` =",
    "yes": True,
    "no": False,
    "zero": 0,
    "half": 0.5,
    "nothing": None,
    "none": [],
    "order": {"id": 7, "by": {"city": "Köln"}},
    "items": [{"n": 1, "parts": ["p", "q"]}, {"n": 2, "parts": []}],
    "letters": ["x", "y"],
    "two words": "both",
}


def filled(text: str, *, is_html: bool = False, **more: Any) -> str:
    return template(text, is_html=is_html, dialect="handlebars").rendered(VALUES | more)


class Case(SynchronousTestCase):
    def check(self, *pairs: tuple[str, str]) -> None:
        for text, expected in pairs:
            self.assertEqual(filled(text), expected, text)


class ValueTests(Case):
    def test_escaped_in_html_alone(self) -> None:
        """As KumoMTA has it: in text and header fields nothing is escaped."""
        escaped = "Ann &lt;a@b&gt; &amp; &quot;C&quot; &#x27;d&#x27; &#x60;e&#x60; &#x3D;"
        self.assertEqual(filled("{{name}}", is_html=True), escaped)
        self.assertEqual(filled("{{name}}"), VALUES["name"])
        for text in ("{{{name}}}", "{{&name}}", "{{& name }}", "{{~{name}~}}", "{{{~name~}}}"):
            self.assertEqual(filled(text, is_html=True), VALUES["name"], text)

    def test_kinds(self) -> None:
        self.check(
            ("{{yes}} {{no}} {{zero}} {{half}}", "true false 0 0.5"),
            ("[{{nothing}}{{absent}}{{absent.more}}{{name.more}}]", "[]"),
            # The crate's ways: Handlebars.js has "x,y" and "[object Object]".
            ("{{letters}} {{order}}", "[x, y] [object]"),
        )

    def test_paths(self) -> None:
        self.check(
            ("{{order.id}} {{order/id}} {{this.order.id}} {{./order.id}}", "7 7 7 7"),
            ("{{order.by.city}} {{letters.[1]}} {{letters.0}}", "Köln y x"),
            ("{{letters.length}} {{letters.9}} {{[two words]}}", "2  both"),
            ("{{#with order}}{{id}} {{../zero}} {{@root.zero}} {{.././zero}}{{/with}}", "7 0 0 0"),
            ("{{../zero}}|{{#with order}}{{../../zero}}{{/with}}", "|"),
        )

    def test_names_of_scopes_around(self) -> None:
        """As KumoMTA sets the crate: Handlebars.js does not look there."""
        self.check(
            ("{{#each letters}}{{zero}}{{/each}}", "00"),
            ("{{#with order}}{{#with by}}{{id}}{{order.id}}{{/with}}{{/with}}", "77"),
            ("{{#with order}}{{by.none}}{{by.city.none}}{{/with}}", ""),
            ("{{#with order}}{{this.zero}}{{./zero}}{{/with}}", ""),
        )

    def test_nothing_of_python(self) -> None:
        self.check(("{{name.__class__}}{{letters.append}}{{_budget}}{{_s0}}{{this.items.x}}", ""))


class BlockTests(Case):
    def test_conditions(self) -> None:
        self.check(
            ("{{#if yes}}a{{else}}b{{/if}}{{#if no}}a{{else}}b{{/if}}", "ab"),
            ("{{#unless no}}a{{else}}b{{/unless}}{{#unless yes}}a{{/unless}}", "a"),
            ("{{#if no}}1{{else if zero}}2{{else if yes}}3{{else}}4{{/if}}", "3"),
            ("{{#if no}}1{{else unless yes}}2{{else}}3{{/if}}", "3"),
            ("{{#if no}}1{{else each letters}}{{this}}{{/if}}", "xy"),
            ("{{#if no}}1{{^}}2{{/if}}", "2"),
            ("{{#if none}}a{{/if}}{{#if absent}}b{{/if}}{{#if order}}c{{/if}}", "c"),
            ("{{#if letters.length}}a{{/if}}{{#if none.length}}b{{/if}}", "a"),
        )
        self.assertEqual(filled("{{#if empty}}a{{/if}}", empty={}), "")  # the crate's way

    def test_loops(self) -> None:
        self.check(
            ("{{#each letters}}{{@index}}{{.}}{{#unless @last}}, {{/unless}}{{/each}}", "0x, 1y"),
            ("{{#each order}}{{@key}}{{@first}} {{/each}}", "idtrue byfalse "),
            (
                "{{#each items}}{{n}}{{#each parts}}{{this}}{{../n}}{{@../index}}{{/each}};{{/each}}",
                "1p10q10;2;",
            ),
            ("{{#each none}}a{{else}}b{{/each}}{{#each name}}a{{else}}b{{/each}}", "bb"),
            ("{{#each items}}{{#if n}}{{@index}}{{../zero}}{{/if}}{{/each}}", "0010"),
        )

    def test_with(self) -> None:
        self.check(
            ("{{#with order}}{{#with by}}{{city}}{{../id}}{{/with}}{{/with}}", "Köln7"),
            ("{{#with absent}}a{{else}}b{{zero}}{{/with}}", "b0"),
            ("{{#each letters}}{{#with ../order}}{{@index}}{{id}}{{/with}}{{/each}}", "0717"),
        )


class TextTests(Case):
    def test_comments(self) -> None:
        self.check(("a{{! b }}c{{!-- {{d}} --}}e{{!--}}f", "acef"))

    def test_white_space(self) -> None:
        self.check(
            (" a \n {{~yes~}} \n b", " atrueb"),
            ("{{#each letters~}}\n {{this}}\n{{~/each}}", "xy"),
            ("a {{~! b ~}} c", "ac"),
        )

    def test_lines_of_a_block_alone(self) -> None:
        self.check(
            ("a\n  {{#if yes}}  \nb\n{{else}}\nc\n{{/if}}\nd\n", "a\nb\nd\n"),
            ("a\r\n{{#each letters}}\r\n- {{.}}\r\n{{/each}}\r\nd", "a\r\n- x\r\n- y\r\nd"),
            ("{{! b }}\na\n{{! b }}", "a\n"),
            ("a {{#if yes}}\nb\n{{/if}} c\n", "a \nb\n c\n"),
            ("{{yes}}\n{{{yes}}}\n", "true\ntrue\n"),
        )

    def test_braces_that_are_text(self) -> None:
        self.check(
            ("\\{{yes}} {{yes}} \\{{{no}}}", "{{yes}} true {{{no}}}"),
            ("\\\\{{yes}} a\\b {{yes}} }} {", "\\true a\\b true }} {"),
        )


class RefusalTests(SynchronousTestCase):
    def test_says_what_is_not_there(self) -> None:
        for text, why in (
            ("a\n{{> foot}}", "there are no partials here, line 2"),
            ("{{#> foot}}{{/foot}}", "there are no partials here, line 1"),
            ("{{* x}}", "there are no decorators here, line 1"),
            ("{{upper name}}", 'there is no helper "upper" here, line 1'),
            ("{{#upper}}{{/upper}}", 'there is no block helper "upper" here, line 1'),
            ("{{if yes}}", "if is a block: {{#if ...}}, line 1"),
            ("{{#if (eq a b)}}{{/if}}", "there are no subexpressions here, line 1"),
            ("{{#each a as |b|}}{{/each}}", "there are no block parameters here, line 1"),
            ("{{#if true}}{{/if}}", "there are no literals here, line 1"),
            ('{{"a"}}', "there are no literals here, line 1"),
            ("{{{{raw}}}} {{{{/raw}}}}", "there are no raw blocks here, line 1"),
            ("{{^a}}{{/a}}", "there are no inverted sections here, line 1"),
            ("{{@level}}", 'there is no "@level" here, line 1'),
            ("{{a..b}}", '"a..b" is no path, line 1'),
            ("{{#if}}{{/if}}", "a block is given nothing, line 1"),
            ("{{}}", "a tag is empty, line 1"),
            ("\n\n{{a", "a tag is not closed, line 3"),
            ("{{! a", "a tag is not closed, line 1"),
            ("{{!-- a }}", "a tag is not closed, line 1"),
            ("\n{{#if a}}\n", "{{#if}} is not closed, line 2"),
            ("{{#if a}}{{/each}}", "{{/each}} closes no block, line 1"),
            ("{{/if}}", "{{/if}} closes no block, line 1"),
            ("{{else}}", "{{else}} is in no block, line 1"),
            ("{{#if a}}{{else}}{{else}}{{/if}}", "{{else}} is in no block, line 1"),
        ):
            with self.assertRaises(BadTemplate, msg=text) as caught:
                template(text, dialect="handlebars")
            self.assertEqual(str(caught.exception), why, text)

    def test_work_is_bounded(self) -> None:
        many = list(range(2000))
        for text in (
            "{{#each l}}{{#each @root.l}}{{#each @root.l}}{{/each}}{{/each}}{{/each}}",
            "{{#each l}}{{@root.x}}{{/each}}",
            "{{#each l}}{{@root.l}}{{/each}}",
            "{{x}}" * 5000,
            "{{#if l}}" * 60 + "{{/if}}" * 60,
            "{{#with l}}" * 40 + "{{/with}}" * 40,
            "{{#if l}}" * 100_000,
            "{{" + "[" * 100_000,
            "{{" + "[" * 100_000 + "}}",
            "{{{" * 300_000,
            "\\{{" * 300_000 + "{{",
        ):
            with self.assertRaises(BadTemplate, msg=text[:40]):
                filled(text, l=many, x="a" * 100_000)
