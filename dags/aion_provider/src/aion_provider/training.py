"""A reference for training: predicts from what the router knew whether a task will succeed, and fails where it isn't
better than guessing by frequency."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

# What the router knew when it decided; nothing that came later.
WORDS = [
    "tenant_id",
    "intent",
    "route",
    "reason",
    "tier",
    "engine_model",
    "engine_version",
]
NUMBERS = ["size", "latency_budget_ms", "cost_budget"]


def train(manifest_uri: str) -> dict[str, Any]:
    """Trains on the rows of an export of `router_training`; writes the model and its metrics beside it."""
    import joblib
    import pandas
    from sklearn.metrics import log_loss, roc_auc_score

    manifest = Path(url2pathname(urlsplit(manifest_uri).path))
    described = json.loads(manifest.read_text())
    if described["request"]["dataset"] != "router_training":
        raise ValueError(
            f"{manifest_uri} is of dataset {described['request']['dataset']}"
        )
    files = [manifest.parent / file["path"] for file in described["files"]]
    if not files:
        raise ValueError(f"{manifest_uri} has no rows to train on")
    rows = pandas.concat(
        [pandas.read_parquet(file) for file in files], ignore_index=True
    )
    # Of a decision that was superseded, or whose end isn't known, there is nothing to learn.
    rows = rows[rows["outcome"].notna()].copy()
    rows[WORDS] = rows[WORDS].astype(object).fillna("")
    rows["label"] = (rows["outcome"] == "succeeded").astype(int)
    seen, unseen = rows[rows["split"] == "train"], rows[rows["split"] == "test"]
    if seen["label"].nunique() < 2 or unseen["label"].nunique() < 2:
        raise ValueError(
            "there are too few rows: both outcomes are needed to train and to test"
        )
    model = pipeline().fit(seen[WORDS + NUMBERS], seen["label"])
    chance = model.predict_proba(unseen[WORDS + NUMBERS])[:, 1]
    frequency = [seen["label"].mean()] * len(unseen)
    metrics = {
        "export_id": described["export_id"],
        "digest": described["digest"],
        "rows": {"train": len(seen), "test": len(unseen)},
        "log_loss": float(log_loss(unseen["label"], chance)),
        "log_loss_by_frequency": float(log_loss(unseen["label"], frequency)),
        "roc_auc": float(roc_auc_score(unseen["label"], chance)),
    }
    if metrics["log_loss"] >= metrics["log_loss_by_frequency"]:
        raise ValueError(
            f"the model isn't better than guessing by frequency: {metrics}"
        )
    place = manifest.parent.parent / "model"
    place.mkdir(exist_ok=True)
    joblib.dump(model, place / "model.joblib")
    (place / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    return metrics


def pipeline() -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    words = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=5)
    numbers = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True), StandardScaler()
    )
    columns = make_column_transformer((words, WORDS), (numbers, NUMBERS))
    return make_pipeline(columns, LogisticRegression(max_iter=1000, C=0.3))
