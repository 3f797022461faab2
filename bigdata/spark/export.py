"""Makes a training export by Spark, over the Delta tables of the lake: for more rows than one machine should sort.

scripts/spark export.py --url http://127.0.0.1:8080 --out DIR --request '{"dataset": "router_training", "interval":
    {"start": "2026-11-23T00:00:00Z", "end": "2026-11-24T00:00:00Z"}}'
scripts/spark export.py --plan FILE --out DIR

The pipeline says which rows they are: SQL, versions of the tables, offsets (`POST /v1/exports/plan`, or `aion export plan`).
With --url it is asked again until the interval is complete; a key for it is taken from AION_KEY. What is written has the form
of every export, and `aion export verify` proves it. Each run writes into a folder of its own under DIR/<dataset>/<id>, and
_SUCCESS last; where one is whole already, that is the answer. The last line on standard output says what there is, as JSON.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import io
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

HERE = Path(__file__).resolve().parent
TYPES = {
    "text": "string",
    "object": "string",
    "bytes": "binary",
    "integer": "bigint",
    "number": "double",
    "boolean": "boolean",
    "time": "timestamp",
}
SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    # The plan quotes names as the SQL standard does.
    "spark.sql.ansi.enabled": "true",
    "spark.sql.ansi.doubleQuotedIdentifiers": "true",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.compression.codec": "zstd",
    # _SUCCESS stands beside the manifest, and says that both are whole.
    "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
}
# Rows whose digest is computed at once.
AT_ONCE = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--url", help="where AION Event Streams answers")
    source.add_argument("--plan", type=Path, help="output of `aion export plan`")
    parser.add_argument("--request", type=json.loads, help="with --url: its body")
    parser.add_argument("--out", required=True, help="a folder, or its URL")
    asked = parser.parse_args()
    if asked.url and asked.request is None:
        parser.error("--url needs --request")
    plan = (
        ask(asked.url, asked.request)
        if asked.url
        else json.loads(asked.plan.read_text())
    )
    builder = SparkSession.builder.appName(f"aion-export-{plan['about']['export_id']}")
    for name, value in SETTINGS.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    spark.sparkContext.addPyFile(str(HERE / "row_digest.py"))
    print(json.dumps(make(spark, plan, Folder(spark, place(asked.out)))))


def place(out: str) -> str:
    return out if "://" in out else Path(out).absolute().as_uri()


def ask(url: str, request: dict[str, Any]) -> dict[str, Any]:
    """The plan, once the interval is complete."""
    if "://" not in url:
        url = f"http://{url}"
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("AION_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    body, said = json.dumps(request).encode(), ""
    while True:
        call = urllib.request.Request(
            f"{url.rstrip('/')}/v1/exports/plan", body, headers, method="POST"
        )
        try:
            with urllib.request.urlopen(call, timeout=300) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            if error.code not in (409, 503):
                sys.exit(f"export: {error.code}: {text}")
        except OSError as error:
            text = str(error)
        if text != said:
            said = text
            print(f"export: waiting: {text}", file=sys.stderr)
        time.sleep(5)


class Folder:
    """A folder of whatever file system Spark knows."""

    def __init__(self, spark: SparkSession, url: str) -> None:
        jvm = spark._jvm
        assert jvm is not None
        self.url, self.spark, self.path = (
            url.rstrip("/"),
            spark,
            jvm.org.apache.hadoop.fs.Path,
        )
        self.files = self.path(url).getFileSystem(spark._jsc.hadoopConfiguration())
        # No second file with checksums beside each.
        self.files.setWriteChecksum(False)

    def under(self, name: str) -> Folder:
        return Folder(self.spark, f"{self.url}/{name}")

    def has(self, name: str) -> bool:
        return bool(self.files.exists(self.path(f"{self.url}/{name}")))

    def read(self, name: str) -> bytes:
        rows = self.spark.read.format("binaryFile").load(f"{self.url}/{name}")
        return bytes(rows.select("content").collect()[0].content)

    def write(self, name: str, content: bytes) -> None:
        out = self.files.create(self.path(f"{self.url}/{name}"), False)
        out.write(bytearray(content))
        out.close()

    def remove(self, name: str = "") -> None:
        self.files.delete(self.path(f"{self.url}/{name}".rstrip("/")), True)

    def folders(self) -> list[str]:
        if not self.files.exists(self.path(self.url)):
            return []
        found = self.files.listStatus(self.path(self.url))
        return sorted(one.getPath().getName() for one in found if one.isDirectory())


def make(spark: SparkSession, plan: dict[str, Any], out: Folder) -> dict[str, Any]:
    """The export: what is there already, or made now."""
    about = plan["about"]
    home = out.under(f"{about['request']['dataset']}/{about['export_id']}")
    for name in home.folders():
        if home.has(f"{name}/_SUCCESS"):
            return told(home.under(name))
    run = home.under(f"spark-{uuid.uuid4().hex[:8]}")
    try:
        write(rows(spark, plan), about["request"]["layout"], f"{run.url}/data", plan)
        files, digest = described(spark, run, plan)
        manifest = {
            **about,
            "attempt": 1,
            "rows": sum(file["rows"] for file in files),
            "bytes": sum(file["bytes"] for file in files),
            "digest": f"{digest:032x}",
            "files": files,
            "source": "lake",
            "created_by": f"spark {spark.version}, export.py",
        }
        run.write("manifest.json", json.dumps(manifest, indent=2).encode())
    except BaseException:
        run.remove()
        raise
    run.write("_SUCCESS", b"")
    return told(run)


def told(run: Folder) -> dict[str, Any]:
    manifest = json.loads(run.read("manifest.json"))
    return {
        "id": manifest["export_id"],
        "dataset": manifest["request"]["dataset"],
        "state": "succeeded",
        "rows": manifest["rows"],
        "files": len(manifest["files"]),
        "digest": manifest["digest"],
        "data_uri": f"{run.url}/data",
        "manifest_uri": f"{run.url}/manifest.json",
    }


def rows(spark: SparkSession, plan: dict[str, Any]) -> DataFrame:
    """The plan's rows, in columns of the manifest's kinds."""
    for name, table in plan["tables"].items():
        reader = spark.read.format("delta").option("versionAsOf", table["version"])
        reader.load(table["uri"]).createOrReplaceTempView(name)
    found = spark.sql(plan["sql"])
    if split := plan["about"]["request"].get("split"):
        found = found.withColumn("split", side(split))
    columns = plan["about"]["columns"]
    typed = (F.col(c["name"]).cast(TYPES[c["kind"]]).alias(c["name"]) for c in columns)
    return found.select(*typed)


def side(split: dict[str, int]):
    """SHA-256 of `<seed>/<tenant>/<task>`, its first 8 bytes as a number, of which the hundredths count."""
    hashed = F.expr(
        f"sha2(concat('{split['seed']}/', coalesce(tenant_id, ''), '/', task_id), 256)"
    )
    number = F.conv(F.substring(hashed, 1, 16), 16, 10).cast("decimal(20,0)")
    hundredth = F.floor(number * 100 / F.lit(str(2**64)).cast("decimal(20,0)"))
    train, validation = split["train"], split["train"] + split["validation"]
    return (
        F.when(hundredth < train, "train")
        .when(hundredth < validation, "validation")
        .otherwise("test")
    )


def write(
    found: DataFrame, layout: dict[str, Any], data: str, plan: dict[str, Any]
) -> None:
    """In the plan's order: what a file has comes before what the next one has."""
    if layout["by_date"]:
        found = found.withColumn("date", F.to_date(plan["event_time"]))
    writer = found.write.option("maxRecordsPerFile", layout["rows_per_file"])
    writer = writer.option("parquet.block.row.count.limit", layout["rows_per_group"])
    if layout["by_date"]:
        writer = writer.partitionBy("date")
    writer.parquet(data)


