"""Reads a lake table with engines that are not ours, and checks that all of them find the same rows.

    cargo run --release -p aion-sinks --example lake_table -- FOLDER | python tests/lake/readers.py

Standard input is the one JSON object that the example prints: where the table is and what is in it.
Needs the packages of tests/requirements.txt. Ends with 1 if a reader finds anything else.
"""

import json
import os
import sys
from pathlib import Path

import chdb
import polars
from deltalake import DeltaTable

FACTS = ("rows", "offset_sum", "partitions", "days")


def by_deltalake(table):
    """delta-rs: the log replayed in Rust, the files read by Arrow; also what marks the log holds."""
    opened = DeltaTable(table)
    rows = opened.to_pyarrow_table(columns=["_offset", "_partition", "_date"])
    adds = opened.get_add_actions(flatten=True)
    counted = sum(adds.column("num_records").to_pylist())
    if counted != rows.num_rows:
        raise SystemExit(
            f"statistics count {counted} rows, the files have {rows.num_rows}"
        )
    return {
        "version": opened.version(),
        "rows": rows.num_rows,
        "offset_sum": sum(rows.column("_offset").to_pylist()),
        "partitions": len(set(rows.column("_partition").to_pylist())),
        "days": len(set(rows.column("_date").to_pylist())),
    }


def by_polars(table):
    """Polars: lazy scan with its own Parquet reader, pruned by partition and statistics."""
    frame = polars.scan_delta(table)
    whole = frame.select(
        rows=polars.len(),
        offset_sum=polars.col("_offset").sum(),
        partitions=polars.col("_partition").n_unique(),
        days=polars.col("_date").n_unique(),
    ).collect()
    found = dict(whole.row(0, named=True))
    first = (
        frame.filter(polars.col("_offset") < 10).select(polars.len()).collect().item()
    )
    if first != 10 * found["partitions"]:
        raise SystemExit(f"a filter on _offset finds {first} rows")
    return found


def by_clickhouse(table):
    """ClickHouse, in process: its own Delta reader, which reads only below the working folder."""
    os.chdir(Path(table).parent)
    query = f"""
        SELECT count() AS rows, sum(_offset) AS offset_sum, uniqExact(_partition) AS partitions,
               uniqExact(_date) AS days, countIf(toDate(at, 'UTC') != _date) AS misplaced
        FROM deltaLakeLocal('{table}') FORMAT JSONEachRow
        SETTINGS output_format_json_quote_64bit_integers = 0
    """
    found = json.loads(str(chdb.query(query)))
    if found.pop("misplaced"):
        raise SystemExit("rows lie in the wrong date")
    return found


def main():
    """Compares every reader with what the writer says."""
    wanted = json.loads(sys.stdin.readline())
    failures = 0
    for reader in (by_deltalake, by_polars, by_clickhouse):
        found = reader(wanted["table"])
        facts = [fact for fact in (*FACTS, "version") if fact in found]
        different = {f: (found[f], wanted[f]) for f in facts if found[f] != wanted[f]}
        failures += bool(different)
        print(
            f"{reader.__name__}: {'differs in ' + str(different) if different else 'same'} {found}"
        )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
