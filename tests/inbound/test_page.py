"""The commands in README.md and docs/inbound.md are run as they stand there, by bash, curl and openssl."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from processes import ROOT, Dev, binary, sql

ANSWER = re.compile(r"^(\{.*\})  HTTP (\d+)$", re.MULTILINE)
QUERY = re.compile(r'^aion sql "(.*)"$', re.MULTILINE)
DEV, ANN, READER = "dev", "login:ann", "dev-reader"
APPROVE, INSTALL, UNKNOWN = (
    "approve_kernel_proposal",
    "install_module",
    "unknown_action",
)


def sending(page: str) -> str:
    """The lines of a page that send commands."""
    text = (ROOT / page).read_text()
    blocks = re.findall(r"```(?:ba)?sh\n(.*?)```", text, re.DOTALL)
    (found,) = (block for block in blocks if "/webhooks/inbound" in block)
    return found


SHORT, LONG = sending("README.md"), sending("docs/inbound.md")


@pytest.mark.parametrize(
    ("block", "statuses", "accepted", "refused"),
    [
        (
            SHORT,
            [202, 202, 401, 403, 422],
            [(DEV, APPROVE), (ANN, APPROVE)],
            [("denied", READER, APPROVE), ("refused", ANN, UNKNOWN)],
        ),
        (
            LONG,
            [202, 202, 202, 422, 422, 403, 401],
            [(DEV, APPROVE), (ANN, INSTALL)],
            [
                ("refused", ANN, UNKNOWN),
                ("refused", ANN, INSTALL),
                ("denied", READER, INSTALL),
            ],
        ),
    ],
    ids=["short", "long"],
)
def test_the_lines_to_try_it_with_do_what_the_page_says(
    dev: Dev,
    tmp_path: Path,
    block: str,
    statuses: list[int],
    accepted: list[tuple[str, str]],
    refused: list[tuple[str, str, str]],
):
    dev.start("--no-generator")
    here = block.replace("127.0.0.1:8080", dev.http)
    here = here.replace("$PWD/target/release", str(binary().parent))
    done = subprocess.run(
        ["bash", "-c", f"PATH={binary().parent}:$PATH\n{here}"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answers = ANSWER.findall(done.stdout)
    told = done.stdout + done.stderr
    assert [int(status) for _, status in answers] == statuses, told
    said = [int(status) for status in re.findall(r"# (\d{3})\b", block)]
    assert said == statuses, "what the page says beside its lines"

    # Of each command what was accepted and how it ended: in its own table, and in the trail with its actor.
    ids = dict.fromkeys(
        json.loads(body)["id"] for body, code in answers if code == "202"
    )
    stages = {
        (stage, actor, action, command)
        for command, (actor, action) in zip(ids, accepted, strict=True)
        for stage in ("accepted", "succeeded")
    }
    trail = Counter((*event[:3], f"command/{event[3]}") for event in stages)

    def asked() -> list[list[dict]]:
        return [sql(query, "--data", dev.data) for query in QUERY.findall(block)]

    wanted = [len(stages), len(stages) + len(refused)]
    dev.wait(lambda: [len(rows) for rows in asked()] == wanted, "all is there", 30)
    in_table, in_trail = asked()
    names = ("stage", "actor_id", "action", "command_id")
    assert {tuple(row[name] for name in names) for row in in_table} == stages
    names = ("result", "actor_id", "action", "resource")
    events = Counter(tuple(row[name] for name in names) for row in in_trail)
    assert events & trail == trail
    assert Counter(event[:3] for event in events - trail) == Counter(refused)
    # The page's own answer has it as well.
    for command in ids:
        assert done.stdout.split("HTTP")[-1].count(command) >= 2, told
