"""`aion dev` as it is shipped: its policy, its generator, its receiver."""

from __future__ import annotations

import os
import random
from pathlib import Path

from outages import Outage

SEED = int(os.environ.get("AION_SEED", random.randrange(1, 2**31)))


def test_what_is_shipped_outlives_a_dead_receiver_and_kill_9(tmp_path: Path):
    """`scripts/soak webhooks-outage` tells the same story, with ten minutes of it."""
    outage = Outage(tmp_path, rate=50)
    try:
        print(outage.story(outage_s=0, kills=1, seed=SEED))
    finally:
        outage.end()
