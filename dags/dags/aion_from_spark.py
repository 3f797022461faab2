"""Exports of an hour of decisions made by Spark over the lake's tables: for more rows than one machine should sort.

The job, bigdata/spark/export.py, asks the pipeline which rows they are and waits until the interval is complete. By the
parameter `submit` it is started another way, such as `spark-submit --master spark://host:7077 ... export.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aion_common import (
    DEFAULTS,
    PARAMS,
    PARTITION,
    each_interval,
    since,
)
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Asset, Metadata, Param, dag, task

ROOT = Path(__file__).resolve().parents[2]
EXPORTED = Asset("aion-decisions-hourly-spark")
REQUEST = """
{%- set start = macros.dateutil.parser.parse(__PARTITION__) -%}
{"dataset": "decisions", "lateness_s": {{ params.lateness_s }},
 "interval": {"start": "{{ start.strftime('%Y-%m-%dT%H:%M:%SZ') }}",
              "end": "{{ (start + macros.timedelta(minutes=params.minutes)).strftime('%Y-%m-%dT%H:%M:%SZ') }}"}}
""".replace("__PARTITION__", PARTITION.strip("{} "))


@dag(
    schedule=each_interval(),
    **since(),
    params={
        **PARAMS,
        "submit": Param(
            f"{ROOT}/scripts/spark export.py",
            description="What starts the job; its arguments follow",
        ),
        "out": Param(
            f"{ROOT}/data/spark-exports",
            description="Where it goes: a folder that all executors see, or its URL",
        ),
    },
    default_args=DEFAULTS,
    tags=["aion"],
    doc_md=__doc__,
)
def aion_from_spark() -> None:
    export = BashOperator(
        task_id="decisions",
        bash_command="{{ params.submit }} "
        + '--url "$AION_URL" --request "$REQUEST" --out "$OUT"',
        env={
            "AION_URL": "{{ conn.aion_default.host }}",
            "AION_KEY": "{{ conn.aion_default.password or '' }}",
            "REQUEST": REQUEST,
            "OUT": "{{ params.out }}",
        },
        append_env=True,
        output_processor=json.loads,
    )

    @task(outlets=[EXPORTED])
    def tell(status: dict[str, Any]) -> Any:
        """Whoever waits for the asset finds the manifest by it."""
        told = {name: status[name] for name in ("manifest_uri", "rows", "digest")}
        yield Metadata(EXPORTED, extra=told)

    tell(export.output)


aion_from_spark()
