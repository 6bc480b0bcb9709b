"""What holds for any template of Handlebars: it is filled in or refused, and nothing else happens."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.templates import RESULT_CHARACTERS, BadTemplate, template

PIECES = st.sampled_from(
    [
        "{{", "}}", "{{{", "}}}", "{{{{", "}}}}", "~", "#if a", "#unless b", "#each l", "#each o",
        "#with o", "/if", "/unless", "/each", "/with", "else", "else if b", "^", "!", "!--", "--", "&",
        ">", "a", "b", "l", "o", "this", "../", "..", ".", "/", "@", "@index", "@../key", "@root", "[",
        "]", "(", "|", " ", "\n", "\r\n", "\\", "{{#each l}}", "{{/each}}", "{{this}}", "{{else}}", "ü",
        "\ud800", "_s0", "_budget", "{{#if a}}", "{{/if}}", "{% if %}", "{{ a.b }}", "loop", "caller",
    ]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["a", "b", "l", "o", ""]), inner, max_size=4)
    ),
    max_leaves=20,
)


class HandlebarsTests(SynchronousTestCase):
    @given(
        st.lists(PIECES, max_size=40).map("".join),
        st.dictionaries(st.sampled_from(["a", "b", "l", "o"]), VALUES),
        st.booleans(),
    )
    @settings(max_examples=500, deadline=2000)
    def test_filled_in_or_refused(self, text: str, values: dict[str, Any], is_html: bool) -> None:
        try:
            made = template(text, is_html=is_html, dialect="handlebars").rendered(values)
        except BadTemplate as error:
            self.assertTrue(str(error))
        else:
            self.assertLessEqual(len(made), RESULT_CHARACTERS)

    @given(st.text(alphabet=st.characters(exclude_characters="{\\")))
    def test_text_without_tags_stays(self, text: str) -> None:
        self.assertEqual(template(text, dialect="handlebars").rendered({}), text)

    @given(st.text(max_size=50), st.lists(st.text(max_size=10), max_size=5))
    def test_html_has_nothing_of_the_values(self, value: str, items: list[str]) -> None:
        """No character that means something in HTML comes out of a value in two braces."""
        source = template(
            "{{a}}{{#each l}}{{this}}{{#with this}}{{.}}{{/with}}{{/each}}{{l}}",
            is_html=True,
            dialect="handlebars",
        )
        made = source.rendered({"a": value, "l": items})
        self.assertFalse(set("<>\"'`=") & set(made))

    @given(st.lists(st.sampled_from(["{{#each l}}", "{{#each o}}", "{{a}}", "{{l}}"]), max_size=15))
    @settings(max_examples=50, deadline=None)
    def test_time(self, pieces: list[str]) -> None:
        """Loops within loops come to an end in seconds, by their number of steps."""
        loops = sum("#each" in piece for piece in pieces)
        text = "".join(pieces) + "{{/each}}" * loops
        values = {"a": "x" * 100, "l": list(range(1000)), "o": {str(n): n for n in range(1000)}}
        began = time.process_time()
        try:
            template(text, is_html=True, dialect="handlebars").rendered(values)
        except BadTemplate as error:
            self.assertIn(str(error), (
                "the template takes too many steps", "the text grows too long",
                "the template is nested too deep",
            ))  # fmt: skip
        self.assertLess(time.process_time() - began, 5)
