"""What every test may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import Dev


@pytest.fixture
def dev(tmp_path: Path):
    dev = Dev(tmp_path)
    yield dev
    dev.end()
