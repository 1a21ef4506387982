"""Twelve points, some of them conditional, in trials that take a moment."""

import os
import time

OBJECTIVE = "loss"
GRID = {"rate": [0.1, 0.2, 0.3]}
# Trials stop after their report until this file is there, or the one of their own point.
UNTIL = os.environ.get("SLOW_UNTIL")


def evaluate(hp, report):
    kind = hp.Choice("kind", ["a", "b"])
    rate = hp.Float("rate", 0.0, 1.0)
    with hp.conditional_scope("kind", ["b"]):
        extra = hp.Int("extra", 1, 3)
    time.sleep(0.05)
    loss = rate + (extra or 0) + (kind == "a")
    report(1, {"loss": loss})
    point = "-".join(str(value) for value in (extra, kind, rate) if value is not None)
    while UNTIL and not any(map(os.path.exists, (UNTIL, f"{UNTIL}.{point}"))):
        time.sleep(0.02)
    return {"loss": loss}
