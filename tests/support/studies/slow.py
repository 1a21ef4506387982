"""A plain function whose trials take a while; how long, and what happens, the test says."""

import os
import time

OBJECTIVE = "loss"
# Trials stop after their first report until this file is there, or the one of their own point.
UNTIL = os.environ.get("SLOW_UNTIL")
STEP_S = float(os.environ.get("SLOW_STEP_S", "0" if UNTIL else "0.1"))
STEPS = int(os.environ.get("SLOW_STEPS", "5"))


def evaluate(hp, report):
    x = hp.Float("x", 0.0, 1.0)
    n = hp.Int("n", 1, 8)
    for step in range(1, STEPS + 1):
        if not report(step, {"loss": (x - 0.3) ** 2 + n / step}):
            break
        while UNTIL and not any(map(os.path.exists, (UNTIL, f"{UNTIL}.{n}-{x}"))):
            time.sleep(0.02)
        time.sleep(STEP_S)
    return {"loss": (x - 0.3) ** 2 + n / step}
