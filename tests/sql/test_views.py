"""The views, beside the same computed by polars over the same Parquet files."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import polars
import pytest
from deltalake import DeltaTable
from polars import col
from polars.testing import assert_frame_equal
from processes import Dev, binary

EVENTS = 60_000
ENDS = ["succeeded", "failed", "cancelled"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory):
    """A data folder with tasks and decisions about them, and nobody running."""
    dev = Dev(tmp_path_factory.mktemp("views"))
    try:
        dev.start("--no-generator")
        command = [binary(), "generate", "--topic", "decisions", "--topic", "tasks"]
        command += ["--count", str(EVENTS), "--seed", "7", "--to", dev.kafka]
        # The same bytes each time: how many windows there are goes with the hour of the day.
        command += ["--start", "2026-11-25T12:00:00Z"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        both = "select (select count(*) from decisions) + (select count(*) from tasks) as n"
        dev.wait(lambda: dev.sql(both)[0]["n"] == EVENTS, "all is stored")
        assert dev.stop() == 0
        yield dev
    finally:
        dev.end()


def table(dev: Dev, name: str) -> polars.DataFrame:
    lake = Path(dev.data) / "lake" / name
    return polars.from_arrow(DeltaTable(lake).to_pyarrow_table())


def asked(dev: Dev, query: str) -> polars.DataFrame:
    command = [binary(), "sql", "--data", dev.data, "--stored", "--format", "csv"]
    done = subprocess.run([*command, query], check=True, capture_output=True)
    return polars.read_csv(
        io.BytesIO(done.stdout), infer_schema_length=None, try_parse_dates=True
    )


def compare(ours: polars.DataFrame, theirs: polars.DataFrame) -> None:
    theirs = theirs.select(ours.columns)
    ours = ours.cast(dict(theirs.schema))  # CSV knows no types
    assert_frame_equal(ours, theirs, abs_tol=1e-6)


def test_task_latency_is_what_polars_computes(stored):
    tasks = table(stored, "tasks")
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
    query = "select * from task_latency {} order by window_start, status"
    compare(asked(stored, query.format("")), theirs)
    # A filter on the window is a filter on the events below it, and changes no window.
    middle = theirs["window_start"].sort()[theirs.height // 2]
    later = theirs.filter(col("window_start") >= middle)
    where = f"where window_start >= '{middle.isoformat()}'"
    compare(asked(stored, query.format(where)), later)


def test_decision_outcomes_are_what_polars_computes(stored):
    decisions, tasks = table(stored, "decisions"), table(stored, "tasks")
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
    query = "select * from decision_outcomes {} order by _partition, _offset"
    compare(asked(stored, query.format("")), theirs)
    middle = theirs["decided_at"].sort()[theirs.height // 2]
    where = f"where decided_at < '{middle.isoformat()}'"
    compare(
        asked(stored, query.format(where)), theirs.filter(col("decided_at") < middle)
    )
