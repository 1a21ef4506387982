"""Trials that fail in every way a plain function can."""

import os
import signal

OBJECTIVE = "loss"


def evaluate(hp, report):
    way = hp.Choice("way", ["raise", "nan", "nothing", "die", "fine"])
    report(1, {"loss": float("nan") if way == "nan" else 1.0} if way != "nothing" else {"other": 1})
    if way == "raise":
        raise ValueError("this point cannot be")
    if way == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return {}
