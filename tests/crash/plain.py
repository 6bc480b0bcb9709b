"""A program that runs as on a system that cannot write through, so that a thread of its own writes
and then syncs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_SITE: Final = "import os\n\ndel os.RWF_DSYNC\n"


def without_writing_through(folder: Path) -> dict[str, str]:
    """Variables for its process.

    :param folder: is made, for what makes Python so.
    """
    folder = folder.absolute()
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_SITE)
    path = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{path}" if path else str(folder)}
