"""The prompt of `aion sql` on a terminal: its pager, which only what is longer than the screen goes through, its history
between sessions, and what Tab completes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from processes import Dev, binary
from terminals import Terminal


class Prompt(Terminal):
    """A person in front of it."""

    def __init__(self, dev: Dev, folder: Path, **environment: str) -> None:
        known = {"PAGER": None, "LESS": None, "XDG_STATE_HOME": str(folder)}
        url = f"http://{dev.http}"
        super().__init__(binary(), "sql", "--url", url, **(known | environment))
        self.until("aion> ")

    def ask(self, text: str, wanted: str = "aion> ") -> str:
        # The line that was typed is shown too.
        self.say(text + "\r")
        return self.until(wanted)

    def leave(self) -> None:
        """The history is written then."""
        self.say("\\q\r")
        self.rest()
        assert self.process.returncode == 0


@pytest.fixture
def terminal(live: Dev, tmp_path: Path):
    opened: list[Prompt] = []

    def open_(**environment: str) -> Prompt:
        opened.append(Prompt(live, tmp_path, **environment))
        return opened[-1]

    yield open_
    for one in opened:
        one.end()


def test_what_is_longer_than_the_screen_goes_through_the_pager(terminal, tmp_path):
    seen = tmp_path / "seen"
    prompt = terminal(PAGER=f"cat > {seen}")
    short = prompt.ask("select value from range(0, 5);", "5 rows")
    assert "|     4 |" in short and not seen.exists()
    prompt.until("aion> ")
    prompt.ask("select value from range(0, 100);")
    lines = seen.read_text().splitlines()
    assert lines[-1].startswith("100 rows") and "|    99 |" in lines
    # All of it: nothing stands on the screen before it is known to be too long.
    assert lines[1] == "| value |"
    seen.unlink()
    prompt.ask(r"\d decisions")
    assert "task_id" in seen.read_text()
    seen.unlink()
    assert "not used" in prompt.ask(r"\pset pager off", "used")
    prompt.until("aion> ")
    prompt.ask("select value from range(0, 100);", "100 rows")
    assert not seen.exists()
    assert "the pager is used" in prompt.ask(r"\pset pager on", "used")


def test_less_shows_a_screen_and_whoever_leaves_it_is_back_at_the_prompt(terminal):
    prompt = terminal()
    first = prompt.ask("select value from range(0, 1000000000);", "|    10 |")
    assert "|  1000 |" not in first
    prompt.say("q")
    prompt.until("aion> ")
    assert "| 2 |" in prompt.ask("select 1 + 1 as n;", "1 row")


def asked(dev, *options: str, pipe: str | None = None) -> subprocess.CompletedProcess:
    command = [binary(), "sql", "--url", f"http://{dev.http}", *options]
    return subprocess.run(
        command, input=pipe, capture_output=True, text=True, check=False, timeout=60
    )


def test_commands_are_taken_without_a_prompt_too(live, tmp_path):
    described = asked(live, r"\d decisions")
    assert described.returncode == 0, described
    assert described.stdout.startswith("decisions: ") and not described.stderr
    assert any(line.split()[0] == "task_id" for line in described.stdout.splitlines())
    script = tmp_path / "script.sql"
    script.write_text(
        "select 1 as one;\n-- as a program reads it\n\\format csv\nselect '\n\\d' as two;\n\\d tasks\n"
    )
    wanted = 'two\n"\n\\d"\ntasks: '
    for said in (asked(live, "-f", str(script)), asked(live, pipe=script.read_text())):
        assert said.returncode == 0, said
        assert "|   1 |" in said.stdout and wanted in said.stdout, said.stdout
    # What can't be done ends it, as a statement does; so does leaving.
    failed = asked(live, pipe="\\d decision\nselect 1 as one;")
    assert failed.returncode == 1 and "did you mean `decisions`" in failed.stdout
    assert "one" not in failed.stdout
    left = asked(live, pipe="\\q\nselect 1 as one;")
    assert (left.returncode, left.stdout) == (0, "")


def test_without_a_terminal_there_is_no_pager(live, tmp_path):
    seen = tmp_path / "seen"
    command = [binary(), "sql", "--url", f"http://{live.http}"]
    said = subprocess.run(
        [*command, "select value from range(0, 1000)"],
        env={**os.environ, "PAGER": f"cat > {seen}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1000 rows" in said.stdout and not seen.exists()


UP, TAB = "\x1b[A", "\t"


def test_a_session_has_the_statements_of_the_one_before(terminal):
    first = terminal()
    # Over two lines, which are one entry.
    first.ask("select 40 + 1", "-> ")
    first.ask("as older;", "1 row")
    first.until("aion> ")
    first.ask("select 40 + 2 as newer;", "1 row")
    first.until("aion> ")
    first.leave()

    second = terminal()
    # The command that left is the last line of all; then the last statement.
    second.say(UP)
    second.until(r"\q")
    second.say(UP)
    second.until("as newer;")
    assert "| 42 |" in without_space(second.ask("", "1 row"))
    second.until("aion> ")
    second.say(4 * UP)
    second.until("as older;")
    assert "| 41 |" in without_space(second.ask("", "1 row"))


def test_another_home_has_another_history(terminal, tmp_path):
    """Negative control: what comes by arrow-up is what the file has."""
    first = terminal()
    first.ask("select 40 + 1 as older;", "1 row")
    first.leave()
    other = terminal(XDG_STATE_HOME=str(tmp_path / "other"))
    other.say(UP)
    shown = other.ask("select 1 + 1 as n;", "1 row")
    assert "| 2 |" in without_space(shown) and "older" not in shown


def without_space(text: str) -> str:
    """A table whatever the width of its columns."""
    return " ".join(text.split())


def test_tab_completes_tables_and_their_columns(terminal):
    prompt = terminal()
    prompt.say("select count(*) as n from decisions where 1 = 0 union all ")
    prompt.say(f"select count(*) from metr{TAB}")
    prompt.until("from metrics")
    answered = without_space(prompt.ask(" where 1 = 0;", "2 rows"))
    assert answered.count("| 0 |") == 2, answered
    prompt.until("aion> ")
    # `late` begins names of other tables too; after `tasks.` there is one.
    prompt.say(f"select count(tasks.late{TAB}")
    prompt.until("tasks.latency_ms")
    assert "| 0 |" in without_space(prompt.ask(") from tasks where 1 = 0;", "1 row"))
