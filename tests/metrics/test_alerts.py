"""The alerts: each is tried, each has its part in the runbook, and one goes all the way to a receiver."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from monitoring import Prometheus, Server, promtool, scrape_config
from processes import ROOT, Dev, binary, wait

DASHBOARDS = ROOT / "dashboards"
RULES = DASHBOARDS / "rules"
ALERTS = (RULES / "aion.alerts.yml").read_text()
ALERTMANAGER = DASHBOARDS / "alertmanager.yml"
NAMES = re.findall(r"- alert: (\w+)", ALERTS)
TESTS = ["aion_test.yml", "aion_days_test.yml"]


def test_each_alert_fires_when_it_should_and_not_before():
    tried = promtool("test", "rules", *(RULES / file for file in TESTS))
    assert tried.returncode == 0, tried.stdout + tried.stderr
    tests = re.findall(r"- name: (Aion\w+)", (RULES / "aion_test.yml").read_text())
    assert sorted(tests) == sorted(NAMES)


def test_each_recording_rule_is_tried_and_asked_for():
    recorded = re.findall(r"- record: (\S+)", (RULES / "aion.rules.yml").read_text())
    tests = (RULES / "aion_test.yml").read_text()
    assert recorded
    for name in recorded:
        assert f"- expr: {name}\n" in tests, name
        assert name in ALERTS, name


@pytest.mark.parametrize("expression", ["vector(1) > 2", "vector(1) > 0"])
def test_a_wrong_rule_is_found(tmp_path: Path, expression: str):
    """Negative control: of alerts that never fire, or always do, the test of each fails."""
    for file in RULES.iterdir():
        text = file.read_text()
        if file.name == "aion.alerts.yml":
            text = re.sub(
                r"(?m)^        expr: (>-\n(          .*\n)+|.*\n)",
                f"        expr: {expression}\n",
                text,
            )
        (tmp_path / file.name).write_text(text)
    tried = promtool("test", "rules", tmp_path / "aion_test.yml")
    failed = re.findall(r"alertname: (\w+), time: ", tried.stdout + tried.stderr)
    assert set(failed) == set(NAMES)


def test_what_a_template_says_is_tried():
    """What is written for people is in the expected alerts, as it reads; so a label that is misspelt is found."""
    tests = (RULES / "aion_test.yml").read_text()
    assert "{{" in ALERTS and "{{" not in tests
    for name in NAMES:
        test = tests.split(f"- name: {name}\n")[1].split("  - name: ")[0]
        assert "exp_annotations:" in test and "summary: " in test, name


def test_what_is_shipped_can_be_loaded():
    checked = promtool("check", "config", DASHBOARDS / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def amtool(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["amtool", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_the_shipped_alertmanager_wakes_only_for_what_pages(tmp_path: Path):
    checked = amtool("check-config", ALERTMANAGER)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for severity, receiver in (("page", "on-call"), ("ticket", "tickets")):
        config = f"--config.file={ALERTMANAGER}"
        routed = amtool("config", "routes", "test", config, f"severity={severity}")
        assert routed.stdout.strip() == receiver, routed.stdout + routed.stderr

    # Negative control: a receiver that there isn't.
    broken = tmp_path / "alertmanager.yml"
    broken.write_text(ALERTMANAGER.read_text().replace("name: on-call", "name: off"))
    assert amtool("check-config", broken).returncode != 0


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_has_its_part_in_the_runbook(name: str):
    alert = ALERTS.split(f"- alert: {name}\n")[1].split("- alert:")[0]
    assert f"runbook_url: docs/runbook.md#{name.lower()}" in alert
    assert "summary: " in alert and "description: " in alert
    assert re.search(r"severity: (page|ticket)", alert)
    part = (ROOT / "docs" / "runbook.md").read_text().split(f"\n## {name}\n")[1]
    part = part.split("\n## ")[0]
    commands = part.split("```sh\n")[1].split("```")[0].strip().splitlines()
    assert len(commands) == 3, commands
    assert "\nEnds " in part or " Ends " in part


def test_the_runbook_has_no_option_that_a_command_lacks():
    """What stands before `--help` is read first, and an error if it is wrong; what is missing isn't."""
    book = (ROOT / "docs" / "runbook.md").read_text()
    parts = re.findall(r"```sh\n(.*?)```", book, re.DOTALL)
    lines = [shlex.split(line, comments=True) for line in "".join(parts).splitlines()]
    ours = [line for line in lines if line and line[0] == "aion"]
    assert len(ours) > 25
    for _, *words in ours:
        end = next((i for i, word in enumerate(words) if word in "<>|"), len(words))
        tried = subprocess.run(
            [binary(), *words[:end], "--help"],
            check=False,
            capture_output=True,
            text=True,
        )
        assert tried.returncode == 0, (words, tried.stderr)


