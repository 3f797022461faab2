"""The pages of a running platform, as Prometheus and its own checker read them."""

from __future__ import annotations

import gzip
import re
import subprocess
import urllib.request

from monitoring import promtool, samples
from processes import ROOT, Dev, binary

DOCS = ROOT / "docs" / "metrics.md"


def page(dev: Dev, path: str) -> str:
    request = urllib.request.Request(
        f"http://{dev.http}{path}", headers={"Accept-Encoding": "gzip"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4"
        body = answer.read()
        if answer.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
    return body.decode()


def names(text: str) -> set[str]:
    return set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))


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
    documented = set(re.findall(r"^\| `(aion_\w+)`", DOCS.read_text(), re.MULTILINE))
    for path in ("/metrics", "/metrics/platform"):
        text = page(dev, path)
        checked = promtool("check", "metrics", text=text)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        own = {name for name in names(text) if not name.startswith("aion_runtime_")}
        assert own <= documented, own - documented
    assert page(dev, "/metrics/platform").startswith("# HELP")


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
