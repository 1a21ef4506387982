"""A plain function whose points meet every fate, one of them behind a condition."""

import os
import signal
import time

OBJECTIVE = "loss"
GRID = {"rate": [0.001, 0.1]}
# The long and deep trials stop in their middle until this file is there.
UNTIL = os.environ.get("SLOW_UNTIL")


def evaluate(hp, report):
    way = hp.Choice("way", ["fine", "raise", "die", "long"])
    rate = hp.Float("rate", 1e-3, 1e-1, sampling="log")
    with hp.conditional_scope("way", ["long"]):
        depth = hp.Int("depth", 2, 3)
    report(1, {"loss": 2.0 + rate})
    if way == "raise":
        raise ValueError(f"the rate {rate} is too high")
    if way == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    report(2, {"loss": 1.0 + rate})
    while way == "long" and depth == 3 and UNTIL and not os.path.exists(UNTIL):
        time.sleep(0.02)
    report(3, {"loss": 1.5 + rate})
    return {}
