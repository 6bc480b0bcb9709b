"""A headless Chromium that a test drives by the DevTools protocol, over a pair of pipes.

No driver stands between, and no port: what is written to the browser's descriptor 3 is JSON that
ends in NUL, and so is what it writes to 4.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from .service import WAIT_S, needs

Json = dict[str, Any]

SWITCHES: Final = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # root, as in a container, has none; the pages are our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)


class Browser:
    """One browser with one page.

    :ivar complaints: what it would write to its console as a warning or an error, and scripts that
        failed.
    :raise SkipTest: there is no Chromium.
    """

    def __init__(self) -> None:
        program = needs("chromium")
        self.complaints: list[str] = []
        self._folder = Path(tempfile.mkdtemp(prefix="browser-"))
        self._read = b""
        self._number = 0
        self._has_loaded = False
        self._asked: dict[str, str] = {}
        self._answers: dict[int, Json] = {}
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # Above those that the redirections below set, so that none of them is lost on the way.
        given = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (theirs_in, theirs_out)]
        os.close(theirs_in)
        os.close(theirs_out)
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("bash", "-c", f'exec "$@" 3<&{given[0]} 4>&{given[1]}', "bash"),
                    *(program, *SWITCHES, f"--user-data-dir={self._folder}", "about:blank"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "DBUS_SESSION_BUS_ADDRESS": "disabled:"},
                pass_fds=given,
                start_new_session=True,
            )
        for one in given:
            os.close(one)
        try:
            self._session = self._attached()
        except BaseException:
            self.close()
            raise

    def _attached(self) -> str:
        """Take hold of the page, and hear of what it does."""
        self._session = ""

        def found() -> Json | None:
            targets: list[Json] = self.call("Target.getTargets")["targetInfos"]
            return next((one for one in targets if one["type"] == "page"), None)

        page = self._until(found, "a page")
        self._session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self._session

    # --- what tests do ---------------------------------------------------------------------------

    @property
    def requests(self) -> list[str]:
        """The URLs of all that it has asked hosts for, in order."""
        return list(self._asked.values())

    def forget(self) -> None:
        """What was asked for, and complained of, so far."""
        self._asked.clear()
        self.complaints.clear()

    def open(self, url: str) -> None:
        """Show a page, to the end of its loading."""
        self._has_loaded = False
        told = self.call("Page.navigate", url=url)
        assert "errorText" not in told, told
        self._until(lambda: self._has_loaded, f"{url} to load")

    def evaluate(self, script: str) -> Any:
        """What an expression comes to in the page, waited for where it is a promise."""
        told = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def resize(self, width: int, height: int, *, is_mobile: bool = False) -> None:
        """Have the page in a window of that many CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if is_mobile else 1,
            mobile=is_mobile,
        )

    def call(self, method: str, **parameters: Any) -> Json:
        """A command of the protocol.  :return: its result."""
        self._number += 1
        number = self._number
        request: Json = {"id": number, "method": method, "params": parameters}
        if self._session:
            request["sessionId"] = self._session
        os.write(self._out, json.dumps(request).encode() + b"\0")
        told = self._until(lambda: self._answers.pop(number, None), method)
        assert "error" not in told, told
        result: Json = told["result"]
        return result

    def close(self) -> None:
        """End it, with all of its processes; they are a group of their own."""
        os.close(self._out)
        os.close(self._in)
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    # --- the protocol ----------------------------------------------------------------------------

    def _until(self, found: Callable[[], Any], what: str) -> Any:
        give_up_at = time.monotonic() + WAIT_S
        while True:
            value = found()
            if value:
                return value
            left_s = give_up_at - time.monotonic()
            readable, _, _ = select.select([self._in], [], [], max(left_s, 0))
            octets = os.read(self._in, 65_536) if readable else b""
            if not octets:
                log = (self._folder / "log").read_text("utf-8", "replace")[-4000:]
                raise AssertionError(f"waited in vain for {what}; the browser's log:\n{log}")
            *whole, self._read = (self._read + octets).split(b"\0")
            for one in whole:
                self._heard(json.loads(one))

    def _heard(self, said: Json) -> None:
        if "id" in said:
            self._answers[said["id"]] = said
            return
        about: Json = said.get("params", {})
        match said["method"]:
            case "Page.loadEventFired":
                self._has_loaded = True
            case "Network.requestWillBeSent":
                self._asked[about["requestId"]] = about["request"]["url"]
            case "Network.loadingFailed" if about.get("blockedReason") == "csp":
                self._asked.pop(about["requestId"], None)  # it was never sent
            case "Runtime.exceptionThrown":
                self.complaints.append(str(about["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if about["type"] in ("error", "warning", "assert"):
                self.complaints.append(str(about["args"]))
            case "Log.entryAdded" if about["entry"]["level"] in ("error", "warning"):
                self.complaints.append(str(about["entry"]))
