"""The dashboards: generated from their source, whole, and with data in every panel: of a Prometheus that scrapes a
running pipeline, of ClickHouse, of the pipeline itself."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import psycopg
import pytest
from clickhouse.engine import QueryError
from everything import Everything
from pages import DOCUMENTED, checked
from panels import Sources, Span
from processes import ROOT, binary, wait
from trial import Trial

DASHBOARDS = ROOT / "dashboards"
FILES = sorted(DASHBOARDS.glob("*.json"))
# Shown and on no panel and in no alert, each with the reason.
UNUSED: dict[str, str] = {}
# What a panel shows where its question has no answer.
FALLBACK = re.compile(r" or (vector\(0\)|label_replace\(vector\(0\)[^()]*\))$")
VARIABLES = {
    "prometheus": "${prometheus}",
    "grafana-clickhouse-datasource": "${clickhouse}",
    "grafana-postgresql-datasource": "${sql}",
}


def panels(file: Path) -> list[dict]:
    board = json.loads(file.read_text())
    return [panel for panel in board["panels"] if panel["type"] != "row"]


ALL = [(file.stem, panel) for file in FILES for panel in panels(file)]
NAMED = [pytest.param(*one, id=f"{one[0]}: {one[1]['title']}") for one in ALL]


def test_they_are_what_their_source_says(tmp_path: Path):
    """`npm --prefix dashboards/source run generate` writes them anew."""
    source = DASHBOARDS / "source"
    assert (source / "node_modules").is_dir(), "scripts/setup test installs the source"
    for command in (
        ["node_modules/.bin/tsc", "-p", ".", "--outDir", tmp_path / "out"],
    ):
        subprocess.run(command, cwd=source, check=True)
    (tmp_path / "node_modules").symlink_to(source / "node_modules")
    subprocess.run(["node", tmp_path / "out" / "generate.js", tmp_path], check=True)
    made = {file.name: file.read_text() for file in tmp_path.glob("*.json")}
    assert made == {file.name: file.read_text() for file in FILES}
    shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_board_is_whole(file: Path):
    board = json.loads(file.read_text())
    assert 39 <= board["schemaVersion"] <= 42 and board["editable"] is False
    assert board["uid"].startswith("aion-") and board["tags"] == ["aion"]
    assert board["description"]
    taken = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another"
        taken |= cells
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(("board", "panel"), NAMED)
def test_a_panel_says_what_it_is(board: str, panel: dict):
    assert panel["title"] and panel["description"].endswith("."), panel["title"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    (link,) = panel["links"]
    page, _, anchor = link["url"].rpartition("/docs/")[2].partition("#")
    text = (ROOT / "docs" / page).read_text()
    assert not anchor or re.search(
        rf"^## {anchor}$", text, re.MULTILINE | re.IGNORECASE
    )
    types = panel["datasource"]["type"]
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        assert target["datasource"]["uid"] == VARIABLES[types]
        if types != "prometheus":
            # Whoever looks at an hour is not to wait for a year.
            assert "$__timeFilter(" in target["rawSql"] or is_now(target["rawSql"])
            continue
        assert target["legendFormat"]
        query = target["expr"]
        # A counter is looked at by its rate; a window that is fixed is one on purpose.
        for inner in re.findall(r"(?:rate|increase)\(([^()]*)\)", query):
            assert re.search(r"\[(\$__rate_interval|5m|10m|15m|1h)\]$", inner), query


def is_now(text: str) -> bool:
    """Questions that aren't about a time: what is stored, how far it is."""
    return bool(
        re.search(r" (from lag|FROM system\.parts)\b|max\(_append_time\)", text)
    )


def test_every_metric_is_looked_at():
    """What is shown to Prometheus is on a panel, in a rule, or unused for a reason; and the reverse."""
    rules = "".join(f.read_text() for f in (DASHBOARDS / "rules").glob("aion.*.yml"))
    targets = [target for _, panel in ALL for target in panel["targets"]]
    used = "".join(target.get("expr", "") for target in targets) + rules
    shown = DOCUMENTED
    assert len(shown) > 30
    idle = {
        name
        for name in shown
        if not re.search(rf"\b{name}(_bucket|_sum|_count)?\b", used)
    }
    assert idle == set(UNUSED), idle ^ set(UNUSED)
    asked = set(re.findall(r"\b(aion_(?!runtime_)\w+)", used))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert families <= shown, families - shown


def test_what_components_report_is_looked_at():
    """Each metric that the generator has them write to aion.metrics.runtime is on a panel; and the reverse."""
    made = subprocess.run(
        [binary(), "generate", "--topic", "metrics", "--count", "2000", "--seed", "1"],
        capture_output=True,
        check=True,
    )
    reported = {
        f"aion_runtime_{json.loads(line)['metric']}"
        for line in made.stdout.splitlines()
    }
    targets = [target for _, panel in ALL for target in panel["targets"]]
    used = " ".join(target.get("expr", "") for target in targets)
    asked = set(re.findall(r"\b(aion_runtime_\w+?)(?:_bucket|_sum|_count)?\b", used))
    assert len(reported) > 10 and asked == reported, asked ^ reported


def test_topics_without_events_are_those_that_the_alert_means():
    alerts = (DASHBOARDS / "rules" / "aion.alerts.yml").read_text()
    rule = alerts.split("- alert: AionNoEvents\n        expr: >-\n")[1]
    meant = " ".join(rule.split("        for:")[0].split())
    (panel,) = [one for _, one in ALL if one["title"] == "Topics without events"]
    shown = panel["targets"][0]["expr"]
    for selector in ('{instance=~"$instance"}', 'instance=~"$instance",'):
        shown = shown.replace(selector, "")
    assert shown == f"count({meant}) or vector(0)"