def described(
    spark: SparkSession, run: Folder, plan: dict[str, Any]
) -> tuple[list[dict[str, Any]], int]:
    """The files as they were written, read again by the executors; those without rows are taken away."""
    kinds = [column["kind"] for column in plan["about"]["columns"]]
    time_at = [c["name"] for c in plan["about"]["columns"]].index(plan["event_time"])
    read = (
        spark.read.format("binaryFile")
        .option("pathGlobFilter", "*.parquet")
        .option("recursiveFileLookup", "true")
        .load(f"{run.url}/data")
    )

    def look(files: Iterator[Any]) -> Iterator[tuple[dict[str, Any], int]]:
        for file in files:
            yield look_at(file.path, bytes(file.content), kinds, time_at)

    files, digest = [], 0
    for file, sum_ in read.select("path", "content").rdd.mapPartitions(look).collect():
        file["path"] = (
            "data/" + file["path"].rpartition(f"{run.url.rpartition('/')[2]}/data/")[2]
        )
        if file["rows"] == 0:
            run.remove(file["path"])
            continue
        files.append(file)
        digest = (digest + sum_) % 2**128
    return sorted(files, key=lambda file: (file["min_time"], file["path"])), digest


def look_at(
    path: str, content: bytes, kinds: list[str], time_at: int
) -> tuple[dict[str, Any], int]:
    import pyarrow.parquet
    from row_digest import digest

    file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
    total, first, last = 0, None, None
    for batch in file.iter_batches(AT_ONCE):
        if batch.num_rows:
            total += digest(batch, kinds)
            times = batch.column(time_at)
            first = first or times[0].as_py()
            last = times[batch.num_rows - 1].as_py()
    entry = {
        "path": path,
        "rows": file.metadata.num_rows,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "min_time": stated(first),
        "max_time": stated(last),
    }
    return entry, total


def stated(at: datetime.datetime | None) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if at else ""


if __name__ == "__main__":
    main()
