"""Trials that take a moment and report often: something to be killed in the middle of."""

import os
import time

OBJECTIVE = "loss"
EPOCHS = 30
GRID = {"x": [level / 10 for level in range(10)]}
STEP_S = float(os.environ.get("STORM_STEP_S", "0.1"))


def evaluate(hp, report):
    x = hp.Float("x", 0.0, 1.0)
    n = hp.Int("n", 1, 20)
    for step in range(1, EPOCHS + 1):
        time.sleep(STEP_S)
        loss = (x - 0.3) ** 2 + n / step
        if not report(step, {"loss": loss}):
            break
    return {"loss": loss}
