"""`AionExportOperator` asks for an export and waits for it; `AionExportSensor` waits for one that somebody else asked
for."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseOperator, BaseSensorOperator
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
)

from aion_provider.hook import OVER, WAIT_S, AionHook
from aion_provider.trigger import AionExportTrigger, shown

# What goes on to other tasks; the rest stands in the manifest.
TOLD = ("id", "dataset", "state", "rows", "files", "digest", "data_uri", "manifest_uri")


class AionExportOperator(BaseOperator):
    """Has an export made. The same request is the same export: tries, clears and backfills make it once.

    :param dataset: a table, or `router_training`.
    :param interval_start: from then on, in RFC 3339; a time without a zone is taken for UTC.
    :param interval_end: up to then, not included; or
    :param minutes: so long after the start.
    :param request: further fields of the request, such as `horizon_s`, `tiers`, `layout`.
    :param source: the store that is read, `lake` or `clickhouse`.
    :param skip_empty: whether the task is skipped when there are no rows.
    :param deferrable: whether it waits without a worker.
    """

    template_fields: Sequence[str] = (
        "dataset",
        "interval_start",
        "interval_end",
        "minutes",
        "request",
        "source",
    )

    def __init__(
        self,
        *,
        dataset: str,
        interval_start: str,
        interval_end: str | None = None,
        minutes: int | str | None = None,
        request: dict[str, Any] | None = None,
        source: str = "lake",
        skip_empty: bool = False,
        deferrable: bool = True,
        aion_conn_id: str = AionHook.default_conn_name,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        if (interval_end is None) == (minutes is None):
            raise ValueError(
                "say where the interval ends: interval_end or minutes, one of them"
            )
        self.dataset, self.source = dataset, source
        self.interval_start, self.interval_end = interval_start, interval_end
        self.minutes, self.request = minutes, request or {}
        self.skip_empty, self.deferrable = skip_empty, deferrable
        self.aion_conn_id = aion_conn_id
        self.export_id: str | None = None

    def execute(self, context: Any) -> dict[str, Any]:
        start = moment(self.interval_start)
        if self.interval_end is not None:
            end = moment(self.interval_end)
        else:
            end = start + datetime.timedelta(minutes=int(str(self.minutes)))
        body = {
            "dataset": self.dataset,
            "interval": {"start": start.isoformat(), "end": end.isoformat()},
            "source": self.source,
            "wait_for_close": True,
            **self.request,
        }
        hook = AionHook(self.aion_conn_id)
        status = hook.submit(body)
        self.export_id = status["id"]
        self.log.info(shown(status))
        if status["state"] not in OVER and self.deferrable:
            trigger = AionExportTrigger(status["id"], self.aion_conn_id)
            self.defer(trigger=trigger, method_name="execute_complete")
        while status["state"] not in OVER:
            status = hook.status(status["id"], WAIT_S)
            self.log.info(shown(status))
        return self.execute_complete(context, status)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        result = finished(event)
        if event.get("gaps"):
            self.log.warning(
                "rows of %s gaps in the log aren't there: see %s",
                event["gaps"],
                result["manifest_uri"],
            )
        if self.skip_empty and result["rows"] == 0:
            raise AirflowSkipException(f"export {result['id']} has no rows")
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = {
                "manifest_uri": result["manifest_uri"],
                "rows": result["rows"],
                "interval": event["request"]["interval"],
            }
        return result

    def on_kill(self) -> None:
        if self.export_id:
            AionHook(self.aion_conn_id).cancel(self.export_id)


class AionExportSensor(BaseSensorOperator):
    """Waits until an export has come to an end; its result is that of the operator."""

    template_fields: Sequence[str] = ("export_id",)

    def __init__(
        self,
        *,
        export_id: str,
        deferrable: bool = True,
        aion_conn_id: str = AionHook.default_conn_name,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.export_id, self.aion_conn_id = export_id, aion_conn_id
        self.deferrable = deferrable

    def execute(self, context: Any) -> Any:
        if self.deferrable:
            trigger = AionExportTrigger(self.export_id, self.aion_conn_id)
            self.defer(trigger=trigger, method_name="execute_complete")
        super().execute(context)
        return finished(AionHook(self.aion_conn_id).status(self.export_id))

    def poke(self, context: Any) -> bool:
        return AionHook(self.aion_conn_id).status(self.export_id)["state"] in OVER

    def execute_complete(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        return finished(event)


def finished(status: dict[str, Any]) -> dict[str, Any]:
    """What an export came to; one that failed for good isn't tried again."""
    if status["state"] == "succeeded":
        return {name: status[name] for name in TOLD}
    error = status.get("error") or {}
    text = f"export {status['id']} {status['state']}: {error.get('message', 'somebody cancelled it')}"
    if error.get("retryable"):
        raise AirflowException(text)
    raise AirflowFailException(text)


def moment(text: str) -> datetime.datetime:
    """A time; without a zone it is UTC, as keys of partitions are."""
    at = datetime.datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=datetime.UTC)
