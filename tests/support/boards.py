"""The dashboards as they lie in their folder, and the panels on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import ROOT

DASHBOARDS = ROOT / "dashboards"
FILES = sorted(DASHBOARDS.glob("*.json"))


def panels(file: Path) -> list[dict]:
    board = json.loads(file.read_text())
    return [panel for panel in board["panels"] if panel["type"] != "row"]


# Each with the name of its board; and as parameters of a test.
ALL = [(file.stem, panel) for file in FILES for panel in panels(file)]
NAMED = [pytest.param(*one, id=f"{one[0]}: {one[1]['title']}") for one in ALL]
