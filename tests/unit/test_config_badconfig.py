"""Every wrong file in ``tests/badconfig`` is refused with exactly the complaints that it expects."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.config.toml import ConfigError, load

FOLDER: Final = Path(__file__).parents[1] / "badconfig"
EXPECT: Final = b"# expect: "


def expected(path: Path) -> list[str]:
    """What the file's first lines say; ``DIR`` in them is the file's own folder."""
    return [
        line.removeprefix(EXPECT).decode("utf-8").replace("DIR", str(path.parent))
        for line in path.read_bytes().splitlines()
        if line.startswith(EXPECT)
    ]


class BadConfigTests(SynchronousTestCase):
    def test_every_file(self) -> None:
        """All complaints come at once, and name file, table, key, wanted and got."""
        files = sorted(FOLDER.glob("*.toml"))
        self.assertGreater(len(files), 30)
        for path in files:
            with self.subTest(path.name):
                error = self.assertRaises(ConfigError, load, path)
                self.assertEqual(
                    [str(each) for each in error.complaints],
                    [f"{path}: {text}" for text in expected(path)],
                )

    def test_one_line_each(self) -> None:
        for path in FOLDER.glob("*.toml"):
            error = self.assertRaises(ConfigError, load, path)
            self.assertEqual(len(str(error).splitlines()), len(error.complaints), path.name)

    def test_no_file(self) -> None:
        error = self.assertRaises(ConfigError, load, FOLDER / "nowhere.toml")
        self.assertEqual(
            str(error),
            f"{FOLDER}/nowhere.toml: wanted a file that can be read, got: "
            "No such file or directory",
        )
