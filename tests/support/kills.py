"""What can happen to a process: killed at any moment or at a named point, frozen and woken as a zombie, cut off from
its broker, replaced. And a seeded plan that does it all to several processes of a group while events flow.

Each way below is a few lines that start a process, do one thing to it, and end in its death.
"""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from brokers import Embedded
from clickhouse.engine import Engine
from cluster import Place, Producing
from processes import Process
from relay import Relay

# The crash points that every process comes by while events flow, some of them broken.
POINTS = (
    "lake.before_file_write",
    "lake.within_write",
    "lake.before_sync",
    "lake.after_file_sync",
    "lake.before_commit",
    "lake.before_stage",
    "lake.after_stage",
    "lake.after_link",
    "lake.after_commit",
    "job.dead_letter_sent",
    "job.dead_letter_acknowledged",
    "job.before_offset_commit",
    "job.after_offset_commit",
    "job.assigned",
)
# Those of a job whose rows go to ClickHouse.
HOUSE_POINTS = ("clickhouse.before_insert", "clickhouse.after_insert")
# Those between a look at the marks and the entry that follows from it: where a zombie is worst.
ZOMBIE_POINTS = (*POINTS[:7], "job.dead_letter_sent")
# Those that others bring it to: by joining, by having its partitions.
RARE_POINTS = ("job.revoked", "job.handed_over", "job.lost")
# How long a process is given to come to its point.
PATIENCE_S = 8


class Seat:
    """One process after the other, each brought to its end by the next step of the seat's own plan."""

    def __init__(self, plan: Plan, number: int) -> None:
        self.plan, self.place, self.number = plan, plan.place, number
        self.rng = random.Random(f"{plan.seed}/{number}")
        self.name = f"seat-{number}"
        # How many processes met their end by this seat's hand, not by themselves.
        self.killed = 0

    def step(self) -> bool:
        """Takes one way; whether anything was killed by it."""
        before = self.killed
        ways = dict(WAYS)
        if not isinstance(self.place.cluster, Embedded):
            del ways[broker_killed]
        if not self.place.engine:
            del ways[clickhouse_killed]
        way = self.rng.choices(list(ways), list(ways.values()))[0]
        self.plan.tell(self, way(self))
        is_kill = self.killed > before
        self.plan.count(way.__name__ if is_kill else "ended by itself")
        return is_kill

    def start(self, **how: object) -> Process:
        """As often as not under the seat's own name, by which it has its partitions back at once. It writes at once,
        or holds rows back for a while: a zombie then has something to write that it should not."""
        named = {"group__instance__id": self.name} if self.rng.random() < 0.5 else {}
        age_s = self.rng.choice((0, 0, 1, 3))
        return self.place.run(flush_age_s=age_s, **named, **how)

    def pause(self, least_s: float, most_s: float) -> None:
        time.sleep(self.rng.uniform(least_s, most_s))

    def oversleep(self) -> None:
        """Long enough for the group to give its partitions to others."""
        session_s = self.place.session_ms / 1000
        self.pause(1.1 * session_s, 2.5 * session_s)

    def point(self) -> str:
        rare = self.rng.random() < 0.1
        usual = POINTS + (HOUSE_POINTS * 3 if self.place.engine else ())
        chosen = self.rng.choice(RARE_POINTS if rare else usual)
        return f"{chosen}:{self.rng.choice((1, 1, 2, 3, 8))}"

    def kill(self, run: Process) -> None:
        """Nobody dies unasked."""
        assert run.process
        code = run.process.poll()
        # Another program may have taken the port of /metrics in the meantime.
        assert code in (None, 4), f"{self.name}: ended with {code}\n{run.output()}"
        self.end(run)

    def end(self, run: Process) -> bool:
        """Kills it, unless it has ended by itself; whether it was killed."""
        is_killed = run.kill() == -signal.SIGKILL
        self.killed += is_killed
        return is_killed


