"""Names to implementations, imported when they are used.

A new sampler, pruner or engine is one file and one row here. The conformance suites
iterate over these tables, so a row is also what makes a member tested.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator
from typing import Any

from hpo.errors import UsageError

# So many names are read at a glance.
_MANY = 24


def suggest(name: str, known: Iterable[str]) -> str:
    """A clause that names what is near ``name``, or else all that is known."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    if not names:
        return "there are none"
    rest = f" and {len(names) - _MANY} others" if len(names) > _MANY else ""
    return f"known: {', '.join(names[:_MANY])}{rest}"


class Registry:
    """A table from a name to ``"module:attribute"``; importing waits for :meth:`load`."""

    def __init__(self, kind: str, rows: dict[str, str]) -> None:
        self.kind = kind
        self._rows = rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def check(self, name: str) -> str:
        """``name`` itself where it is known; raises UsageError, saying what is near."""
        if name not in self._rows:
            raise UsageError(f"unknown {self.kind} {name!r}: {suggest(name, self._rows)}")
        return name

    def load(self, name: str) -> Any:
        """The object behind ``name``; raises UsageError for an unknown name."""
        module, _, attribute = self._rows[self.check(name)].partition(":")
        return getattr(importlib.import_module(module), attribute)


SAMPLERS = Registry(
    "sampler",
    {
        "random": "hpo.samplers.random:RandomSampler",
        "grid": "hpo.samplers.grid:GridSampler",
        "bayesian": "hpo.samplers.optuna.samplers:BayesianSampler",
        "tpe": "hpo.samplers.optuna.samplers:TpeSampler",
        "gp": "hpo.samplers.optuna.samplers:GpSampler",
        "cmaes": "hpo.samplers.optuna.samplers:CmaEsSampler",
        "qmc": "hpo.samplers.qmc:QmcSampler",
        "kt-random": "hpo.samplers.keras_tuner.sampler:KtRandom",
        "kt-grid": "hpo.samplers.keras_tuner.sampler:KtGrid",
        "kt-bayesian": "hpo.samplers.keras_tuner.sampler:KtBayesian",
        "kt-hyperband": "hpo.samplers.keras_tuner.sampler:KtHyperband",
        "ray:random": "hpo.samplers.ray_native.sampler:RayRandom",
        "ray:grid": "hpo.samplers.ray_native.sampler:RayGrid",
        "ray:optuna": "hpo.samplers.ray_native.sampler:RayOptuna",
        "optuna:random": "hpo.samplers.optuna.native:OptunaRandom",
        "optuna:grid": "hpo.samplers.optuna.native:OptunaGrid",
    },
)

# What a sampler's name begins with that is an engine's own, for comparison with others.
_OWNERS = {"kt-": "keras-tuner", "ray:": "ray", "optuna:": "optuna"}


def owner_of(sampler: str) -> str | None:
    """The one engine that has ``sampler``; None for one that goes with every engine."""
    return next((o for prefix, o in _OWNERS.items() if sampler.startswith(prefix)), None)


ENGINES = Registry(
    "engine",
    {
        "keras-tuner": "hpo.engines.keras_tuner:ENGINE",
        "ray": "hpo.engines.ray_tune.engine:ENGINE",
        "optuna": "hpo.engines.optuna:ENGINE",
    },
)

NO_PRUNER = "none"
PRUNERS = Registry(
    "pruner",
    {
        NO_PRUNER: "hpo.pruners:NoPruner",
        "median": "hpo.pruners:MedianPruner",
        "asha": "hpo.pruners:AshaPruner",
        "hyperband": "hpo.pruners:HyperbandPruner",
    },
)
