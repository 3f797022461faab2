"""Reads a training export by Spark and holds its rows against the manifest: how many they are, and their digest.

scripts/spark read_export.py MANIFEST

MANIFEST is a path, or a URL of whatever file system Spark knows. What is found stands on standard output, as JSON; the exit code is
1 where it isn't what the manifest says.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator

import pyarrow
from export import AT_ONCE, HERE, SETTINGS, Folder, place
from pyspark.sql import Column, Row, SparkSession
from pyspark.sql import functions as F

ARROW = {
    "text": pyarrow.string(),
    "object": pyarrow.string(),
    "bytes": pyarrow.binary(),
    "integer": pyarrow.int64(),
    "number": pyarrow.float64(),
    "boolean": pyarrow.bool_(),
    "time": pyarrow.timestamp("us", "UTC"),
}


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
    columns = manifest["columns"]
    kinds = [column["kind"] for column in columns]
    rows = spark.read.parquet(*files).select(*map(value, columns))

    def look(part: Iterator[Row]) -> Iterator[tuple[int, int]]:
        from row_digest import digest

        while some := list(itertools.islice(part, AT_ONCE)):
            values = zip(zip(*some, strict=True), kinds, strict=True)
            arrays = [pyarrow.array(column, ARROW[kind]) for column, kind in values]
            names = [str(at) for at in range(len(kinds))]
            batch = pyarrow.RecordBatch.from_arrays(arrays, names)
            yield batch.num_rows, digest(batch, kinds)

    parts = rows.rdd.mapPartitions(look).collect()
    total = sum(sum_ for _, sum_ in parts) % 2**128
    return {"rows": sum(count for count, _ in parts), "digest": f"{total:032x}"}


def value(column: dict[str, str]) -> Column:
    """Times as numbers: Python would have them in the zone of its machine."""
    named = F.col(column["name"])
    return F.unix_micros(named) if column["kind"] == "time" else named


if __name__ == "__main__":
    main()
