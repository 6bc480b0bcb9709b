"""HTML as text for programs that read it: what a person would see, and a word about what none would.

Neither a browser nor a validator: tags are taken one after the other, in time that grows with the
length of the text and with nothing else, whatever the text is.
"""

from __future__ import annotations

import re
from html import unescape
from typing import Final

import attrs

INVISIBLE: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufeff\uffa0\U000e0000-\U000e0fff]"
)
"""Characters that nobody sees; but not U+200C and U+200D, which scripts and emoji are written with."""

_TAG: Final = re.compile(r"<(?=[a-zA-Z!?/])")
_NAME: Final = re.compile(r"<(/?)([a-zA-Z][^\s/>]*+)")
_ATTRIBUTE: Final = re.compile(
    r"[\s/]*+([^\s/>=][^\s/>=]*+)(?:\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s>]*+)))?+"
)
_END: Final = re.compile(r"[\s/=]*+>")
_SPACE: Final = re.compile(r"[ \t\r\n\f]+")
_LINES: Final = re.compile(r"\n{3,}")
_HIDING: Final = re.compile(
    r"display\s*+:\s*+none|visibility\s*+:\s*+(?:hidden|collapse)|mso-hide\s*+:\s*+all"
    r"|opacity\s*+:\s*+0(?:\.0*+)?(?![.\d])|font-size\s*+:\s*+0(?:\.\d*+)?(?![.\d])"
    r"|(?:max-)?(?:height|width)\s*+:\s*+0(?![.\d])|text-indent\s*+:\s*+-\d{3}"
    r"|(?:left|top)\s*+:\s*+-\d{3}",
    re.IGNORECASE,
)
_SIMPLE: Final = re.compile(r"\s*([a-zA-Z][\w-]*|)(?:([.#])([\w-]+))?\s*")
_BRACE: Final = re.compile(r"[{}]")

_VOID: Final = frozenset(
    [
        "area",
        "base",
        "br",
        "col",
        "embed",
        "hr",
        "img",
        "input",
        "link",
        "meta",
        "source",
        "track",
        "wbr",
    ]
)
_UNSEEN: Final = frozenset(
    [
        "script",
        "style",
        "head",
        "title",
        "template",
        "noscript",
        "iframe",
        "object",
        "svg",
        "math",
        "select",
        "textarea",
    ]
)
"""What is between their tags is no text of the message."""

_RAW: Final = frozenset(["script", "style", "title", "textarea", "iframe"])
"""No tags are looked for in these; others end with their own end tag as any element does."""

