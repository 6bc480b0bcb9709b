"""``GET /metrics``: what Prometheus scrapes."""

from __future__ import annotations

from typing import Final

from klein import Klein
from twisted.web.iweb import IRequest

from ..observe.metrics import Metrics
from .endpoint import Answer, Endpoint

ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/metrics",
        summary="Figures, for Prometheus",
        answers={200: Answer(summary="The text format", media_type="text/plain; version=0.0.4")},
        tag="Service",
    ),
)


def add(app: Klein, metrics: Metrics) -> None:
    """Serve ``metrics``."""

    @app.route("/metrics", methods=["GET"])
    def scrape(request: IRequest) -> bytes:
        content_type, octets = metrics.render(request.getHeader("Accept") or "")
        request.setHeader(b"Content-Type", content_type.encode("ascii"))
        return octets
