"""The lake on an object store is refused where puts aren't safe. tests/crash has what it goes through elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from object_store import BUCKET, Moto, Proxy
from processes import Dev, Process

URL = f"s3://{BUCKET}/events"


@pytest.fixture
def store(tmp_path: Path):
    store = Moto(tmp_path)
    yield store
    store.stop()


@pytest.fixture
def dev(tmp_path: Path):
    """Only its broker is used."""
    dev = Dev(tmp_path)
    dev.start("--no-generator")
    yield dev
    dev.end()


def configuration(folder: Path, dev: Dev, run: Process, endpoint: str) -> Path:
    (folder / "key").write_text("test\n")
    file = folder / "aion.toml"
    file.write_text(
        f'[kafka]\nbrokers = "{dev.kafka}"\n'
        f'[http]\nlisten = "{run.http}"\n'
        f'[lake]\nurl = "{URL}"\nflush_age_s = 1\nupkeep_every_m = 0\n'
        f'[lake.storage]\nendpoint = "{endpoint}"\nregion = "us-east-1"\nallow_http = true\n'
        f'access_key_id = "file:{folder}/key"\nsecret_access_key = "file:{folder}/key"\n'
        '[[job]]\ntopic = "aion.tasks.lifecycle"\nsinks = ["lake"]\n'
    )
    return file


def test_a_store_that_ignores_conditions_is_refused(tmp_path, store: Moto, dev: Dev):
    proxy = Proxy(store)
    proxy.ignores_conditions = True
    run = Process(tmp_path / "run.log")
    run.launch("run", "--config", configuration(tmp_path, dev, run, proxy.url()))
    assert run.process.wait(60) == 6, run.output()
    assert "If-None-Match" in run.output()
