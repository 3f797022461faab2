"""Ctrl-C under load: what the jobs have taken is stored, what came last waits in the log, and the next start stores it."""

from __future__ import annotations

from offsets import ends, stored
from processes import Audit, Dev

# Events a second. By themselves the jobs store theirs every five seconds.
RATE = 2000


def test_a_stop_under_load_and_the_start_after_it(dev: Dev):
    dev.start("--rate", str(RATE))
    tables = ("decisions", "tasks", "metrics", "audit")
    dev.wait(lambda: all(map(dev.count, tables)), "each table has rows")

    def behind() -> int:
        # Asked in this order: what is stored meanwhile makes it less, never more.
        log = sum(ends(dev).values())
        return log - sum(stored(dev).values())

    dev.wait(lambda: behind() > 2 * RATE, "rows of more than two seconds wait")
    assert dev.stop() == 0, dev.output()
    assert dev.output().endswith("Stopped; everything is kept. Start again to go on.\n")
    written = stored(dev)

    dev.start("--no-generator")
    log = ends(dev)
    assert all(upto <= log[place] for place, upto in written.items())
    left = sum(log.values()) - sum(written.values())
    print(f"{left} of {sum(log.values())} events came in while it stopped")
    assert left < RATE, "what waited was written"
    dev.wait(lambda: stored(dev) == log, "the rest is stored")
    audit = Audit("--data", dev.data)
    assert audit.code == 0 and audit.total("pending") == 0, audit.report or audit.errors
    assert dev.stop() == 0, dev.output()
    assert stored(dev) == log
