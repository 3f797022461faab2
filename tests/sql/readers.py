"""Servers of their own for those who only read."""

from __future__ import annotations

from pathlib import Path

from processes import Process, free_port


class Server(Process):
    """`aion sql-server` on a lake that is empty, or another's."""

    def __init__(self, folder: Path, lake: Path | None = None) -> None:
        super().__init__(folder / "server.log")
        self.folder, self.lake = folder, lake or folder / "lake"
        self.port = free_port()

    def configured(self, postgres: str | None, sql: str = "") -> Path:
        config = self.folder / "reader.toml"
        section = f"""
            [sql.postgres]
            listen = "127.0.0.1:{self.port}"
            {postgres}
        """
        config.write_text(f"""
            lake.url = "{self.lake}"
            http.listen = "{self.http}"
            {sql}
            {"" if postgres is None else section}
        """)
        return config

    def start(self, postgres: str | None = "", sql: str = "") -> None:
        """With PostgreSQL's protocol, and what is said of it; without, where that is `None`."""
        self.launch("sql-server", "--config", self.configured(postgres, sql))
        self.wait_ready()
