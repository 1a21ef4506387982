"""Functions with known optima: each as a space of ours and as what one writes for Optuna."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from hpo.parameter import Condition, Kind, Parameter
from hpo.space import SearchSpace
from hpo.trial import Params


@dataclasses.dataclass(frozen=True)
class Function:
    """``regret`` is how far a point is from the optimum; ``by_hand`` asks an Optuna trial."""

    space: SearchSpace
    regret: Callable[[Params], float]
    by_hand: Callable[[Any], Params]


def _box(ends: list[tuple[float, float]], regret: Callable[[list[float]], float]) -> Function:
    names = [f"x{i}" for i in range(len(ends))]
    return Function(
        SearchSpace(
            [
                Parameter(n, Kind.FLOAT, low, low=low, high=high)
                for n, (low, high) in zip(names, ends, strict=True)
            ]
        ),
        lambda params: regret([float(params[n]) for n in names]),
        lambda trial: {n: trial.suggest_float(n, *end) for n, end in zip(names, ends, strict=True)},
    )


def _branin(x: list[float]) -> float:
    a, b = x
    bowl = (b - 5.1 / (4 * math.pi**2) * a * a + 5 / math.pi * a - 6) ** 2
    return bowl + 10 * (1 - 1 / (8 * math.pi)) * math.cos(a) + 10 - 0.39788735772973816


_WEIGHTS = (1.0, 1.2, 3.0, 3.2)
_A = (
    (10, 3, 17, 3.5, 1.7, 8),
    (0.05, 10, 17, 0.1, 8, 14),
    (3, 3.5, 1.7, 10, 17, 8),
    (17, 8, 0.05, 10, 0.1, 14),
)
_P = (
    (0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886),
    (0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991),
    (0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650),
    (0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381),
)


def _hartmann(x: list[float]) -> float:
    peaks = (
        weight * math.exp(-sum(a * (v - p) ** 2 for a, v, p in zip(row, x, at, strict=True)))
        for weight, row, at in zip(_WEIGHTS, _A, _P, strict=True)
    )
    return 3.32236801141551 - sum(peaks)


def _ackley(x: list[float]) -> float:
    spread = math.sqrt(sum(v * v for v in x) / len(x))
    waves = sum(math.cos(2 * math.pi * v) for v in x) / len(x)
    return 20 - 20 * math.exp(-0.2 * spread) + math.e - math.exp(waves)


_DEEP = (Condition("kind", ("deep",)),)


def _network(params: Params) -> float:
    """As a small network might do: a rate, a width, an optimizer, and depth that pays."""
    rate = (math.log10(float(params["rate"])) + 2.5) ** 2
    width = (math.log2(float(params["units"])) - 7) ** 2 / 10
    optimizer = {"adam": 0.0, "sgd": 0.4, "rmsprop": 0.2}[str(params["optimizer"])]
    if params["kind"] == "flat":
        return rate + width + optimizer + 0.5
    depth, drop = float(params["layers"]), float(params["dropout"])
    return rate + width + optimizer + 0.1 * abs(depth - 4) + 2 * (drop - 0.3) ** 2


def _network_by_hand(trial: Any) -> Params:
    params: Params = {
        "rate": trial.suggest_float("rate", 1e-5, 1.0, log=True),
        "units": trial.suggest_int("units", 16, 512, log=True),
        "optimizer": trial.suggest_categorical("optimizer", ["adam", "sgd", "rmsprop"]),
        "kind": trial.suggest_categorical("kind", ["flat", "deep"]),
    }
    if params["kind"] == "deep":
        params["layers"] = trial.suggest_int("layers", 1, 6)
        params["dropout"] = trial.suggest_float("dropout", 0.0, 0.8)
    return params


_NETWORK = SearchSpace(
    [
        Parameter("rate", Kind.FLOAT, 0.1, low=1e-5, high=1.0, sampling="log"),
        Parameter("units", Kind.INT, low=16, high=512, sampling="log"),
        Parameter("optimizer", Kind.CHOICE, "adam", values=("adam", "sgd", "rmsprop")),
        Parameter("kind", Kind.CHOICE, "flat", values=("flat", "deep")),
        Parameter("layers", Kind.INT, low=1, high=6, step=1, conditions=_DEEP),
        Parameter("dropout", Kind.FLOAT, 0.0, low=0.0, high=0.8, conditions=_DEEP),
    ]
)

FUNCTIONS = {
    "branin": _box([(-5.0, 10.0), (0.0, 15.0)], _branin),
    "hartmann6": _box([(0.0, 1.0)] * 6, _hartmann),
    "ackley5": _box([(-32.768, 32.768)] * 5, _ackley),
    "network": Function(_NETWORK, _network, _network_by_hand),
}
