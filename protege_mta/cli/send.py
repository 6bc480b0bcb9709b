"""``send``: hand a message in over HTTP, as a program would."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

import click

from .faults import Fault
from .terminal import write, write_json

URL_VARIABLE: Final = "PROTEGE_MTA_URL"
KEY_VARIABLE: Final = "PROTEGE_MTA_KEY"
DEFAULT_URL: Final = "http://127.0.0.1:8026"
TIMEOUT_S: Final = 60.0


@click.command("send")
@click.option("--from", "sender", required=True, metavar="ADDRESS", help="Who it is from.")
@click.option(
    "--to",
    "recipients",
    required=True,
    multiple=True,
    metavar="ADDRESS",
    help="May be repeated; likewise --cc and --bcc.",
)
@click.option("--cc", multiple=True, metavar="ADDRESS", help="Who has a copy.")
@click.option("--bcc", multiple=True, metavar="ADDRESS", help="Likewise, unseen by the others.")
@click.option("--subject", default="", help="Its subject.")
@click.option("--text", help='The text; "-" reads it from standard input.')
@click.option("--html", help='The text as HTML; "-" likewise.')
@click.option(
    "--attach",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file to go with it; may be repeated.",
)
@click.option("--campaign", default="", help="What it belongs to, for events.")
@click.option("--send-at", metavar="TIME", help="Not before, RFC 3339.")
@click.option("--high", "is_high", is_flag=True, help="Before other mail.")
@click.option(
    "--idempotency-key", default="", metavar="KEY", help="Sent once, however often it is tried."
)
@click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"The file whose first line is the API key.  Without it: ${KEY_VARIABLE}.",
)
@click.option(
    "--url", metavar="URL", help=f"The service.  Without it: ${URL_VARIABLE}, {DEFAULT_URL}."
)
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON.")
def command(
    sender: str,
    recipients: tuple[str, ...],
    cc: tuple[str, ...],
    bcc: tuple[str, ...],
    subject: str,
    text: str | None,
    html: str | None,
    attach: tuple[Path, ...],
    campaign: str,
    send_at: str | None,
    is_high: bool,
    idempotency_key: str,
    key_file: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Send a message by POST /v1/message.

    Exit status: 0 when the message is durably queued, 65 when it is refused, 69 when nobody
    answers, 75 when it may be tried again, 77 when the key is not right.
    """
    if text == "-" and html == "-":
        raise click.UsageError("--text and --html cannot both be standard input")
    message: dict[str, Any] = {
        "from": sender,
        "to": list(recipients),
        "cc": list(cc),
        "bcc": list(bcc),
        "subject": subject,
        "text": sys.stdin.read() if text == "-" else text,
        "html": sys.stdin.read() if html == "-" else html,
        "attachments": [_attachment(path) for path in attach],
        "campaign": campaign,
        "priority": "high" if is_high else "normal",
        "send_at": send_at,
    }
    headers = {"Authorization": f"Bearer {_key(key_file)}"}
    if idempotency_key:
        headers["Idempotency-Key"] = idempotency_key
    base = url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
    answer = _post(base.rstrip("/") + "/v1/message", message, headers)
    if as_json:
        write_json(answer)
        return
    write(str(answer["id"]))
    for one in answer["recipients"]:
        detail = f" ({one['detail']})" if one.get("detail") else ""
        write(f"{one['address']}: {one['status']}{detail}")


def _key(path: Path | None) -> str:
    """The API key, which is no argument, since everybody on the machine sees those."""
    if path is None:
        found = os.environ.get(KEY_VARIABLE, "")
    else:
        try:
            found = path.read_text("utf-8").partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Fault(f"cannot read the key: {error}", os.EX_NOINPUT) from None
    if not found or not found.isascii() or not found.isprintable():
        raise Fault(
            "there is no API key",
            os.EX_USAGE,
            remedy=f'name its file with --key-file, or set {KEY_VARIABLE}; "protege-mta apikey '
            'create" makes one',
        )
    return found


def _attachment(path: Path) -> dict[str, str]:
    import base64
    import mimetypes

    kind, encoding = mimetypes.guess_type(path.name)
    return {
        "filename": path.name,
        "content_type": kind if kind and not encoding else "application/octet-stream",
        "content_b64": base64.b64encode(path.read_bytes()).decode("ascii"),
    }


def _post(url: str, message: dict[str, Any], headers: dict[str, str]) -> Any:
    import http.client
    import json
    import urllib.error
    import urllib.request

    if not url.startswith(("http://", "https://")):
        raise Fault(f"{url} is no http or https URL", os.EX_USAGE)
    try:
        request = urllib.request.Request(
            url,
            json.dumps(message).encode("utf-8"),
            {**headers, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return json.loads(response.read())
    except urllib.error.HTTPError as error:
        raise _refused(error.code, error.read()) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Fault(f"no answer from {url}: {reason}", os.EX_UNAVAILABLE) from None


def _refused(status: int, body: bytes) -> Fault:
    import json

    try:
        problem = json.loads(body)
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    words = str(problem.get("detail") or problem.get("title") or f"HTTP status {status}")
    member = problem.get("member")
    code = os.EX_DATAERR
    if status in (401, 403):
        code = os.EX_NOPERM
    elif status in (409, 429) or status >= 500:
        code = os.EX_TEMPFAIL
    return Fault(
        f"refused: {words}" + (f" ({member})" if member else ""),
        code,
        remedy=str(problem.get("hint") or ""),
    )
