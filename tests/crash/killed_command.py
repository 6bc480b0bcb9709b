"""Runs a command again and again on copies of a folder, each time killed one SQL statement later;
tells what is left, as a JSON object a line.

    python -m tests.crash.killed_command FOLDER PASSWORD ARGUMENTS...
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import attrs

from protege_mta.cli import main
from protege_mta.policy import password  # noqa: F401, imported once, not in each child
from protege_mta.state.accounts import every
from protege_mta.state.database import connect


def run_and_die(folder: Path, secret: str, arguments: list[str], statements: int) -> int:
    """In a child, that is killed before it begins one statement more.  :return: how it ended."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    left = statements
    real = sqlite3.connect

    def before(statement: str) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    def traced(*positional: Any, **named: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = real(*positional, **named)
        connection.set_trace_callback(before)
        return connection

    sqlite3.connect = traced  # type: ignore[assignment]
    sys.stdin = io.TextIOWrapper(io.BytesIO(secret.encode()))
    sys.stdout = sys.stderr = io.StringIO()
    os._exit(main([*arguments, "--config", str(folder / "c.toml")]))


def left_in(folder: Path) -> list[dict[str, Any]]:
    """The accounts, without what no two runs have in common."""
    with closing(connect(folder / "state")) as connection:
        [(verdict,)] = connection.execute("PRAGMA integrity_check")
        if verdict != "ok":
            raise RuntimeError(verdict)
        return [
            attrs.asdict(account)
            | {"salt": account.scram.salt.hex() if account.scram else "", "scram": None}
            for account in every(connection)
        ]


def tell(folder: Path, secret: str, arguments: list[str]) -> None:
    for statements in count():
        copy = folder.with_name(f"{folder.name}-{statements}")
        shutil.copytree(folder, copy)
        status = run_and_die(copy, secret, arguments, statements)
        said = {"status": status, "accounts": left_in(copy)}
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
        shutil.rmtree(copy)
        if status != signal.SIGKILL:
            return


if __name__ == "__main__":
    tell(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