@pytest.mark.parametrize(("board", "panel"), NAMED)
def test_a_panel_has_data(watched: Sources, board: str, panel: dict):
    has_data(watched, panel)


@pytest.mark.parametrize(("board", "panel"), NAMED)
def test_a_panel_has_data_of_aion_dev(tried: Trial, board: str, panel: dict):
    """`aion dev` and the configuration that is shipped are enough for all of them."""
    has_data(tried.sources(), panel)


def test_prometheus_is_the_one_that_is_shipped(tried: Trial):
    """What differs is where things are, and how often they are looked at."""
    shipped = (DASHBOARDS / "prometheus.yml").read_text().splitlines()
    used = (tried.prometheus.folder / "prometheus.yml").read_text().splitlines()
    pairs = zip(shipped, used, strict=True)
    differing = [(old.strip(), new.strip()) for old, new in pairs if old != new]
    (alertmanager,) = [new for old, new in differing if ":9093" in old]
    target = ('- targets: ["127.0.0.1:8080"]', f'- targets: ["{tried.http}"]')
    assert differing == [
        ("scrape_interval: 15s", "scrape_interval: 1s"),
        ("- rules/aion.rules.yml", f"- {DASHBOARDS}/rules/aion.rules.yml"),
        ("- rules/aion.alerts.yml", f"- {DASHBOARDS}/rules/aion.alerts.yml"),
        ('- targets: ["127.0.0.1:9093"]', alertmanager),
        target,
        target,
    ]
    assert re.fullmatch(r'- targets: \["127.0.0.1:\d+"\]', alertmanager)
    for job in ("aion", "aion-platform"):
        up = f'up{{job="{job}"}}'
        wait(lambda up=up: tried.prometheus.value(up) == 1, f"{job} is scraped", 15)
    groups = tried.prometheus.get("/api/v1/rules")["data"]["groups"]
    assert {Path(group["file"]).name for group in groups} == {
        "aion.rules.yml",
        "aion.alerts.yml",
    }


def has_data(sources: Sources, panel: dict) -> None:
    """Each of its questions has an answer, now or at one of the next scrapes."""
    for target in panel["targets"]:
        asked = target.get("expr") or target["rawSql"]
        data = partial(answer, sources, target, panel["type"])
        wait(data, f"data for {asked}", 15)


def answer(sources: Sources, target: dict, kind: str) -> object:
    if kind == "table":
        return sources.rows(target, span(300)).rows
    # A window of a minute begins longer ago than a scrape.
    return sources.series(target, span(10 if "expr" in target else 300))


def span(seconds: float = 10) -> Span:
    """What these tests look at: the last few scrapes."""
    return Span(seconds=seconds, step=2, rate_interval="10s")


def has_fallback(target: dict) -> bool:
    return bool(FALLBACK.search(target.get("expr", "")))


# It asks which topics had events more than an hour ago and none since: nobody waits for that here. promtool holds the
# same expression, the alert's, against made-up hours.
NONE_SO_SOON = "Topics without events"
FALLING_BACK = [
    pytest.param(target, id=f"{board}: {panel['title']}: {target['refId']}")
    for board, panel in ALL
    for target in panel["targets"]
    if has_fallback(target) and panel["title"] != NONE_SO_SOON
]


@pytest.mark.parametrize("target", FALLING_BACK)
def test_a_panel_that_falls_back_to_0_has_data_of_its_own(
    watched: Sources, target: dict
):
    """A name that is misspelt would be a 0 there for ever."""
    own = target | {"expr": FALLBACK.sub("", target["expr"])}
    assert "vector(" not in own["expr"]
    data = partial(watched.series, own)
    wait(lambda: data(span()), f"data for {own['expr']}", 15)


def test_which_panels_fall_back():
    """Those whose end of the question is told apart from the rest of it are all that have a 0 of their own."""
    with_zero = [
        t for _, p in ALL for t in p["targets"] if "vector(" in t.get("expr", "")
    ]
    assert len(with_zero) == len(FALLING_BACK) + 1 > 1


def test_both_pages_are_clean_with_everything_on_them(
    everything: Everything, watched: Sources
):
    """After audits, webhooks, refused requests, folded values: all that is documented is there, and it alone."""
    shown = checked(everything.http)
    assert DOCUMENTED <= shown, DOCUMENTED - shown


def target(source: str, **asked: str) -> dict:
    return {"datasource": {"uid": "${" + source + "}"}, "legendFormat": "", **asked}


def test_what_is_misspelt_is_found(watched: Sources):
    """Negative controls: to Prometheus a metric that isn't there is no error, and no row is none to a database."""
    asked = "sum(rate(aion_rows_storde_total[$__rate_interval]))"
    assert not watched.series(target("prometheus", expr=asked), span())
    for source, error in (("clickhouse", QueryError), ("sql", psycopg.Error)):
        with pytest.raises(error):
            watched.rows(target(source, rawSql="select 1 from decisoins"), span())
        nobody = "select task_id from tasks where status = 'suceeded'"
        assert not watched.rows(target(source, rawSql=nobody), span()).rows
        with pytest.raises(KeyError):
            watched.rows(
                target(source, rawSql="select $__timeFiltre(timestamp)"), span()
            )


def test_what_a_process_needs_of_its_machine_is_told(watched: Sources):
    """The certificate that PostgreSQL's clients are shown ends in two days, so an alert would be due; and disks."""
    ends = 'aion_certificate_expiry_timestamp_seconds{used_for="sql"} - time()'
    days = watched.prometheus.value(ends) / 86_400
    assert 1.9 < days < 2
    disk = 'aion_disk_free_bytes{place="lake"} / aion_disk_size_bytes{place="lake"}'
    assert 0 < watched.prometheus.value(disk) < 1
