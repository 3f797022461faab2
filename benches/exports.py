"""An export of decisions, beside DuckDB and chDB that run the same query over the same Parquet files and write
Parquet as well.

    python benches/exports.py [--decisions 10000000] [--rounds 3] [--data DIR]

Makes the lake by `aion dev` and `aion generate` (kept in --data, and taken up again) and compacts it. Each writer has two
threads and 512 MiB (ours 256 for sorting; chDB as much as it takes, since it fails with 1 GiB); shown are rows per CPU-second
of user and system time, medians of the rounds, and the peak of resident memory. Ours also computes the digest of every row and SHA-256 of every file, and writes a manifest.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deltalake import DeltaTable

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from processes import Dev, binary

START = datetime.datetime(2026, 3, 14, tzinfo=datetime.UTC)
END = START + datetime.timedelta(days=20)

DUCKDB = """
import duckdb, sys
files, out = sys.argv[1].split(","), sys.argv[2]
db = duckdb.connect(config={"threads": 2, "memory_limit": "512MiB", "temp_directory": out + ".tmp"})
db.execute(f"COPY (SELECT * FROM read_parquet({files}) WHERE tier IN ('public', 'internal')"
           f" ORDER BY timestamp, _topic_id, _partition, _offset)"
           f" TO '{out}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3, ROW_GROUP_SIZE 100000)")
"""
CHDB = """
import chdb, sys
files, out = sys.argv[1], sys.argv[2]
chdb.query(f"SELECT * FROM file('{files}', Parquet) WHERE tier IN ('public', 'internal')"
           f" ORDER BY timestamp, _topic_id, _partition, _offset"
           f" INTO OUTFILE '{out}' FORMAT Parquet SETTINGS max_threads = 2, max_memory_usage = 0,"
           f" max_bytes_before_external_sort = 200000000, output_format_parquet_compression_method = 'zstd',"
           f" output_format_parquet_row_group_size = 100000")
"""


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--decisions", type=int, default=10_000_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument(
        "--data", type=Path, default=Path(tempfile.gettempdir()) / "aion-bench-exports"
    )
    given = arguments.parse_args()
    dev = filled(given.data, given.decisions)
    try:
        compare(dev, given.rounds)
    finally:
        dev.stop()


def filled(folder: Path, decisions: int) -> Dev:
    """A lake with so many decisions, and a boundary that is closed."""
    folder.mkdir(parents=True, exist_ok=True)
    dev = Dev(folder)
    dev.start("--no-generator")
    mark = folder / "filled.json"
    if not mark.exists() or json.loads(mark.read_text())["decisions"] != decisions:
        count = str(decisions)
        command = [
            binary(),
            "generate",
            "--start",
            f"{START:%Y-%m-%dT%H:%M:%SZ}",
            "--count",
            count,
        ]
        topic = ["--topic", "aion.router.decisions"]
        print("making events", file=sys.stderr)
        subprocess.run([*command, *topic, "--to", dev.kafka], check=True)
        dev.wait(lambda: lag(dev) == 0, "all is stored", 3600)
        subprocess.run([binary(), "lake", "compact", "--data", dev.data], check=True)
        sent = datetime.datetime.now(datetime.UTC).isoformat()
        mark.write_text(json.dumps({"decisions": decisions, "sent": sent}))
        time.sleep(70)
    return dev


def lag(dev: Dev) -> int:
    return dev.sql("select sum(lag) as n from lag")[0]["n"]


def compare(dev: Dev, rounds: int) -> None:
    files = DeltaTable(dev.data / "lake" / "decisions").file_uris()
    out = Path(tempfile.mkdtemp(prefix="aion-bench-"))
    times: dict[str, list[tuple[float, float, float]]] = {}
    rows = 0
    for _ in range(rounds):
        for name, run in {
            "aion": lambda: ours(dev),
            "duckdb": lambda: run_python(
                DUCKDB, ",".join(files), out / "duckdb.parquet"
            ),
            "chdb": lambda: run_python(CHDB, pattern(files), out / "chdb.parquet"),
        }.items():
            (out / f"{name}.parquet").unlink(missing_ok=True)
            begun = time.monotonic()
            cpu, peak, told = measured(run())
            while cpu < 1:  # `aion dev` was the faster one
                cpu, peak, told = measured(run())
            wall = time.monotonic() - begun
            if name == "aion":
                rows = json.loads(told.splitlines()[-1])["rows"]
            times.setdefault(name, []).append((cpu, wall, peak))
            print(
                f"{name}: {cpu:.1f} CPU-s, {wall:.1f} s, {peak / 1024:.0f} MiB",
                file=sys.stderr,
            )
    shutil.rmtree(out)
    print(f"{rows:,} rows\n")
    print(
        "| writer | rows per CPU-second | CPU-s | wall s | peak MiB |\n|---|---|---|---|---|"
    )
    for name, taken in times.items():
        cpu, wall = (statistics.median(one[at] for one in taken) for at in (0, 1))
        peak = max(one[2] for one in taken) / 1024
        print(f"| {name} | {rows / cpu:,.0f} | {cpu:.1f} | {wall:.1f} | {peak:.0f} |")


def pattern(files: list[str]) -> str:
    """The files as chDB takes them: braces hold names, not paths."""
    table = Path(files[0]).parent.parent
    return f"{table}/*/{{{','.join(Path(file).name for file in files)}}}"


def ours(dev: Dev) -> list[object]:
    sent = datetime.datetime.fromisoformat(
        json.loads((dev.data.parent / "filled.json").read_text())["sent"]
    )
    lateness = int((sent - END).total_seconds()) + 1
    interval = [
        "--start",
        START.isoformat(),
        "--end",
        END.isoformat(),
        "--lateness",
        lateness,
    ]
    return [
        binary(),
        "export",
        "--dataset",
        "decisions",
        *interval,
        "--force",
        "--wait",
        "--data",
        dev.data,
    ]


def run_python(program: str, *arguments: object) -> list[object]:
    return [sys.executable, "-c", program, *arguments]


def measured(command: list[object]) -> tuple[float, float, str]:
    """CPU seconds and peak memory of a program, by the system's account of its children, and what it printed."""
    reader = (
        "import json, resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], check=True, stdout=subprocess.PIPE, text=True)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss, done.stdout]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", reader, *map(str, command)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return tuple(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
