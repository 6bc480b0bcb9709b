"""``GET /healthz``: whether mail can be taken in now; ``GET /health``: whether anybody is there."""

from __future__ import annotations

from typing import Any, Final

from klein import Klein
from twisted.web.iweb import IRequest

from ..observe.health import Health
from . import answer
from .endpoint import Answer, Endpoint

ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/healthz",
        summary="Whether mail can be taken in now",
        answers={
            200: Answer(summary="It can", type=dict[str, Any]),
            503: Answer(summary="It cannot, and why", type=dict[str, Any]),
        },
        tag="Service",
    ),
    Endpoint(
        method="GET",
        path="/health",
        summary="Whether anybody is there",
        answers={200: Answer(summary="Yes", type=dict[str, str])},
        tag="Service",
    ),
)


def add(app: Klein, health: Health) -> None:
    """Serve ``health``; open to everybody, so it tells no secrets."""

    @app.route("/healthz", methods=["GET"])
    async def healthz(request: IRequest) -> bytes:
        request.setHeader(b"Cache-Control", b"no-store")
        problems = await health.check()
        if problems:
            return answer.json(request, {"ok": False, "problems": problems}, 503)
        return answer.json(request, {"ok": True})

    @app.route("/health", methods=["GET"])
    def alive(request: IRequest) -> bytes:
        return answer.json(request, {"status": "ok"})
