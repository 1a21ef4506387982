"""A hyperparameter as Ray and its OptunaSearch can sample it.

Ray leaves the upper end of integers out and steps by multiples of the step, whatever the
lower end is. So a lattice becomes an index, whose value is computed here.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from hpo.parameter import Kind, Parameter
from hpo.space import SearchSpace
from hpo.trial import Value


@dataclasses.dataclass(frozen=True)
class Axis:
    """One parameter under a ``key`` of its own: names may repeat, and hold a slash.

    What is sampled is "raw": an index, a probability, or the value itself.
    """

    key: str
    parameter: Parameter

    @property
    def _is_index(self) -> bool:
        return self.parameter.step is not None or not self.parameter.numeric

    @property
    def _is_probability(self) -> bool:
        return not self._is_index and self.parameter.sampling == "reverse_log"

    @property
    def _ends(self) -> tuple[Any, Any]:
        return self.parameter.low, self.parameter.high

    def value(self, raw: Any) -> Value:
        """The value of what was sampled."""
        if self._is_index:
            return self.parameter.level(int(raw))
        if self._is_probability:
            return self.parameter.from_unit(float(raw))
        # Powers and logarithms leave dust beyond the ends.
        low, high = self._ends
        kind = int if self.parameter.kind is Kind.INT else float
        return kind(min(max(raw, low), high))

    def raw(self, value: Value) -> Any:
        """What would have been sampled for ``value``."""
        if self._is_index:
            assert self.parameter.count is not None
            return int(self.parameter.to_unit(value) * self.parameter.count)
        return self.parameter.to_unit(value) if self._is_probability else value

    def to_ray(self) -> Any:
        """Ray's own domain, its upper end included."""
        from ray import tune

        if self._is_index:
            return tune.randint(0, self.parameter.count)
        if self._is_probability:
            return tune.uniform(0.0, 1.0)
        low, high = self._ends
        if self.parameter.kind is Kind.INT:
            domain = tune.lograndint if self.parameter.sampling == "log" else tune.randint
            return domain(low, high + 1)
        domain = tune.loguniform if self.parameter.sampling == "log" else tune.uniform
        return domain(low, high)

    def suggest(self, trial: Any) -> Any:
        """What an Optuna trial suggests."""
        if self._is_index:
            indexes = range(self.parameter.count or 0)
            if self.parameter.numeric or self.parameter.ordered:
                return trial.suggest_int(self.key, 0, indexes[-1])
            return trial.suggest_categorical(self.key, list(indexes))
        if self._is_probability:
            return trial.suggest_float(self.key, 0.0, 1.0)
        low, high = self._ends
        log = self.parameter.sampling == "log"
        if self.parameter.kind is Kind.INT:
            return trial.suggest_int(self.key, low, high, log=log)
        return trial.suggest_float(self.key, low, high, log=log)


def axes(space: SearchSpace) -> dict[Parameter, Axis]:
    """The axis of each parameter that can vary."""
    return {p: Axis(f"p{number}", p) for number, p in enumerate(space.tunable)}
