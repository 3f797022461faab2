"""The same export with the providers that Airflow brings along and none of ours: an HTTP connection `aion_http`."""

from __future__ import annotations

import json
from typing import Any

from aion_common import DEFAULTS, PARAMS, each_interval, since
from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException

REQUEST = """
{%- set start = macros.dateutil.parser.parse(dag_run.partition_key or params.partition) -%}
{"dataset": "decisions", "wait_for_close": true, "lateness_s": {{ params.lateness_s }},
 "interval": {"start": "{{ start.strftime('%Y-%m-%dT%H:%M:%SZ') }}",
              "end": "{{ (start + macros.timedelta(minutes=params.minutes)).strftime('%Y-%m-%dT%H:%M:%SZ') }}"}}
"""
EXPORT = "/v1/exports/{{ ti.xcom_pull(task_ids='ask') }}"


@dag(
    schedule=each_interval(),
    **since(),
    params=PARAMS,
    default_args=DEFAULTS,
    tags=["aion"],
    doc_md=__doc__,
)
def aion_stock_providers() -> None:
    # Not deferred: a trigger that starts again would ask twice (which here would be asking once).
    ask = HttpOperator(
        task_id="ask",
        http_conn_id="aion_http",
        method="POST",
        endpoint="/v1/exports",
        data=REQUEST,
        response_filter=lambda answer: answer.json()["id"],
    )
    # 404 until it has come to an end, whichever: the sensor knows no other way to wait.
    wait = HttpSensor(
        task_id="wait",
        http_conn_id="aion_http",
        endpoint=EXPORT + "/done",
        poke_interval=5,
        timeout=6 * 3600,
        deferrable=True,
    )
    look = HttpOperator(
        task_id="look", http_conn_id="aion_http", method="GET", endpoint=EXPORT
    )

    @task
    def check(status: str) -> dict[str, Any]:
        told = json.loads(status)
        if told["state"] != "succeeded":
            # A cancelled one has no error.
            why = told.get("error", {}).get("message", f"it is {told['state']}")
            raise AirflowFailException(why)
        return {name: told[name] for name in ("id", "rows", "manifest_uri")}

    ask >> wait >> look
    check(look.output)


aion_stock_providers()
