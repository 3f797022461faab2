"""What `aion dev` says where it can't start, and that nothing is harmed by it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from processes import ROOT, Dev, binary

# What the page on commands says of each exit code.
PAGE = (ROOT / "docs" / "commands.md").read_text()
CODES = dict(re.findall(r"^\| (\d+) \| (.*) \|$", PAGE, re.MULTILINE))
DATA = "3"


@pytest.fixture
def other(tmp_path: Path):
    (tmp_path / "other").mkdir()
    other = Dev(tmp_path / "other")
    yield other
    other.end()


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, the folders in it included."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refused(dev: Dev) -> str:
    """The last that one says which can't use its data folder."""
    dev.begin("--no-generator")
    code, last = dev.refused()
    assert str(code) == DATA, dev.output()
    assert str(dev.data) in last, last
    return last


def test_a_folder_that_is_not_ours_is_left_alone(dev: Dev):
    assert "foreign" in CODES[DATA]
    dev.data.mkdir()
    (dev.data / "thesis.txt").write_text("mine")
    before = contents(dev.data)
    assert "holds something else" in (said := refused(dev)), said
    assert "--data" in said and contents(dev.data) == before


def test_a_folder_of_a_newer_release_is_left_alone(dev: Dev):
    assert "of a newer release" in CODES[DATA]
    dev.start("--no-generator")
    assert dev.stop() == 0
    marker = dev.data / "aion-dev.json"
    ours = marker.read_text()
    newer = json.loads(ours)["format"] + 1
    marker.write_text(json.dumps({"format": newer}))
    before = contents(dev.data)
    assert f"newer release (format {newer}" in (said := refused(dev)), said
    assert contents(dev.data) == before
    # It is for nothing else that it was refused.
    marker.write_text(ours)
    dev.start("--no-generator")


def test_a_folder_in_use_is_left_to_whoever_uses_it(dev: Dev, other: Dev):
    assert "in use" in CODES[DATA]
    dev.start("--no-generator")
    other.data = dev.data
    said = refused(other)
    assert "in use by another `aion dev`" in said and "--data" in said, said
    assert dev.get("/readyz")[0] == 200 and dev.count("decisions") == 0
    assert dev.stop() == 0
    other.start("--no-generator")
    assert other.stop() == 0


def test_a_folder_that_is_missing_is_said_and_not_made(tmp_path: Path):
    assert "missing" in CODES[DATA]
    nowhere = tmp_path / "nowhere"
    for command in (["sql", "select 1"], ["audit"], ["lake", "status"]):
        asked = [binary(), *command, "--data", nowhere]
        done = subprocess.run(
            asked, check=False, capture_output=True, text=True, timeout=60
        )
        assert str(done.returncode) == DATA, (command, done)
        assert str(nowhere) in done.stderr and not nowhere.exists(), done.stderr


def test_the_readme_has_the_exit_codes_in_short():
    readme = (ROOT / "README.md").read_text()
    (line,) = re.findall(r"^Exit codes: (.*?)\n\n", readme, re.MULTILINE | re.DOTALL)
    short = dict(re.findall(r"\*\*(\d+)\*\* ([^·.]+)", " ".join(line.split())))
    assert len(short) > 5
    for code, meaning in short.items():
        assert CODES[code].startswith(meaning.strip()), code
    # And those that it leaves to the page are named.
    assert set(re.findall(r"\d+", line)) == set(CODES)


@pytest.mark.parametrize("what", ["kafka", "registry", "http", "postgres"])
def test_an_address_in_use_is_named(dev: Dev, what: str):
    address = getattr(dev, what)
    host, port = address.split(":")
    with socket.create_server((host, int(port))):
        dev.begin()
        code, last = dev.refused()
    assert code == 4, dev.output()
    assert address in last and f"--{what}" in last, last
    dev.start("--no-generator")
    assert dev.stop() == 0


def told_by(command: str, config: Path) -> tuple[int, str]:
    """The exit code of a command that a configuration is given to, and all that it says."""
    done = subprocess.run(
        [binary(), command, "--config", config],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def enough(said: str) -> int:
    """The memory that is wanted where less was given, in MiB."""
    (wanted,) = re.findall(r"too small .*; at least (\d+) is wanted", said)
    return int(wanted)


def test_a_budget_that_is_too_small_is_refused_with_the_one_that_is_enough(
    tmp_path: Path,
):
    config = tmp_path / "aion.toml"

    def write(budget_mib: int) -> None:
        config.write_text(
            f'kafka.brokers = "127.0.0.1:1"\nlake.url = "{tmp_path / "lake"}"\n'
            f'http.listen = "127.0.0.1:0"\nmemory.budget_mib = {budget_mib}\n'
        )

    write(1)
    for command in ("validate", "run"):
        code, said = told_by(command, config)
        assert code == 2 and "memory.budget_mib is 1, too small" in said, said
    assert not (tmp_path / "lake").exists(), "nothing was started"
    write(enough(said) - 1)
    assert told_by("validate", config)[0] == 2
    write(enough(said))
    code, said = told_by("validate", config)
    assert code == 0, said


def test_partitions_that_came_meanwhile_are_named_where_the_budget_is_too_small(
    dev: Dev,
):
    topic = "aion.router.decisions"
    little = ("--no-generator", "--memory-mib", "16")
    dev.start(*little)
    admin = AdminClient({"bootstrap.servers": dev.kafka})
    admin.create_partitions([NewPartitions(topic, 200)])[topic].result(30)
    assert dev.stop() == 0
    dev.begin(*little)
    code, last = dev.refused()
    assert code == 2 and f"200 of them of {topic}" in last, last
    dev.start("--no-generator", "--memory-mib", str(enough(last)))
    assert dev.stop() == 0


def test_a_policy_of_webhooks_is_checked_before_a_start(tmp_path: Path):
    config, policy = tmp_path / "aion.toml", tmp_path / "webhooks.yaml"
    config.write_text(
        f'[kafka]\nbrokers = "127.0.0.1:1"\n[lake]\nurl = "{tmp_path / "lake"}"\n'
        f'[webhooks]\npolicy = "{policy}"\n'
    )

    shipped = (ROOT / "policies" / "webhooks.yaml").read_text()
    policy.write_text(shipped)
    code, said = told_by("validate", config)
    assert code == 0, said
    policy.write_text(shipped + '    tls: {ca: "/nowhere/ca.pem"}\n')
    code, said = told_by("validate", config)
    assert code == 2 and "webhook proposals: tls: /nowhere/ca.pem" in said, said
    policy.write_text(shipped + "    colour: red\n")
    code, said = told_by("validate", config)
    assert code == 2 and f"{policy}:" in said and "colour" in said, said
