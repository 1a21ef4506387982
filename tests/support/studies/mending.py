"""A plain function that fails at two of its six points as long as a file is there."""

import os
import pathlib
import time

OBJECTIVE = "loss"
BROKEN = pathlib.Path(os.environ.get("MENDING_BROKEN", "/nonexistent"))
# Trials stop after their report until this file is there.
UNTIL = os.environ.get("SLOW_UNTIL")


def evaluate(hp, report):
    n = hp.Int("n", 1, 6)
    report(1, {"loss": float(n)})
    while UNTIL and not os.path.exists(UNTIL):
        time.sleep(0.02)
    if n in (2, 5) and BROKEN.exists():
        raise OSError(f"{BROKEN.name} is in the way of {n}")
    return {}
