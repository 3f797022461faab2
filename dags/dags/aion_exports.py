"""Hourly exports of every topic, and the daily dataset that models are trained on: each a partition of an asset."""

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
from airflow.sdk import Asset, CronPartitionTimetable, Param, dag


@dag(
    schedule=each_interval(),
    **since(),
    render_template_as_native_obj=True,
    params=PARAMS,
    default_args=DEFAULTS,
    tags=["aion"],
    doc_md=__doc__,
)
def aion_hourly_exports() -> None:
    for dataset in ("decisions", "tasks", "metrics", "audit"):
        AionExportOperator(
            task_id=dataset,
            dataset=dataset,
            interval_start=PARTITION,
            minutes=MINUTES,
            request=REQUEST,
            outlets=[Asset(f"aion-{dataset}-hourly")],
        )


@dag(
    schedule=CronPartitionTimetable("0 2 * * *", timezone="UTC", run_offset=-1),
    **since(),
    render_template_as_native_obj=True,
    params={
        **PARAMS,
        "minutes": Param(24 * 60, type="integer", description="Length of the interval"),
        "horizon_s": Param(
            3600, type="integer", description="How long an outcome may take"
        ),
    },
    default_args=DEFAULTS,
    tags=["aion"],
    doc_md=__doc__,
)
def aion_router_training() -> None:
    AionExportOperator(
        task_id="router_training",
        dataset="router_training",
        interval_start=PARTITION,
        minutes=MINUTES,
        request={**REQUEST, "horizon_s": "{{ params.horizon_s }}"},
        # Of a day without decisions there is nothing to learn: nobody is told of it.
        skip_empty=True,
        outlets=[Asset("aion-router-training-daily")],
    )


aion_hourly_exports()
aion_router_training()
