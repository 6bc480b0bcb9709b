"""Templates of a request, filled in or looked at; one that will not do is refused by its member."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..message import templates
from ..message.templates import Dialect
from .reading import unfit


def filled(
    text: str,
    values: Mapping[str, Any],
    member: str,
    *,
    is_html: bool = False,
    is_strict: bool = True,
    dialect: Dialect = "jinja",
) -> str:
    """A template filled in.  :raise Refused: 422 that names the template."""
    if "{" not in text:
        return text
    try:
        made = templates.template(text, is_html=is_html, is_strict=is_strict, dialect=dialect)
        return made.rendered(values)
    except templates.BadTemplate as error:
        raise unfit(
            "bad-template", "the template cannot be filled in", member, str(error)
        ) from None


def checked_template(
    text: str,
    member: str,
    *,
    is_html: bool = False,
    is_strict: bool = True,
    dialect: Dialect = "jinja",
) -> None:
    """See to it that it is a template, whatever it will be filled in with.

    :raise Refused: 422 that names it.
    """
    if "{" not in text:
        return
    try:
        templates.template(text, is_html=is_html, is_strict=is_strict, dialect=dialect)
    except templates.BadTemplate as error:
        raise unfit("bad-template", "this is no template", member, str(error)) from None
