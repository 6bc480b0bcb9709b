"""Edits of JSON: what is edited is so, and all the rest is as it was, octet by octet."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.config.json_text import parse, put, without

_TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
_NAMES = st.sampled_from(["a", "b", "relay", 'q"', "é"])
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT
)
_VALUES = st.recursive(
    _SCALARS,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(_NAMES, each, max_size=3),
    max_leaves=8,
)
_DOCUMENTS = st.dictionaries(_NAMES, _VALUES, max_size=5)
_STYLES = st.sampled_from([None, 2, 4, "\t"])


def written(document: dict[str, Any], style: Any, is_crlf: bool) -> str:
    text = json.dumps(document, indent=style, ensure_ascii=False)
    return text.replace("\n", "\r\n") if is_crlf else text


class EditTests(SynchronousTestCase):
    @given(_DOCUMENTS, _STYLES, st.booleans(), _NAMES, _VALUES)
    def test_put(
        self, document: dict[str, Any], style: Any, is_crlf: bool, name: str, value: Any
    ) -> None:
        text = put(written(document, style, is_crlf), [name], value)
        self.assertEqual(parse(text.encode())[1], {**document, name: value})
        self.assertEqual(list(parse(text.encode())[1]), list({**document, name: value}))
        self.assertEqual(put(text, [name], value), text)

    @given(_DOCUMENTS, _STYLES, st.booleans(), _NAMES, _NAMES, _VALUES)
    def test_put_deeper(
        self,
        document: dict[str, Any],
        style: Any,
        is_crlf: bool,
        outer: str,
        inner: str,
        value: Any,
    ) -> None:
        text = put(written(document, style, is_crlf), [outer, inner], value)
        there = document.get(outer)
        inside = there if isinstance(there, dict) else {}
        self.assertEqual(parse(text.encode())[1], {**document, outer: {**inside, inner: value}})

    @given(_DOCUMENTS, _STYLES, st.booleans(), _NAMES)
    def test_without(self, document: dict[str, Any], style: Any, is_crlf: bool, name: str) -> None:
        text = without(written(document, style, is_crlf), name)
        rest = {each: value for each, value in document.items() if each != name}
        self.assertEqual(parse(text.encode())[1], rest)

    @given(_DOCUMENTS, _STYLES, _NAMES, _VALUES)
    def test_added_and_taken_away(
        self, document: dict[str, Any], style: Any, name: str, value: Any
    ) -> None:
        """Leaves the text as it was."""
        document.pop(name, None)
        if document:
            text = written(document, style, False)
            self.assertEqual(without(put(text, [name], value), name), text)
