"""Processes that write to the lake and to ClickHouse, killed in every way, and ClickHouse under them: both stores have what
the log has, once."""

from __future__ import annotations

from both_stores import BothStores
from kills import Plan


def test_three_processes_with_both_stores_and_every_way_to_die(
    both_stores: BothStores, seed: int
):
    """What `scripts/soak both` does for twenty minutes, and waits for all that has to be waited for."""
    plan = Plan(both_stores, seed)
    plan.round(kills=4)
    assert plan.kills() == 4
