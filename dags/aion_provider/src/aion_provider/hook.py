"""The way to `/v1/exports`, for workers and triggers."""

from __future__ import annotations

from typing import Any

import httpx
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowException, AirflowFailException

# States from which nothing more happens by itself.
OVER = ("succeeded", "failed", "cancelled")
# How long the server holds a question back, and how long we wait for it.
WAIT_S = 25
TIMEOUT_S = WAIT_S + 35


class AionHook(BaseHook):
    """Asks AION Event Streams for exports and how they stand."""

    conn_name_attr = "aion_conn_id"
    default_conn_name = "aion_default"
    conn_type = "aion"
    hook_name = "AION Event Streams"

    def __init__(self, aion_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.aion_conn_id = aion_conn_id

    def get_conn(self) -> httpx.Client:
        return httpx.Client(**options(self.get_connection(self.aion_conn_id)))

    async def async_conn(self) -> httpx.AsyncClient:
        connection = await self.aget_connection(self.aion_conn_id)
        return httpx.AsyncClient(**options(connection))

    def test_connection(self) -> tuple[bool, str]:
        """What the button in Airflow's page of connections says."""
        try:
            with self.get_conn() as client:
                answer = client.get("/v1/exports", params={"state": "running"})
        except httpx.HTTPError as error:
            return False, f"{error}"
        if answer.is_success:
            return True, "AION Event Streams answers, and takes the key"
        return False, problem(answer)

    def submit(self, body: dict[str, Any]) -> dict[str, Any]:
        """Asks for an export. Asking twice is asking once."""
        with self.get_conn() as client:
            try:
                answer = client.post("/v1/exports", json=body)
            except httpx.HTTPError as error:
                raise AirflowException(f"ask for the export: {error!r}") from error
        return read(answer)

    def status(self, export_id: str, wait: int = 0) -> dict[str, Any]:
        with self.get_conn() as client:
            try:
                answer = client.get(f"/v1/exports/{export_id}", params={"wait": wait})
            except httpx.HTTPError as error:
                raise AirflowException(
                    f"ask how {export_id} stands: {error!r}"
                ) from error
        return read(answer)

    def cancel(self, export_id: str) -> None:
        with self.get_conn() as client:
            read(client.delete(f"/v1/exports/{export_id}"))


def options(connection: Any) -> dict[str, Any]:
    """How to reach the server that a connection names."""
    host = connection.host or "127.0.0.1"
    if "://" not in host:
        host = f"http://{host}"
    if connection.port:
        host = f"{host.rstrip('/')}:{connection.port}"
    headers = {}
    if connection.password:
        headers["Authorization"] = f"Bearer {connection.password}"
    return {"base_url": host, "headers": headers, "timeout": TIMEOUT_S}


def read(answer: httpx.Response) -> dict[str, Any]:
    """The body of an answer; one that says no is an error which Airflow tries again only where that may help."""
    if answer.is_success:
        return dict(answer.json())
    text = problem(answer)
    if answer.status_code in (400, 401, 403, 404, 413, 422):
        raise AirflowFailException(text)
    raise AirflowException(text)


def problem(answer: httpx.Response) -> str:
    """What a problem+json says, field by field."""
    try:
        body = answer.json()
    except ValueError:
        return f"{answer.status_code} from {answer.url}: {answer.text[:500]}"
    lines = [f"{answer.status_code}: {body.get('detail') or body.get('error')}"]
    lines += [f"  {one['field']}: {one['reason']}" for one in body.get("errors", [])]
    return "\n".join(lines)