_BLOCKS: Final = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "center",
        "dd",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "html",
        "li",
        "main",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "tbody",
        "tfoot",
        "thead",
        "tr",
        "ul",
    ]
)
_APART: Final = frozenset(
    ["blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "ol", "p", "pre", "table", "ul"]
)
_STYLES: Final = 200


@attrs.frozen
class Seen:
    """:ivar hides: whether there was text that a person would not see, which is not in ``text``."""

    text: str
    hides: bool


def as_text(html: str) -> Seen:
    """Read HTML; never raises."""
    reader = _Reader()
    reader.read(html)
    return reader.seen()


def without_invisible(text: str) -> str:
    """A text without the characters that nobody sees."""
    return INVISIBLE.sub("", text)


class _Reader:
    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._break = 0  # line ends that are due before the next text
        self._has_space = True  # at the start of a line
        self._hidden = ""  # the element that hides what is in it
        self._hidden_depth = 0
        self._is_unseen = False  # that element never shows text, which is no trick
        self._hides = False
        self._links: list[tuple[str, int]] = []
        self._rules: set[tuple[str, str, str]] = set()

    def seen(self) -> Seen:
        text = "\n".join(line.rstrip() for line in "".join(self._pieces).split("\n"))
        return Seen(_LINES.sub("\n\n", text).strip(), self._hides)

    def read(self, html: str) -> None:
        at, end = 0, len(html)
        while at < end:
            found = _TAG.search(html, at)
            if found is None:
                self._text(html[at:])
                return
            tag = found.start()
            self._text(html[at:tag])
            if html.startswith("<!--", tag):
                at = html.find("-->", tag + 4) + 3
                if at < 3:
                    return
                continue
            name = _NAME.match(html, tag)
            if name is None:  # a declaration, or what browsers take for a comment
                at = html.find(">", tag) + 1
                if not at:
                    return
                continue
            at = self._tag(html, name)
            if at < 0:
                return

    def _tag(self, html: str, name: re.Match[str]) -> int:
        """:return: where to go on; -1 where the text ends in the middle of it."""
        attributes: dict[str, str] = {}
        at = name.end()
        while (closed := _END.match(html, at)) is None:
            found = _ATTRIBUTE.match(html, at)
            if found is None:
                return -1
            if len(attributes) < 100:
                value = found[2] or found[3] or found[4] or ""
                attributes.setdefault(found[1].lower(), unescape(value))
            at = found.end()
        at = closed.end()
        word = name[2].lower()
        if name[1]:
            self._ended(word)
            return at
        self._begun(word, attributes)
        if word in _RAW:
            finish = re.compile(rf"</{word}(?=[\s/>])", re.IGNORECASE).search(html, at)
            if finish is None:
                return -1
            if word == "style":
                self._style(html[at : finish.start()])
            return finish.start()
        return at

    def _begun(self, word: str, attributes: dict[str, str]) -> None:
        if self._hidden == "p" and word in _BLOCKS:  # which ends a paragraph
            self._hidden = ""
        if self._hidden:
            self._hidden_depth += word == self._hidden
            return
        if word not in _VOID:
            is_unseen = word in _UNSEEN
            if is_unseen or self._is_hidden(word, attributes):
                self._hidden, self._hidden_depth, self._is_unseen = word, 1, is_unseen
                return
        if word == "br":
            self._break = min(2, self._break + 1)
        elif word in _BLOCKS:
            self._due(word)
            if word == "li":
                self._put("- ")
        elif word in ("td", "th"):
            self._text(" ")
        elif word == "img" and not self._is_hidden(word, attributes):
            alt = attributes.get("alt", "").strip()
            if alt:
                self._text(f"[{alt}]")
        elif word == "a" and len(self._links) < 100:
            self._links.append((attributes.get("href", "").strip(), len(self._pieces)))

    def _ended(self, word: str) -> None:
        if self._hidden:
            if word == self._hidden:
                self._hidden_depth -= 1
                if not self._hidden_depth:
                    self._hidden = ""
            elif word in ("body", "html"):
                self._hidden = ""
            return
        if word in _BLOCKS:
            self._due(word)
        elif word == "a" and self._links:
            link, start = self._links.pop()
            if link.startswith(("http://", "https://", "mailto:")):
                shown = "".join(self._pieces[start:]).strip()
                if shown and shown not in (link, link.partition(":")[2]):
                    self._put(f" <{link}>")

    def _due(self, word: str) -> None:
        self._break = max(self._break, 2 if word in _APART else 1)

    def _text(self, raw: str) -> None:
        if not raw:
            return
        text = _SPACE.sub(" ", without_invisible(unescape(raw)))
        if self._hidden:
            if not self._is_unseen and text.strip():
                self._hides = True
            return
        if text.strip():
            self._put(text)
        elif text and not self._has_space and not self._break:
            self._put(" ")

    def _put(self, text: str) -> None:
        if self._break:
            if self._pieces:
                self._pieces.append("\n" * self._break)
            self._break, self._has_space = 0, True
        if self._has_space:
            text = text.lstrip(" ")
        if text:
            self._pieces.append(text)
            self._has_space = text.endswith(" ")

    # --- what hides ------------------------------------------------------------------------------

    def _is_hidden(self, word: str, attributes: dict[str, str]) -> bool:
        if "hidden" in attributes or _HIDING.search(attributes.get("style", "")[:2000]):
            return True
        if not self._rules:
            return False
        names = [("", "")]
        names += [(".", one) for one in attributes.get("class", "").split()[:20]]
        names += [("#", attributes["id"])] if "id" in attributes else []
        return any(
            (element, *name) in self._rules
            for name in names
            for element in (word, "")
            if any(name) or element
        )

    def _style(self, sheet: str) -> None:
        """Remember which simple selectors hide, outside of ``@media`` and its like: what is hidden
        on some screens only is shown on others."""
        depth, selector, at, skipped = 0, "", 0, False
        for brace in _BRACE.finditer(sheet):
            between = sheet[at : brace.start()]
            at = brace.end()
            if brace[0] == "{":
                if not depth:
                    selector = between
                    skipped = between.lstrip().startswith("@")
                depth += 1
                continue
            if depth == 1 and not skipped and _HIDING.search(between[:5000]):
                for one in selector[-2000:].split(","):
                    simple = _SIMPLE.fullmatch(one)
                    if simple is not None and len(self._rules) < _STYLES:
                        self._rules.add((simple[1].lower(), simple[2] or "", simple[3] or ""))
            depth = max(0, depth - 1)
