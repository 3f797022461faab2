"""Grafana's data source as it is provisioned, by its own values. Grafana itself isn't here: psycopg connects as its source does,
and asks what that asks."""

from __future__ import annotations

import os
import re
from string import Template

import psycopg
import pytest
import yaml
from authority import Authority
from panels import POSTGRES, Span, expanded
from processes import ROOT
from readers import Server

DASHBOARDS = ROOT / "dashboards"
SOURCE = DASHBOARDS / "provisioning" / "datasources" / "aion-sql.yaml"
PASSWORD = "pencil pass"
# What the source asks when it is saved, and when its editor opens.
HEALTH = "SELECT 1"
VERSION = "SELECT current_setting('server_version_num')::int/100 as version"


def documented() -> dict[str, str]:
    """The environment that is documented for `aion dev`; what is unset there isn't in it."""
    table = (DASHBOARDS / "README.md").read_text()
    rows = re.findall(r"^\| `(AION_SQL_\w+)` \|.*\| (.*) \|$", table, re.MULTILINE)
    assert len(rows) == 5
    return {name: value.strip("`") for name, value in rows if value != "unset"}


def source(environment: dict[str, str]) -> dict:
    """The provisioned source; a variable that isn't set is empty text, as in Grafana."""
    text = SOURCE.read_text()
    unset = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "")
    filled = Template(text).substitute(unset | environment)
    (one,) = yaml.safe_load(filled)["datasources"]
    assert one["type"] == "grafana-postgresql-datasource"
    return one


def connect(environment: dict[str, str]) -> psycopg.Connection:
    """Connects by the source's values and nothing else, and asks in one message as Grafana does."""
    one = source(environment)
    host, port = one["url"].split(":")
    more, secret = one["jsonData"], one["secureJsonData"]
    given = {"host": host, "port": port, "dbname": more["database"]}
    given |= {"user": one["user"], "password": secret["password"]}
    given |= {"sslmode": more["sslmode"], "sslrootcert": more["sslRootCertFile"]}
    return psycopg.connect(
        **{name: value for name, value in given.items() if value},
        autocommit=True,
        cursor_factory=psycopg.ClientCursor,
    )


def in_docs() -> str:
    """The question over time that is documented, with the macros in it expanded."""
    (text,) = re.findall(
        r"```text\n(select \$__timeGroup.*?)```",
        (ROOT / "docs" / "sql.md").read_text(),
        re.DOTALL,
    )
    return expanded(text, Span(seconds=3600, step=60, rate_interval="1m"), POSTGRES)


def healthy(connection: psycopg.Connection) -> bool:
    assert connection.execute(VERSION).fetchall() == [(1600,)]
    return connection.execute(HEALTH).fetchall() == [(1,)]


def counted(connection: psycopg.Connection) -> int:
    """The decisions of the last hour by minute and route, added up."""
    assert "/60)*60" in in_docs()
    answer = connection.execute(in_docs())
    assert [column.name for column in answer.description or []] == [
        "time",
        "metric",
        "n",
    ]
    rows = answer.fetchall()
    assert all(at % 60 == 0 and route for at, route, _ in rows)
    return sum(n for _, _, n in rows)


@pytest.fixture(autouse=True)
def no_other_values(monkeypatch: pytest.MonkeyPatch):
    """What libpq takes from the environment would stand in for a value that is missing."""
    for name in list(os.environ):
        if name.startswith("PG"):
            monkeypatch.delenv(name)


def test_the_source_asks_aion_dev_by_the_documented_environment(live):
    environment = documented()
    assert environment["AION_SQL_ADDRESS"] == "127.0.0.1:5433"
    with connect(environment | {"AION_SQL_ADDRESS": live.postgres}) as connection:
        assert healthy(connection)
        assert not connection.pgconn.ssl_in_use
        assert counted(connection) > 50


def test_the_source_proves_its_password_to_a_server_that_it_verifies(live, tmp_path):
    live.wait(lambda: live.count("decisions") > 0, "rows are stored")
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    authority = Authority(tmp_path)
    pem, key = authority.certificate("127.0.0.1")
    server = Server(tmp_path, live.data / "lake")
    try:
        server.start(
            f'users = {{ grafana = "file:{password}" }}\ncertificate = "{pem}"\nkey = "{key}"'
        )
        environment = {
            "AION_SQL_ADDRESS": f"127.0.0.1:{server.port}",
            "AION_SQL_USER": "grafana",
            "AION_SQL_PASSWORD": PASSWORD,
            "AION_SQL_SSLMODE": "verify-full",
            "AION_SQL_CA": str(authority.ca),
        }
        assert set(environment) >= set(documented())
        with connect(environment) as connection:
            assert healthy(connection)
            assert connection.pgconn.ssl_in_use
            assert connection.pgconn.used_password
            assert counted(connection) > 0
        # Each value counts.
        stranger = Authority(tmp_path, "stranger")
        for name, value, why in [
            ("AION_SQL_USER", "eve", "password authentication failed"),
            ("AION_SQL_PASSWORD", "pencil", "password authentication failed"),
            ("AION_SQL_SSLMODE", "disable", "sslmode=require"),
            ("AION_SQL_CA", str(stranger.ca), "certificate verify failed"),
        ]:
            with pytest.raises(psycopg.OperationalError, match=why):
                connect(environment | {name: value})
    finally:
        server.end()
