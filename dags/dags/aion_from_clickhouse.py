"""Exports of an hour of decisions from ClickHouse, held against what ClickHouse itself counts."""

from __future__ import annotations

from aion_common import (
    DEFAULTS,
    MINUTES,
    PARAMS,
    PARTITION,
    REQUEST,
    each_interval,
    since,
)
from aion_provider.operators import AionExportOperator
from airflow.providers.common.sql.operators.sql import SQLCheckOperator
from airflow.sdk import Asset, dag

BEGIN = "parseDateTime64BestEffort('{{ dag_run.partition_key or params.partition }}', 6, 'UTC')"
INTERVAL = f"timestamp >= {BEGIN} AND timestamp < {BEGIN} + INTERVAL {MINUTES} MINUTE"
ONCE = f"SELECT count() = uniqExact(_topic_id, _partition, _offset) FROM aion.decisions WHERE {INTERVAL}"
# The export may have fewer: what came too late, or may not go out, isn't in it.
ROWS = "{{ ti.xcom_pull(task_ids='decisions')['rows'] }}"
COUNTED = f"SELECT count() >= {ROWS} FROM aion.decisions WHERE {INTERVAL}"


@dag(
    schedule=each_interval(),
    **since(),
    render_template_as_native_obj=True,
    params=PARAMS,
    default_args=DEFAULTS,
    tags=["aion"],
    doc_md=__doc__,
)
def aion_from_clickhouse() -> None:
    once = SQLCheckOperator(
        task_id="each_event_once", conn_id="clickhouse_default", sql=ONCE
    )
    export = AionExportOperator(
        task_id="decisions",
        dataset="decisions",
        interval_start=PARTITION,
        minutes=MINUTES,
        request=REQUEST,
        source="clickhouse",
        outlets=[Asset("aion-decisions-hourly-clickhouse")],
    )
    counted = SQLCheckOperator(
        task_id="no_more_than_stored", conn_id="clickhouse_default", sql=COUNTED
    )
    once >> export >> counted


aion_from_clickhouse()
