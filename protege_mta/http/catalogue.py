"""Every endpoint, for the description of the API and for the reference page."""

from __future__ import annotations

from typing import Final

from . import (
    events,
    health,
    kumo,
    messages,
    metrics,
    openapi,
    portal,
    suppressions,
    timeline,
    unsubscribe,
)
from .endpoint import Endpoint

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *messages.ENDPOINTS,
    *timeline.ENDPOINTS,
    *events.ENDPOINTS,
    *suppressions.ENDPOINTS,
    *portal.ENDPOINTS,
    *kumo.ENDPOINTS,
    *unsubscribe.ENDPOINTS,
    *health.ENDPOINTS,
    *metrics.ENDPOINTS,
    *openapi.ENDPOINTS,
)
