"""Branin's function, reached in steps like a learning curve. No Keras, no TensorFlow."""

import math

OBJECTIVE = "loss"
DIRECTION = "min"
STEPS = 10


def evaluate(hp, report):
    x = hp.Float("x", -5.0, 10.0)
    y = hp.Float("y", 0.0, 15.0)
    fast = hp.Boolean("fast")
    with hp.conditional_scope("fast", [True]):
        speed = hp.Float("speed", 1.0, 3.0, step=0.5)
    if not fast:
        speed = 1.0

    bend = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    floor = bend**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10
    for step in range(1, STEPS + 1):
        metrics = {"loss": floor + 20 * math.exp(-speed * step / 3)}
        if not report(step, metrics):
            break
    return metrics
