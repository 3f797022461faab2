"""A story of an Airflow that exports from a running `aion dev`, in which processes die: one run of `scripts/soak airflow`.

Intervals are of a minute, so that a story has many. The DAG is the one that is shipped.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import time
from collections import Counter
from pathlib import Path

from airflow_parts import Airflow
from processes import Dev, binary, wait

DAG = "aion_hourly_exports"
TABLES = ("decisions", "tasks", "metrics", "audit")
MINUTE = datetime.timedelta(minutes=1)
# A morning of the past with so many decisions, 200 a second, that its export takes a while.
MORNING, EVENTS = "2026-03-14T07:00:00", 1_000_000
MORNING_M = 120
BACKFILLED, PAUSED = 6, 5


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def key(at: datetime.datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S")


class Story:
    """`aion dev`, an Airflow, and what is expected of them."""

    def __init__(self, folder: Path) -> None:
        self.dev, self.folder = Dev(folder), folder
        self.dev.start("--rate", "100")
        self.begun = now().replace(second=0, microsecond=0) + MINUTE
        # The DAG begins with the minute after those that are backfilled.
        self.since = self.begun + MINUTE * (BACKFILLED + 2)
        self.airflow = Airflow(
            folder / "airflow",
            f"http://{self.dev.http}",
            AION_EXPORTS_EVERY_M="1",
            AION_EXPORTS_LATENESS_S="5",
            AION_EXPORTS_SINCE=self.since.isoformat(),
        )
        self.wanted: Counter[str] = Counter()

    def say(self, what: str) -> None:
        print(f"{now():%H:%M:%S} {what}", flush=True)

    def tell(self) -> None:
        self.fill()
        self.say("starting Airflow")
        self.airflow.start()
        self.airflow.is_paused(DAG, False)
        self.trigger_and_kill_the_pipeline()
        self.backfill_and_kill_the_triggerer()
        self.pause_and_resume()

    def fill(self) -> None:
        command = [binary(), "generate", "--start", f"{MORNING}Z"]
        command += ["--topic", "aion.router.decisions", "--count", str(EVENTS)]
        self.say(f"sending {EVENTS:,} decisions of a morning of the past")
        subprocess.run([*command, "--to", self.dev.kafka], check=True)
        self.sent = now()

    def trigger_and_kill_the_pipeline(self) -> None:
        """A run by hand, whose export is running when `aion dev` is killed."""
        end = datetime.datetime.fromisoformat(f"{MORNING}Z") + MINUTE * MORNING_M
        lateness = int((self.sent - end).total_seconds()) + 1
        self.airflow.trigger(DAG, MORNING, minutes=MORNING_M, lateness_s=lateness)
        self.wanted[MORNING] = len(TABLES)
        wait(self.is_writing, "the export of decisions is being written", 300)
        self.dev.kill()
        self.say("killed aion dev while it wrote an export")
        time.sleep(5)
        self.dev.start("--rate", "100")
        self.wait_for([MORNING])
        attempts = [one["attempt"] for one in self.exports() if starts(one) == MORNING]
        assert max(attempts) >= 2, f"nothing was in its hands: {attempts}"

    def is_writing(self) -> bool:
        for file in (self.dev.data / "exports" / "_jobs").glob("*/progress.json"):
            try:
                progress = json.loads(file.read_text())
            except ValueError:
                continue
            request = json.loads((file.parent / "request.json").read_text())["request"]
            is_big = request["dataset"] == "decisions"
            if is_big and 0 < progress["rows"] < (progress["total"] or 0):
                return True
        return False

    def backfill_and_kill_the_triggerer(self) -> None:
        """Six intervals, the last of which isn't over when they are asked for, so that tasks wait in the triggerer."""
        minutes = [self.begun + MINUTE * n for n in range(BACKFILLED)]
        last = minutes[-1]
        wait(lambda: now() > last + MINUTE * 0.5, "the minutes are there", 900)
        body = {
            "dag_id": DAG,
            "from_date": minutes[0].isoformat(),
            "to_date": last.isoformat(),
            "max_active_runs": BACKFILLED,
            "reprocess_behavior": "failed",
        }
        self.airflow.api("POST", "/api/v2/backfills", body)
        keys = [key(minute) for minute in minutes]
        wait(lambda: self.airflow.deferred(DAG) > 0, "tasks wait in the triggerer", 300)
        self.airflow.kill("triggerer")
        self.say("killed the triggerer while tasks waited in it")
        time.sleep(10)
        self.airflow.start_part("triggerer")
        self.wait_for(keys)
        self.wanted.update(dict.fromkeys(keys, len(TABLES)))

    def pause_and_resume(self) -> None:
        """Paused while five intervals pass; then all five are exported."""
        first = now().replace(second=0, microsecond=0) + MINUTE
        first = max(first, self.since + MINUTE)
        wait(lambda: now() > first, "the DAG's first minutes are over", 600)
        self.airflow.is_paused(DAG, True)
        self.say("paused")
        keys = [key(first + MINUTE * n) for n in range(PAUSED)]
        wait(lambda: now() > first + MINUTE * (PAUSED + 0.2), "time passes", 600)
        made = self.airflow.states(DAG, keys)
        assert not made, f"it isn't paused: {made}"
        self.airflow.is_paused(DAG, False)
        self.say("resumed")
        self.wait_for(keys)
        # The minutes since then are under way; what they have asked for so far is made.
        self.airflow.kill("scheduler")
        wait(self.are_settled, "nothing is being made any more", 300)
        for run in self.airflow.runs(DAG):
            if run["state"] == "success":
                self.wanted[run["partition_key"]] = len(TABLES)

    def are_settled(self) -> bool:
        time.sleep(2)
        states = {one["state"] for one in self.exports()}
        return states.isdisjoint({"queued", "running"})

    def wait_for(self, keys: list[str]) -> None:
        def are_over() -> bool:
            self.airflow.revive()
            # Each look is work for the same machine.
            time.sleep(2)
            states = self.airflow.states(DAG, keys)
            assert "failed" not in states.values(), states
            return set(states) == set(keys) and set(states.values()) == {"success"}

        wait(are_over, f"runs of {keys} succeed", 900)
        self.say(f"{len(keys)} of {len(keys)} partitions made")

    def exports(self) -> list[dict]:
        """All that the job API knows."""
        return json.loads(self.dev.get("/v1/exports")[1])["exports"]

    def check(self) -> dict[str, int]:
        """Each export there once, whole, and proven; none beside those that were asked for."""
        exports = self.exports()
        found = Counter(starts(one) for one in exports)
        whole = {at: count for at, count in found.items() if at in self.wanted}
        assert whole == self.wanted, (found, self.wanted)
        each = Counter((starts(one), one["dataset"]) for one in exports)
        assert set(each.values()) == {1}, each
        asked = {run["partition_key"] for run in self.airflow.runs(DAG)}
        assert set(found) <= asked, (found, asked)
        rows = 0
        for one in exports:
            assert one["state"] == "succeeded", one
            manifest = Path(one["manifest_uri"].removeprefix("file://"))
            marks = list(manifest.parent.parent.glob("attempt-*/_SUCCESS"))
            assert marks == [manifest.parent / "_SUCCESS"], marks
            journal = self.dev.data / "exports" / "_jobs" / one["id"]
            states = [
                json.loads(f.read_text())["state"] for f in journal.glob("0*.json")
            ]
            assert states.count("succeeded") == 1, (one["id"], states)
            proof = [binary(), "export", "verify", manifest, "--data", self.dev.data]
            done = subprocess.run(proof, check=False, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            rows += one["rows"]
        tries = Counter(
            task["try_number"]
            for run in self.airflow.runs(DAG)
            for task in self.airflow.tasks(DAG, run["dag_run_id"])
        )
        return {
            "runs": len(self.wanted),
            "exports": len(exports),
            "rows": rows,
            "attempts": max(one["attempt"] for one in exports),
            "tries": max(tries),
            "revived": self.airflow.revived,
        }

    def end(self) -> None:
        self.airflow.end()
        self.dev.end()


def starts(export: dict) -> str:
    return export["request"]["interval"]["start"][:19]