def killed(seat: Seat) -> str:
    run = seat.start()
    seat.pause(0, 4)
    seat.kill(run)
    return "killed"


def killed_at_a_point(seat: Seat) -> str:
    point = seat.point()
    run = seat.start(plan={"crash_at": point})
    try:
        run.process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        seat.kill(run)
        return f"killed: it didn't come to {point}"
    seat.plan.met(run.crashed())
    seat.killed += 1
    return f"killed at {point}"


def killed_while_it_stopped(seat: Seat) -> str:
    run = seat.start()
    seat.pause(0.5, 4)
    run.process.terminate()
    seat.pause(0, 0.5)
    return "killed while it stopped" if seat.end(run) else "stopped in time"


def killed_as_a_zombie(seat: Seat) -> str:
    run = seat.start()
    seat.pause(0.5, 4)
    run.freeze()
    seat.oversleep()
    run.thaw()
    seat.pause(0, 3)
    seat.kill(run)
    return "frozen, woken, killed"


def killed_as_a_zombie_of_a_point(seat: Seat) -> str:
    """It looked, slept, and goes on with what it saw then."""
    point = f"{seat.rng.choice(ZOMBIE_POINTS)}:{seat.rng.choice((1, 2, 3, 8))}"
    run = seat.start(plan={"freeze_at": point})
    end = time.monotonic() + PATIENCE_S
    while not run.is_frozen():
        if time.monotonic() > end:
            seat.kill(run)
            return f"killed: it didn't come to {point}"
        time.sleep(0.02)
    seat.plan.met(point.split(":")[0])
    seat.oversleep()
    run.thaw()
    seat.pause(0, 3)
    seat.kill(run)
    return f"frozen at {point}, woken, killed"


def killed_after_a_cut(seat: Seat) -> str:
    """It reaches the lake all the time, and its broker no more."""
    relay = Relay(seat.place.cluster.brokers())
    run = seat.start(bootstrap__servers=relay.address)
    seat.pause(0.5, 4)
    relay.cut()
    seat.oversleep()
    if seat.rng.random() < 0.5:
        relay.heal()
        seat.pause(0, 3)
    seat.kill(run)
    relay.close()
    return "cut off, killed"


def killed_with_its_successor(seat: Seat) -> str:
    """Another process takes its name in the group while it sleeps; it wakes as a member that is none."""
    named = {"group__instance__id": seat.name}
    old = seat.place.run(**named)
    seat.pause(0.5, 4)
    old.freeze()
    new = seat.place.run(**named)
    seat.pause(0.5, 4)
    old.thaw()
    seat.pause(0, 2)
    # The group throws one of the two out, and that one may have ended by itself.
    seat.end(old)
    seat.end(new)
    return "replaced while it was frozen, woken, both killed"


def killed_while_it_compacted(seat: Seat) -> str:
    place = seat.place
    point = seat.rng.choice(("lake.before_swap", "lake.after_swap", "none"))
    where = ["--lake", place.lake, "--catalog", place.catalog]
    compact = Process(place.folder / f"compact-{seat.number}.log")
    compact.launch("lake", "compact", "--min-files", "2", *where, crash_at=f"{point}:1")
    try:
        code = compact.process.wait(
            seat.rng.uniform(0.05, 1) if point == "none" else 20
        )
    except subprocess.TimeoutExpired:
        code = compact.kill()
    # There may have been nothing to compact, or no lake yet.
    if code == 0:
        return "compaction: over before it was killed"
    if code == 3:
        assert "there is no lake" in compact.output(), compact.output()
        return "compaction: nothing there yet"
    assert code in (-signal.SIGKILL, -signal.SIGABRT), compact.output()
    seat.killed += 1
    return f"compaction killed at {point}"


def broker_killed(seat: Seat) -> str:
    """The embedded one forgets its groups by that: everybody's partitions are lost at once."""
    killed_under_all(seat, seat.place.cluster, 0.5)
    return "the broker killed"


