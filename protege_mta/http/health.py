"""``GET /healthz``: whether mail can be taken in now; ``GET /health``: whether anybody is there."""

from __future__ import annotations

from klein import Klein
from twisted.web.iweb import IRequest

from ..observe.health import Health
from . import answer


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
