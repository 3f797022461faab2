"""Pipelines with everything, and a Prometheus that watches each: `aion dev`, and an `aion run` to which more happens."""

from __future__ import annotations

import pytest
from everything import Everything
from monitoring import Prometheus, scrape_config
from panels import Sources
from trial import Trial


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory):
    """`aion dev`, which audits itself after a minute. Others come up meanwhile."""
    trial = Trial(tmp_path_factory.mktemp("trial"))
    try:
        trial.try_out()
        yield trial
    finally:
        trial.end()


@pytest.fixture(scope="module")
def tried(begun: Trial) -> Trial:
    """The same, once it has audited itself."""
    begun.wait_ready()
    audited = "min(aion_audit_up)"
    begun.wait(lambda: begun.prometheus.value(audited) == 1, "an audit ended", 300)
    return begun


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory, begun: Trial):
    """An `aion run` with all that can be watched."""
    everything = Everything(tmp_path_factory.mktemp("everything"))
    try:
        everything.start()
        yield everything
    finally:
        everything.end()


@pytest.fixture(scope="module")
def watched(everything: Everything):
    """Whom its panels ask, once what happens last has happened."""
    prometheus = Prometheus(everything.folder / "prometheus")
    try:
        paths = ("/metrics", "/metrics/platform")
        prometheus.start(scrape_config([everything.http], paths, "2s"))
        everything.wait(
            lambda: prometheus.value("min(aion_audit_up)") == 1, "an audit ended", 300
        )
        everything.wait(
            lambda: (prometheus.value("sum(aion_webhook_attempts_total)") or 0) > 100,
            "webhooks are delivered",
            60,
        )
        yield Sources(prometheus, everything.engine, everything.postgres_client())
    finally:
        prometheus.stop()
