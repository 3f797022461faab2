"""Reads a training export by Spark and holds its rows against the manifest: how many they are, and their digest.

scripts/spark read_export.py MANIFEST

MANIFEST is a path, or a URL of whatever file system Spark knows. What is found stands on standard output, as JSON; the exit code is
1 where it isn't what the manifest says.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

import pyarrow
from export import HERE, SETTINGS, Folder, place
from pyspark.sql import SparkSession


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest")
    asked = parser.parse_args()
    builder = SparkSession.builder.appName("aion-read-export")
    for name, value in SETTINGS.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    spark.sparkContext.addPyFile(str(HERE / "row_digest.py"))
    folder, _, name = place(asked.manifest).rpartition("/")
    manifest = json.loads(Folder(spark, folder).read(name))
    wanted = {"rows": manifest["rows"], "digest": manifest["digest"]}
    found = counted(spark, folder, manifest)
    print(json.dumps(found))
    if found != wanted:
        sys.exit(f"read_export: the manifest says {wanted}")


def counted(spark: SparkSession, folder: str, manifest: dict) -> dict:
    """The rows of the manifest's files, by Spark's own reader of Parquet."""
    files = [f"{folder}/{file['path']}" for file in manifest["files"]]
    if not files:
        return {"rows": 0, "digest": f"{0:032x}"}
    names = [column["name"] for column in manifest["columns"]]
    kinds = [column["kind"] for column in manifest["columns"]]

    def digests(
        batches: Iterator[pyarrow.RecordBatch],
    ) -> Iterator[pyarrow.RecordBatch]:
        from row_digest import digest

        for batch in batches:
            yield pyarrow.RecordBatch.from_pydict(
                {"rows": [batch.num_rows], "digest": [f"{digest(batch, kinds):x}"]}
            )

    rows = spark.read.parquet(*files).select(*names)
    parts = rows.mapInArrow(digests, "rows bigint, digest string").collect()
    total = sum(int(part.digest, 16) for part in parts) % 2**128
    return {"rows": sum(part.rows for part in parts), "digest": f"{total:032x}"}


if __name__ == "__main__":
    main()
