"""The views, beside the same computed by polars over the Parquet files that have their rows, then or later."""

from __future__ import annotations

import io
import subprocess
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import polars
import pytest
from asking import KEY
from brokers import Embedded
from deltalake import DeltaTable
from polars import col
from polars.testing import assert_frame_equal
from processes import Dev, Process, binary, sql

EVENTS = 60_000
# Of which so many come twice, where most are live.
STORED = 30_000
ENDS = ["succeeded", "failed", "cancelled"]
BOTH = "select (select count(*) from decisions) + (select count(*) from tasks) as n"
# By view: the time by which a part of it is asked for, which part, and the order of its rows.
ASKED = {
    "task_latency": ("window_start", ">=", "window_start, status"),
    "decision_outcomes": ("decided_at", "<", "_partition, _offset"),
}


class Answer(NamedTuple):
    """A view, and the part of it on one side of a time in its middle."""

    whole: polars.DataFrame
    middle: datetime
    part: polars.DataFrame


class Views(NamedTuple):
    """What the views said, and the lake that has all rows below them by now."""

    lake: Path
    answers: dict[str, Answer]

    def table(self, name: str) -> polars.DataFrame:
        return polars.from_arrow(DeltaTable(self.lake / name).to_pyarrow_table())


def asked(query: str, *where: object) -> polars.DataFrame:
    command = [binary(), "sql", *where, "--format", "csv", query]
    done = subprocess.run(command, check=True, capture_output=True)
    return polars.read_csv(
        io.BytesIO(done.stdout), infer_schema_length=None, try_parse_dates=True
    )


def answer(view: str, *where: object) -> Answer:
    time, is_in, order = ASKED[view]
    (rows,) = sql(f"select count(*) as n from {view}", *where)
    times = f"select {time} as t from {view} order by {time} limit 1"
    (middle,) = sql(f"{times} offset {rows['n'] // 2}", *where)
    part = f"select * from {view} where {time} {is_in} '{middle['t']}' order by {order}"
    whole = asked(f"select * from {view} order by {order}", *where)
    return Answer(whole, datetime.fromisoformat(middle["t"]), asked(part, *where))


def answers(*where: object) -> dict[str, Answer]:
    return {view: answer(view, *where) for view in ASKED}


