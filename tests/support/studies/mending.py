"""A plain function that fails at two of its six points as long as a file is there."""

import os
import pathlib

OBJECTIVE = "loss"
BROKEN = pathlib.Path(os.environ.get("MENDING_BROKEN", "/nonexistent"))


def evaluate(hp, report):
    n = hp.Int("n", 1, 6)
    report(1, {"loss": float(n)})
    if n in (2, 5) and BROKEN.exists():
        raise OSError(f"{BROKEN.name} is in the way of {n}")
    return {}
