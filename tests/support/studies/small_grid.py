"""Twelve points, some of them conditional, in trials that take a moment."""

import time

OBJECTIVE = "loss"
GRID = {"rate": [0.1, 0.2, 0.3]}


def evaluate(hp, report):
    kind = hp.Choice("kind", ["a", "b"])
    rate = hp.Float("rate", 0.0, 1.0)
    with hp.conditional_scope("kind", ["b"]):
        extra = hp.Int("extra", 1, 3)
    time.sleep(0.05)
    loss = rate + (extra or 0) + (kind == "a")
    report(1, {"loss": loss})
    return {"loss": loss}
