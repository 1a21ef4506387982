"""How numbers read in a report."""

from __future__ import annotations

import math
from typing import Any

from hpo.benchmark.compare import Interval
from hpo.trial import Params

_NOTHING = 1e-9


def number(value: float | None) -> str:
    """A figure in as many digits as a person reads; "" for none."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def interval(found: Interval | None) -> str:
    """An estimate with its interval."""
    if found is None:
        return ""
    if found.low is None or found.high is None:
        return f"{_short(found.value)} (one search)"
    return f"{_short(found.value)} [{_short(found.low)}, {_short(found.high)}]"


def percent(found: Interval) -> str:
    """A share with its interval."""
    if found.low is None or found.high is None:
        return f"{100 * found.value:.3g} %"
    return f"{100 * found.value:.3g} % [{100 * found.low:.3g}, {100 * found.high:.3g}]"


def _short(value: float) -> str:
    # What is left of a difference of equal sums is no figure.
    value = 0.0 if abs(value) < _NOTHING else value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def assigned(params: Params) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in params.items())


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
