"""Exports of a running `aion dev`: what is in them, by whom they can be read, and what a kill leaves behind."""

from __future__ import annotations

import datetime
import functools
import itertools
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import chdb
import duckdb
import pandas
import polars
import pyarrow.dataset
import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)
from processes import ROOT, Dev, Process, binary, wait
from story import DAY, ENDS, HOUR, Story, moment, stamp

sys.path.append(str(ROOT / "bigdata" / "spark"))
from row_digest import digest

STORY = Story.of(4000, seed=11)
START, END = DAY + HOUR * 10, DAY + HOUR * 11
HORIZON_S = 600
TIERS = {"public", "internal"}
# `aion dev` asks for none.
KEY = "a-key-of-32-characters-for-tests"
# Each makes a request of its own of what is the same otherwise.
SEEDS = itertools.count(1)


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory):
    """Everything is stored, and the time is past that exports of it wait for."""
    dev = Dev(tmp_path_factory.mktemp("exports"))
    dev.start("--no-generator")
    STORY.send(dev.kafka)
    dev.wait(
        lambda: (
            dev.count("tasks") == len(STORY.tasks)
            and dev.count("decisions") == len(STORY.decisions)
        ),
        "all is stored",
    )
    # Events of the interval may arrive until now.
    dev.sent_at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1)
    yield dev
    dev.end()


def lateness(dev: Dev, horizon_s: int = 0) -> int:
    """So that the boundary is when everything had been sent."""
    end = END + datetime.timedelta(seconds=horizon_s)
    return int((dev.sent_at - end).total_seconds())


def asked(dev: Dev, dataset: str, **more: object) -> dict:
    body = {
        "dataset": dataset,
        "interval": {"start": stamp(START), "end": stamp(END)},
        "wait_for_close": True,
    }
    if dataset == "router_training":
        body |= {"horizon_s": HORIZON_S, "lateness_s": lateness(dev, HORIZON_S)}
    else:
        body["lateness_s"] = lateness(dev)
    return body | more


def call(
    dev: Dev | Process, method: str, path: str, body: object = None
) -> tuple[int, dict]:
    request = urllib.request.Request(
        f"http://{dev.http}/v1/exports{path}",
        method=method,
        headers={"Authorization": f"Bearer {KEY}"},
        data=None if body is None else json.dumps(body).encode(),
    )
    try:
        with urllib.request.urlopen(request, timeout=70) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as answer:
        assert answer.headers["Content-Type"] == "application/problem+json"
        return answer.code, json.load(answer)


def made(dev: Dev, dataset: str, **more: object) -> tuple[dict, Path]:
    """Asks, waits, and answers how it stands and where its files are."""
    code, status = call(dev, "POST", "", asked(dev, dataset, **more))
    assert code in (200, 202), status
    status = over(dev, status)
    assert status["state"] == "succeeded", status
    return status, Path(status["manifest_uri"].removeprefix("file://")).parent


def over(dev: Dev | Process, status: dict) -> dict:
    """How it stands, once it is over."""
    for _ in range(8):
        code, status = call(dev, "GET", f"/{status['id']}?wait=20")
        assert code == 200, status
        if status["state"] not in ("queued", "running"):
            break
    return status


