"""`aion dev` as somebody tries it out, with all that it can be given, and the Prometheus that is shipped for it."""

from __future__ import annotations

from pathlib import Path

from clickhouse.engine import Engine
from monitoring import Prometheus
from panels import Sources
from processes import ROOT, Dev, free_port
from receivers import Receiver

DASHBOARDS = ROOT / "dashboards"
SHIPPED = DASHBOARDS / "prometheus.yml"
POLICY = ROOT / "policies" / "webhooks.yaml"
# Where the policy sends, and the secret that it signs with.
RECEIVER, SECRET = "127.0.0.1:9009", "a-secret-for-this-machine-only"


class Trial(Dev):
    """One `aion dev` with ClickHouse and the webhooks of the policy that is shipped, and who watches it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder
        self.receiver, self.engine = Receiver(SECRET), Engine(folder / "engine")
        self.prometheus = Prometheus(folder / "prometheus")

    def try_out(self) -> None:
        """Begins everything, and waits for nothing: the first audit is a minute away."""
        policy = self.folder / "webhooks.yaml"
        address = f"127.0.0.1:{self.receiver.port}"
        policy.write_text(POLICY.read_text().replace(RECEIVER, address))
        # More that are broken than it makes by itself: all kinds are soon there.
        given = ("--webhooks", str(policy), "--clickhouse", self.engine.url)
        self.begin(*given, "--bad-share", "0.04")
        self.prometheus.start(self.scrape_config())

    def scrape_config(self) -> str:
        """What is shipped, but for its addresses, how often it looks, and where its rules lie."""
        text = SHIPPED.read_text()
        for old, new in (
            ("scrape_interval: 15s", "scrape_interval: 2s"),
            ("- rules/", f"- {DASHBOARDS}/rules/"),
            ("127.0.0.1:9093", f"127.0.0.1:{free_port()}"),
            ("127.0.0.1:8080", self.http),
        ):
            assert old in text, old
            text = text.replace(old, new)
        return text

    def sources(self) -> Sources:
        """Whom its panels ask; PostgreSQL's clients need no password here."""
        host, port = self.postgres.split(":")
        client = {"host": host, "port": port, "dbname": "aion", "user": "grafana"}
        return Sources(self.prometheus, self.engine, client)

    def end(self) -> None:
        self.prometheus.stop()
        super().end()
        self.receiver.close()
        self.engine.kill()
