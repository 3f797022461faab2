"""Trains a model on each day's export of decisions with their outcomes, when it is there."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, Param, PartitionedAssetTimetable, dag, task

DATASET = Asset("aion-router-training-daily")


@dag(
    schedule=PartitionedAssetTimetable(assets=DATASET),
    catchup=False,
    params={
        "manifest_uri": Param(
            None,
            type=["null", "string"],
            description="The manifest when started by hand",
        )
    },
    tags=["aion"],
    doc_md=__doc__,
)
def aion_train() -> None:
    @task(inlets=[DATASET])
    def manifests(**context: Any) -> list[str]:
        """Those of the events that this run is for; they may be several."""
        if by_hand := context["params"]["manifest_uri"]:
            return [by_hand]
        events = context["triggering_asset_events"]
        return [
            event.extra["manifest_uri"] for each in events.values() for event in each
        ]

    @task
    def train(manifest_uri: str) -> dict[str, Any]:
        from aion_provider.training import train

        return train(manifest_uri)

    train.expand(manifest_uri=manifests())


aion_train()
