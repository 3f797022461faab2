"""What the DAGs of exports have in common. No DAG is made here."""

from __future__ import annotations

import datetime
from typing import Any

from airflow.sdk import Param

# The key of the run's partition; by hand, the one that is given.
PARTITION = "{{ dag_run.partition_key or params.partition }}"
PARAMS: dict[str, Any] = {
    "partition": Param(
        None,
        type=["null", "string"],
        description="Begin of the interval when started by hand, such as 2026-11-23T05:00:00",
    ),
    "minutes": Param(60, type="integer", description="Length of the interval"),
    "lateness_s": Param(
        300, type="integer", description="How long events may take to arrive"
    ),
}
REQUEST = {"lateness_s": "{{ params.lateness_s }}"}
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
# By hand, of another length: to try things out with.
MINUTES = "{{ params.minutes }}"
DEFAULTS = {"retries": 3, "retry_delay": datetime.timedelta(minutes=1)}
