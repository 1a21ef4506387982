"""Ray's random points, its grid, and its OptunaSearch, asked and told as any other sampler."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterator, Sequence
from typing import Any

from hpo.errors import SpaceError
from hpo.parameter import Parameter
from hpo.samplers.base import Answer, Exhausted, Proposal, Sampler, seed_of
from hpo.samplers.ray_native.axis import Axis, axes
from hpo.study import Study
from hpo.trial import Params, TrialRecord, TrialState, Value


def _named(what: str) -> str:
    return f"ray.tune.{what} {importlib.metadata.version('ray')}"


class RayRandom(Sampler):
    """Ray's domains, as its BasicVariantGenerator samples them; points may come again."""

    requires = ("ray",)

    def __init__(self, study: Study, seed: int) -> None:
        super().__init__(study, seed)
        self._axes = axes(self.space)

    @classmethod
    def limit(cls, study: Study) -> int | None:
        return None

    @property
    def implementation(self) -> str:
        return _named("search.BasicVariantGenerator")

    def ask(self, trial_id: str, pending: Sequence[TrialRecord]) -> Answer:
        space = {axis.key: axis.to_ray() for axis in self._axes.values()}
        raw = next(_variants(space, seed_of(self.seed, trial_id)))
        # Ray's space is flat: what is not active is drawn too, and left out.
        return Proposal(self.space.draw(lambda parameter: _value(parameter, self._axes, raw)))


class RayGrid(Sampler):
    """Ray's grid search, in its order."""

    requires = ("ray",)
    exhaustive = True
    takes_given = False

    def __init__(self, study: Study, seed: int) -> None:
        super().__init__(study, seed)
        self._next = 0
        self._rest: Iterator[dict[str, Any]] | None = None

    @classmethod
    def check(cls, study: Study) -> None:
        study.space.grid(study.grid)
        for parameter in study.space.tunable:
            if parameter.conditions:
                parents = ", ".join(repr(each.name) for each in parameter.conditions)
                raise SpaceError(
                    f"{parameter.name!r} is active only for some values of {parents}, and Ray's "
                    "grid would repeat each other point for every value of it: use sampler grid"
                )

    @classmethod
    def limit(cls, study: Study) -> int | None:
        return study.space.grid(study.grid).size

    @property
    def implementation(self) -> str:
        return _named("search.BasicVariantGenerator")

    def asked(self, record: TrialRecord) -> None:
        self._next = max(self._next, int(record.tag["index"]) + 1)

    def ask(self, trial_id: str, pending: Sequence[TrialRecord]) -> Answer:
        if self._rest is None:
            self._rest = self._from(self._next)
        raw = next(self._rest, None)
        if raw is None:
            return Exhausted()
        index, self._next = self._next, self._next + 1
        params = self.space.draw(lambda p: raw.get(p.name, p.initial))
        return Proposal(params, tag={"index": index})

    def _from(self, index: int) -> Iterator[dict[str, Any]]:
        """Ray's variants, with keys of our own, but for those that were tried."""
        from ray import tune

        keys = {f"p{number}": p for number, p in enumerate(self.space.tunable)}
        levels = {key: self._levels(p) for key, p in keys.items()}
        space = {key: tune.grid_search(list(range(len(own)))) for key, own in levels.items()}
        for number, raw in enumerate(_variants(space, 0)):
            if number >= index:
                yield {keys[key].name: levels[key][place] for key, place in raw.items()}

    def _levels(self, parameter: Parameter) -> list[Value]:
        given = self.study.grid.get(parameter.name)
        return list(dict.fromkeys(parameter.levels() if given is None else given))


class RayOptuna(Sampler):
    """Ray's OptunaSearch with its default, TPE, over a space defined by running it."""

    requires = ("ray", "optuna")

    def __init__(self, study: Study, seed: int) -> None:
        super().__init__(study, seed)
        import optuna
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._states = optuna.trial.TrialState
        self._axes = axes(self.space)
        self._search = OptunaSearch(
            space=self._define, metric=study.objective, mode=study.direction.value, seed=seed
        )

    @classmethod
    def limit(cls, study: Study) -> int | None:
        return None

    @property
    def model_based(self) -> bool:
        return True

    @property
    def implementation(self) -> str:
        return _named("search.optuna.OptunaSearch")

    def ask(self, trial_id: str, pending: Sequence[TrialRecord]) -> Answer:
        self._reseed(seed_of(self.seed, trial_id))
        raw = self._search.suggest(trial_id)
        return Proposal(self.space.draw(lambda parameter: _value(parameter, self._axes, raw)))

    def asked(self, record: TrialRecord) -> None:
        self.given(record.trial_id, record.params)

    def given(self, trial_id: str, params: Params) -> None:
        raw: dict[str, Any] = {}

        def note(parameter: Parameter) -> Value:
            value = params[parameter.name]
            if parameter in self._axes:
                raw[self._axes[parameter].key] = self._axes[parameter].raw(value)
            return value

        self.space.draw(note)
        self._search._ot_study.enqueue_trial(raw)
        self._search.suggest(trial_id)

    def moved(self, trial_id: str, proposed: Params, params: Params) -> None:
        # Not by Ray's own word for an end, after which it would hear nothing more of the trial.
        state = self._states.FAIL
        self._search._ot_study.tell(self._search._ot_trials.pop(trial_id), state=state)
        self.given(trial_id, params)

    def told(self, record: TrialRecord) -> None:
        value = record.value
        failed = record.state is TrialState.FAILED or value is None or not math.isfinite(value)
        # A trial that was pruned is told as Ray does: ended, with the best it came to.
        result = None if failed else {self.study.objective: value}
        self._search.on_trial_complete(record.trial_id, result=result, error=failed)

    def _reseed(self, seed: int) -> None:
        """What is drawn depends on the seed and the trial alone, also after a restart.

        A new sampler for each ask would do the same, and compare the spaces of all trials.
        """
        sampler = self._search._ot_study.sampler
        for each in (sampler, sampler._random_sampler):
            each._rng.rng.seed(seed)

    def _define(self, trial: Any) -> None:
        """Suggests each parameter that is active at what was suggested before."""

        def choose(parameter: Parameter) -> Value:
            axis = self._axes.get(parameter)
            return axis.value(axis.suggest(trial)) if axis else parameter.initial

        self.space.draw(choose)


def _value(parameter: Parameter, found: dict[Parameter, Axis], raw: dict[str, Any]) -> Value:
    axis = found.get(parameter)
    return axis.value(raw[axis.key]) if axis else parameter.initial


def _variants(space: dict[str, Any], seed: int) -> Iterator[dict[str, Any]]:
    """What Ray makes of a space, one variant after another."""
    import numpy as np
    from ray.tune.search.variant_generator import generate_variants

    rng = np.random.RandomState(seed)
    for _, spec in generate_variants({"config": space}, random_state=rng):
        yield spec["config"]
