"""Keeps the lake small in files and short in logs, where no process does it by itself (`lake.upkeep_every_m = 0`)."""

from __future__ import annotations

import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Param, dag


@dag(
    schedule="30 3 * * *",
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    catchup=False,
    params={
        "aion": Param("aion", description="The program"),
        "lake": Param("data/lake", description="The lake: a folder, or a URL"),
    },
    tags=["aion"],
    doc_md=__doc__,
)
def aion_lake_maintenance() -> None:
    steps = [
        BashOperator(
            task_id=step,
            bash_command='"$AION" lake ' + step + ' --lake "$LAKE"',
            env={"AION": "{{ params.aion }}", "LAKE": "{{ params.lake }}"},
            append_env=True,
            retries=2,
        )
        for step in ("compact", "checkpoint", "vacuum")
    ]
    steps[0] >> steps[1] >> steps[2]


aion_lake_maintenance()