def generate(kafka: str, count: int) -> None:
    command = [binary(), "generate", "--topic", "decisions", "--topic", "tasks"]
    command += ["--count", str(count), "--seed", "7", "--to", kafka]
    # The same bytes each time: how many windows there are goes with the hour of the day.
    command += ["--start", "2026-11-25T12:00:00Z"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def of_what_is_stored(folder: Path) -> Views:
    """A data folder with tasks and decisions about them, and nobody running."""
    dev = Dev(folder)
    try:
        dev.start("--no-generator")
        generate(dev.kafka, EVENTS)
        dev.wait(lambda: dev.sql(BOTH)[0]["n"] == EVENTS, "all is stored")
        assert dev.stop() == 0
        return Views(dev.data / "lake", answers("--data", dev.data, "--stored"))
    finally:
        dev.end()


def of_what_is_live_too(folder: Path) -> Views:
    """A process that has the first events in the lake, and all of them, the first ones too, as live rows: a window has rows
    of both kinds, and so do a decision and its task."""
    broker, run = Embedded(folder / "broker"), Process(folder / "aion.log")
    config, key, lake = (folder / name for name in ("aion.toml", "key", "lake"))
    key.write_text(KEY)
    where = ["--url", f"http://{run.http}", "--key", f"file:{key}"]
    # Nothing is stored by its age, and there is room for all.
    config.write_text(
        f'[kafka]\nbrokers = "{broker.brokers()}"\n'
        f'[lake]\nurl = "{lake}"\nflush_age_s = 3600\n'
        f'[http]\nlisten = "{run.http}"\nkeys = ["file:{key}"]\n'
        "[memory]\nbudget_mib = 1024\n[sql]\nmemory_mib = 512\n"
        '[[job]]\ntopic = "aion.router.decisions"\nsinks = ["lake"]\n'
        '[[job]]\ntopic = "aion.tasks.lifecycle"\nsinks = ["lake"]\n'
    )

    def start() -> None:
        run.launch("run", "--config", config)
        run.wait_ready()

    def see(rows: int) -> None:
        run.wait(lambda: sql(BOTH, *where)[0]["n"] == rows, f"{rows} rows are seen")

    broker.start()
    try:
        done = broker.bootstrap()
        assert done.returncode == 0, done.stdout + done.stderr
        start()
        generate(broker.brokers(), STORED)
        see(STORED)
        # What it has is stored when it stops.
        assert run.stop() == 0
        start()
        generate(broker.brokers(), EVENTS)
        see(STORED + EVENTS)
        seen = answers(*where)
        stored = sql(BOTH, "--lake", lake)[0]["n"]
        assert stored == STORED, "the others were live all the while"
        assert run.stop() == 0
        return Views(lake, seen)
    finally:
        run.end()
        broker.stop()


@pytest.fixture(
    scope="module",
    params=[of_what_is_stored, of_what_is_live_too],
    ids=["stored", "live"],
)
def views(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Views:
    return request.param(tmp_path_factory.mktemp("views"))


def compare(ours: polars.DataFrame, theirs: polars.DataFrame) -> None:
    theirs = theirs.select(ours.columns)
    ours = ours.cast(dict(theirs.schema))  # CSV knows no types
    assert_frame_equal(ours, theirs, abs_tol=1e-6)


def test_task_latency_is_what_polars_computes(views: Views):
    tasks = views.table("tasks")
    half = col("timestamp").dt.truncate("30s")
    starts = [
        half.alias("window_start"),
        half.dt.offset_by("-30s").alias("window_start"),
    ]
    windows = polars.concat([tasks.with_columns(start) for start in starts])
    theirs = (
        windows.group_by("window_start", "status")
        .agg(
            (col("window_start").first().dt.offset_by("1m")).alias("window_end"),
            polars.len().cast(polars.Int64).alias("events"),
            col("latency_ms").mean().alias("average_ms"),
            col("latency_ms").quantile(0.95, "linear").alias("p95_ms"),
            polars.when(col("retries").count() > 0)
            .then(col("retries").sum())
            .alias("retries"),
        )
        .sort("window_start", "status")
    )
    assert theirs.height > 20 and theirs["p95_ms"].null_count() < theirs.height
    ours = views.answers["task_latency"]
    compare(ours.whole, theirs)
    # A filter on the window is a filter on the events below it, and changes no window.
    later = theirs.filter(col("window_start") >= ours.middle)
    assert 0 < later.height < theirs.height
    compare(ours.part, later)


def test_decision_outcomes_are_what_polars_computes(views: Views):
    decisions, tasks = views.table("decisions"), views.table("tasks")
    place = ["task_id", "timestamp", "_topic_id", "_partition", "_offset"]
    last = (
        tasks.filter(col("status").is_in(ENDS))
        .sort(place)
        .unique("task_id", keep="last")
        .select(
            "task_id",
            col("status").alias("outcome"),
            col("timestamp").alias("ended_at"),
            "latency_ms",
            "retries",
            "error_code",
        )
    )
    theirs = (
        decisions.rename({"timestamp": "decided_at"})
        .join(last, on="task_id", how="left")
        .sort("_partition", "_offset")
    )
    assert theirs["outcome"].n_unique() >= 3 and theirs["outcome"].null_count() > 0
    ours = views.answers["decision_outcomes"]
    compare(ours.whole, theirs)
    earlier = theirs.filter(col("decided_at") < ours.middle)
    assert 0 < earlier.height < theirs.height
    compare(ours.part, earlier)
