"""The commands in README.md and docs/inbound.md are run as they stand there, by bash, curl and openssl."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from processes import ROOT, Dev, binary

STATUS = re.compile(r"  HTTP (\d+)$", re.MULTILINE)


def commands(page: str, dev: Dev) -> str:
    """The one block of a page that sends commands, with the addresses of this `aion dev`."""
    blocks = re.findall(r"```(?:ba)?sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "/webhooks/inbound" in block]
    return block.replace("127.0.0.1:8080", dev.http).replace(
        "$PWD/target/release", str(binary().parent)
    )


@pytest.mark.parametrize(
    ("page", "statuses"),
    [
        ("README.md", [202, 202]),
        ("docs/inbound.md", [202, 202, 202, 422, 422, 403, 401]),
    ],
)
def test_the_lines_to_try_it_with_do_what_the_page_says(
    dev: Dev, tmp_path: Path, page: str, statuses: list[int]
):
    dev.start("--no-generator")
    script = f"PATH={binary().parent}:$PATH\n" + commands(page, dev)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert [int(status) for status in STATUS.findall(done.stdout)] == statuses, (
        done.stdout + done.stderr
    )
    assert done.returncode == 0, done.stderr
    assert "approve_kernel_proposal" in done.stdout.split("HTTP")[-1], (
        "the trail by SQL"
    )
