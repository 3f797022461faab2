"""What a person sees: the screen of `aion dev`, whose commands are run as it prints them, and the bar of `aion generate`."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from processes import ROOT, Dev, binary, sql
from terminals import Terminal

STATUS = re.compile(
    r"(?:([\d,]+) events sent · )?([\d,]+) rows stored \(([\d,]+)/s\) · ([\d,]+) behind · ([\d,]+) dead letters"
)
BAR = re.compile(
    r"(█*)(░*) +(\d+) %, ([\d,]+) of 3,000 acknowledged, [\d,]+/s, \d+\w+ left "
)
SUBJECTS = {
    "aion.audit.activity-value",
    "aion.metrics.runtime-value",
    "aion.router.decisions-value",
    "aion.tasks.lifecycle-value",
}


def number(text: str) -> int:
    return int(text.replace(",", ""))


def screen(dev: Dev) -> str:
    """What it printed before the status lines."""
    begun = dev.output().partition("AION is running")
    addresses, title, rest = "".join(begun[1:]).partition("Try, in a second terminal:")
    return addresses + title + "\n\n" + rest.strip("\n").partition("\n\n")[0]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done


def plain(dev: Dev) -> re.Match[str]:
    """The newest status line of one whose output is a file."""
    *_, last = STATUS.finditer(dev.output())
    return last


def test_what_it_prints_to_try_works_as_it_is_printed(dev: Dev, tmp_path: Path):
    dev.start("--rate", "50")
    few = "select min(n) as least from (select count(*) as n from decisions group by _partition) p"
    dev.wait(lambda: (dev.sql(few)[0]["least"] or 0) > 5, "decisions are there")
    _, _, printed = screen(dev).rpartition("\n\n")
    ask, generate, schemas, tail = printed.splitlines()

    def asked(query: str) -> int:
        return sql(query, "--data", dev.data)[0]["n"]

    count = "select count(*) as n from decisions"
    before = asked(count)
    rows = re.findall(
        r"^\| (\S*) +\| (\S*) +\| +(\d+) \|$", run(ask, tmp_path).stdout, re.MULTILINE
    )
    assert before <= sum(int(n) for _, _, n in rows) <= asked(count), rows
    assert [int(n) for *_, n in rows] == sorted(
        (int(n) for *_, n in rows), reverse=True
    )
    assert {"local", "cloud"} <= {route for route, *_ in rows}

    tasks = "select count(*) as n from tasks"
    before = asked(tasks)
    told = run(generate, tmp_path).stderr
    assert "100,000 of 100,000 messages acknowledged" in told, told
    dev.wait(lambda: asked(tasks) >= before + 100_000, "they can be asked for", 60)

    assert set(run(schemas, tmp_path).stdout.splitlines()) == SUBJECTS

    # The last three of each of four partitions, and what came meanwhile.
    events = [json.loads(line) for line in run(tail, tmp_path).stdout.splitlines()]
    assert 12 <= len(events) < 100 and all("route" in event for event in events)

    (psql,) = re.findall(r"^  SQL +(psql .*)$", dev.output(), re.MULTILINE)
    assert run(f"{psql} -XAtc '{count}'", tmp_path).stdout.strip().isdigit()
    (surface,) = re.findall(r"^  HTTP +http://\S+ +(/.*)$", dev.output(), re.MULTILINE)
    answers = {path: dev.get(path)[0] for path in surface.split()}
    # A question is sent, not fetched.
    assert answers.pop("/v1/sql") == 405 and set(answers.values()) == {200}, answers
    (tables,) = re.findall(r"Delta tables (.*)$", dev.output(), re.MULTILINE)
    assert all(asked(f"select count(*) as n from {t}") >= 0 for t in tables.split(", "))

    dev.wait(lambda: number(plain(dev)[2]) > 100_000, "a line that tells of them", 30)
    sent, stored = number(plain(dev)[1]), number(plain(dev)[2])
    everything = " + ".join(f"(select count(*) from {t})" for t in tables.split(", "))
    assert 0 < sent < stored <= asked(f"select {everything} as n")
    # Where there is no terminal, a line for each time.
    assert "\r" not in dev.output()


def test_the_readme_shows_this_screen(dev: Dev):
    policy = ROOT / "policies" / "webhooks.yaml"
    dev.start("--no-generator", "--webhooks", str(policy))
    shown = screen(dev)
    for here, usual in [
        (f" --data {dev.data}", ""),
        (str(dev.data), "data"),
        (str(policy), "policies/webhooks.yaml"),
        (str(binary().parent), "target/release"),
        (dev.kafka, "127.0.0.1:9092"),
        (dev.registry, "127.0.0.1:8081"),
        (dev.http, "127.0.0.1:8080"),
        ("-p " + dev.postgres.split(":")[1], "-p 5433"),
    ]:
        shown = shown.replace(here, usual)
    readme = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"```text\n(AION is running.*?)```", readme, re.DOTALL)
    told, _, status = block.strip().rpartition("\n\n")
    assert shown == told
    assert STATUS.match(status), status


@pytest.fixture
def on_terminal(dev: Dev):
    """The same with a screen in place of the file."""
    terminals: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        command = dev.command(*arguments)
        terminals.append(Terminal(binary(), *command, columns=160))
        dev.process = terminals[-1].process
        dev.wait_ready()
        return terminals[-1]

    yield start
    for one in terminals:
        one.end()


def test_the_status_line_counts_and_stays_where_it_is(dev: Dev, on_terminal):
    terminal = on_terminal("--no-generator")
    terminal.until(" -e\r\n\r\n")
    terminal.until("0 rows stored (0/s) · 0 behind · 0 dead letters ")
    command = [binary(), "generate", "--to", dev.kafka, "--count", "2000"]
    subprocess.run([*command, "--bad-share", "0.05"], check=True, capture_output=True)
    tables = ("decisions", "tasks", "metrics", "audit", "dead_letters")
    dev.wait(lambda: sum(map(dev.count, tables)) == 2000, "all is in the lake")
    letters = dev.count("dead_letters")
    assert letters > 50
    wanted = f" 0 behind · {letters} dead letters"
    lines = terminal.until(wanted)
    last = STATUS.findall(lines)[-1]
    assert (last[0], last[1]) == ("", "2,000") and number(last[2]) > 0, last
    # It is one line, written over.
    assert "\n" not in lines and lines.count("\r") > 3
    terminal.say("\x03")
    end = terminal.rest()
    assert terminal.process.returncode == 0
    assert end.endswith("Stopped; everything is kept. Start again to go on.\r\n")


def test_generating_has_a_bar_on_a_terminal_and_nowhere_else(dev: Dev, tmp_path: Path):
    dev.start("--no-generator")
    command = [binary(), "generate", "--to", dev.kafka, "--count", "3000"]
    command += ["--rate", "1000"]
    ended = r"3,000 of 3,000 messages acknowledged in [\d.]+ s \([\d,]+ a second\), 0 failed"
    terminal = Terminal(*command, columns=120)
    try:
        bar, end, _ = re.split(f"({ended})", terminal.rest())
    finally:
        terminal.end()
    looks = [
        (len(done), len(left), int(percent), number(n))
        for done, left, percent, n in BAR.findall(bar)
    ]
    assert len(looks) == bar.count(" acknowledged, "), bar
    places = [acknowledged for *_, acknowledged in looks]
    assert places == sorted(places) and len(set(places)) > 3, places
    assert places[0] < 1000 and places[-1] > 1500, places
    for done, left, percent, acknowledged in looks:
        assert done + left == 30 and abs(done - acknowledged / 100) <= 1, looks
        assert abs(percent - acknowledged / 30) <= 1, looks
    # One line, which the last one takes the place of.
    assert "\n" not in bar and bar.endswith("\r") and end

    # The terminal that standard output has doesn't count.
    said = tmp_path / "said"
    told = " ".join(map(str, command))
    terminal = Terminal("bash", "-c", f"{told} 2> {said}", columns=120)
    try:
        assert terminal.rest() == ""
    finally:
        terminal.end()
    first, _made = said.read_text().splitlines()
    assert re.fullmatch(ended, first), first
