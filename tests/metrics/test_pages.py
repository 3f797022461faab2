"""The pages of a running platform, as Prometheus and its own checker read them."""

from __future__ import annotations

import subprocess
import urllib.request

from monitoring import samples
from pages import PATHS, checked, compressed_page, names
from processes import Dev, binary


def test_both_pages_are_clean_and_documented(dev: Dev):
    """Believable events of all topics; every metric that is shown stands in the docs."""
    dev.start("--rate", "2000")
    wanted = ("aion_runtime_", "aion_router_decisions_", "aion_task_latency_")

    def is_there() -> bool:
        shown = names(dev.get("/metrics/platform")[1])
        found = [n for n in shown if n.startswith("aion_runtime_")]
        return len(found) > 15 and all(
            any(n.startswith(w) for n in shown) for w in wanted
        )

    dev.wait(is_there, "series of all topics", 60)
    checked(dev.http)
    assert compressed_page(dev.http, "/metrics/platform").startswith("# HELP")
    for path in PATHS:
        with urllib.request.urlopen(f"http://{dev.http}{path}", timeout=10) as answer:
            assert answer.headers["Content-Encoding"] is None, "nobody asked for that"


def test_what_is_stored_is_what_is_shown(dev: Dev):
    """Once all is written, the series say what SQL says of the tables."""
    dev.start("--no-generator")
    for topic in ("aion.router.decisions", "aion.metrics.runtime"):
        command = ["generate", "--topic", topic, "--count", "5000", "--to", dev.kafka]
        subprocess.run([binary(), *command], check=True, capture_output=True)
    dev.wait(lambda: dev.count("metrics") == 5000, "the metrics are in the lake", 60)
    dev.wait(lambda: dev.count("decisions") == 5000, "so are the decisions", 60)

    def shown(name: str) -> float:
        series = samples(dev.get("/metrics/platform")[1])
        return sum(v for s, v in series.items() if s.split("{")[0] == name)

    dev.wait(lambda: shown("aion_router_decisions_total") == 5000, "all are shown", 30)
    rows = dev.sql(
        "select metric, sum(value) as total from metrics where kind = 'counter' group by 1"
    )
    assert len(rows) > 3
    for row in rows:
        name = "aion_runtime_" + row["metric"]
        assert shown(name) == row["total"], row
    rows = dev.sql(
        "select metric, count(*) as n from metrics where kind = 'histogram' group by 1"
    )
    for row in rows:
        assert shown(f"aion_runtime_{row['metric']}_count") == row["n"], row
