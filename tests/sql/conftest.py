"""A process with events of every topic that the tests of a file share, since they only ask."""

from __future__ import annotations

import psycopg
import pytest
from processes import Dev


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory):
    dev = Dev(tmp_path_factory.mktemp("postgres"))
    try:
        dev.start("--rate", "300")
        dev.wait(lambda: has_rows(dev), "rows")
        yield dev
    finally:
        dev.end()


def has_rows(dev: Dev) -> bool:
    with psycopg.connect(f"postgresql://anyone@{dev.postgres}/aion") as connection:
        ((count,),) = connection.execute("select count(*) from decisions").fetchall()
        return count > 50
