"""Training exports of AION Event Streams in Airflow: a connection, a hook, an operator, a sensor."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """What Airflow asks of a provider."""
    return {
        "package-name": "aion-airflow-provider",
        "name": "AION Event Streams",
        "description": "Training exports of AION Event Streams.",
        "versions": ["0.1.0"],
        "connection-types": [
            {
                "connection-type": "aion",
                "hook-class-name": "aion_provider.hook.AionHook",
                "hook-name": "AION Event Streams",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "login", "extra"],
                    "relabeling": {
                        "host": "Address (http://host:port)",
                        "password": "Key",
                    },
                    "placeholders": {"host": "http://127.0.0.1:8080"},
                },
            }
        ],
    }
