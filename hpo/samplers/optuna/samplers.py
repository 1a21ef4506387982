"""Optuna's samplers that a search can name."""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING, Any

from hpo.errors import SpaceError
from hpo.samplers.base import seed_of
from hpo.samplers.optuna.sampler import OptunaSampler
from hpo.space import SearchSpace
from hpo.study import Study
from hpo.trial import TrialRecord

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

log = logging.getLogger("tunefleet.sampler")

_EXTRA = "pip install -r requirements-gp.txt, or take tpe, which does without"


class TpeSampler(OptunaSampler):
    """The tree-structured Parzen estimator, over all parameters jointly.

    Conditional parameters are modelled together with those that are active with them, and
    what is still running counts as a bad result, so that workers keep their distance.
    """

    @property
    def name(self) -> str:
        return "TPESampler"

    def made(self, seed: int) -> BaseSampler:
        return _tpe(self, seed)


class GpSampler(OptunaSampler):
    """A Gaussian process with expected improvement; it needs PyTorch."""

    requires = ("optuna", "torch", "scipy")
    remedy = _EXTRA

    @classmethod
    def check(cls, study: Study) -> None:
        if name := _conditional(study.space):
            raise SpaceError(
                f"{name!r} is conditional, and Optuna's GPSampler would draw it at random "
                "every time: take tpe or bayesian"
            )

    @property
    def name(self) -> str:
        return "GPSampler"

    def made(self, seed: int) -> BaseSampler:
        return _gp(self, seed)


class BayesianSampler(OptunaSampler):
    """The Gaussian process where PyTorch is there and no parameter is conditional, else TPE."""

    @property
    def name(self) -> str:
        return "GPSampler" if self._by_process else "TPESampler"

    def made(self, seed: int) -> BaseSampler:
        return _gp(self, seed) if self._by_process else _tpe(self, seed)

    @property
    def _by_process(self) -> bool:
        return not _conditional(self.space) and importlib.util.find_spec("torch") is not None


class CmaEsSampler(OptunaSampler):
    """The covariance matrix adaptation evolution strategy.

    It moves numbers and ordered choices that every point has; Optuna draws others at random.
    """

    requires = ("optuna", "cmaes")

    @property
    def name(self) -> str:
        return "CmaEsSampler"

    def made(self, seed: int) -> BaseSampler:
        from optuna.samplers import CmaEsSampler as Drawing

        return Drawing(seed=seed, warn_independent_sampling=False)

    def kept(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """The generation it belongs to, and at the first of one the whole pickled optimizer."""
        return {name: value for name, value in attrs.items() if name.startswith("cma:")}

    def tag_of(self, number: int) -> dict[str, Any]:
        return {"number": number}

    def noted_at(self, record: TrialRecord) -> dict[str, Any]:
        # Drawn again instead of stored: a ledger from elsewhere must not bring a pickle along.
        number = int(record.tag["number"])
        seed = seed_of(self.seed, f"{record.trial_id}/0")
        try:
            return self.kept(self._book.draft(self.made(seed), number).attrs)
        except Exception:
            # As when Optuna is another by now. A run must not end over it: the search goes on
            # from the points alone, in a new generation.
            log.exception("cannot draw trial %s again", record.trial_id)
            return {}


def _tpe(sampler: OptunaSampler, seed: int) -> BaseSampler:
    from optuna.samplers import TPESampler

    return TPESampler(
        seed=seed,
        multivariate=True,
        group=_conditional(sampler.space) is not None,
        constant_liar=True,
        n_startup_trials=sampler.startup,
    )


def _gp(sampler: OptunaSampler, seed: int) -> BaseSampler:
    import torch
    from optuna.samplers import GPSampler

    # So that a sum has the same last digit wherever the search goes on.
    torch.set_num_threads(1)
    return GPSampler(seed=seed, n_startup_trials=sampler.startup, warn_independent_sampling=False)


def _conditional(space: SearchSpace) -> str | None:
    """A parameter that not every point has."""
    names = (p.name for p in space.tunable if p.conditions)
    return next(names, None)
