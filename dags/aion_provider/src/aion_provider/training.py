"""A reference for training: predicts from what the router knew whether a task will succeed, and fails where it isn't
better than guessing by frequency."""

from __future__ import annotations

import json
import posixpath
from typing import Any

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
    """Trains on the rows of an export of `router_training`; writes the model and its metrics beside it. The export is in a
    folder or an object store: https://arrow.apache.org/docs/python/filesystems.html says where that takes its keys from.
    """
    import joblib
    import pandas
    from pyarrow import fs, parquet
    from sklearn.metrics import log_loss, roc_auc_score

    store, manifest = fs.FileSystem.from_uri(manifest_uri)
    folder = posixpath.dirname(manifest)
    with store.open_input_stream(manifest) as file:
        described = json.load(file)
    if described["request"]["dataset"] != "router_training":
        raise ValueError(
            f"{manifest_uri} is of dataset {described['request']['dataset']}"
        )
    files = [f"{folder}/{file['path']}" for file in described["files"]]
    if not files:
        raise ValueError(f"{manifest_uri} has no rows to train on")
    read = [parquet.ParquetFile(file, filesystem=store).read() for file in files]
    rows = pandas.concat([table.to_pandas() for table in read], ignore_index=True)
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
    place = f"{posixpath.dirname(folder)}/model"
    store.create_dir(place)
    with store.open_output_stream(f"{place}/model.joblib") as file:
        joblib.dump(model, file)
    with store.open_output_stream(f"{place}/metrics.json") as file:
        file.write((json.dumps(metrics, indent=2) + "\n").encode())
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
