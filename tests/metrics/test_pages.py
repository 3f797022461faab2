"""The page of the platform's series, held against what is stored."""

from __future__ import annotations

import subprocess

from monitoring import samples
from processes import Dev, binary


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
