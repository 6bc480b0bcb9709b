"""The reference page is the program's own word, whole and current."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.config.model import Settings
from protege_mta.config.reference import page
from protege_mta.config.schema import TABLES, Named, Table, Tables, Variant
from protege_mta.config.toml import keys_of

PAGE = Path(__file__).parents[2] / "docs/reference/configuration.md"


def models(model: type = Settings) -> Iterator[type]:
    """Every table's class."""
    yield model
    for _, key, _ in keys_of(model):
        kind = key.kind
        if isinstance(kind, Tables | Named):
            kind = kind.each
        if isinstance(kind, Variant):
            for each in kind.models.values():
                yield from models(each)
        elif isinstance(kind, Table):
            yield from models(kind.model)


class ReferenceTests(SynchronousTestCase):
    def test_page_is_current(self) -> None:
        """``make docs`` has been run since the last change of a key."""
        self.assertEqual(PAGE.read_text("utf-8"), page())

    def test_every_key_is_described(self) -> None:
        undescribed = [
            f"{model.__name__}.{name}"
            for model in models()
            for name, key, _ in keys_of(model)
            if not isinstance(key.kind, TABLES) and not key.text.endswith(".")
        ]
        self.assertEqual(undescribed, [])

    def test_every_table_is_described(self) -> None:
        undescribed = [each.__name__ for each in models() if "." not in (each.__doc__ or "")]
        self.assertEqual(undescribed, [])

    def test_every_key_is_on_the_page(self) -> None:
        missing = [
            name
            for model in models()
            for name, key, _ in keys_of(model)
            if f"`{name}`" not in page() and f"{name}]" not in page() and f"{name}." not in page()
        ]
        self.assertEqual(missing, [])
