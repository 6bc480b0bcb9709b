"""``GET /metrics``: what Prometheus scrapes."""

from __future__ import annotations

from klein import Klein
from twisted.web.iweb import IRequest

from ..observe.metrics import Metrics


def add(app: Klein, metrics: Metrics) -> None:
    """Serve ``metrics``."""

    @app.route("/metrics", methods=["GET"])
    def scrape(request: IRequest) -> bytes:
        content_type, octets = metrics.render(request.getHeader("Accept") or "")
        request.setHeader(b"Content-Type", content_type.encode("ascii"))
        return octets
