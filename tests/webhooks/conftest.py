"""A process that sends webhooks, for each test."""

from __future__ import annotations

from pathlib import Path

import pytest
from hooks import Hooks


@pytest.fixture
def hooks(tmp_path: Path):
    hooks = Hooks(tmp_path)
    yield hooks
    hooks.end()