class Receiver:
    """Whoever is on call."""

    def __init__(self) -> None:
        self.got: list[dict] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                alerts = json.loads(body)["alerts"]
                receiver.got += [alert | {"path": self.path} for alert in alerts]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def has(self, name: str, status: str) -> bool:
        return any(
            one["labels"]["alertname"] == name and one["status"] == status
            for one in self.got
        )


@pytest.fixture
def on_call():
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()


def sent_to(address: str) -> str:
    """What is shipped, but for the receivers' address, and that nobody waits here for others, nor to hear of the end."""
    shipped = ALERTMANAGER.read_text()
    text = shipped.replace("127.0.0.1:9095", address)
    text = text.replace("group_interval: 5m", "group_interval: 1s")
    text = text.replace("group_wait: 10s", "group_wait: 1s")
    pairs = zip(shipped.splitlines(), text.splitlines(), strict=True)
    differing = [new.split(" #")[0].strip() for old, new in pairs if old != new]
    assert differing == [
        "group_wait: 1s",
        "group_interval: 1s",
        f"- url: http://{address}/on-call",
        f"- url: http://{address}/tickets",
    ]
    return text


def test_a_pipeline_that_stops_wakes_somebody(
    dev: Dev, tmp_path: Path, on_call: Receiver
):
    """Pipeline stopped -> Prometheus -> Alertmanager -> a receiver; and once it is back, that it is over."""
    alertmanager = Server(tmp_path / "alertmanager", "prometheus-alertmanager")
    prometheus = Prometheus(tmp_path / "prometheus")
    file = tmp_path / "alertmanager.yml"
    file.write_text(sent_to(f"127.0.0.1:{on_call.server.server_port}"))
    for rules in RULES.glob("aion.*.yml"):
        # Nobody waits here for minutes; all else is what is shipped.
        text = re.sub(r"for: \w+", "for: 2s", rules.read_text())
        (prometheus.folder / rules.name).write_text(text)
    whole = json.loads(scrape_config([dev.http], ("/metrics", "/metrics/platform")))
    whole["rule_files"] = ["aion.*.yml"]
    whole["alerting"] = {
        "alertmanagers": [{"static_configs": [{"targets": [alertmanager.address]}]}]
    }
    try:
        alertmanager.launch(
            f"--config.file={file}",
            f"--storage.path={tmp_path / 'alertmanager-data'}",
            f"--web.listen-address={alertmanager.address}",
            "--cluster.listen-address=",
        )
        dev.start("--rate", "500")
        prometheus.start(json.dumps(whole))
        up = 'sum(up{job="aion"})'
        wait(lambda: prometheus.value(up) == 1, "the pipeline is scraped", 30)
        assert not [one for one in on_call.got if one["status"] == "firing"]

        dev.kill()
        wait(lambda: on_call.has("AionDown", "firing"), "somebody is woken", 60)
        (page, *_) = [
            one for one in on_call.got if one["labels"]["alertname"] == "AionDown"
        ]
        assert page["annotations"]["summary"] == f"{dev.http} doesn't answer"
        assert page["labels"]["severity"] == "page" and page["path"] == "/on-call"

        dev.start("--rate", "500")
        wait(lambda: on_call.has("AionDown", "resolved"), "it is over", 60)
    finally:
        prometheus.stop()
        alertmanager.stop()