def proven(dev: Dev, folder: Path, *more: str) -> subprocess.CompletedProcess:
    command = [binary(), "export", "verify", folder / "manifest.json"]
    return subprocess.run(
        [*command, "--data", dev.data, *more],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def files(folder: Path) -> list[Path]:
    manifest = json.loads((folder / "manifest.json").read_text())
    return [folder / file["path"] for file in manifest["files"]]


def test_a_topic_s_hour_has_each_event_once_whoever_reads_it(dev: Dev):
    status, folder = made(
        dev, "tasks", layout={"rows_per_file": 2000, "rows_per_group": 1000}
    )
    assert (folder / "_SUCCESS").read_bytes() == b""
    wanted = Counter(
        (event["task_id"], moment(event), event["status"])
        for event in STORY.tasks
        if START <= moment(event) < END
    )
    count = wanted.total()
    assert status["rows"] == count > 2000 and status["files"] > 1
    read = polars.concat(polars.read_parquet(file) for file in files(folder))
    rows = read.select("task_id", "timestamp", "status").rows()
    assert Counter(rows) == wanted
    assert [at for _, at, _ in rows] == sorted(at for _, at, _ in rows)
    # Readers of other makers, by the folder alone.
    data = folder / "data"
    assert status["data_uri"] == f"file://{data}"
    assert pandas.read_parquet(data).shape[0] == count
    assert pyarrow.dataset.dataset(data).count_rows() == count
    glob = f"{data}/*.parquet"
    assert duckdb.sql(f"select count(*) from '{glob}'").fetchall() == [(count,)]
    counted = chdb.query(f"SELECT count() FROM file('{glob}', Parquet)", "CSV")
    assert int(str(counted)) == count
    done = proven(dev, folder)
    assert done.returncode == 0, done.stdout
    assert f"{count} rows" in done.stdout
    # What Spark's executors compute, without Spark.
    manifest = json.loads((folder / "manifest.json").read_text())
    kinds = [column["kind"] for column in manifest["columns"]]
    batches = pyarrow.dataset.dataset(data).to_table().to_batches()
    total = sum(digest(batch, kinds) for batch in batches) % 2**128
    assert f"{total:032x}" == status["digest"] == manifest["digest"]


def test_training_rows_have_the_outcomes_that_are_computed_elsewhere(dev: Dev):
    status, folder = made(dev, "router_training")
    read = polars.concat(polars.read_parquet(file) for file in files(folder))
    columns = ["task_id", "timestamp", "outcome", "superseded", "censored", "split"]
    found = Counter(read.select(columns).rows())
    wanted = STORY.fates(START, END, HORIZON_S, TIERS)
    assert found == wanted
    fates = {fate[2] for fate in wanted}
    assert fates == {*ENDS, None} and status["rows"] == sum(wanted.values())
    assert read["superseded"].sum() > 50 and read["censored"].sum() > 50
    assert set(read["tier"]) == TIERS
    # What was in the decision, and nothing that came later.
    row = read.filter(read["outcome"].is_not_null()).row(0, named=True)
    event = next(e for e in STORY.decisions if e["event_id"] == row["event_id"])
    assert row["route"] == event["route"] and row["size"] == event.get("size")
    done = proven(dev, folder)
    assert done.returncode == 0, done.stdout


def test_asked_again_after_a_compaction_it_has_the_same_bytes(dev: Dev):
    before, folder = made(dev, "router_training")
    told = subprocess.run(
        [binary(), "lake", "compact", "--data", dev.data, "--min-files", "2"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == 0
    code, again = call(dev, "POST", "", asked(dev, "router_training"))
    assert (code, again["id"], again["attempt"]) == (200, before["id"], 1)
    forced, other = made(dev, "router_training", force=True)
    assert forced["id"] == before["id"] and forced["attempt"] == 2
    sums = [
        [
            file["sha256"]
            for file in json.loads((place / "manifest.json").read_text())["files"]
        ]
        for place in (folder, other)
    ]
    assert sums[0] == sums[1] and forced["digest"] == before["digest"]


def test_a_changed_file_is_found(dev: Dev):
    _, folder = made(dev, "decisions")
    assert proven(dev, folder).returncode == 0
    file = files(folder)[0]
    was = file.read_bytes()
    file.write_bytes(was[:-1])
    done = proven(dev, folder, "--files-only")
    file.write_bytes(was)
    assert done.returncode == 1 and "sha256" in done.stdout


def test_the_command_says_by_its_exit_code_how_it_went(dev: Dev, tmp_path: Path):
    """As docs/exports.md has them: there, there without rows, not now, can't be made."""
    future = datetime.datetime.now(datetime.UTC) + HOUR
    for start, more, wanted, state in [
        (START, (), 0, "succeeded"),
        (START - 24 * HOUR, (), 99, "succeeded"),
        (future, (), 75, None),
        (START, ("--tier", "nothing"), 1, None),
    ]:
        result = tmp_path / "result.json"
        result.unlink(missing_ok=True)
        command = [binary(), "export", "--data", dev.data, "--dataset", "decisions"]
        command += ["--start", stamp(start), "--end", stamp(start + HOUR)]
        command += ["--lateness", str(lateness(dev) if start < future else 0)]
        done = subprocess.run(
            [*command, "--wait", "--result", result, *more],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == wanted, (start, done)
        if state:
            told = json.loads(result.read_text())
            assert told == json.loads(done.stdout.splitlines()[-1])
            assert told["state"] == state
            assert (told["rows"] == 0) == (wanted == 99)
        else:
            assert not result.exists() and done.stderr, done


def test_what_isnt_right_is_said_and_nothing_is_made(dev: Dev):
    wrong = asked(dev, "decision", tiers=["restricted"])
    code, told = call(dev, "POST", "", wrong)
    assert code == 422
    assert {error["field"] for error in told["errors"]} == {"dataset", "tiers"}
    tomorrow = stamp(datetime.datetime.now(datetime.UTC) + HOUR * 24)
    future = asked(dev, "tasks", lateness_s=0, wait_for_close=False)
    future["interval"]["end"] = tomorrow
    code, told = call(dev, "POST", "", future)
    assert code == 409 and "closes at" in told["detail"]
    assert call(dev, "GET", "/exp_00000000000000000000")[0] == 404
    assert call(dev, "GET", "/..%2F..%2Fsecrets")[0] == 404
    assert call(dev, "POST", "", ["no"])[0] == 400


def test_one_that_waits_can_be_cancelled_and_asked_for_again(dev: Dev):
    body = asked(dev, "tasks")
    body["interval"]["end"] = stamp(datetime.datetime.now(datetime.UTC) + HOUR * 48)
    _, status = call(dev, "POST", "", body)
    path = f"/{status['id']}"
    dev.wait(
        lambda: (
            "waiting" in call(dev, "GET", path)[1].get("progress", {}).get("phase", "")
        ),
        "it says that it waits",
        20,
    )
    assert call(dev, "GET", f"{path}/done")[0] == 404
    # It takes nobody's turn.
    made(dev, "metrics")
    with ThreadPoolExecutor(1) as reader:
        followed = reader.submit(log, dev, path, "?follow=1")
        time.sleep(0.5)
        assert not followed.done(), "it goes on until the end"
        assert call(dev, "DELETE", path)[1]["state"] == "cancelled"
        assert followed.result(30) == ["queued", "cancelled"]
    assert call(dev, "DELETE", path)[0] == 202
    assert call(dev, "GET", f"{path}/done")[1]["state"] == "cancelled"
    code, again = call(dev, "POST", "", body)
    assert (code, again["state"]) == (202, "queued")
    call(dev, "DELETE", path)
    assert log(dev, path) == ["queued", "cancelled", "queued", "cancelled"]


def log(dev: Dev, path: str, how: str = "") -> list[str]:
    """The words by which an export's log tells what happened."""
    return [line[1] for line in lines(dev, path, how)]


def lines(dev: Dev | Process, path: str, how: str = "") -> list[list[str]]:
    """Time, word, and whatever else there is, of an export's log."""
    address = f"http://{dev.http}/v1/exports{path}/logs{how}"
    request = urllib.request.Request(
        address, headers={"Authorization": f"Bearer {KEY}"}
    )
    with urllib.request.urlopen(request, timeout=40) as answer:
        return [line.split(" ") for line in answer.read().decode().splitlines()]


def test_the_list_can_be_narrowed(dev: Dev):
    tasks, _ = made(dev, "tasks")
    metrics, _ = made(dev, "metrics")
    waiting = asked(dev, "audit")
    waiting["interval"]["end"] = stamp(datetime.datetime.now(datetime.UTC) + HOUR * 48)
    _, waiting = call(dev, "POST", "", waiting)

    def listed(how: str) -> set[str]:
        code, told = call(dev, "GET", how)
        assert code == 200, told
        return {one["id"] for one in told["exports"]}

    assert {tasks["id"], metrics["id"], waiting["id"]} <= listed("")
    of_tasks = listed("?dataset=tasks")
    assert tasks["id"] in of_tasks and metrics["id"] not in of_tasks
    done = listed("?state=succeeded")
    assert {tasks["id"], metrics["id"]} <= done and waiting["id"] not in done
    assert listed("?dataset=audit&state=succeeded") == set()
    call(dev, "DELETE", f"/{waiting['id']}")
    assert waiting["id"] in listed("?dataset=audit&state=cancelled")
    code, told = call(dev, "GET", "?state=asleep")
    assert code == 400 and "asleep" in told["detail"]
    assert call(dev, "GET", "?colour=red")[0] == 400


def test_times_of_producers_close_no_interval(dev: Dev):
    """Their clocks say nothing about when the broker took a record."""
    admin = AdminClient({"bootstrap.servers": dev.kafka})

    def times(kind: str) -> None:
        name, operation = "message.timestamp.type", AlterConfigOpType.SET
        entry = ConfigEntry(name, kind, incremental_operation=operation)
        topic = "aion.audit.activity"
        resource = ConfigResource("topic", topic, incremental_configs=[entry])
        admin.incremental_alter_configs([resource])[resource].result(20)

    times("CreateTime")
    try:
        code, told = call(dev, "POST", "", asked(dev, "audit"))
        assert code == 422 and "message.timestamp.type=LogAppendTime" in told["detail"]
    finally:
        times("LogAppendTime")
    made(dev, "audit")


def command(dev: Dev, seed: int) -> list[object]:
    """The same request for whoever makes it; another seed is another one."""
    interval = ["--start", stamp(START), "--end", stamp(END)]
    rules = ["--horizon", HORIZON_S, "--lateness", lateness(dev, HORIZON_S)]
    rules += ["--seed", seed, "--rows-per-file", 1000]
    where = ["--data", dev.data, "--wait", "--wait-for-close"]
    options = ["--dataset", "router_training", *interval, *rules, *where]
    return ["export", *map(str, options)]


def first_to_begin(dev: Dev, log: Path, has_begun, **plan: str) -> tuple[Process, list]:
    """A process with a plan that has an export in its hands. `aion dev` may be the faster one: then another is asked
    for."""
    for _ in range(10):
        arguments = command(dev, next(SEEDS))
        process = Process(log)
        process.launch(*arguments, **plan)
        wait(
            functools.partial(begun_or_over, process, has_begun),
            "it ends",
            60,
            process.output,
        )
        if has_begun(process):
            return process, arguments
    pytest.fail("aion dev was the faster one ten times")


def begun_or_over(process: Process, has_begun) -> bool:
    return has_begun(process) or not runs(process)


def runs(process: Process) -> bool:
    return process.process.poll() is None


def ended(arguments: list) -> dict:
    """The same asked for by another process."""
    done = subprocess.run(
        [binary(), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def check_whole(dev: Dev, status: dict, attempt: int) -> None:
    assert (status["state"], status["attempt"]) == ("succeeded", attempt)
    folder = Path(status["manifest_uri"].removeprefix("file://")).parent
    assert [path.parent for path in folder.parent.glob("*/_SUCCESS")] == [folder]
    assert proven(dev, folder).returncode == 0


@pytest.mark.parametrize(
    ("point", "attempt"),
    [
        ("export.after_file", 2),
        ("export.before_manifest", 2),
        ("export.before_state", 2),
        ("export.after_state", 1),
    ],
)
def test_a_process_that_dies_leaves_an_export_that_another_ends(
    dev: Dev, point: str, attempt: int, tmp_path: Path
):
    def crashed(process: Process) -> bool:
        return f"crashed at {point}" in process.output()

    _, arguments = first_to_begin(dev, tmp_path / "log", crashed, crash_at=f"{point}:1")
    check_whole(dev, ended(arguments), attempt)


def test_a_frozen_process_that_wakes_changes_nothing(dev: Dev, tmp_path: Path):
    """Its export was taken over and made; what it has in its hands comes too late."""
    zombie, arguments = first_to_begin(
        dev,
        tmp_path / "log",
        Process.is_frozen,
        freeze_at="export.before_state:1",
    )
    try:
        status = ended(arguments)
        zombie.thaw()
        wait(lambda: not runs(zombie), "it ends", 60, zombie.output)
    finally:
        zombie.end()
    check_whole(dev, status, 2)
    folder = Path(status["manifest_uri"].removeprefix("file://")).parent
    assert not list(folder.parent.glob("attempt-1/data/*")), "it took its files away"


def test_a_platform_that_is_killed_goes_on_with_what_it_was_asked_for(dev: Dev):
    body = asked(dev, "router_training", split={"seed": next(SEEDS)})
    _, status = call(dev, "POST", "", body)
    dev.kill()
    dev.start("--no-generator")
    code, again = call(dev, "POST", "", body)
    assert code in (200, 202) and again["id"] == status["id"]
    status, folder = made(dev, "router_training", split=body["split"])
    assert proven(dev, folder).returncode == 0


@pytest.mark.parametrize("at_a_time", [1, 3])
def test_a_process_makes_so_many_at_a_time(dev: Dev, at_a_time: int, tmp_path: Path):
    """By the times in their logs. That three are made at once shows that one at a time isn't chance."""
    process = Process(tmp_path / "log")
    config, key = tmp_path / "aion.toml", tmp_path / "key"
    key.write_text(KEY)
    config.write_text(
        f'[kafka]\nbrokers = "{dev.kafka}"\n[http]\nlisten = "{process.http}"\n'
        f'keys = ["file:{key}"]\n'
        f'[lake]\nurl = "{dev.data / "lake"}"\n'
        '[[job]]\ntopic = "aion.audit.activity"\nsinks = ["lake"]\n'
        f'[exports]\nurl = "{tmp_path / "exports"}"\nat_a_time = {at_a_time}\n'
    )
    process.launch("run", "--config", config)
    try:
        process.wait_ready()
        bodies = [
            asked(dev, "router_training", split={"seed": next(SEEDS)}) for _ in range(6)
        ]
        with ThreadPoolExecutor(6) as several:
            told = list(
                several.map(lambda body: call(process, "POST", "", body), bodies)
            )
        changes = []
        for code, status in told:
            assert code == 202, status
            path = f"/{status['id']}"
            assert over(process, status)["state"] == "succeeded"
            changes += [(line[0], " ".join(line[1:])) for line in lines(process, path)]
        running, most = 0, 0
        for _, what in sorted(changes):
            running += ("begun" in what) - ("succeeded" in what)
            most = max(most, running)
        assert running == 0
        wanted = range(1, 2) if at_a_time == 1 else range(2, at_a_time + 1)
        assert most in wanted, sorted(changes)
    finally:
        process.end()


def test_of_several_processes_one_makes_it(dev: Dev):
    arguments = command(dev, next(SEEDS))
    several = [
        subprocess.Popen([binary(), *arguments], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    told = [
        json.loads(one.communicate(timeout=120)[0].splitlines()[-1]) for one in several
    ]
    assert {one["id"] for one in told} == {told[0]["id"]}
    assert {(one["state"], one["attempt"]) for one in told} == {("succeeded", 1)}
    folder = Path(told[0]["manifest_uri"].removeprefix("file://")).parent
    assert [path.name for path in folder.parent.iterdir()] == ["attempt-1"]
