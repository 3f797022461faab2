"""Waits for the end of an export without a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
from airflow.triggers.base import BaseTrigger, TriggerEvent

from aion_provider.hook import OVER, WAIT_S, AionHook, problem

# The pause before a question that failed is put again.
AGAIN_S = 5


class AionExportTrigger(BaseTrigger):
    """Asks, each question held back by the server until something changes, until the export has come to an end."""

    def __init__(self, export_id: str, aion_conn_id: str) -> None:
        super().__init__()
        self.export_id, self.aion_conn_id = export_id, aion_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "aion_provider.trigger.AionExportTrigger",
            {"export_id": self.export_id, "aion_conn_id": self.aion_conn_id},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        path, said = f"/v1/exports/{self.export_id}", ""
        async with await AionHook(self.aion_conn_id).async_conn() as client:
            while True:
                try:
                    answer = await client.get(path, params={"wait": WAIT_S})
                except httpx.HTTPError as error:
                    # It may be starting again; what was asked for isn't lost.
                    self.log.warning("%s can't be asked: %r", self.export_id, error)
                    await asyncio.sleep(AGAIN_S)
                    continue
                if answer.status_code == 404:
                    yield TriggerEvent(gone(self.export_id))
                    return
                if not answer.is_success:
                    self.log.warning(
                        "%s can't be asked: %s", self.export_id, problem(answer)
                    )
                    await asyncio.sleep(AGAIN_S)
                    continue
                status = answer.json()
                if (now := shown(status)) != said:
                    said = now
                    self.log.info(said)
                if status["state"] in OVER:
                    yield TriggerEvent(status)
                    return

    async def on_kill(self) -> None:
        """A person doesn't want it any more."""
        async with await AionHook(self.aion_conn_id).async_conn() as client:
            await client.delete(f"/v1/exports/{self.export_id}")


def gone(export_id: str) -> dict[str, Any]:
    message = f"export {export_id} isn't known any more: it was removed"
    return {
        "id": export_id,
        "state": "failed",
        "error": {"code": "gone", "message": message, "retryable": True},
    }


def shown(status: dict[str, Any]) -> str:
    """How an export stands, in a line."""
    progress = status.get("progress") or {}
    parts = [f"{status['id']} is {status['state']}, attempt {status['attempt']}"]
    if phase := progress.get("phase"):
        parts.append(phase)
    if total := progress.get("total"):
        parts.append(f"{progress['rows']} of {total} rows")
    return ": ".join(parts)
