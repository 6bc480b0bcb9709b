"""What Hypothesis may take its time for: a busy machine makes inputs slowly, which says nothing of
what is tested with them."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("tests", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("tests")
