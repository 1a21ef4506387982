"""A plain function whose points end well, badly, or only after a while."""

import os
import signal
import time

OBJECTIVE = "loss"


def evaluate(hp, report):
    way = hp.Choice("way", ["long", "fine", "raise", "nan", "die"])
    n = hp.Int("n", 1, 2)
    report(1, {"loss": float("nan") if way == "nan" else 1.0 / n})
    if way == "long":
        time.sleep(2.0)
    if way == "raise":
        raise ValueError(f"there is no {n}")
    if way == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return {}
