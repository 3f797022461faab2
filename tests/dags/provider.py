"""The provider's own promises, kept in Airflow's own Python against a running server: `provider.py START END LATENESS_S`, an
interval that is closed. Prints by name what went wrong, or null, as its last line."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
from aion_provider.hook import OVER, AionHook
from aion_provider.operators import AionExportOperator, AionExportSensor
from aion_provider.training import train
from aion_provider.trigger import AionExportTrigger
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
)

CLOSED = tuple(sys.argv[1:3])
LATENESS_S = int(sys.argv[3])
# It stays open for so long that nobody waits for its end.
OPEN = ("2096-03-14T09:00:00Z", "2096-03-14T10:00:00Z")
CHECKS: list[Callable[[], None]] = []


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS.append(function)
    return function


def operator(interval: tuple[str, ...] = CLOSED, **more: Any) -> AionExportOperator:
    usual = {"task_id": "export", "dataset": "tasks", "deferrable": False}
    usual |= {"interval_start": interval[0], "interval_end": interval[1]}
    more["request"] = {"lateness_s": LATENESS_S, **more.get("request", {})}
    return AionExportOperator(**usual | more)


def refused(kind: type[Exception], work: Callable[[], object]) -> str:
    """The message of the error that it raises: of this kind itself, since Airflow tells by the kind what to do next."""
    try:
        told = work()
    except kind as error:
        assert type(error) is kind, repr(error)
        return str(error)
    raise AssertionError(f"nothing was raised, but {told}")


def first(trigger: AionExportTrigger) -> dict[str, Any]:
    """What it tells of first."""

    async def told() -> Any:
        return (await anext(trigger.run())).payload

    return asyncio.run(told())


def state(export: str) -> str:
    return AionHook().status(export)["state"]


@check
def the_button_says_whether_the_server_answers() -> None:
    assert AionHook().test_connection() == (
        True,
        "AION Event Streams answers, and takes the key",
    )
    is_well, said = AionHook("aion_nobody").test_connection()
    assert not is_well and "refused" in said.lower(), said


@check
def what_is_made_is_told_and_asked_again_is_the_same() -> None:
    first, again = operator().execute({}), operator().execute({})
    assert first["state"] == "succeeded" and first["rows"] > 1000, first
    assert again == first


@check
def what_can_never_be_is_not_tried_again() -> None:
    said = refused(
        AirflowFailException, lambda: operator(dataset="nothing").execute({})
    )
    assert "422" in said and "dataset" in said, said
    said = refused(
        AirflowFailException,
        lambda: operator(request={"sample": 5}).execute({}),
    )
    assert "sample" in said, said
    said = refused(AirflowFailException, lambda: AionHook().status("exp_" + "0" * 32))
    assert "404" in said, said


@check
def what_may_pass_is_tried_again() -> None:
    said = refused(
        AirflowException, lambda: operator(aion_conn_id="aion_nobody").execute({})
    )
    assert "ask for the export" in said, said


@check
def without_rows_it_is_skipped_where_that_is_wanted() -> None:
    # Before there was anything.
    empty = ("2020-01-01T00:00:00Z", "2020-01-01T01:00:00Z")
    assert operator(empty).execute({})["rows"] == 0
    said = refused(
        AirflowSkipException, lambda: operator(empty, skip_empty=True).execute({})
    )
    assert "no rows" in said, said


@check
def one_that_is_killed_cancels_its_export() -> None:
    waiting = operator(OPEN, deferrable=True)
    refused(TaskDeferred, lambda: waiting.execute({}))
    assert waiting.export_id and state(waiting.export_id) not in OVER
    waiting.on_kill()
    assert state(waiting.export_id) == "cancelled"
    # Cancelled is over, and no matter for another try by itself.
    status = AionHook().status(waiting.export_id)
    said = refused(AirflowFailException, lambda: waiting.execute_complete({}, status))
    assert "cancelled" in said, said


@check
def a_trigger_that_is_killed_cancels_its_export() -> None:
    waiting = operator(OPEN, dataset="metrics", deferrable=True)
    refused(TaskDeferred, lambda: waiting.execute({}))
    trigger = AionExportTrigger(waiting.export_id, "aion_default")

    async def kill() -> None:
        # It has asked, and waits for news.
        events = trigger.run()
        asking = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.5)
        assert not asking.done()
        await trigger.on_kill()
        event = await asyncio.wait_for(asking, 30)
        assert event.payload["state"] == "cancelled", event
        await events.aclose()

    asyncio.run(kill())


@check
def a_sensor_waits_for_what_another_asked_for() -> None:
    made = operator().execute({})
    sensor = AionExportSensor(
        task_id="wait", export_id=made["id"], deferrable=False, poke_interval=1
    )
    assert sensor.execute({}) == made
    later = AionExportSensor(task_id="later", export_id=made["id"])
    refused(TaskDeferred, lambda: later.execute({}))
    status = AionHook().status(made["id"])
    assert later.execute_complete({}, status) == made

    assert first(AionExportTrigger(made["id"], "aion_default"))["id"] == made["id"]
    waiting = operator(OPEN, dataset="audit", deferrable=True)
    refused(TaskDeferred, lambda: waiting.execute({}))
    open_one = AionExportSensor(task_id="open", export_id=waiting.export_id)
    assert open_one.poke({}) is False
    waiting.on_kill()
    assert open_one.poke({}) is True


@check
def an_export_that_was_removed_is_made_again_by_another_try() -> None:
    event = first(AionExportTrigger("exp_" + "0" * 32, "aion_default"))
    said = refused(AirflowException, lambda: operator().execute_complete({}, event))
    assert "removed" in said, said


@check
def a_model_that_is_no_better_than_guessing_is_none() -> None:
    made = operator(dataset="router_training", request={"horizon_s": 1}).execute({})
    folder = Path(made["manifest_uri"].removeprefix("file://")).parent
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "export" / "data"
        shutil.copytree(folder, copy)
        assert train((copy / "manifest.json").as_uri())["digest"] == made["digest"]
        shutil.rmtree(copy.parent / "model")
        # What it is tested with says the contrary of what it learned from.
        other = {"succeeded": "failed", "failed": "succeeded"}
        for file in copy.rglob("*.parquet"):
            rows = pandas.read_parquet(file)
            turned = rows["outcome"].map(other).where(rows["split"] == "test")
            rows["outcome"] = turned.fillna(rows["outcome"])
            rows.to_parquet(file)
        manifest = copy / "manifest.json"
        said = refused(ValueError, lambda: train(manifest.as_uri()))
        assert "isn't better" in said, said
        assert not (copy.parent / "model").exists()
        described = json.loads(manifest.read_text())
        manifest.write_text(json.dumps(described | {"files": []}))
        assert "no rows" in refused(ValueError, lambda: train(manifest.as_uri()))
    tasks = operator().execute({})["manifest_uri"]
    assert "dataset tasks" in refused(ValueError, lambda: train(tasks))


@check
def a_trigger_goes_on_after_a_restart_of_airflow() -> None:
    path, arguments = AionExportTrigger("exp_1", "aion_default").serialize()
    module, _, name = path.rpartition(".")
    again = getattr(__import__(module, fromlist=[name]), name)(**arguments)
    assert again.serialize() == (path, arguments)


def main() -> None:
    # A port that nobody has.
    os.environ["AIRFLOW_CONN_AION_NOBODY"] = json.dumps(
        {"conn_type": "aion", "host": "127.0.0.1", "port": 1}
    )
    told: dict[str, str | None] = {}
    for one in CHECKS:
        try:
            one()
            told[one.__name__] = None
        except Exception:  # noqa: BLE001 - whatever it is, it is told
            told[one.__name__] = traceback.format_exc()
    print(json.dumps(told))


main()