def clickhouse_killed(seat: Seat) -> str:
    """In the middle of what it is asked to do; it comes back on what it kept."""
    killed_under_all(seat, seat.place.engine, 1)
    return "ClickHouse killed"


def killed_under_all(seat: Seat, server: Embedded | Engine, most_s: float) -> None:
    """A server that every seat needs, away for so long at most."""
    with seat.plan.lock:
        server.kill()
        seat.killed += 1
        seat.pause(0, most_s)
        server.start()
    seat.pause(0, 2)


# Each way, and how often it is taken.
WAYS: dict[Callable[[Seat], str], int] = {
    killed: 25,
    killed_at_a_point: 30,
    killed_while_it_stopped: 5,
    killed_as_a_zombie: 10,
    killed_as_a_zombie_of_a_point: 10,
    killed_after_a_cut: 10,
    killed_with_its_successor: 4,
    killed_while_it_compacted: 6,
    broker_killed: 3,
    clickhouse_killed: 20,
}


class Plan:
    """Seats that die side by side, and the count of it."""

    def __init__(
        self,
        place: Place,
        seed: int,
        told: Callable[[Plan], None] = lambda plan: None,
        seats: int = 3,
    ) -> None:
        self.place, self.seed, self.told = place, seed, told
        self.seats = [Seat(self, number) for number in range(seats)]
        self.started = time.monotonic()
        self.lock = threading.Lock()
        self.failed = threading.Event()
        self.ways: Counter[str] = Counter()
        self.points: Counter[str] = Counter()
        # How often a process found that another had moved its marks.
        self.fenced = 0
        self.verdict = ""
        self.log = (place.folder / "plan.log").open("a", buffering=1)

    def kills(self) -> int:
        """Those of what was alive until then."""
        return self.ways.total() - self.ways["ended by itself"]

    def summary(self) -> str:
        """What the kills were, in words."""
        ways = (f"{count} {way.replace('_', ' ')}" for way, count in self.ways.items())
        points = f"{self.points.total()} visits of {len(self.points)} points"
        return f"{', '.join(sorted(ways))}; {points}"

    def round(self, kills: int) -> None:
        """So many kills while events flow; then all comes to rest, and must be exact."""
        with (
            Producing(self.place, 100, 100, 0.4, self.place.a_second),
            ThreadPoolExecutor(len(self.seats)) as side_by_side,
        ):
            share, more = divmod(kills, len(self.seats))
            shares = [share + (seat.number < more) for seat in self.seats]
            list(side_by_side.map(self.take, self.seats, shares))
        self.rest()

    def take(self, seat: Seat, kills: int) -> None:
        try:
            done = 0
            while done < kills and not self.failed.is_set():
                done += seat.step()
        except BaseException:
            self.failed.set()
            raise

    def rest(self) -> None:
        place = self.place
        run = place.run()
        run.wait_ready()
        patience_s = place.patience_s
        run.wait(lambda: place.is_at_rest(run), "what was sent is stored", patience_s)
        wanted, stored, rejected = place.wait_and_check(patience_s)
        assert run.stop() == 0, run.output()
        # What was acknowledged to whoever sent it is in the log.
        assert wanted == place.sent, (wanted, place.sent)
        self.verdict = f"{wanted:,} in the log = {stored:,} in the lake + {rejected:,} dead letters, none twice"
        moved = "another writer has moved the mark"
        self.fenced += sum(run.output().count(moved) for run in place.runs)
        for old in place.runs:
            old.log.unlink()
        place.runs.clear()

    def tell(self, seat: Seat, what: str) -> None:
        seconds = time.monotonic() - self.started
        self.log.write(f"{seconds:.1f} s, {seat.name}: {what}\n")

    def count(self, way: str) -> None:
        with self.lock:
            self.ways[way] += 1
        self.told(self)

    def met(self, point: str) -> None:
        with self.lock:
            self.points[point] += 1
