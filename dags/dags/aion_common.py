"""What the DAGs of exports have in common. No DAG is made here.

The environment of Airflow's processes may say otherwise than by the hour, from now on:

    AION_EXPORTS_EVERY_M      the length of an interval in minutes, of those that divide an hour     [60]
    AION_EXPORTS_LATENESS_S   how long events may take to arrive                                     [300]
    AION_EXPORTS_SINCE        every interval from then on is exported, those before a DAG was woken, or while it was
                              paused, too: such as 2026-11-01. Without it, the latest.
"""

from __future__ import annotations

import datetime
import os
from typing import Any

from airflow.sdk import CronPartitionTimetable, Param

EVERY_M = int(os.environ.get("AION_EXPORTS_EVERY_M", "60"))
SINCE = os.environ.get("AION_EXPORTS_SINCE")

# The key of the run's partition; by hand, the one that is given.
PARTITION = "{{ dag_run.partition_key or params.partition }}"
PARAMS: dict[str, Any] = {
    "partition": Param(
        None,
        type=["null", "string"],
        description="Begin of the interval when started by hand, such as 2026-11-23T05:00:00",
    ),
    "minutes": Param(EVERY_M, type="integer", description="Length of the interval"),
    "lateness_s": Param(
        int(os.environ.get("AION_EXPORTS_LATENESS_S", "300")),
        type="integer",
        description="How long events may take to arrive",
    ),
}
REQUEST = {"lateness_s": "{{ params.lateness_s }}"}
# By hand, of another length: to try things out with.
MINUTES = "{{ params.minutes }}"
DEFAULTS = {"retries": 3, "retry_delay": datetime.timedelta(minutes=1)}


def since() -> dict[str, Any]:
    """From when on a DAG runs, and whether for every interval since."""
    start = datetime.datetime.fromisoformat(SINCE or "2026-01-01")
    if start.tzinfo is None:
        start = start.replace(tzinfo=datetime.UTC)
    return {"start_date": start, "catchup": SINCE is not None}


def each_interval() -> CronPartitionTimetable:
    """A partition for each interval, when it is over."""
    cron = "0 * * * *" if EVERY_M == 60 else f"*/{EVERY_M} * * * *"
    return CronPartitionTimetable(cron, timezone="UTC", run_offset=-1)
