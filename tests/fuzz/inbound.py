"""What strangers write, as JSON and as text for programs."""

from __future__ import annotations

from typing import Final

from protege_mta.message.html_text import as_text

from ..corpora import messages
from ..property.test_inbound_json import check
from .content import WORDS
from .target import Target

_HTML: Final = (
    b"<", b">", b"</", b"<!--", b"-->", b"<style>", b"</style>", b"<script>", b"display:none", b"{", b"}", b"'", b'"',
    b"<p ", b"style=", b"class=", b"<a href=", b"</a>", b"&#", b"&amp;", b"hidden", b"<li>", b"<br>", b"=",
)  # fmt: skip


def message(data: bytes) -> None:
    """Any octets are a message for a program."""
    check(data)


def html(data: bytes) -> None:
    """Any octets are HTML."""
    as_text(data.decode("utf-8", "replace"))


SEEDS: Final = [octets for octets in messages().values() if len(octets) < 3000]
MESSAGE: Final = Target("inbound_json", message, SEEDS, WORDS)
HTML: Final = Target(
    "inbound_html",
    html,
    [b"<p>a<b>b</b><a href='http://x/'>c</a>", b"<style>.h{display:none}</style><i class=h>x</i>"],
    _HTML,
)
