"""What every scenario is given: where to write, and a folder of its own."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs
from rich.console import Console

from .machine import facts, filesystem
from .report import Sheet, document, keep, show
from .servers import Server


@attrs.frozen
class Bench:
    """One run of one scenario.

    :ivar folder: on the disk to measure; gone afterwards.
    :ivar out: where results are kept.
    """

    console: Console
    folder: Path
    out: Path

    def configuration(self, server: Server) -> None:
        """Print what a server runs with."""
        self.console.print(f"Configuration of {server.name}:", style="bold")
        self.console.print(server.configuration, markup=False)

    def finish(self, scenario: str, plan: object, sheets: list[Sheet], **parts: object) -> None:
        """Show results and keep them."""
        for sheet in sheets:
            show(self.console, sheet)
        planned = attrs.asdict(plan)  # type: ignore[arg-type]
        # Where a run had its folder is nobody's business.
        parts = json.loads(json.dumps(parts).replace(str(self.folder), "FOLDER"))
        keep(self.console, self.out, document(scenario, facts(self.folder), planned, **parts))


@contextlib.contextmanager
def bench(console: Console, parent: Path | None, out: Path) -> Iterator[Bench]:
    """A scenario's run.

    :param parent: the folder in which to make ours; the system's temporary one when None.
    """
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as name:
        folder = Path(name)
        folder.chmod(0o755)  # Postfix's processes go in with a user of their own
        if filesystem(folder) in ("tmpfs", "ramfs"):
            console.print(
                f"{folder} is in memory, where a sync costs nothing; --folder names a disk",
                style="yellow",
            )
        yield Bench(console, folder, out)
