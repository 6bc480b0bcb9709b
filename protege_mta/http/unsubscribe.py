"""``/u/TOKEN``: where the links to unsubscribe in mail lead (RFC 8058).

Mail programs post ``List-Unsubscribe=One-Click`` there without asking; a person who follows the link
gets a page with a button first, since scanners of mail follow links too and must not unsubscribe
anybody (RFC 8058, 1).  Nobody logs in: the link itself is the permission.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Final

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest

from ..model.caller import Flaw
from ..model.return_path import Subscription
from . import answer
from .endpoint import Answer, Endpoint

_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="robots" content="noindex">
<title>{title}</title>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""
_POLICY: Final = b"default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

_TOO_OFTEN: Final = Flaw(429, "too-often", "too many requests, try later", retry_after_s=60)

_HTML: Final = "text/html; charset=utf-8"
_NO_LINK: Final = Answer(summary="The link does not work", media_type=_HTML)

ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/u/{token}",
        summary="Ask a person who follows a link to unsubscribe whether it was meant",
        description="The links of `List-Unsubscribe` lead here; nothing changes before the POST.",
        answers={200: Answer(summary="A page with a button", media_type=_HTML), 404: _NO_LINK},
        problems=(429,),
        tag="Links in mail",
    ),
    Endpoint(
        method="POST",
        path="/u/{token}",
        summary="Unsubscribe with one click",
        description="Mail programs post `List-Unsubscribe=One-Click` (RFC 8058); the link alone "
        "is the permission, and what the form says does not matter.",
        other_requests=("application/x-www-form-urlencoded", "multipart/form-data"),
        answers={
            200: Answer(summary="It is done", media_type=_HTML),
            400: Answer(summary="The body is no form, though it says so", media_type=""),
            404: _NO_LINK,
        },
        problems=(429, 503),
        tag="Links in mail",
    ),
)


def add(
    app: Klein,
    *,
    read: Callable[[str], Subscription | None],
    unsubscribe: Callable[[Subscription], Deferred[None]],
    may: Callable[[str], bool],
) -> None:
    """Serve the links.

    :param read: what a token says; None where it is none of ours.
    :param unsubscribe: durable once it resolves; may be done again.
    :param may: whether a client, by its address, does not come too often with what is no link of
        ours.  Who has one is never turned away: a provider comes for all of its users, and once.
    """

    def refused(request: IRequest, token: str) -> bytes | Subscription:
        found = read(token)
        if found is not None:
            return found
        if not may(getattr(request, "client_address", "")):
            return answer.flaw(request, _TOO_OFTEN)
        return _page(
            request,
            "This link does not work",
            "<p>It may have been cut or changed on its way.</p>",
            404,
        )

    @app.route("/u/<string:token>", methods=["GET"])
    def asked(request: IRequest, token: str) -> bytes:
        found = refused(request, token)
        if isinstance(found, bytes):
            return found
        body = (
            f"<p>No more mail to <b>{escape(found.address)}</b>?</p>\n"
            '<form method="post"><input type="hidden" name="List-Unsubscribe" value="One-Click">'
            "<button>Unsubscribe</button></form>"
        )
        return _page(request, "Unsubscribe", body)

    @app.route("/u/<string:token>", methods=["POST"])
    async def done(request: IRequest, token: str) -> bytes:
        found = refused(request, token)
        if isinstance(found, bytes):
            return found
        await unsubscribe(found)
        body = f"<p><b>{escape(found.address)}</b> gets no more mail of this kind.</p>"
        return _page(request, "Unsubscribed", body)


def _page(request: IRequest, title: str, body: str, status: int = 200) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", _HTML.encode("ascii"))
    request.setHeader(b"Content-Security-Policy", _POLICY)
    request.setHeader(b"Referrer-Policy", b"no-referrer")
    request.setHeader(b"Cache-Control", b"no-store")
    return _PAGE.format(title=title, body=body).encode("utf-8", "replace")
