"""A pipeline with everything, and a Prometheus that watches it."""

from __future__ import annotations

import time

import pytest
from everything import Everything
from monitoring import Prometheus, scrape_config
from panels import Sources


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory):
    """Whom panels ask, once all of them have had something for a while."""
    folder = tmp_path_factory.mktemp("watched")
    everything, prometheus = Everything(folder), Prometheus(folder / "prometheus")
    try:
        everything.start()
        paths = ("/metrics", "/metrics/platform")
        prometheus.start(scrape_config([everything.http], paths))
        everything.wait(
            lambda: prometheus.value("min(aion_audit_up)") == 1, "an audit ended", 180
        )
        everything.wait(
            lambda: (prometheus.value("sum(aion_webhook_attempts_total)") or 0) > 100,
            "webhooks are delivered",
            60,
        )
        time.sleep(12)  # rates want a few scrapes
        yield Sources(prometheus, everything.engine, everything.postgres_client())
    finally:
        prometheus.stop()
        everything.end()
