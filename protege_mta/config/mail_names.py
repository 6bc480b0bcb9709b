"""Kinds of configuration values that are names in mail: domains, mailboxes and what belongs to them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import attrs

from ..model import address
from .kinds import Unfit, text_of

_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_SELECTOR: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\Z", re.IGNORECASE)


@attrs.frozen
class Selector:
    """A DKIM selector (RFC 6376, 3.1): labels as in a domain name."""

    wanted: str = 'a selector: letters, digits and "-", in labels joined by "."'

    def read(self, raw: object, folder: Path) -> str:
        if not isinstance(raw, str) or len(raw) > 200:
            raise Unfit(self.wanted)
        if not all(_SELECTOR.match(label) and len(label) < 64 for label in raw.split(".")):
            raise Unfit(self.wanted)
        return raw


@attrs.frozen
class MailDomain:
    """A domain as it stands behind the ``@``, in lower case; U-labels may stand in it."""

    wanted: str = "a domain name"

    def read(self, raw: object, folder: Path) -> str:
        text = text_of(raw, self.wanted)
        if text.startswith("[") or address.parse(f"x@{text}", is_smtputf8=True) is None:
            raise Unfit(self.wanted)
        return text.lower()


@attrs.frozen
class LocalPart:
    """The part of an address before the ``@``; or ``*`` for any."""

    wanted: str = 'a local-part (what stands before the "@"), or "*" for any'

    def read(self, raw: object, folder: Path) -> str:
        text = text_of(raw, self.wanted)
        if address.parse(f"{text}@x", is_smtputf8=True) is None:
            raise Unfit(self.wanted)
        return text


@attrs.frozen
class Mailbox:
    wanted: str = "an address such as admin@example.org"

    def read(self, raw: object, folder: Path) -> address.Address:
        mailbox = address.parse(text_of(raw, self.wanted), is_smtputf8=True)
        if mailbox is None:
            raise Unfit(self.wanted)
        return mailbox


@attrs.frozen
class MaildirTemplate:
    """A path with ``{domain}`` and ``{local_part}`` in it; made absolute."""

    wanted: str = 'a path that holds "{local_part}", and perhaps "{domain}"'

    def read(self, raw: object, folder: Path) -> str:
        text = text_of(raw, self.wanted)
        names = _PLACEHOLDER.findall(text)
        if "local_part" not in names or set(names) - {"local_part", "domain"}:
            raise Unfit(self.wanted)
        rest = _PLACEHOLDER.sub("", text)
        if "{" in rest or "}" in rest or ".." in Path(text).parts:
            raise Unfit(self.wanted)
        # Braces in the folder's own name must not be read as placeholders later on.
        if not text.startswith("/") and set(str(folder)) & set("{}"):
            raise Unfit(f'{self.wanted}, absolute since "{folder}" has braces of its own')
        return str(folder / text)
