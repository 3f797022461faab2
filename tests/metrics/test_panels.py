"""Every panel has data: of a Prometheus that scrapes a running pipeline, of ClickHouse, of the pipeline itself."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psycopg
import pytest
from boards import ALL, DASHBOARDS, NAMED
from clickhouse.engine import QueryError
from everything import Everything
from pages import DOCUMENTED, PATHS, checked, shown
from panels import Sources, Span
from processes import wait
from trial import Trial

# What a panel shows where its question has no answer.
FALLBACK = re.compile(r" or (vector\(0\)|label_replace\(vector\(0\)[^()]*\))$")
# So many questions are asked at a time: those that have to wait keep no others from being asked. Each also has a bound
# on its time, so they are few where there are few processors.
ASKERS = 3
# What became of each panel, by its board and number.
Asked = dict[tuple[str, int], Future[None]]


def asked(sources: Sources) -> Iterator[Asked]:
    """All panels, side by side."""
    with ThreadPoolExecutor(ASKERS) as askers:
        yield {
            (board, panel["id"]): askers.submit(has_data, sources, panel)
            for board, panel in ALL
        }


def has_data(sources: Sources, panel: dict) -> None:
    """Each of its questions has an answer, now or at one of the next scrapes."""
    for target in panel["targets"]:
        text = target.get("expr") or target["rawSql"]
        data = partial(answer, sources, target, panel["type"])
        wait(data, f"data for {text}", 45)


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


@pytest.fixture(scope="module")
def asked_of_everything(watched: Sources) -> Iterator[Asked]:
    yield from asked(watched)


@pytest.fixture(scope="module")
def asked_of_dev(tried: Trial) -> Iterator[Asked]:
    yield from asked(tried.sources())


@pytest.mark.parametrize(("board", "panel"), NAMED)
def test_a_panel_has_data(asked_of_everything: Asked, board: str, panel: dict):
    asked_of_everything[board, panel["id"]].result()


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
    missing = partial(not_shown, everything.http)
    wait(lambda: not missing(), "all is shown", 30, lambda: str(missing()))
    checked(everything.http)


def not_shown(http: str) -> set[str]:
    return DOCUMENTED - shown(http)


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
    value = watched.prometheus.value
    ends = 'aion_certificate_expiry_timestamp_seconds{used_for="sql"} - time()'
    disk = 'aion_disk_free_bytes{place="lake"} / aion_disk_size_bytes{place="lake"}'
    # Not there where the last scrape took too long.
    wait(lambda: value(ends) and value(disk), "both are scraped", 30)
    assert 1.9 < value(ends) / 86_400 < 2
    assert 0 < value(disk) < 1


@pytest.mark.parametrize(("board", "panel"), NAMED)
def test_a_panel_has_data_of_aion_dev(asked_of_dev: Asked, board: str, panel: dict):
    """`aion dev` and the configuration that is shipped are enough for all of them."""
    asked_of_dev[board, panel["id"]].result()


def test_both_pages_of_aion_dev_are_clean_and_documented(tried: Trial):
    """Believable events of all topics; every metric that is shown stands in the docs."""
    wanted = ("aion_runtime_", "aion_router_decisions_", "aion_task_latency_")

    def is_there() -> bool:
        names = shown(tried.http)
        found = [n for n in names if n.startswith("aion_runtime_")]
        return len(found) > 15 and all(
            any(n.startswith(w) for n in names) for w in wanted
        )

    tried.wait(is_there, "series of all topics", 60)
    checked(tried.http)
    for path in PATHS:
        with urllib.request.urlopen(f"http://{tried.http}{path}", timeout=10) as page:
            assert page.headers["Content-Encoding"] is None, "nobody asked for that"


def test_prometheus_is_the_one_that_is_shipped(tried: Trial):
    """What differs is where things are, and how often they are looked at."""
    shipped = (DASHBOARDS / "prometheus.yml").read_text().splitlines()
    used = (tried.prometheus.folder / "prometheus.yml").read_text().splitlines()
    pairs = zip(shipped, used, strict=True)
    differing = [(old.strip(), new.strip()) for old, new in pairs if old != new]
    (alertmanager,) = [new for old, new in differing if ":9093" in old]
    target = ('- targets: ["127.0.0.1:8080"]', f'- targets: ["{tried.http}"]')
    assert differing == [
        ("scrape_interval: 15s", "scrape_interval: 2s"),
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
