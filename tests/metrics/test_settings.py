"""What `[metrics]` in aion.toml says is what is on the page."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from brokers import Embedded
from confluent_kafka import Producer
from events import text
from monitoring import samples
from processes import Process

TOPIC = "aion.metrics.runtime"
STALE_S = 6
SETTINGS = f"""
[metrics]
flush_age_s = 0
stale_s = {STALE_S}
max_series_per_metric = 3
max_series = 7

[metrics.buckets]
wait_seconds = [1, 2.5]

[[metrics.preset]]
component = "gateway"
metric = "requests_total"
kind = "counter"
labels = {{ status = "500" }}
"""


@pytest.fixture
def configured(tmp_path: Path):
    """A process with these settings, and the broker that it reads from."""
    broker, run = Embedded(tmp_path / "broker"), Process(tmp_path / "aion.log")
    broker.start()
    try:
        done = broker.bootstrap()
        assert done.returncode == 0, done.stdout + done.stderr
        file = tmp_path / "aion.toml"
        file.write_text(
            f'[kafka]\nbrokers = "{broker.brokers()}"\n'
            f'[lake]\nurl = "{tmp_path / "lake"}"\n[http]\nlisten = "{run.http}"\n'
            f'[[job]]\ntopic = "{TOPIC}"\nsinks = ["prometheus"]\n{SETTINGS}'
        )
        run.launch("run", "--config", file)
        run.wait_ready()
        yield run, broker
    finally:
        run.end()
        broker.stop()


def send(broker: Embedded, *events: tuple[str, str, float, dict]) -> None:
    """Each (metric, kind, value, labels) by one component, so into one partition and in this order."""
    producer = Producer(broker.client("anybody"))
    for metric, kind, value, labels in events:
        event = {"component": "c", "metric": metric, "kind": kind, "value": value}
        event |= {"labels": labels, "timestamp": datetime.now(UTC).isoformat()}
        producer.produce(TOPIC, text(event), "c")
    assert producer.flush(30) == 0


def test_settings_reach_the_page(configured: tuple[Process, Embedded]):
    run, broker = configured

    def shown() -> dict[str, float]:
        """The events' series, whatever their partition."""
        page = samples(run.get("/metrics/platform")[1])
        found = {re.sub(r',partition="\d"', "", one): v for one, v in page.items()}
        return {
            series.removeprefix("aion_runtime_"): value
            for series, value in found.items()
            if series.startswith("aion_runtime_")
        }

    preset = 'requests_total{component="gateway",status="500"}'
    run.wait(lambda: shown().get(preset) == 0, "the preset series is there", 30)

    send(
        broker,
        ("level", "gauge", 5, {}),
        *[("wait_seconds", "histogram", value, {}) for value in (0.5, 2, 9)],
        *[("by_id_total", "counter", 1, {"id": n}) for n in range(5)],
        *[("more_total", "counter", 1, {"id": n}) for n in range(3)],
    )
    wanted = {
        'level{component="c"}': 5,
        # Both bounds, and what is above them.
        'wait_seconds_bucket{component="c",le="1"}': 1,
        'wait_seconds_bucket{component="c",le="2.5"}': 2,
        'wait_seconds_bucket{component="c",le="+Inf"}': 3,
        # Three of a metric; and with these, the preset one and those above it, seven in all.
        'by_id_total{component="c",id="2"}': 1,
        'by_id_total{component="c",id="3"}': None,
        'by_id_total{overflow="true"}': 2,
        'more_total{component="c",id="0"}': 1,
        'more_total{component="c",id="1"}': None,
        'more_total{overflow="true"}': 2,
    }

    def found() -> dict[str, float | None]:
        page = shown()
        return {series: page.get(series) for series in wanted}

    last = 'more_total{overflow="true"}'
    run.wait(lambda: shown().get(last) == 2, "the last event", 30)
    assert found() == wanted
    bounds = [series for series in shown() if "wait_seconds_bucket" in series]
    assert len(bounds) == 3, bounds

    level = 'level{component="c"}'
    run.wait(lambda: level not in shown(), "the gauge is stale", 3 * STALE_S)
    assert found() == wanted | {level: None}
